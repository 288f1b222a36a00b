//! One optimiser step at a time: supervised rows or preference pairs in, moved weights out. Who
//! computes has a seat here: [`lanes`] on the CPU, `lm::gpu` on a device. A non-finite loss or
//! gradient changes nothing.

mod lanes;
mod metrics;
#[cfg(test)]
mod tests;
mod work;

use super::cancel::Cancel;
use super::config::ModelConfig;
use super::decoder::Decoder;
pub use super::decoder::LOGIT_BYTES_MAX;
use super::device::estimate::Kept;
use super::error::LmError;
use super::gpu::{Adapters, Base, Gpu, Moves, Store, Trainee};
use super::lora::{self, Lora, LoraSettings};
use super::loss::initial_loss;
pub use super::loss::{Belief, DpoSettings};
use super::optimizer::OptimizerSettings;
use super::seed::Seed;
use super::weights::Weights;
use lanes::Lanes;
pub use metrics::StepMetrics;
use std::collections::BTreeMap;
use std::sync::Arc;
pub(crate) use work::Work;

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

/// What the activations of one micro-batch may take.
pub const MICRO_BATCH_BYTES: usize = 768 << 20;

/// Parameters of a model, in bytes, below which threads share the batch and not the products.
const SMALL_MODEL_BYTES: usize = 16 << 20;

/// Bytes the forward pass keeps for the backward one, per row: norms, projections and both halves
/// of the MLP in every layer; or every layer's input, and one layer's rest.
pub fn activation_bytes_per_row(config: &ModelConfig, gradient_checkpointing: bool) -> usize {
    let queries = config.num_attention_heads * config.head_dim;
    let keys = config.num_key_value_heads * config.head_dim;
    let normed = if config.head_norms() { queries + keys } else { 0 };
    let kept = config.hidden_size
        + normed
        + 2 * (queries + keys + config.intermediate_size)
        + config.num_attention_heads;
    let passing = 6 * config.hidden_size + 4 * (queries + keys) + config.intermediate_size;
    let layers = config.num_hidden_layers;
    let numbers = match gradient_checkpointing {
        true => layers * config.hidden_size + kept,
        false => layers * (config.hidden_size + kept),
    };
    (numbers + passing) * size_of::<f32>()
}

/// Memory of a device that was not there, and what was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShortOfMemory {
    /// Rows that a micro-batch has at most from here on.
    pub rows: usize,
    /// What did not fit.
    pub reason: String,
}

/// Whoever computes gradients and moves weights by them.
pub(crate) trait Seat: Send {
    /// Steps taken, also before a restart.
    fn step(&self) -> u32;

    /// Forgets the gradients of before, and adds up those of these works; figures of each.
    ///
    /// # Errors
    /// [`LmError::Cancelled`], or what does not fit.
    fn gradients(
        &mut self,
        works: &[Work<'_>],
        cancel: &Cancel,
    ) -> Result<Vec<StepMetrics>, LmError>;

    /// Moves the weights, where all is finite: then norm and learning rate are among the figures;
    /// else nothing has moved, and the inner error says what is not finite.
    ///
    /// # Errors
    /// What a device says.
    fn apply(
        &mut self,
        settings: &OptimizerSettings,
        figures: &mut StepMetrics,
    ) -> Result<Result<(), String>, LmError>;

    /// The gradients by tensor name, flat.
    ///
    /// # Errors
    /// What a device says.
    fn named_gradients(&mut self) -> Result<BTreeMap<String, Vec<f32>>, LmError>;

    /// Weights that belong to no adapter.
    ///
    /// # Errors
    /// When a tensor cannot be made.
    fn base(&self) -> Result<Weights, LmError>;

    /// Weights of the adapter.
    ///
    /// # Errors
    /// When a tensor cannot be made.
    fn adapter(&self) -> Result<Weights, LmError>;

    /// The optimiser's state: `first.NAME`, `second.NAME`, `step`.
    ///
    /// # Errors
    /// When a tensor cannot be made.
    fn optimizer_state(&self) -> Result<Weights, LmError>;

    /// Goes on with a saved state.
    ///
    /// # Errors
    /// When the state is damaged.
    fn restore_optimizer(&mut self, state: &Weights) -> Result<(), LmError>;

    /// What did not fit since the last call.
    fn short_of_memory(&mut self) -> Vec<ShortOfMemory>;

    /// How far, as a share, a loss may be from what it must be because numbers are rounded.
    fn rounding(&self) -> f64;
}

/// Weights in training.
pub struct Trainer {
    settings: TrainSettings,
    seat: Box<dyn Seat>,
}

/// What an adapter is trained over, on a device.
pub enum Under {
    /// Weights of the host.
    Weights(Weights),
    /// Weights that others on the device read as well.
    Shared(Arc<Base>),
}

impl Trainer {
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
    ) -> Result<Trainer, LmError> {
        let lora = lora_of(config, adapter, &settings, seed)?;
        let decoder = Decoder::new(config, weights, lora.as_ref())?;
        let seat = Box::new(Lanes::new(decoder, &settings)?);
        Ok(Trainer { settings, seat })
    }

