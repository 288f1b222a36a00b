//! The differentiable decoder of the Llama family, in one sitting: this file is the network from
//! ids to losses, `net` names its parameters, `passes` computes a layer forward and backward.
//!
//! Letters: T rows of packed tokens, H hidden, D head width, I intermediate, V vocabulary, P
//! positions whose logits are wanted. All sequences of a batch lie one after another in T rows:
//! the linear layers see one matrix without padding, and only attention knows where a sequence
//! begins. Sequences with a common beginning hold it once. Tensor names are transformers'.
//!
//! The backward pass is written by hand, in the order that needs the fewest rows in memory; tests
//! hold it to torch's gradients. No tensor library's graph is kept.

mod head;
mod net;
mod passes;

use super::arch::TensorRole;
use super::config::ModelConfig;
use super::error::LmError;
use super::estimate::SavedActivations;
use super::estimate::cpu::LOGIT_BYTES_MAX;
use super::lora::Lora;
use super::ops::{Mat, MatMut, RotaryTable, awake, matmul, rms_norm, token_logps};
use super::packed::{PackedRows, ScoredTokens, TokenScorer, check_ids, check_rows};
use super::seed::Seed;
use super::tensors::{TensorSpec, tensors};
use super::weights::{Weights, read, with_numbers};
use candle_core::{Device, Tensor};
use candle_nn::VarBuilder;
use head::HeadPass;
pub(crate) use head::LossGradient;
pub(crate) use net::{Gradients, Layer, Linear, Net, NetBuilder, Parameter, ParameterId};
use passes::{LayerBuffers, LayerTape, RotatedRows, sized};
use std::collections::BTreeMap;

/// Buffers of the passes, kept from step to step.
#[derive(Default)]
pub(crate) struct Workspace {
    /// Of every layer its input alone is kept, and the rest computed again on the way back.
    recompute: bool,
    /// The input of every layer, and the last output.
    streams: Vec<Vec<f32>>,
    tapes: Vec<LayerTape>,
    scratch: LayerBuffers,
    inverses: Vec<f32>,
    hidden: Vec<f32>,
    logits: Vec<f32>,
}

impl Workspace {
    /// Empty buffers.
    pub fn new(saved: SavedActivations) -> Workspace {
        let recompute = saved == SavedActivations::LayerInputs;
        Workspace { recompute, ..Workspace::default() }
    }
}

/// A network and its parameters.
pub struct Decoder {
    config: ModelConfig,
    net: Net,
    pub(crate) parameters: Vec<Parameter>,
    lora_scale: f32,
    frequencies: Vec<f32>,
}

impl Decoder {
    /// A network over `weights` (Hugging Face names); `lora` adds low-rank terms to the layers it
    /// names.
    ///
    /// # Errors
    /// [`LmError::Model`] naming the first tensor that is missing or has another shape.
    pub fn new(
        config: &ModelConfig,
        weights: Weights,
        lora: Option<&Lora>,
    ) -> Result<Decoder, LmError> {
        Decoder::read(config, &weights.into_var_builder(), lora)
    }

    /// As [`Decoder::new`], over whatever candle's `VarBuilder` reads from.
    ///
    /// # Errors
    /// As [`Decoder::new`].
    pub fn read(
        config: &ModelConfig,
        weights: &VarBuilder<'_>,
        lora: Option<&Lora>,
    ) -> Result<Decoder, LmError> {
        config.validate()?;
        let numbers = |tensor: &Tensor| with_numbers(tensor, <[f32]>::to_vec);
        let mut take = |spec: &TensorSpec| numbers(&read(weights, &spec.name, &spec.shape)?);
        let mut builder = NetBuilder::new(config, lora, &mut take, numbers);
        let net = builder.net()?;
        Ok(Decoder {
            net,
            parameters: builder.parameters,
            lora_scale: lora.map_or(1.0, |lora| lora.scale() as f32),
            frequencies: config.rotary_frequencies(),
            config: config.clone(),
        })
    }

