//! One optimiser step at a time: supervised rows or preference pairs in, moved weights out.
//!
//! A large model computes a batch in micro-batches that fit into memory, one after another, all
//! threads in each product. A small one, whose products are too small to be shared, gives each
//! thread a part of the batch. Gradients are added in order, so the result is the same, bit for
//! bit, for a fixed thread count. A non-finite loss or gradient changes nothing.

use super::cancel::Cancel;
use super::config::ModelConfig;
pub use super::decoder::LOGIT_BYTES_MAX;
use super::decoder::{Decoder, Gradients, Id, PackedRows, Parameter, Slopes, Workspace};
use super::error::LmError;
use super::logp::{Scored, rows_of};
use super::lora::{self, Lora, LoraSettings};
pub use super::loss::DpoSettings;
use super::loss::{LossType, PairLogps, pair_loss};
use super::optimizer::{AdamW, Moving, OptimizerSettings, global_norm};
use super::weights::Weights;
use crate::domain::Seed;
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

/// Figures of a step, by TRL's names.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[expect(missing_docs, reason = "documented at domain::event::StepMetrics")]
pub struct StepFigures {
    pub loss: f64,
    pub learning_rate: f64,
    pub grad_norm: f64,
    pub rewards_chosen: f64,
    pub rewards_rejected: f64,
    pub rewards_accuracy: f64,
    pub rewards_margin: f64,
    pub logps_chosen: f64,
    pub logps_rejected: f64,
    pub num_tokens: u64,
}

/// What became of a step.
#[derive(Clone, Debug, PartialEq)]
pub enum StepReport {
    /// Weights moved.
    Taken(StepFigures),
    /// Non-finite numbers; nothing changed.
    Skipped {
        /// Which number.
        reason: String,
    },
}

/// A micro-batch that did not fit on the device and was taken again in parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShortOfMemory {
    /// Rows of the largest part.
    pub rows: usize,
    /// What the device said.
    pub reason: String,
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

/// One thread, or all of them, with what it computes in.
struct Lane {
    pool: rayon::ThreadPool,
    space: Workspace,
    grads: Gradients,
}

/// Computes a part of a batch and adds its gradients.
type Compute<'a, T> = dyn Fn(&Decoder, &[T], To<'_>) -> Result<StepFigures, LmError> + Sync + 'a;

/// Weights in training.
pub struct Trainer {
    settings: TrainSettings,
    decoder: Decoder,
    adamw: AdamW,
    lanes: Vec<Lane>,
    short: Vec<ShortOfMemory>,
}

