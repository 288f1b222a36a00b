//! Which parameters a network has and where each is used: named once, here. Values, gradients and
//! the optimiser's moments are told apart by what they are kept in and share these numbers.

use crate::arch::TensorRole;
use crate::config::ModelConfig;
use crate::error::LmError;
use crate::lora::Lora;
use crate::tensors::TensorSpec;
use candle_core::{Device, Tensor};

/// Number of a parameter in [`Parameters`].
pub(crate) type ParameterId = usize;

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
    pub weight: ParameterId,
    /// [out].
    pub bias: Option<ParameterId>,
    /// A [r, in] and B [out, r].
    pub adapter: Option<(ParameterId, ParameterId)>,
    pub out: usize,
    pub input: usize,
}

pub(crate) struct Layer {
    pub attention_norm: ParameterId,
    pub q: Linear,
    pub k: Linear,
    pub v: Linear,
    /// Norms of each query and key head [D], before the rotary embedding.
    pub head_norms: Option<(ParameterId, ParameterId)>,
    pub o: Linear,
    pub mlp_norm: ParameterId,
    pub gate: Linear,
    pub up: Linear,
    pub down: Linear,
}

/// Where each parameter is used.
pub(crate) struct Net {
    pub embedding: ParameterId,
    pub layers: Vec<Layer>,
    pub norm: ParameterId,
    /// The embedding's where they are tied.
    pub head: ParameterId,
}

/// Gives what a tensor is kept in.
type Take<'a, V> = dyn FnMut(&TensorSpec) -> Result<V, LmError> + 'a;

/// Numbers the tensors of a network, and asks for what each is kept in.
pub(crate) struct NetBuilder<'a, V> {
    config: &'a ModelConfig,
    lora: Option<&'a Lora>,
    take: &'a mut Take<'a, V>,
    /// What an adapter's tensor is kept in.
    keep: fn(&Tensor) -> Result<V, LmError>,
    pub parameters: Vec<Parameter<V>>,
}