    /// The shape of the network.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn embedded(&self, rows: &PackedRows, x: &mut Vec<f32>) {
        let (table, width) = (self.value(self.net.embedding), self.config.hidden_size);
        x.clear();
        for id in &rows.ids {
            x.extend_from_slice(&table[*id as usize * width..][..width]);
        }
    }

    fn batch<'a>(&self, rows: &'a PackedRows) -> RotatedRows<'a> {
        let table = RotaryTable::new(rows.positions.iter().copied(), &self.frequencies);
        RotatedRows { rows, table }
    }

    /// The last hidden states [T, H], normed.
    ///
    /// # Errors
    /// When a sequence is longer than the model's context, or an id is outside the vocabulary.
    pub fn hidden(&self, rows: &PackedRows) -> Result<Vec<f32>, LmError> {
        check_rows(&self.config, rows)?;
        let batch = self.batch(rows);
        let (mut x, mut next) = (Vec::new(), Vec::new());
        let (mut tape, mut scratch) = (LayerTape::default(), LayerBuffers::default());
        self.embedded(rows, &mut x);
        for layer in &self.net.layers {
            awake(|| self.layer_forward((layer, &batch), &x, &mut tape, &mut scratch, &mut next));
            std::mem::swap(&mut x, &mut next);
        }
        let inverses = &mut vec![0f32; batch.len()];
        let norm = self.value(self.net.norm);
        rms_norm(&x, norm, self.config.norm_eps(), sized(&mut next, x.len()), inverses);
        Ok(next)
    }

    fn gathered(&self, hidden: &[f32], at: &[u32]) -> Vec<f32> {
        let width = self.config.hidden_size;
        at.iter().flat_map(|row| &hidden[*row as usize * width..][..width]).copied().collect()
    }

    fn head(&self) -> Mat<'_> {
        Mat::new(self.value(self.net.head), self.config.vocab_size, self.config.hidden_size)
    }

    /// Logits [P, V] of the given rows of `hidden`.
    ///
    /// # Panics
    /// When a row is outside.
    pub fn logits(&self, hidden: &[f32], at: &[u32]) -> Vec<f32> {
        let mut logits = vec![0f32; at.len() * self.config.vocab_size];
        self.logits_into(&self.gathered(hidden, at), &mut logits);
        logits
    }

    fn logits_into(&self, hidden: &[f32], logits: &mut [f32]) {
        let (width, vocab) = (self.config.hidden_size, self.config.vocab_size);
        let rows = hidden.len() / width;
        let hidden = Mat::new(hidden, rows, width);
        matmul(MatMut::new(logits, rows, vocab), hidden, self.head().t(), false, 1.0);
    }

    /// Rows of logits that are alive at once.
    fn logit_rows(&self) -> usize {
        (LOGIT_BYTES_MAX / size_of::<f32>() / self.config.vocab_size).max(16)
    }

    /// Natural-log probability of `targets[p]` following row `at[p]`, with few logits alive at
    /// once.
    ///
    /// # Errors
    /// When a target is outside the vocabulary.
    pub(crate) fn logps(
        &self,
        hidden: &[f32],
        at: &[u32],
        targets: &[u32],
    ) -> Result<Vec<f32>, LmError> {
        check_ids(&self.config, targets)?;
        let (mut all, mut logits) = (Vec::with_capacity(at.len()), Vec::new());
        let most = self.logit_rows();
        for (at, targets) in at.chunks(most).zip(targets.chunks(most)) {
            let logits = sized(&mut logits, at.len() * self.config.vocab_size);
            self.logits_into(&self.gathered(hidden, at), logits);
            all.extend(token_logps(logits, targets).0);
        }
        Ok(all)
    }

    /// Adds to `grads` the gradients of a loss over log-probabilities of tokens. `loss_gradient` is given
    /// the number of a unit of `scored` and its log-probabilities, and gives the loss's derivative
    /// by each of them.
    ///
    /// # Errors
    /// As [`Decoder::hidden`], and a target outside the vocabulary.
    pub(crate) fn differentiate(
        &self,
        rows: &PackedRows,
        scored: &ScoredTokens,
        loss_gradient: LossGradient<'_>,
        (space, grads): (&mut Workspace, &mut Gradients),
    ) -> Result<(), LmError> {
        check_rows(&self.config, rows)?;
        check_ids(&self.config, &scored.targets)?;
        let batch = self.batch(rows);
        self.forward(&batch, space);
        let mut g = self.head_backward(scored, loss_gradient, space, grads);
        let layers = self.net.layers.iter().enumerate().rev();
        for (index, layer) in layers {
            let (x, rest) = space.streams[index..].split_at_mut(1);
            let tape = match space.recompute {
                false => &mut space.tapes[index],
                true => {
                    let (tape, out) = (&mut space.tapes[0], &mut rest[0]);
                    self.layer_forward((layer, &batch), &x[0], tape, &mut space.scratch, out);
                    tape
                }
            };
            let (to, scratch) = ((g.as_mut_slice(), &mut *grads), &mut space.scratch);
            awake(|| self.layer_backward((layer, &batch), &x[0], tape, scratch, to));
        }
        if let Some(sums) = grads.sums(self.net.embedding) {
            let width = self.config.hidden_size;
            for (id, g) in rows.ids.iter().zip(g.chunks_exact(width)) {
                let sums = &mut sums[*id as usize * width..][..width];
                sums.iter_mut().zip(g).for_each(|(sum, g)| *sum += g);
            }
        }
        Ok(())
    }

    /// Fills the streams and tapes, and `hidden` with the normed end.
    fn forward(&self, batch: &RotatedRows<'_>, space: &mut Workspace) {
        let layers = self.net.layers.len();
        space.streams.resize_with(layers + 1, Vec::new);
        space.tapes.resize_with(if space.recompute { 1 } else { layers }, LayerTape::default);
        self.embedded(batch.rows, &mut space.streams[0]);
        for (index, layer) in self.net.layers.iter().enumerate() {
            let (x, out) = space.streams[index..].split_at_mut(1);
            let tape = &mut space.tapes[if space.recompute { 0 } else { index }];
            let scratch = &mut space.scratch;
            awake(|| self.layer_forward((layer, batch), &x[0], tape, scratch, &mut out[0]));
        }
        let x = &space.streams[layers];
        let inverses = sized(&mut space.inverses, batch.len());
        let hidden = sized(&mut space.hidden, x.len());
        let norm = self.value(self.net.norm);
        rms_norm(x, norm, self.config.norm_eps(), hidden, inverses);
    }

    /// The gradient of the last layer's output [T, H]; that of the head and the last norm go to
    /// `grads`.
    fn head_backward(
        &self,
        scored: &ScoredTokens,
        loss_gradient: LossGradient<'_>,
        space: &mut Workspace,
        grads: &mut Gradients,
    ) -> Vec<f32> {
        let states = self.gathered(&space.hidden, &scored.at);
        let mut pass = HeadPass::new(self, scored, states, &mut space.logits);
        pass.run(loss_gradient, grads);
        let mut d_hidden = vec![0f32; space.hidden.len()];
        pass.spread(&mut d_hidden);
        let mut g = vec![0f32; space.hidden.len()];
        let x = (space.streams[self.net.layers.len()].as_slice(), space.inverses.as_slice());
        self.norm_backward(self.net.norm, x, &d_hidden, &mut g, grads);
        g
    }
}