impl Trainer {
    /// A trainer that starts at `weights`, and at `adapter` when one is trained and there is one;
    /// else a fresh adapter is drawn from `seed`.
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
        let lora = match (&settings.method, adapter) {
            (Method::Full, None) => None,
            (Method::Full, Some(_)) => {
                let what = "full training cannot start from an adapter; merge it first";
                return Err(LmError::Training(what.to_owned()));
            }
            (Method::Lora(lora), Some(adapter)) => Some(Lora::new(adapter, lora)?),
            (Method::Lora(lora), None) => Some(Lora::new(&lora::fresh(config, lora, seed)?, lora)?),
        };
        let decoder = Decoder::new(config, weights, lora.as_ref())?;
        let lanes = lanes(&decoder, &settings)?;
        Ok(Trainer { settings, decoder, adamw: AdamW::default(), lanes, short: Vec::new() })
    }

    /// Steps taken, also before a restart.
    pub fn step(&self) -> u32 {
        self.adamw.step()
    }

    /// Where memory was short since this was asked last.
    pub fn short_of_memory(&mut self) -> Vec<ShortOfMemory> {
        std::mem::take(&mut self.short)
    }

    fn tensors(&self, low_rank: bool) -> Result<Weights, LmError> {
        let parameters = self.decoder.parameters.iter().filter(|p| p.low_rank == low_rank);
        let named = parameters.map(|p| Ok((p.name.clone(), p.tensor()?)));
        Ok(Weights(named.collect::<Result<_, LmError>>()?))
    }

    /// The full weights; with an adapter in training, the frozen ones below it.
    ///
    /// # Errors
    /// When a tensor cannot be made.
    pub fn weights(&self) -> Result<Weights, LmError> {
        self.tensors(false)
    }

    /// The adapter, where one is trained.
    ///
    /// # Errors
    /// When a tensor cannot be made.
    pub fn adapter(&self) -> Result<Option<Weights>, LmError> {
        matches!(self.settings.method, Method::Lora(_)).then(|| self.tensors(true)).transpose()
    }

    /// The optimiser's state, to be saved.
    ///
    /// # Errors
    /// When a tensor cannot be made.
    pub fn optimizer_state(&self) -> Result<Weights, LmError> {
        self.adamw.state()
    }

    /// Goes on with a saved state.
    ///
    /// # Errors
    /// When the state is damaged.
    pub fn restore_optimizer(&mut self, state: &Weights) -> Result<(), LmError> {
        self.adamw = AdamW::from_state(state)?;
        Ok(())
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
        let figures = self.sft_gradients(batch, 1.0, cancel)?;
        Ok(self.apply(figures))
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
        let mut figures = self.dpo_gradients(batch, dpo, cancel)?;
        if dpo.rehearsal_weight > 0.0 && !rehearsal.is_empty() {
            let extra = self.added_sft_gradients(rehearsal, dpo.rehearsal_weight, cancel)?;
            figures.loss += extra.loss;
            figures.num_tokens += extra.num_tokens;
        }
        Ok(self.apply(figures))
    }

    /// The gradients of a supervised batch by tensor name, flat; nothing moves.
    ///
    /// # Errors
    /// As [`Trainer::sft_step`].
    pub fn sft_gradient(
        &mut self,
        batch: &[WeightedSequence],
    ) -> Result<BTreeMap<String, Vec<f32>>, LmError> {
        self.sft_gradients(batch, 1.0, &Cancel::default())?;
        Ok(self.named_gradients())
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
        self.dpo_gradients(batch, dpo, &Cancel::default())?;
        Ok(self.named_gradients())
    }

    fn named_gradients(&mut self) -> BTreeMap<String, Vec<f32>> {
        let name = |id: Id| self.decoder.parameters[id].name.clone();
        let all = self.lanes.iter_mut().take(1).flat_map(|lane| lane.grads.all());
        all.map(|(id, grad)| (name(id), grad.to_vec())).collect()
    }

    /// Moves the weights by the first lane's gradients, where all is finite.
    fn apply(&mut self, mut figures: StepFigures) -> StepReport {
        let Trainer { settings, decoder, adamw, lanes, .. } = self;
        // The optimiser's pass is bound by memory: it takes all threads, whoever computed.
        let Some(lane) = lanes.first_mut() else {
            return StepReport::Skipped { reason: "no threads".to_owned() };
        };
        let grads = lane.grads.all();
        let all_threads =
            |f: &mut (dyn FnMut() -> Result<f64, String> + Send)| match settings.threads {
                0 | 1 => lane.pool.install(f),
                _ => f(),
            };
        let mut step = || {
            figures.grad_norm = global_norm(grads.iter().map(|(_, grad)| *grad));
            if !figures.loss.is_finite() || !figures.grad_norm.is_finite() {
                return Err(format!(
                    "loss {} with gradient norm {}",
                    figures.loss, figures.grad_norm
                ));
            }
            let mut by_id: BTreeMap<Id, &[f32]> = grads.iter().copied().collect();
            let moving = decoder.parameters.iter_mut().enumerate().filter_map(|(id, p)| {
                let grad = by_id.remove(&id)?;
                Some(Moving { name: &p.name, value: &mut p.value, grad })
            });
            adamw.update(&settings.optimizer, &mut moving.collect::<Vec<_>>(), figures.grad_norm)
        };
        match all_threads(&mut step) {
            Ok(rate) => {
                figures.learning_rate = rate;
                StepReport::Taken(figures)
            }
            Err(reason) => StepReport::Skipped { reason },
        }
    }

    fn sft_gradients(
        &mut self,
        batch: &[WeightedSequence],
        weight: f64,
        cancel: &Cancel,
    ) -> Result<StepFigures, LmError> {
        self.clear_gradients();
        self.added_sft_gradients(batch, weight, cancel)
    }

    fn clear_gradients(&mut self) {
        self.lanes.iter_mut().for_each(|lane| lane.grads.clear());
    }

    fn added_sft_gradients(
        &mut self,
        batch: &[WeightedSequence],
        weight: f64,
        cancel: &Cancel,
    ) -> Result<StepFigures, LmError> {
        let total: f64 =
            batch.iter().flat_map(|s| s.weights.iter().skip(1)).map(|w| f64::from(*w)).sum();
        let scale = weight / total.max(1e-12);
        let rows = |row: &WeightedSequence| row.ids.len();
        self.share_out(batch, rows, cancel, &|decoder, part, to| sft_part(decoder, part, scale, to))
    }

    fn dpo_gradients(
        &mut self,
        batch: &[DpoExample],
        dpo: &DpoSettings,
        cancel: &Cancel,
    ) -> Result<StepFigures, LmError> {
        self.clear_gradients();
        let scale = 1.0 / batch.len().max(1) as f64;
        let rows = |e: &DpoExample| e.prompt.len() + e.chosen.len() + e.rejected.len();
        let compute = |decoder: &Decoder, part: &[DpoExample], to: To<'_>| {
            dpo_part(decoder, part, (dpo, scale), to)
        };
        self.share_out(batch, rows, cancel, &compute)
    }

    /// Deals `batch` out to the lanes in nearly equal parts, cuts each part into micro-batches
    /// that fit in [`MICRO_BATCH_BYTES`], computes the parts side by side, and adds the gradients
    /// to the first lane's, in order.
    fn share_out<T: Sync>(
        &mut self,
        batch: &[T],
        rows: impl Fn(&T) -> usize + Sync,
        cancel: &Cancel,
        compute: &Compute<'_, T>,
    ) -> Result<StepFigures, LmError> {
        cancel.check()?;
        let decoder = &self.decoder;
        let size = batch.len().div_ceil(self.lanes.len()).max(1);
        let checkpointing = self.settings.gradient_checkpointing;
        let per_row = activation_bytes_per_row(decoder.config(), checkpointing).max(1);
        let most = MICRO_BATCH_BYTES / per_row / self.lanes.len();
        let part_figures = |part: &[T], space: &mut Workspace, grads: &mut Gradients| {
            let mut sum = StepFigures::default();
            for micro in micro_batches(part, &rows, most) {
                cancel.check()?;
                add_figures(&mut sum, &compute(decoder, micro, (&mut *space, &mut *grads))?);
            }
            Ok(sum)
        };
        let parts = batch.chunks(size).zip(&mut self.lanes);
        let figures: Vec<Result<StepFigures, LmError>> = std::thread::scope(|scope| {
            let running: Vec<_> = parts
                .map(|(part, Lane { pool, space, grads })| {
                    let part_figures = &part_figures;
                    scope.spawn(move || pool.install(|| part_figures(part, space, grads)))
                })
                .collect();
            let lost = || Err(LmError::Training("a training thread panicked".to_owned()));
            running.into_iter().map(|thread| thread.join().unwrap_or_else(|_| lost())).collect()
        });
        cancel.check()?;
        let mut sum = StepFigures::default();
        for figures in figures {
            add_figures(&mut sum, &figures?);
        }
        if let Some((first, more)) = self.lanes.split_first_mut() {
            for lane in more {
                first.grads.add_all(&lane.grads);
                lane.grads.clear();
            }
        }
        Ok(sum)
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
        let plain = DpoSettings { nll_weight: 0.0, label_smoothing: 0.0, ..*dpo };
        let found = self.dpo_gradients(batch, &plain, &Cancel::default())?.loss;
        let expected = match dpo.loss_type {
            LossType::Sigmoid => std::f64::consts::LN_2,
            LossType::Hinge => 1.0,
            LossType::Ipo => (1.0 / (2.0 * dpo.beta)).powi(2),
        };
        if (found - expected).abs() <= 1e-3 * expected {
            return Ok(());
        }
        Err(LmError::Training(format!(
            "the first loss is {found:.6} and must be {expected:.6}: the reference is not the \
             policy this iteration starts from"
        )))
    }
}