    /// As [`Trainer::new`], on a device. Full training needs weights of its own.
    ///
    /// # Errors
    /// As there, and [`LmError::DeviceMemory`].
    pub fn on(
        gpu: &Gpu,
        config: &ModelConfig,
        under: Under,
        adapter: Option<&Weights>,
        settings: TrainSettings,
        seed: Seed,
    ) -> Result<Trainer, LmError> {
        let store = match (lora_of(config, adapter, &settings, seed)?, under) {
            (None, Under::Weights(weights)) => Store::moving(gpu, config, weights)?,
            (None, Under::Shared(_)) => {
                let what = "full training moves its weights, so nobody else can read them";
                return Err(LmError::Training(what.to_owned()));
            }
            (Some(lora), under) => {
                let base = match under {
                    Under::Weights(weights) => Base::new(gpu, config, weights)?,
                    Under::Shared(base) => base,
                };
                let adapters = Adapters { lora: &lora, moves: Moves::Adapters };
                Store::over(gpu, config, base, Some(&adapters))?
            }
        };
        Ok(Trainer::over(store, settings))
    }

    fn over(store: Store, settings: TrainSettings) -> Trainer {
        let kept = if settings.gradient_checkpointing { Kept::Inputs } else { Kept::All };
        Trainer { settings, seat: Box::new(Trainee::new(store, kept)) }
    }

    /// As [`Trainer::on`], with all weights made up on the device: for benchmarks.
    ///
    /// # Errors
    /// As there.
    pub fn on_made_up(
        gpu: &Gpu,
        config: &ModelConfig,
        settings: TrainSettings,
    ) -> Result<Trainer, LmError> {
        if matches!(settings.method, Method::Lora(_)) {
            let base = Under::Shared(Base::made_up(gpu, config)?);
            return Trainer::on(gpu, config, base, None, settings, Seed::root(1));
        }
        let store = Store::moving_made_up(gpu, config)?;
        Ok(Trainer::over(store, settings))
    }

    /// Steps taken, also before a restart.
    pub fn step(&self) -> u32 {
        self.seat.step()
    }

    /// The full weights; with an adapter in training, the frozen ones below it.
    ///
    /// # Errors
    /// When a tensor cannot be made.
    pub fn weights(&self) -> Result<Weights, LmError> {
        self.seat.base()
    }

    /// The adapter, where one is trained.
    ///
    /// # Errors
    /// When a tensor cannot be made.
    pub fn adapter(&self) -> Result<Option<Weights>, LmError> {
        matches!(self.settings.method, Method::Lora(_)).then(|| self.seat.adapter()).transpose()
    }

    /// The optimiser's state, to be saved.
    ///
    /// # Errors
    /// When a tensor cannot be made.
    pub fn optimizer_state(&self) -> Result<Weights, LmError> {
        self.seat.optimizer_state()
    }

    /// Goes on with a saved state, of whichever device.
    ///
    /// # Errors
    /// When the state is damaged.
    pub fn restore_optimizer(&mut self, state: &Weights) -> Result<(), LmError> {
        self.seat.restore_optimizer(state)
    }

    /// What did not fit on the device since the last call.
    pub fn short_of_memory(&mut self) -> Vec<ShortOfMemory> {
        self.seat.short_of_memory()
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
        self.take(&[Work::sft(batch, 1.0)], cancel)
    }

