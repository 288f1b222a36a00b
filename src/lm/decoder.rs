//! The differentiable Llama decoder, in one sitting.
//!
//! Letters: T rows of packed tokens, H hidden, D head width, I intermediate, V vocabulary, P
//! positions whose logits are wanted. All sequences of a batch lie one after another in T rows:
//! the linear layers see one matrix without padding, and only attention knows where a sequence
//! begins. The layout and tensor names are those of transformers' `LlamaForCausalLM`.

use super::config::ModelConfig;
use super::error::LmError;
use super::lora::Lora;
use super::ops::{RotaryTable, causal_attention, rms_norm, rotary, swiglu, token_logps};
use super::weights::{Weights, expected_shapes};
use candle_core::{Device, Result, Tensor};
use std::ops::Range;
use std::sync::Arc;

/// Positions whose logits are alive at once when no gradient is wanted.
const LOGIT_ROWS_MAX: usize = 256;

/// Sequences, one after another.
#[derive(Clone, Debug, Default)]
pub struct PackedRows {
    /// Token ids, T of them.
    pub ids: Vec<u32>,
    /// Position of each row in its own sequence.
    pub positions: Vec<u32>,
    /// The rows of each sequence.
    pub segments: Vec<Range<usize>>,
}

impl PackedRows {
    /// Appends a sequence; gives the rows it takes.
    pub fn push(&mut self, ids: &[u32]) -> Range<usize> {
        let from = self.ids.len();
        self.ids.extend_from_slice(ids);
        self.positions.extend((0u32..).take(ids.len()));
        let rows = from..self.ids.len();
        self.segments.push(rows.clone());
        rows
    }
}

/// A linear layer without bias, and its adapter where one is trained.
struct Linear {
    /// [out, in].
    weight: Tensor,
    /// A [r, in], B [out, r], scale.
    adapter: Option<(Tensor, Tensor, f64)>,
}

impl Linear {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = x.matmul(&self.weight.t()?)?; // [T, out]
        match &self.adapter {
            None => Ok(y),
            Some((a, b, scale)) => {
                let low = x.matmul(&a.t()?)?; // [T, r]
                y + (low.matmul(&b.t()?)? * *scale)?
            }
        }
    }
}

struct Layer {
    attention_norm: Tensor,
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    mlp_norm: Tensor,
    gate: Linear,
    up: Linear,
    down: Linear,
}

/// The network over given tensors; it owns no parameters of its own.
pub struct Decoder {
    config: ModelConfig,
    embedding: Tensor,
    layers: Vec<Layer>,
    norm: Tensor,
    head: Tensor,
    table: Arc<RotaryTable>,
}

fn linear(
    name: &str,
    weights: &Weights,
    lora: Option<&Lora>,
) -> std::result::Result<Linear, LmError> {
    Ok(Linear {
        weight: weights.get(&format!("{name}.weight"))?.clone(),
        adapter: lora.and_then(|lora| lora.on(name)),
    })
}

impl Decoder {
    /// A network over `weights` (Hugging Face names); `lora` adds low-rank terms to the layers it
    /// names.
    ///
    /// # Errors
    /// [`LmError::Model`] naming the first missing tensor.
    pub fn new(
        config: &ModelConfig,
        weights: &Weights,
        lora: Option<&Lora>,
    ) -> std::result::Result<Decoder, LmError> {
        let mut layers = Vec::with_capacity(config.num_hidden_layers);
        for i in 0..config.num_hidden_layers {
            let at = |part: &str| format!("model.layers.{i}.{part}");
            layers.push(Layer {
                attention_norm: weights.get(&at("input_layernorm.weight"))?.clone(),
                q: linear(&at("self_attn.q_proj"), weights, lora)?,
                k: linear(&at("self_attn.k_proj"), weights, lora)?,
                v: linear(&at("self_attn.v_proj"), weights, lora)?,
                o: linear(&at("self_attn.o_proj"), weights, lora)?,
                mlp_norm: weights.get(&at("post_attention_layernorm.weight"))?.clone(),
                gate: linear(&at("mlp.gate_proj"), weights, lora)?,
                up: linear(&at("mlp.up_proj"), weights, lora)?,
                down: linear(&at("mlp.down_proj"), weights, lora)?,
            });
        }
        let embedding = weights.get("model.embed_tokens.weight")?.clone();
        let head = match config.tie_word_embeddings {
            true => embedding.clone(),
            false => weights.get("lm_head.weight")?.clone(),
        };
        let positions = config.max_position_embeddings.min(8192);
        Ok(Decoder {
            norm: weights.get("model.norm.weight")?.clone(),
            table: Arc::new(RotaryTable::new(positions, config.head_dim, config.rope_theta)),
            config: config.clone(),
            embedding,
            layers,
            head,
        })
    }