/// Where a part's activations and gradients go.
type To<'a> = (&'a mut Workspace, &'a mut Gradients);

/// Parts that a batch is dealt out to on `threads` threads: one, or of a small model (its bytes are
/// few) one for each.
pub fn lanes_of(model_bytes: usize, threads: usize) -> usize {
    if model_bytes < SMALL_MODEL_BYTES { threads.max(1) } else { 1 }
}

fn lanes(decoder: &Decoder, settings: &TrainSettings) -> Result<Vec<Lane>, LmError> {
    let numbers: usize = decoder.parameters.iter().map(|p| p.value.len()).sum();
    let threads = settings.threads.max(1);
    let lanes = lanes_of(numbers * size_of::<f32>(), threads);
    let each = threads / lanes;
    let full = settings.method == Method::Full;
    let moves = |p: &Parameter| full || p.low_rank;
    let lane = |_| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(each).build();
        Ok(Lane {
            pool: pool.map_err(|e| LmError::Training(format!("no threads: {e}")))?,
            space: Workspace::new(settings.gradient_checkpointing),
            grads: Gradients::new(&decoder.parameters, moves),
        })
    };
    (0..lanes).map(lane).collect()
}

fn sft_part(
    decoder: &Decoder,
    batch: &[WeightedSequence],
    scale: f64,
    to: To<'_>,
) -> Result<StepFigures, LmError> {
    let (mut rows, mut scored) = (PackedRows::default(), Scored::default());
    let (mut weights, mut tokens) = (Vec::new(), 0);
    for sequence in batch {
        let scoring = sequence.ids.iter().zip(&sequence.weights).enumerate().skip(1);
        let scoring: Vec<_> = scoring.filter(|(_, (_, w))| **w != 0.0).collect();
        let Some((last, _)) = scoring.last() else { continue };
        // What comes after the last scored token, and that token itself, predict nothing.
        let placed = rows.push(&sequence.ids[..*last]);
        tokens += sequence.ids.len() as u64;
        for (at, (id, weight)) in scoring {
            scored.push(placed.start + at - 1, *id);
            weights.push(-(f64::from(*weight) * scale) as f32);
        }
        scored.end_unit();
    }
    let mut figures = StepFigures { num_tokens: tokens, ..StepFigures::default() };
    if scored.at.is_empty() {
        return Ok(figures);
    }
    let mut slopes = |unit: usize, logps: &[f32]| {
        let weights = &weights[scored.unit(unit)];
        let terms = logps.iter().zip(weights).map(|(l, w)| f64::from(*l) * f64::from(*w));
        figures.loss += terms.sum::<f64>();
        weights.to_vec()
    };
    decoder.differentiate(&rows, &scored, &mut slopes as Slopes<'_>, to)?;
    Ok(figures)
}

/// A pair is a family: its prompt once, then both completions.
fn dpo_part(
    decoder: &Decoder,
    batch: &[DpoExample],
    (dpo, scale): (&DpoSettings, f64),
    to: To<'_>,
) -> Result<StepFigures, LmError> {
    let (mut rows, mut scored) = (PackedRows::default(), Scored::default());
    let mut figures = StepFigures::default();
    for example in batch {
        if example.prompt.is_empty() {
            return Err(LmError::Training("a pair has an empty prompt".to_owned()));
        }
        let before = rows.ids.len() + example.prompt.len() - 1;
        let both = [example.chosen.as_slice(), &example.rejected];
        let firsts = rows.push_family(&example.prompt, &both.map(rows_of));
        for (response, first) in both.into_iter().zip(firsts) {
            scored.push_response(before, first, response);
            figures.num_tokens += (example.prompt.len() + response.len()) as u64;
        }
        scored.end_unit();
    }
    let mut slopes = |unit: usize, logps: &[f32]| {
        let example = &batch[unit];
        let (chosen, rejected) = logps.split_at(example.chosen.len());
        let sum = |logps: &[f32]| logps.iter().map(|l| f64::from(*l)).sum::<f64>();
        let pair = PairLogps {
            chosen: sum(chosen),
            rejected: sum(rejected),
            reference_chosen: example.reference_chosen,
            reference_rejected: example.reference_rejected,
            tokens_chosen: chosen.len(),
            tokens_rejected: rejected.len(),
        };
        let loss = pair_loss(&pair, dpo);
        note(&mut figures, &pair, loss.loss, dpo.beta, scale);
        let mut slopes = vec![(loss.d_chosen * scale) as f32; chosen.len()];
        slopes.resize(logps.len(), (loss.d_rejected * scale) as f32);
        slopes
    };
    decoder.differentiate(&rows, &scored, &mut slopes, to)?;
    Ok(figures)
}

fn note(figures: &mut StepFigures, pair: &PairLogps, loss: f64, beta: f64, scale: f64) {
    let chosen = beta * (pair.chosen - pair.reference_chosen);
    let rejected = beta * (pair.rejected - pair.reference_rejected);
    figures.loss += loss * scale;
    figures.rewards_chosen += chosen * scale;
    figures.rewards_rejected += rejected * scale;
    figures.rewards_margin += (chosen - rejected) * scale;
    figures.rewards_accuracy += if chosen > rejected { scale } else { 0.0 };
    figures.logps_chosen += pair.chosen * scale;
    figures.logps_rejected += pair.rejected * scale;
}

/// Cuts a part where its tokens would pass `most`; what is longer alone stands alone.
fn micro_batches<'a, T>(part: &'a [T], tokens: &impl Fn(&T) -> usize, most: usize) -> Vec<&'a [T]> {
    let mut cuts = Vec::new();
    let (mut from, mut held) = (0, 0);
    for (at, item) in part.iter().enumerate() {
        let size = tokens(item);
        if at > from && held + size > most {
            cuts.extend(part.get(from..at));
            (from, held) = (at, 0);
        }
        held += size;
    }
    cuts.extend(part.get(from..).filter(|rest| !rest.is_empty()));
    cuts
}