    /// A preference step, with supervised rows rehearsed beside it when there are any.
    ///
    /// # Errors
    /// As [`Trainer::sft_step`].
    pub fn dpo_step(
        &mut self,
        batch: &[DpoExample],
        rehearsal: &[WeightedSequence],
        dpo: &DpoSettings,
        cancel: &Cancel,
    ) -> Result<StepReport, LmError> {
        let mut works = vec![Work::dpo(batch, dpo)];
        if dpo.rehearsal_weight > 0.0 && !rehearsal.is_empty() {
            works.push(Work::sft(rehearsal, dpo.rehearsal_weight));
        }
        self.take(&works, cancel)
    }

    /// A step whose loss is the sum of these, and whose other figures are the first one's.
    fn take(&mut self, works: &[Work<'_>], cancel: &Cancel) -> Result<StepReport, LmError> {
        let all = self.seat.gradients(works, cancel)?;
        let mut figures = all.first().copied().unwrap_or_default();
        for more in all.iter().skip(1) {
            figures.loss += more.loss;
            figures.num_tokens += more.num_tokens;
        }
        Ok(match self.seat.apply(&self.settings.optimizer, &mut figures)? {
            Ok(()) => StepReport::Taken(figures),
            Err(reason) => StepReport::Skipped { reason },
        })
    }

    fn computed(&mut self, work: &Work<'_>) -> Result<StepMetrics, LmError> {
        let all = self.seat.gradients(&[*work], &Cancel::default())?;
        Ok(all.first().copied().unwrap_or_default())
    }

    /// The gradients of a supervised batch by tensor name, flat; nothing moves.
    ///
    /// # Errors
    /// As [`Trainer::sft_step`].
    pub fn sft_gradient(
        &mut self,
        batch: &[WeightedSequence],
    ) -> Result<BTreeMap<String, Vec<f32>>, LmError> {
        self.computed(&Work::sft(batch, 1.0))?;
        self.seat.named_gradients()
    }

    /// The gradients of a preference batch by tensor name, flat; nothing moves.
    ///
    /// # Errors
    /// As [`Trainer::sft_step`].
    pub fn dpo_gradient(
        &mut self,
        batch: &[DpoExample],
        dpo: &DpoSettings,
    ) -> Result<BTreeMap<String, Vec<f32>>, LmError> {
        self.computed(&Work::dpo(batch, dpo))?;
        self.seat.named_gradients()
    }

    /// Refuses to begin unless every moving tensor gets a finite gradient that is not zero: an op
    /// without a backward would cut the graph silently. (A fresh adapter's A has a zero gradient
    /// because its B is zero; there B is what counts.)
    ///
    /// # Errors
    /// [`LmError::Training`] naming the tensors.
    pub fn check_gradient_coverage(&mut self, batch: &[WeightedSequence]) -> Result<(), LmError> {
        let grads = self.sft_gradient(batch)?;
        let exempt = |name: &str| name.ends_with("lora_A.weight");
        let good = |g: &Vec<f32>| g.iter().all(|v| v.is_finite()) && g.iter().any(|v| *v != 0.0);
        let bad: Vec<&str> = grads
            .iter()
            .filter(|(name, grad)| !exempt(name) && !good(grad))
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
        let found = self.computed(&Work::dpo(batch, &plain))?.loss;
        let losses = batch.iter().map(|pair| initial_loss(dpo.loss, pair.belief));
        let expected = losses.sum::<f64>() / batch.len().max(1) as f64;
        if (found - expected).abs() <= self.seat.rounding() * expected {
            return Ok(());
        }
        Err(LmError::Training(format!(
            "the first loss is {found:.6} and must be {expected:.6}: the reference is not the \
             policy this iteration starts from"
        )))
    }
}

/// Parts that a batch is dealt out to on `threads` threads: one, or of a small model (its bytes are
/// few) one for each.
pub fn lanes_of(model_bytes: usize, threads: usize) -> usize {
    if model_bytes < SMALL_MODEL_BYTES { threads.max(1) } else { 1 }
}

fn lora_of(
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