    /// The shape of the network.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The last hidden states [T, H], normed.
    ///
    /// # Errors
    /// When a sequence is longer than the model's context, or an id is outside the vocabulary.
    pub fn hidden(&self, rows: &PackedRows) -> Result<Tensor> {
        let longest = rows.segments.iter().map(ExactSizeIterator::len).max().unwrap_or(0);
        if longest > self.config.max_position_embeddings.min(8192) {
            candle_core::bail!(
                "a sequence of {longest} tokens is longer than the model's context of {}",
                self.config.max_position_embeddings
            );
        }
        let device = self.embedding.device();
        let ids = Tensor::from_slice(&rows.ids, rows.ids.len(), device)?;
        let positions = Arc::new(rows.positions.clone());
        let segments = Arc::new(rows.segments.clone());
        let mut x = self.embedding.index_select(&ids, 0)?; // [T, H]
        for layer in &self.layers {
            x = self.layer(layer, &x, &positions, &segments)?;
        }
        rms_norm(&x, &self.norm, self.config.rms_norm_eps)
    }

    fn layer(
        &self,
        layer: &Layer,
        x: &Tensor,
        positions: &Arc<Vec<u32>>,
        segments: &Arc<Vec<Range<usize>>>,
    ) -> Result<Tensor> {
        let c = &self.config;
        let h = rms_norm(x, &layer.attention_norm, c.rms_norm_eps)?;
        let q = rotary(&layer.q.forward(&h)?, &self.table, positions)?; // [T, heads * D]
        let k = rotary(&layer.k.forward(&h)?, &self.table, positions)?; // [T, kv_heads * D]
        let v = layer.v.forward(&h)?;
        let shape = (c.num_attention_heads, c.num_key_value_heads, c.head_dim);
        let y = causal_attention((&q, &k, &v), segments, shape)?;
        let x = (x + layer.o.forward(&y)?)?;
        let h = rms_norm(&x, &layer.mlp_norm, c.rms_norm_eps)?;
        let gated = swiglu(&layer.gate.forward(&h)?, &layer.up.forward(&h)?)?; // [T, I]
        &x + layer.down.forward(&gated)?
    }

    /// Logits [P, V] of the given rows of `hidden`.
    ///
    /// # Errors
    /// When a row is outside.
    pub fn logits(&self, hidden: &Tensor, at: &[u32]) -> Result<Tensor> {
        let at = Tensor::from_slice(at, at.len(), hidden.device())?;
        hidden.index_select(&at, 0)?.matmul(&self.head.t()?)
    }

    /// Natural-log probability of `targets[p]` following row `at[p]`; gives [P], differentiable.
    ///
    /// # Errors
    /// When a row or a target is outside.
    pub fn logps(&self, hidden: &Tensor, at: &[u32], targets: &[u32]) -> Result<Tensor> {
        token_logps(&self.logits(hidden, at)?, &Arc::new(targets.to_vec()))
    }

    /// As [`Decoder::logps`], without a graph and with few logits alive at once.
    ///
    /// # Errors
    /// As [`Decoder::logps`].
    pub fn logps_detached(&self, hidden: &Tensor, at: &[u32], targets: &[u32]) -> Result<Vec<f32>> {
        let hidden = hidden.detach();
        let mut all = Vec::with_capacity(at.len());
        for (at, targets) in at.chunks(LOGIT_ROWS_MAX).zip(targets.chunks(LOGIT_ROWS_MAX)) {
            all.extend(self.logps(&hidden, at, targets)?.to_vec1::<f32>()?);
        }
        Ok(all)
    }
}

/// How fresh weights are drawn.
#[derive(Clone, Copy, Debug)]
pub struct InitSettings {
    /// Standard deviation of the embedding.
    pub embedding_std: f64,
    /// Factor on the projections that write to the residual stream.
    pub residual_scale: f64,
}

/// Fresh weights for pretraining: norms 1, matrices normal with deviation fan_in^-0.5.
///
/// # Errors
/// When a tensor cannot be made.
pub fn random_weights(
    config: &ModelConfig,
    seed: crate::domain::Seed,
    init: InitSettings,
) -> std::result::Result<Weights, LmError> {
    let mut tensors = std::collections::BTreeMap::new();
    for (name, shape) in expected_shapes(config) {
        let n: usize = shape.iter().product();
        let data = if shape.len() == 1 {
            vec![1f32; n]
        } else {
            let fan_in = shape.last().copied().unwrap_or(1) as f64;
            let mut std = fan_in.powf(-0.5);
            if name.contains("embed_tokens") {
                std = init.embedding_std;
            } else if name.contains("o_proj") || name.contains("down_proj") {
                std *= init.residual_scale;
            }
            super::lora::normal(seed.derive(&name), n, std)
        };
        tensors.insert(name, Tensor::from_vec(data, shape, &Device::Cpu)?);
    }
    Ok(Weights(tensors))
}
