//! One optimiser step at a time: supervised rows or preference pairs in, moved weights out. What a
//! step is made of is `loss_term`; who computes it is a `StepBackend`: `cpu` here, or
//! [`super::gpu`]. A non-finite loss or gradient changes nothing.

mod backend;
mod cpu;
mod loss_term;
mod metrics;
#[cfg(test)]
mod tests;

use super::cancel::Cancel;
use super::config::ModelConfig;
use super::decoder::Decoder;
use super::error::LmError;
use super::estimate::SavedActivations;
use super::lora::{self, Lora, LoraSettings};
use super::loss::initial_loss;
pub use super::loss::{Belief, DpoSettings};
use super::optimizer::OptimizerSettings;
use super::seed::Seed;
use super::weights::Weights;
pub use backend::ShortOfMemory;
pub(crate) use backend::StepBackend;
use cpu::CpuBackend;
pub(crate) use loss_term::LossTerm;
pub use metrics::StepMetrics;
use std::collections::BTreeMap;

/// A sequence and what each token's prediction weighs in the loss.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightedSequence {
    /// Token ids.
    pub ids: Vec<u32>,
    /// `weights[i]` multiplies the loss of predicting `ids[i]` from the ids before it; the first
    /// is ignored.
    pub weights: Vec<f32>,
}

/// A preference pair as token ids, with the reference's summed log-probabilities.
#[derive(Clone, Debug, PartialEq)]
pub struct DpoExample {
    /// The prompt.
    pub prompt: Vec<u32>,
    /// The better completion.
    pub chosen: Vec<u32>,
    /// The worse one.
    pub rejected: Vec<u32>,
    /// The reference's log-probability of the better one.
    pub reference_chosen: f64,
    /// The reference's log-probability of the worse one.
    pub reference_rejected: f64,
    /// What the pair counts for.
    pub belief: Belief,
}

/// Which tensors move.
#[derive(Clone, Debug, PartialEq)]
pub enum Method {
    /// All of them.
    Full,
    /// A low-rank adapter.
    Lora(LoraSettings),
}

/// How to train.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainSettings {
    /// Which tensors move.
    pub method: Method,
    /// How they move.
    pub optimizer: OptimizerSettings,
    /// Threads that compute.
    pub threads: usize,
    /// Keep of every layer its input alone and compute the rest again on the way back: a third
    /// more arithmetic, a tenth of the activations' memory.
    pub gradient_checkpointing: bool,
}

impl TrainSettings {
    /// What is saved of the forward pass.
    pub fn saved(&self) -> SavedActivations {
        match self.gradient_checkpointing {
            true => SavedActivations::LayerInputs,
            false => SavedActivations::All,
        }
    }
}

/// What became of a step.
#[derive(Clone, Debug, PartialEq)]
pub enum StepReport {
    /// Weights moved.
    Taken(StepMetrics),
    /// Non-finite numbers; nothing changed.
    Skipped {
        /// Which number.
        reason: String,
    },
}

/// Weights in training.
pub struct TrainSession {
    settings: TrainSettings,
    backend: Box<dyn StepBackend>,
}

impl TrainSession {
    /// A trainer on the CPU that starts at `weights`, and at `adapter` when one is trained and there
    /// is one; else a fresh adapter is drawn from `seed`.
    ///
    /// # Errors
    /// When tensors are missing, or the system gives no threads.
    pub fn new(
        config: &ModelConfig,
        weights: Weights,
        adapter: Option<&Weights>,
        settings: TrainSettings,
        seed: Seed,
    ) -> Result<TrainSession, LmError> {
        let lora = lora_of(config, adapter, &settings, seed)?;
        let decoder = Decoder::new(config, weights, lora.as_ref())?;
        let backend = Box::new(CpuBackend::new(decoder, &settings)?);
        Ok(TrainSession { settings, backend })
    }

    /// A trainer over whoever computes.
    pub(crate) fn over(backend: Box<dyn StepBackend>, settings: TrainSettings) -> TrainSession {
        TrainSession { settings, backend }
    }

    /// Steps taken, also before a restart.
    pub fn step(&self) -> u32 {
        self.backend.step()
    }

    /// The full weights; with an adapter in training, the frozen ones below it.
    ///
    /// # Errors
    /// When a tensor cannot be made.
    pub fn weights(&self) -> Result<Weights, LmError> {
        self.backend.base()
    }

    /// The adapter, where one is trained.
    ///
    /// # Errors
    /// When a tensor cannot be made.
    pub fn adapter(&self) -> Result<Option<Weights>, LmError> {
        matches!(self.settings.method, Method::Lora(_)).then(|| self.backend.adapter()).transpose()
    }

    /// The optimiser's state, to be saved.
    ///
    /// # Errors
    /// When a tensor cannot be made.
    pub fn optimizer_state(&self) -> Result<Weights, LmError> {
        self.backend.optimizer_state()
    }

    /// Goes on with a saved state, of whichever device.
    ///
    /// # Errors
    /// When the state is damaged.
    pub fn restore_optimizer(&mut self, state: &Weights) -> Result<(), LmError> {
        self.backend.restore_optimizer(state)
    }

    /// What did not fit on the device since the last call.
    pub fn short_of_memory(&mut self) -> Vec<ShortOfMemory> {
        self.backend.short_of_memory()
    }

    /// A supervised step: the weighted mean of `-log p` over the batch's tokens.
    ///
    /// # Errors
    /// [`LmError::Cancelled`], or a tensor that does not fit.
    pub fn sft_step(
        &mut self,
        batch: &[WeightedSequence],
        cancel: &Cancel,
    ) -> Result<StepReport, LmError> {
        self.take(&[LossTerm::sft(batch, 1.0)], cancel)
    }