impl TokenScorer for Decoder {
    fn scored(&self, rows: &PackedRows, scored: &ScoredTokens) -> Result<Vec<f32>, LmError> {
        let hidden = self.hidden(rows)?;
        self.logps(&hidden, &scored.at, &scored.targets)
    }

    fn rows_max(&self) -> usize {
        SCORED_ROWS_MAX
    }
}

/// Rows of one forward pass when no gradient is wanted.
const SCORED_ROWS_MAX: usize = 2048;

/// How fresh weights are drawn.
#[derive(Clone, Copy, Debug)]
pub struct InitSettings {
    /// Standard deviation of the embedding.
    pub embedding_std: f64,
    /// Factor on the projections that write to the residual stream.
    pub residual_scale: f64,
}

/// Fresh weights for pretraining: norms 1, biases 0, matrices normal with deviation fan_in^-0.5.
///
/// # Errors
/// When a tensor cannot be made.
pub fn random_weights(
    config: &ModelConfig,
    seed: Seed,
    init: InitSettings,
) -> Result<Weights, LmError> {
    let mut drawn = BTreeMap::new();
    for TensorSpec { role, name, shape, .. } in tensors(config) {
        let n: usize = shape.iter().product();
        let data = if shape.len() == 1 {
            vec![if role.is_bias() { 0f32 } else { 1.0 }; n]
        } else {
            let fan_in = shape.last().copied().unwrap_or(1) as f64;
            let mut std = fan_in.powf(-0.5);
            if role == TensorRole::Embedding {
                std = init.embedding_std;
            } else if role.writes_residual() {
                std *= init.residual_scale;
            }
            super::lora::normal(seed.derive(&name), n, std)
        };
        drawn.insert(name, Tensor::from_vec(data, shape, &Device::Cpu)?);
    }
    Ok(Weights(drawn))
}
