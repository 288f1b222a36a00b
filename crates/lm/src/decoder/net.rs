//! Which parameters a network has and where each is used: named once, here. Values, gradients and
//! the optimiser's moments are told apart by what they are kept in and share these numbers.

use crate::config::ModelConfig;
use crate::error::LmError;
use crate::lora::Lora;
use crate::weights::expected_shapes;
use candle_core::{Device, Tensor};
use std::collections::BTreeMap;

/// Number of a parameter in [`Parameters`].
pub(crate) type Id = usize;

/// A named tensor that the network reads, and what it is kept in.
pub(crate) struct Parameter<V = Vec<f32>> {
    /// Hugging Face's name, or PEFT's.
    pub name: String,
    /// Its shape; the last dimension is contiguous.
    pub shape: Vec<usize>,
    /// Its numbers.
    pub value: V,
    /// It belongs to an adapter.
    pub low_rank: bool,
}

impl Parameter {
    /// A copy of it as a tensor.
    pub fn tensor(&self) -> Result<Tensor, LmError> {
        Ok(Tensor::from_slice(&self.value, self.shape.as_slice(), &Device::Cpu)?)
    }
}

/// A linear layer `y = x W' + b`, with its adapter where it has one.
pub(crate) struct Linear {
    /// [out, in].
    pub weight: Id,
    /// [out].
    pub bias: Option<Id>,
    /// A [r, in] and B [out, r].
    pub adapter: Option<(Id, Id)>,
    pub out: usize,
    pub input: usize,
}

pub(crate) struct Layer {
    pub attention_norm: Id,
    pub q: Linear,
    pub k: Linear,
    pub v: Linear,
    /// Norms of each query and key head [D], before the rotary embedding.
    pub head_norms: Option<(Id, Id)>,
    pub o: Linear,
    pub mlp_norm: Id,
    pub gate: Linear,
    pub up: Linear,
    pub down: Linear,
}

/// Where each parameter is used.
pub(crate) struct Net {
    pub embedding: Id,
    pub layers: Vec<Layer>,
    pub norm: Id,
    /// The embedding's where they are tied.
    pub head: Id,
}

/// Gives what a tensor is kept in, by its name and the shape it must have.
type Take<'a, V> = dyn FnMut(&str, &[usize]) -> Result<V, LmError> + 'a;

/// Numbers the tensors of a network, and asks for what each is kept in.
pub(crate) struct Builder<'a, V> {
    shapes: BTreeMap<String, Vec<usize>>,
    lora: Option<&'a Lora>,
    take: &'a mut Take<'a, V>,
    /// What an adapter's tensor is kept in.
    keep: fn(&Tensor) -> Result<V, LmError>,
    pub parameters: Vec<Parameter<V>>,
}