    /// A preference step, with supervised rows rehearsed beside it when there are any.
    ///
    /// # Errors
    /// As [`TrainSession::sft_step`].
    pub fn dpo_step(
        &mut self,
        batch: &[DpoExample],
        rehearsal: &[WeightedSequence],
        dpo: &DpoSettings,
        cancel: &Cancel,
    ) -> Result<StepReport, LmError> {
        let mut terms = vec![LossTerm::dpo(batch, dpo)];
        if dpo.rehearsal_weight > 0.0 && !rehearsal.is_empty() {
            terms.push(LossTerm::sft(rehearsal, dpo.rehearsal_weight));
        }
        self.take(&terms, cancel)
    }

    /// A step whose loss is the sum of these, and whose other figures are the first one's.
    fn take(&mut self, terms: &[LossTerm<'_>], cancel: &Cancel) -> Result<StepReport, LmError> {
        let mut all = self.backend.gradients(terms, cancel)?.into_iter();
        let mut figures = all.next().ok_or_else(no_term)?;
        for more in all {
            figures.loss += more.loss;
            figures.num_tokens += more.num_tokens;
        }
        Ok(match self.backend.apply(&self.settings.optimizer, &mut figures)? {
            Ok(()) => StepReport::Taken(figures),
            Err(reason) => StepReport::Skipped { reason },
        })
    }

    fn computed(&mut self, term: &LossTerm<'_>) -> Result<StepMetrics, LmError> {
        let all = self.backend.gradients(&[*term], &Cancel::default())?;
        all.into_iter().next().ok_or_else(no_term)
    }

    /// The gradients of a supervised batch by tensor name, flat; nothing moves.
    ///
    /// # Errors
    /// As [`TrainSession::sft_step`].
    pub fn sft_gradient(
        &mut self,
        batch: &[WeightedSequence],
    ) -> Result<BTreeMap<String, Vec<f32>>, LmError> {
        self.computed(&LossTerm::sft(batch, 1.0))?;
        self.backend.named_gradients()
    }

    /// The gradients of a preference batch by tensor name, flat; nothing moves.
    ///
    /// # Errors
    /// As [`TrainSession::sft_step`].
    pub fn dpo_gradient(
        &mut self,
        batch: &[DpoExample],
        dpo: &DpoSettings,
    ) -> Result<BTreeMap<String, Vec<f32>>, LmError> {
        self.computed(&LossTerm::dpo(batch, dpo))?;
        self.backend.named_gradients()
    }

    /// Refuses to begin unless every moving tensor gets a finite gradient that is not zero: an op
    /// without a backward would cut the graph silently. (A fresh adapter's A has a zero gradient
    /// because its B is zero; there B is what counts.)
    ///
    /// # Errors
    /// [`LmError::Training`] naming the tensors.
    pub fn check_gradient_coverage(&mut self, batch: &[WeightedSequence]) -> Result<(), LmError> {
        let grads = self.sft_gradient(batch)?;
        let good = |g: &Vec<f32>| g.iter().all(|v| v.is_finite()) && g.iter().any(|v| *v != 0.0);
        let bad: Vec<&str> = grads
            .iter()
            .filter(|(name, grad)| !lora::is_a(name) && !good(grad))
            .map(|(name, _)| name.as_str())
            .collect();
        if bad.is_empty() {
            return Ok(());
        }
        Err(LmError::Training(format!(
            "{} of {} tensors get no usable gradient: {}",
            bad.len(),
            grads.len(),
            bad.join(", ")
        )))
    }

    /// Refuses to begin unless the loss before the first step is what policy = reference gives
    /// (ln 2 for the sigmoid loss): anything else means a wrong reference, mask or shift.
    ///
    /// # Errors
    /// [`LmError::Training`] with both numbers.
    pub fn check_initial_dpo_loss(
        &mut self,
        batch: &[DpoExample],
        dpo: &DpoSettings,
    ) -> Result<(), LmError> {
        let plain = DpoSettings { nll_weight: 0.0, ..*dpo };
        let found = self.computed(&LossTerm::dpo(batch, &plain))?.loss;
        let losses = batch.iter().map(|pair| initial_loss(dpo.loss, pair.belief));
        let expected = losses.sum::<f64>() / batch.len().max(1) as f64;
        if (found - expected).abs() <= self.backend.rounding() * expected {
            return Ok(());
        }
        Err(LmError::Training(format!(
            "the first loss is {found:.6} and must be {expected:.6}: the reference is not the \
             policy this iteration starts from"
        )))
    }
}

/// A backend gives the figures of each term that it is given.
fn no_term() -> LmError {
    LmError::Training("a step was computed without a term of its loss".to_owned())
}

/// The adapter that is trained: the one there is, or a fresh one; `None` where all weights are.
///
/// # Errors
/// Full training from an adapter, or an adapter that does not fit.
pub(crate) fn lora_of(
    config: &ModelConfig,
    adapter: Option<&Weights>,
    settings: &TrainSettings,
    seed: Seed,
) -> Result<Option<Lora>, LmError> {
    match (&settings.method, adapter) {
        (Method::Full, None) => Ok(None),
        (Method::Full, Some(_)) => {
            let what = "full training cannot start from an adapter; merge it first";
            Err(LmError::Training(what.to_owned()))
        }
        (Method::Lora(lora), Some(adapter)) => Ok(Some(Lora::new(adapter, lora)?)),
        (Method::Lora(lora), None) => Ok(Some(Lora::new(&lora::fresh(config, lora, seed)?, lora)?)),
    }
}