fn add_figures(sum: &mut StepFigures, more: &StepFigures) {
    sum.loss += more.loss;
    sum.rewards_chosen += more.rewards_chosen;
    sum.rewards_rejected += more.rewards_rejected;
    sum.rewards_margin += more.rewards_margin;
    sum.rewards_accuracy += more.rewards_accuracy;
    sum.logps_chosen += more.logps_chosen;
    sum.logps_rejected += more.logps_rejected;
    sum.num_tokens += more.num_tokens;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lm::config::Architecture;
    use crate::lm::decoder::{InitSettings, random_weights};
    use crate::lm::logp::sequence_logps;
    use crate::lm::optimizer::Schedule;
    use crate::lm::weights::WeightDtype;

    fn config() -> ModelConfig {
        ModelConfig {
            architecture: Architecture::default(),
            rope_scaling: None,
            vocab_size: 32,
            hidden_size: 16,
            intermediate_size: 24,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            num_key_value_heads: 2,
            head_dim: 4,
            rms_norm_eps: 1e-5,
            rope_theta: 10000.0,
            max_position_embeddings: 64,
            tie_word_embeddings: false,
            bos_token_id: Some(0),
            eos_token_ids: vec![1],
        }
    }

    fn weights() -> Weights {
        let init = InitSettings { embedding_std: 0.3, residual_scale: 0.5 };
        random_weights(&config(), Seed::root(1), init).unwrap()
    }

    fn trainer(method: Method, threads: usize) -> Trainer {
        let optimizer = OptimizerSettings {
            learning_rate: 1e-2,
            schedule: Schedule::Cosine,
            warmup_steps: 2,
            steps_total: 40,
            ..OptimizerSettings::default()
        };
        let settings = TrainSettings { method, optimizer, threads, gradient_checkpointing: false };
        Trainer::new(&config(), weights(), None, settings, Seed::root(2)).unwrap()
    }

    fn values(trainer: &Trainer) -> Vec<Vec<f32>> {
        trainer.decoder.parameters.iter().map(|p| p.value.clone()).collect()
    }

    fn lora() -> Method {
        let target_modules = ["q_proj", "v_proj", "down_proj"].map(str::to_owned).to_vec();
        Method::Lora(LoraSettings { r: 2, alpha: 4.0, target_modules })
    }

    fn rows() -> Vec<WeightedSequence> {
        (0..6u32)
            .map(|i| WeightedSequence {
                ids: (0..7).map(|j| (i * 5 + j * 3) % 32).collect(),
                weights: vec![0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0],
            })
            .collect()
    }

    fn pairs(weights: &Weights) -> Vec<DpoExample> {
        let decoder = Decoder::new(&config(), weights.clone(), None).unwrap();
        let logp = |prompt: &[u32], response: &[u32]| {
            let one = [(prompt.to_vec(), response.to_vec())];
            sequence_logps(&decoder, &one, &Cancel::default()).unwrap()[0]
        };
        (0..4u32)
            .map(|i| {
                let (prompt, chosen, rejected) =
                    (vec![0, i + 2], vec![i + 3, 9, 1], vec![i + 7, 1]);
                DpoExample {
                    reference_chosen: logp(&prompt, &chosen),
                    reference_rejected: logp(&prompt, &rejected),
                    prompt,
                    chosen,
                    rejected,
                }
            })
            .collect()
    }

    const DPO: DpoSettings = DpoSettings {
        beta: 0.1,
        loss_type: LossType::Sigmoid,
        label_smoothing: 0.0,
        nll_weight: 0.0,
        rehearsal_weight: 0.5,
    };

    fn loss(report: StepReport) -> f64 {
        match report {
            StepReport::Taken(figures) => figures.loss,
            StepReport::Skipped { reason } => panic!("{reason}"),
        }
    }

    #[test]
    fn every_tensor_learns_and_the_loss_falls() {
        for method in [Method::Full, lora()] {
            let mut t = trainer(method, 2);
            t.check_gradient_coverage(&rows()).unwrap();
            let first = loss(t.sft_step(&rows(), &Cancel::default()).unwrap());
            for _ in 0..25 {
                t.sft_step(&rows(), &Cancel::default()).unwrap();
            }
            let last = loss(t.sft_step(&rows(), &Cancel::default()).unwrap());
            assert!(last < first - 0.2, "{first} to {last}");
        }
    }

    #[test]
    fn a_step_that_would_not_be_finite_changes_nothing() {
        for method in [Method::Full, lora()] {
            let mut t = trainer(method, 1);
            t.sft_step(&rows(), &Cancel::default()).unwrap();
            t.settings.optimizer.learning_rate = 1e300;
            let state = |t: &Trainer| {
                let optimizer = t.optimizer_state().unwrap().to_bytes(WeightDtype::F32).unwrap();
                (values(t), optimizer)
            };
            let before = state(&t);
            let report = t.sft_step(&rows(), &Cancel::default()).unwrap();
            assert!(matches!(report, StepReport::Skipped { .. }), "{report:?}");
            assert!(state(&t) == before);
            // A gradient whose square is not finite would leave an infinite moment behind.
            t.settings.optimizer.learning_rate = 1e-3;
            t.settings.optimizer.max_grad_norm = 0.0;
            let lane = &mut t.lanes[0];
            lane.grads.clear();
            let ids: Vec<Id> = lane.grads.all().into_iter().map(|(id, _)| id).collect();
            for id in &ids {
                let value = if *id == ids[0] { 1e30 } else { 0.1 };
                lane.grads.sums(*id).unwrap().fill(value);
            }
            let report = t.apply(StepFigures { loss: 1.0, ..StepFigures::default() });
            assert!(
                matches!(&report, StepReport::Skipped { reason } if reason.contains("moments")),
                "{report:?}"
            );
            assert!(state(&t) == before);
        }
    }

    #[test]
    fn preference_steps_begin_at_ln_2_and_widen_the_margin() {
        let pairs = pairs(&weights());
        let mut t = trainer(Method::Full, 2);
        t.check_initial_dpo_loss(&pairs, &DPO).unwrap();
        let settings = DpoSettings { rehearsal_weight: 0.0, ..DPO };
        let first = loss(t.dpo_step(&pairs, &[], &settings, &Cancel::default()).unwrap());
        assert!((first - std::f64::consts::LN_2).abs() < 1e-5);
        for _ in 0..10 {
            t.dpo_step(&pairs, &rows(), &DPO, &Cancel::default()).unwrap();
        }
        match t.dpo_step(&pairs, &[], &settings, &Cancel::default()).unwrap() {
            StepReport::Taken(f) => {
                assert!(f.rewards_margin > 0.1 && f.rewards_accuracy == 1.0, "{f:?}");
            }
            StepReport::Skipped { reason } => panic!("{reason}"),
        }
    }

    #[test]
    fn a_wrong_reference_is_refused() {
        let mut pairs = pairs(&weights());
        pairs[0].reference_chosen -= 3.0;
        let error = trainer(Method::Full, 1).check_initial_dpo_loss(&pairs, &DPO).unwrap_err();
        assert!(error.to_string().contains("must be 0.693147"), "{error}");
    }

    #[test]
    fn five_steps_and_a_restart_equal_ten_steps_bit_for_bit() {
        let bits =
            |t: &Trainer| -> Vec<u32> { values(t).iter().flatten().map(|v| v.to_bits()).collect() };
        for method in [Method::Full, lora()] {
            let mut whole = trainer(method.clone(), 2);
            (0..10).for_each(|_| drop(whole.sft_step(&rows(), &Cancel::default()).unwrap()));
            let mut half = trainer(method, 2);
            (0..5).for_each(|_| drop(half.sft_step(&rows(), &Cancel::default()).unwrap()));
            let saved = half.optimizer_state().unwrap().to_bytes(WeightDtype::F32).unwrap();
            let state = Weights::from_bytes(&saved).unwrap();
            let mut rest = Trainer::new(
                &config(),
                half.weights().unwrap(),
                half.adapter().unwrap().as_ref(),
                half.settings.clone(),
                Seed::root(2),
            )
            .unwrap();
            rest.restore_optimizer(&state).unwrap();
            (0..5).for_each(|_| drop(rest.sft_step(&rows(), &Cancel::default()).unwrap()));
            assert_eq!(bits(&whole), bits(&rest));
        }
    }

    #[test]
    fn what_is_not_finite_changes_nothing() {
        let mut t = trainer(Method::Full, 1);
        let mut bad = rows();
        bad[0].weights[3] = f32::INFINITY;
        let before = values(&t);
        let report = t.sft_step(&bad, &Cancel::default()).unwrap();
        assert!(matches!(report, StepReport::Skipped { .. }), "{report:?}");
        assert_eq!(before, values(&t));
        assert_eq!(t.step(), 0);
    }

    #[test]
    fn parts_are_cut_where_they_would_not_fit() {
        let cut = |sizes: &[usize], most| {
            let parts = micro_batches(sizes, &|size: &usize| *size, most);
            parts.into_iter().map(<[usize]>::to_vec).collect::<Vec<_>>()
        };
        assert_eq!(cut(&[3, 3, 3], 9), [vec![3, 3, 3]]);
        assert_eq!(cut(&[3, 3, 3], 8), [vec![3, 3], vec![3]]);
        assert_eq!(cut(&[20, 1, 1], 8), [vec![20], vec![1, 1]], "what is longer stands alone");
        assert!(cut(&[], 8).is_empty());
    }

    #[test]
    fn the_base_below_an_adapter_does_not_move() {
        let mut t = trainer(lora(), 1);
        (0..3).for_each(|_| drop(t.sft_step(&rows(), &Cancel::default()).unwrap()));
        for (name, tensor) in &weights().0 {
            let now = t.weights().unwrap().0[name].flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert_eq!(now, tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap());
        }
    }
}