impl<'a, V> NetBuilder<'a, V> {
    pub fn new(
        config: &'a ModelConfig,
        lora: Option<&'a Lora>,
        take: &'a mut Take<'a, V>,
        keep: fn(&Tensor) -> Result<V, LmError>,
    ) -> NetBuilder<'a, V> {
        NetBuilder { config, lora, take, keep, parameters: Vec::new() }
    }

    fn add(&mut self, name: String, shape: Vec<usize>, value: V, low_rank: bool) -> ParameterId {
        self.parameters.push(Parameter { name, shape, value, low_rank });
        self.parameters.len() - 1
    }

    fn get(&mut self, role: TensorRole, layer: Option<usize>) -> Result<ParameterId, LmError> {
        let spec = TensorSpec::of(self.config, role, layer);
        let value = (self.take)(&spec)?;
        Ok(self.add(spec.name, spec.shape, value, false))
    }

    fn linear(
        &mut self,
        weight: TensorRole,
        bias: Option<TensorRole>,
        layer: usize,
    ) -> Result<Linear, LmError> {
        let spec = TensorSpec::of(self.config, weight, Some(layer));
        let [out, input] = *spec.shape.as_slice() else {
            return Err(LmError::Model(format!("{} is no matrix", spec.name)));
        };
        let weight = self.get(weight, Some(layer))?;
        let bias = bias.map(|bias| self.get(bias, Some(layer))).transpose()?;
        let adapter = self.adapter(spec.linear_name(), [out, input])?;
        Ok(Linear { weight, bias, adapter, out, input })
    }

    /// A and B of the adapter on this linear layer, where it has one.
    fn adapter(
        &mut self,
        layer: &str,
        [out, input]: [usize; 2],
    ) -> Result<Option<(ParameterId, ParameterId)>, LmError> {
        let Some((names, a, b)) = self.lora.and_then(|lora| lora.on(layer)) else {
            return Ok(None);
        };
        let rank = a.dims().first().copied().unwrap_or(0);
        if a.dims() != [rank, input] || b.dims() != [out, rank] {
            return Err(LmError::Model(format!(
                "the adapter of {layer} has shapes {:?} and {:?}; [r, {input}] and [{out}, r] fit",
                a.dims(),
                b.dims()
            )));
        }
        let (low, high) = ((self.keep)(&a)?, (self.keep)(&b)?);
        let a = self.add(names.0, a.dims().to_vec(), low, true);
        Ok(Some((a, self.add(names.1, b.dims().to_vec(), high, true))))
    }

    fn layer(&mut self, index: usize) -> Result<Layer, LmError> {
        let family = self.config.description();
        let bias = |role: TensorRole| family.qkv_bias.then_some(role);
        let at = Some(index);
        Ok(Layer {
            attention_norm: self.get(TensorRole::AttentionNorm, at)?,
            q: self.linear(TensorRole::Query, bias(TensorRole::QueryBias), index)?,
            k: self.linear(TensorRole::Key, bias(TensorRole::KeyBias), index)?,
            v: self.linear(TensorRole::Value, bias(TensorRole::ValueBias), index)?,
            head_norms: match family.qk_norm {
                true => {
                    Some((self.get(TensorRole::QueryNorm, at)?, self.get(TensorRole::KeyNorm, at)?))
                }
                false => None,
            },
            o: self.linear(TensorRole::Output, None, index)?,
            mlp_norm: self.get(TensorRole::MlpNorm, at)?,
            gate: self.linear(TensorRole::Gate, None, index)?,
            up: self.linear(TensorRole::Up, None, index)?,
            down: self.linear(TensorRole::Down, None, index)?,
        })
    }

    pub fn net(&mut self) -> Result<Net, LmError> {
        let embedding = self.get(TensorRole::Embedding, None)?;
        let head = match self.config.tie_word_embeddings {
            true => embedding,
            false => self.get(TensorRole::Head, None)?,
        };
        let layers: Result<Vec<Layer>, LmError> =
            (0..self.config.num_hidden_layers).map(|index| self.layer(index)).collect();
        Ok(Net { embedding, layers: layers?, norm: self.get(TensorRole::FinalNorm, None)?, head })
    }
}

/// Gradients by parameter number, in buffers that stay from step to step.
#[derive(Default)]
pub(crate) struct Gradients {
    slots: Vec<Option<GradientSlot>>,
}

struct GradientSlot {
    data: Vec<f32>,
    /// Holds something of this step.
    written: bool,
}

impl Gradients {
    /// Room for those parameters that move.
    pub fn new(parameters: &[Parameter], moves: impl Fn(&Parameter) -> bool) -> Gradients {
        let slot = |p: &Parameter| {
            moves(p).then(|| GradientSlot { data: vec![0.0; p.value.len()], written: false })
        };
        Gradients { slots: parameters.iter().map(slot).collect() }
    }

    /// Forgets what was added; the buffers stay.
    pub fn clear(&mut self) {
        self.slots.iter_mut().flatten().for_each(|slot| slot.written = false);
    }

    /// Whether the parameter moves.
    pub fn wants(&self, id: ParameterId) -> bool {
        self.slots.get(id).is_some_and(Option::is_some)
    }

    /// The buffer to write a gradient to, and whether it must be added to what is there.
    pub fn slot(&mut self, id: ParameterId) -> Option<(&mut [f32], bool)> {
        let slot = self.slots.get_mut(id)?.as_mut()?;
        let add = std::mem::replace(&mut slot.written, true);
        Some((&mut slot.data, add))
    }

    /// The buffer, zeros where nothing was written: to add to single numbers.
    pub fn sums(&mut self, id: ParameterId) -> Option<&mut [f32]> {
        let (data, add) = self.slot(id)?;
        if !add {
            data.fill(0.0);
        }
        Some(data)
    }

    /// Adds a whole gradient.
    pub fn add(&mut self, id: ParameterId, more: &[f32]) {
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
    pub fn all(&mut self) -> Vec<(ParameterId, &[f32])> {
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