impl<'a, V> Builder<'a, V> {
    pub fn new(
        config: &ModelConfig,
        lora: Option<&'a Lora>,
        take: &'a mut Take<'a, V>,
        keep: fn(&Tensor) -> Result<V, LmError>,
    ) -> Builder<'a, V> {
        let shapes = expected_shapes(config).into_iter().collect();
        Builder { shapes, lora, take, keep, parameters: Vec::new() }
    }

    fn add(&mut self, name: String, shape: Vec<usize>, value: V, low_rank: bool) -> Id {
        self.parameters.push(Parameter { name, shape, value, low_rank });
        self.parameters.len() - 1
    }

    fn get(&mut self, name: String) -> Result<Id, LmError> {
        let shape = self.shapes.get(&name).cloned().unwrap_or_default();
        let value = (self.take)(&name, &shape)?;
        Ok(self.add(name, shape, value, false))
    }

    fn linear(&mut self, layer: &str, bias: bool) -> Result<Linear, LmError> {
        let weight = self.get(format!("{layer}.weight"))?;
        let bias = bias.then(|| self.get(format!("{layer}.bias"))).transpose()?;
        let shape = &self.parameters[weight].shape;
        let (out, input) = (shape[0], shape[1]);
        let mut adapter = None;
        if let Some((names, a, b)) = self.lora.and_then(|lora| lora.on(layer)) {
            let (rank, fits) = (a.dims()[0], |t: &Tensor, s: [usize; 2]| t.dims() == s);
            if !fits(&a, [rank, input]) || !fits(&b, [out, rank]) {
                return Err(LmError::Model(format!(
                    "the adapter of {layer} has shapes {:?} and {:?}; [r, {input}] and [{out}, r] \
                     fit",
                    a.dims(),
                    b.dims()
                )));
            }
            let (low, high) = ((self.keep)(&a)?, (self.keep)(&b)?);
            adapter = Some((
                self.add(names.0, a.dims().to_vec(), low, true),
                self.add(names.1, b.dims().to_vec(), high, true),
            ));
        }
        Ok(Linear { weight, bias, adapter, out, input })
    }

    fn layer(&mut self, config: &ModelConfig, index: usize) -> Result<Layer, LmError> {
        let at = |part: &str| format!("model.layers.{index}.{part}");
        let bias = config.qkv_bias();
        let norms = ["self_attn.q_norm.weight", "self_attn.k_norm.weight"];
        Ok(Layer {
            attention_norm: self.get(at("input_layernorm.weight"))?,
            q: self.linear(&at("self_attn.q_proj"), bias)?,
            k: self.linear(&at("self_attn.k_proj"), bias)?,
            v: self.linear(&at("self_attn.v_proj"), bias)?,
            head_norms: match config.head_norms() {
                true => Some((self.get(at(norms[0]))?, self.get(at(norms[1]))?)),
                false => None,
            },
            o: self.linear(&at("self_attn.o_proj"), false)?,
            mlp_norm: self.get(at("post_attention_layernorm.weight"))?,
            gate: self.linear(&at("mlp.gate_proj"), false)?,
            up: self.linear(&at("mlp.up_proj"), false)?,
            down: self.linear(&at("mlp.down_proj"), false)?,
        })
    }

    pub fn net(&mut self, config: &ModelConfig) -> Result<Net, LmError> {
        let embedding = self.get("model.embed_tokens.weight".to_owned())?;
        let head = match config.tie_word_embeddings {
            true => embedding,
            false => self.get("lm_head.weight".to_owned())?,
        };
        let layers: Result<Vec<Layer>, LmError> =
            (0..config.num_hidden_layers).map(|index| self.layer(config, index)).collect();
        Ok(Net {
            embedding,
            layers: layers?,
            norm: self.get("model.norm.weight".to_owned())?,
            head,
        })
    }
}

/// Gradients by parameter number, in buffers that stay from step to step.
#[derive(Default)]
pub(crate) struct Gradients {
    slots: Vec<Option<Slot>>,
}

struct Slot {
    data: Vec<f32>,
    /// Holds something of this step.
    written: bool,
}

impl Gradients {
    /// Room for those parameters that move.
    pub fn new(parameters: &[Parameter], moves: impl Fn(&Parameter) -> bool) -> Gradients {
        let slot = |p: &Parameter| {
            moves(p).then(|| Slot { data: vec![0.0; p.value.len()], written: false })
        };
        Gradients { slots: parameters.iter().map(slot).collect() }
    }

    /// Forgets what was added; the buffers stay.
    pub fn clear(&mut self) {
        self.slots.iter_mut().flatten().for_each(|slot| slot.written = false);
    }

    /// Whether the parameter moves.
    pub fn wants(&self, id: Id) -> bool {
        self.slots.get(id).is_some_and(Option::is_some)
    }

    /// The buffer to write a gradient to, and whether it must be added to what is there.
    pub fn slot(&mut self, id: Id) -> Option<(&mut [f32], bool)> {
        let slot = self.slots.get_mut(id)?.as_mut()?;
        let add = std::mem::replace(&mut slot.written, true);
        Some((&mut slot.data, add))
    }

    /// The buffer, zeros where nothing was written: to add to single numbers.
    pub fn sums(&mut self, id: Id) -> Option<&mut [f32]> {
        let (data, add) = self.slot(id)?;
        if !add {
            data.fill(0.0);
        }
        Some(data)
    }

    /// Adds a whole gradient.
    pub fn add(&mut self, id: Id, more: &[f32]) {
        match self.slot(id) {
            Some((data, true)) => data.iter_mut().zip(more).for_each(|(sum, more)| *sum += more),
            Some((data, false)) => data.copy_from_slice(more),
            None => {}
        }
    }

    /// Adds another's sums.
    pub fn add_all(&mut self, more: &Gradients) {
        for (id, slot) in more.slots.iter().enumerate() {
            if let Some(slot) = slot.as_ref().filter(|slot| slot.written) {
                self.add(id, &slot.data);
            }
        }
    }

    /// Every moving parameter's gradient, zeros where none was written.
    pub fn all(&mut self) -> Vec<(Id, &[f32])> {
        let slots = self.slots.iter_mut().enumerate();
        let filled = slots.filter_map(|(id, slot)| {
            let slot = slot.as_mut()?;
            if !std::mem::replace(&mut slot.written, true) {
                slot.data.fill(0.0);
            }
            Some((id, slot.data.as_slice()))
        });
        filled.collect()
    }
}
