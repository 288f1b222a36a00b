//! Low-rank adapters: `y = x W' + scale * (x A') B'` on named layers. The base gets no gradient.
//! Names and files are PEFT's, so an adapter opens there unchanged.

use super::config::ModelConfig;
use super::error::LmError;
use super::seed::Seed;
use super::tensors::{TensorSpec, tensors};
use super::weights::Weights;
use candle_core::{Device, Tensor};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};

/// PEFT's settings of an adapter.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraSettings {
    /// Rank.
    pub r: usize,
    /// The term is scaled by alpha / r.
    pub alpha: f64,
    /// Last part of the names of the layers that get one, such as `q_proj`.
    pub target_modules: Vec<String>,
}

impl LoraSettings {
    /// alpha / r.
    pub fn scale(&self) -> f64 {
        self.alpha / self.r.max(1) as f64
    }
}

/// An adapter in use.
pub struct Lora {
    scale: f64,
    tensors: BTreeMap<String, (Tensor, Tensor)>,
}

/// What PEFT's names of tensors begin with.
const PREFIX: &str = "base_model.model.";
/// What the name of an A ends with.
const A: &str = ".lora_A.weight";
/// What the name of a B ends with.
const B: &str = ".lora_B.weight";

/// PEFT's names of A and B on a layer.
fn names(layer: &str) -> (String, String) {
    (format!("{PREFIX}{layer}{A}"), format!("{PREFIX}{layer}{B}"))
}

/// The layer whose A has this name.
fn layer_of_a(name: &str) -> Option<&str> {
    name.strip_prefix(PREFIX).and_then(|name| name.strip_suffix(A))
}

/// Whether it is the name of an A, whose gradient is 0 as long as its B is.
pub(crate) fn is_a(name: &str) -> bool {
    name.ends_with(A)
}

impl Lora {
    /// An adapter over tensors by PEFT names.
    ///
    /// # Errors
    /// When an A has no B.
    pub fn new(tensors: &Weights, settings: &LoraSettings) -> Result<Lora, LmError> {
        let mut pairs = BTreeMap::new();
        for (name, a) in &tensors.0 {
            if let Some(layer) = layer_of_a(name) {
                let b = tensors.get(&names(layer).1)?;
                pairs.insert(layer.to_owned(), (a.clone(), b.clone()));
            }
        }
        Ok(Lora { scale: settings.scale(), tensors: pairs })
    }

    /// alpha / r.
    pub fn scale(&self) -> f64 {
        self.scale
    }

    /// A and B of a layer, such as `model.layers.0.self_attn.q_proj`, and PEFT's names of them.
    pub fn on(&self, layer: &str) -> Option<((String, String), Tensor, Tensor)> {
        self.tensors.get(layer).map(|(a, b)| (names(layer), a.clone(), b.clone()))
    }
}

impl Lora {
    /// A tensor by PEFT's name.
    ///
    /// # Errors
    /// [`LmError::Model`] when there is none.
    pub fn tensor(&self, name: &str) -> Result<&Tensor, LmError> {
        let mut all = self.tensors.iter().map(|(layer, pair)| (names(layer), pair));
        let found = all.find_map(|((a, b), pair)| match name {
            _ if name == a => Some(&pair.0),
            _ if name == b => Some(&pair.1),
            _ => None,
        });
        found.ok_or_else(|| LmError::Model(format!("the adapter has no tensor {name}")))
    }
}

impl Weights {
    /// Full weights with a LoRA adapter added: `W + scale · B·A` for every pair of PEFT tensors
    /// `base_model.model.{module}.lora_A.weight` [r, in] and `.lora_B.weight` [out, r].
    ///
    /// # Errors
    /// An adapter tensor without its partner or its base, or shapes that do not fit.
    pub fn merged(&self, adapter: &Weights, scale: f64) -> Result<Weights, LmError> {
        let mut merged = self.clone();
        let mut used = 0;
        for (name, low) in &adapter.0 {
            let Some(layer) = layer_of_a(name) else { continue };
            let high = adapter.get(&names(layer).1)?;
            let target = format!("{layer}.weight");
            let sum = (self.get(&target)? + (high.matmul(low)? * scale)?)?;
            merged.0.insert(target, sum);
            used += 2;
        }
        if used != adapter.0.len() || used == 0 {
            return Err(LmError::Model(format!(
                "the adapter has {} tensors, but {used} are LoRA pairs (names must be \
                 {PREFIX}<module>{A} and {B})",
                adapter.0.len()
            )));
        }
        Ok(merged)
    }
}

/// Whether a layer, such as `model.layers.0.self_attn.q_proj`, is among those that `target` names.
fn is_targeted(layer: &str, target: &str) -> bool {
    layer.strip_suffix(target).is_some_and(|stem| stem.ends_with('.'))
}

/// The layers that an adapter may lie on: the matrices of the blocks. Each with its width out and
/// in.
fn layers(config: &ModelConfig) -> impl Iterator<Item = (String, usize, usize)> {
    tensors(config).into_iter().filter(TensorSpec::is_projection).filter_map(|spec| {
        let [out, input] = *spec.shape.as_slice() else { return None };
        Some((spec.linear_name().to_owned(), out, input))
    })
}

/// Whether a name of `target_modules` is that of a layer.
pub fn is_target(config: &ModelConfig, target: &str) -> bool {
    layers(config).any(|(layer, ..)| is_targeted(&layer, target))
}

/// What `target_modules` may name: the last parts of the layers' names.
pub fn target_names(config: &ModelConfig) -> BTreeSet<String> {
    layers(config).filter_map(|(layer, ..)| Some(layer.rsplit_once('.')?.1.to_owned())).collect()
}

/// Normal values (Box-Muller) from a derived stream.
pub fn normal(seed: Seed, n: usize, std: f64) -> Vec<f32> {
    let mut rng = ChaCha8Rng::from_seed(seed.0);
    let mut uniform = || (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
    let draw = |u: f64, v: f64| (-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * v).cos();
    (0..n).map(|_| (std * draw(uniform(), uniform())) as f32).collect()
}

/// A fresh adapter: A uniform as PEFT's kaiming (bound `1 / sqrt(in)`), B zero.
///
/// # Errors
/// When no layer has one of the target names.
pub fn fresh(
    config: &ModelConfig,
    settings: &LoraSettings,
    seed: Seed,
) -> Result<Weights, LmError> {
    let mut tensors = BTreeMap::new();
    for (layer, out, input) in layers(config) {
        if !settings.target_modules.iter().any(|target| is_targeted(&layer, target)) {
            continue;
        }
        let (a, b) = names(&layer);
        let mut rng = ChaCha8Rng::from_seed(seed.derive(&a).0);
        let bound = 1.0 / (input as f64).sqrt();
        let mut uniform = || (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        let values: Vec<f32> =
            (0..settings.r * input).map(|_| ((2.0 * uniform() - 1.0) * bound) as f32).collect();
        tensors.insert(a, Tensor::from_vec(values, (settings.r, input), &Device::Cpu)?);
        let zero = vec![0f32; out * settings.r];
        tensors.insert(b, Tensor::from_vec(zero, (out, settings.r), &Device::Cpu)?);
    }
    if tensors.is_empty() {
        let targets = settings.target_modules.join(", ");
        return Err(LmError::Training(format!(
            "train.lora_target_modules names no layer of this model: {targets}"
        )));
    }
    Ok(Weights(tensors))
}
