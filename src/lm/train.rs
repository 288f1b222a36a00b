//! One optimiser step at a time: supervised rows or preference pairs in, moved weights out.
//!
//! A step's batch is cut into as many micro-batches as there are threads, each with a graph of its
//! own over the same tensors; their gradients are added in order, so the result is the same, bit
//! for bit, for a fixed thread count. A non-finite loss or gradient changes nothing.

use super::cancel::Cancel;
use super::config::ModelConfig;
use super::decoder::{Decoder, PackedRows};
use super::error::LmError;
use super::logp::Scored;
use super::lora::{self, Lora, LoraSettings};
pub use super::loss::DpoSettings;
use super::loss::{LossType, PairLogps, pair_loss};
use super::optimizer::{AdamW, OptimizerSettings, global_norm};
use super::weights::Weights;
use crate::domain::Seed;
use candle_core::{Device, Tensor, Var};
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
    /// Micro-batches computed side by side.
    pub threads: usize,
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

/// Gradients by name and the figures that came with them.
#[derive(Default)]
struct Share {
    grads: BTreeMap<String, Vec<f32>>,
    figures: StepFigures,
}

impl Share {
    fn add(&mut self, more: Share) {
        add_figures(&mut self.figures, &more.figures);
        add_gradients(&mut self.grads, more.grads);
    }
}

/// What the activations of one thread's micro-batch may take; their gradients take as much again.
pub const MICRO_BATCH_BYTES: usize = 1 << 30;

/// Bytes the forward pass keeps for the backward one, per token: norms, projections and both
/// halves of the MLP in every layer.
pub fn activation_bytes_per_token(config: &ModelConfig) -> usize {
    let widths = 8 * config.hidden_size + 4 * config.intermediate_size;
    widths * config.num_hidden_layers * size_of::<f32>()
}

/// Weights in training.
pub struct Trainer {
    config: ModelConfig,
    settings: TrainSettings,
    frozen: Weights,
    /// The moving tensors: what the graph sees.
    vars: BTreeMap<String, Var>,
    /// The same numbers where the optimiser moves them.
    values: BTreeMap<String, Vec<f32>>,
    adamw: AdamW,
    pool: Vec<rayon::ThreadPool>,
}

impl Trainer {
    /// A trainer that starts at `weights`, and at `adapter` when one is trained and there is one;
    /// else a fresh adapter is drawn from `seed`.
    ///
    /// # Errors
    /// When tensors are missing, or the system gives no threads.
    pub fn new(
        config: &ModelConfig,
        weights: &Weights,
        adapter: Option<&Weights>,
        settings: TrainSettings,
        seed: Seed,
    ) -> Result<Trainer, LmError> {
        let (frozen, moving) = match (&settings.method, adapter) {
            (Method::Full, None) => (Weights(BTreeMap::new()), weights.clone()),
            (Method::Full, Some(_)) => {
                let what = "full training cannot start from an adapter; merge it first";
                return Err(LmError::Training(what.to_owned()));
            }
            (Method::Lora(_), Some(adapter)) => (weights.clone(), adapter.clone()),
            (Method::Lora(lora), None) => (weights.clone(), lora::fresh(config, lora, seed)?),
        };
        let mut vars = BTreeMap::new();
        let mut values = BTreeMap::new();
        for (name, tensor) in &moving.0 {
            // A copy of its own: a Var shares storage with the tensor it is made from.
            vars.insert(name.clone(), Var::from_tensor(&tensor.copy()?)?);
            values.insert(name.clone(), tensor.flatten_all()?.to_vec1::<f32>()?);
        }
        let threads = settings.threads.max(1);
        let one = || rayon::ThreadPoolBuilder::new().num_threads(1).build();
        let pool = (0..threads)
            .map(|_| one().map_err(|e| LmError::Training(format!("no threads: {e}"))))
            .collect::<Result<Vec<_>, _>>()?;
        let config = config.clone();
        Ok(Trainer { config, settings, frozen, vars, values, adamw: AdamW::default(), pool })
    }

    /// Steps taken, also before a restart.
    pub fn step(&self) -> u32 {
        self.adamw.step()
    }

    fn moving(&self) -> Weights {
        Weights(self.vars.iter().map(|(n, v)| (n.clone(), v.as_tensor().clone())).collect())
    }

    /// The full weights; with an adapter in training, the frozen ones below it.
    pub fn weights(&self) -> Weights {
        match self.settings.method {
            Method::Full => self.moving(),
            Method::Lora(_) => self.frozen.clone(),
        }
    }

    /// The adapter, where one is trained.
    pub fn adapter(&self) -> Option<Weights> {
        matches!(self.settings.method, Method::Lora(_)).then(|| self.moving())
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

    fn decoder(&self) -> Result<Decoder, LmError> {
        match &self.settings.method {
            Method::Full => Decoder::new(&self.config, &self.moving(), None),
            Method::Lora(settings) => {
                let lora = Lora::new(&self.moving(), settings)?;
                Decoder::new(&self.config, &self.frozen, Some(&lora))
            }
        }
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
        let share = self.sft_gradients(batch, 1.0, cancel)?;
        Ok(self.apply(share))
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
        let mut share = self.dpo_gradients(batch, dpo, cancel)?;
        if dpo.rehearsal_weight > 0.0 && !rehearsal.is_empty() {
            let extra = self.sft_gradients(rehearsal, dpo.rehearsal_weight, cancel)?;
            share.figures.loss += extra.figures.loss;
            share.figures.num_tokens += extra.figures.num_tokens;
            add_gradients(&mut share.grads, extra.grads);
        }
        Ok(self.apply(share))
    }

    /// The gradients of a supervised batch by tensor name, flat; nothing moves.
    ///
    /// # Errors
    /// As [`Trainer::sft_step`].
    pub fn sft_gradient(
        &self,
        batch: &[WeightedSequence],
    ) -> Result<BTreeMap<String, Vec<f32>>, LmError> {
        Ok(self.sft_gradients(batch, 1.0, &Cancel::default())?.grads)
    }

    /// The gradients of a preference batch by tensor name, flat; nothing moves.
    ///
    /// # Errors
    /// As [`Trainer::sft_step`].
    pub fn dpo_gradient(
        &self,
        batch: &[DpoExample],
        dpo: &DpoSettings,
    ) -> Result<BTreeMap<String, Vec<f32>>, LmError> {
        Ok(self.dpo_gradients(batch, dpo, &Cancel::default())?.grads)
    }

    fn apply(&mut self, share: Share) -> StepReport {
        let mut figures = share.figures;
        figures.grad_norm = global_norm(&share.grads);
        if !figures.loss.is_finite() || !figures.grad_norm.is_finite() {
            let reason = format!("loss {} with gradient norm {}", figures.loss, figures.grad_norm);
            return StepReport::Skipped { reason };
        }
        let before = self.adamw.clone();
        let mut values = self.values.clone();
        let norm = figures.grad_norm;
        figures.learning_rate =
            self.adamw.update(&self.settings.optimizer, &mut values, &share.grads, norm);
        let moments = match self.adamw.is_finite() {
            true => Ok(()),
            false => Err("the optimiser's moments would not be finite".to_owned()),
        };
        match moments.and_then(|()| self.store(values)) {
            Ok(()) => StepReport::Taken(figures),
            Err(reason) => {
                self.adamw = before;
                StepReport::Skipped { reason }
            }
        }
    }

    fn store(&mut self, values: BTreeMap<String, Vec<f32>>) -> Result<(), String> {
        if let Some((name, _)) = values.iter().find(|(_, v)| v.iter().any(|x| !x.is_finite())) {
            return Err(format!("{name} would not be finite"));
        }
        for (name, var) in &self.vars {
            let Some(data) = values.get(name) else { continue };
            Tensor::from_slice(data, var.shape(), &Device::Cpu)
                .and_then(|tensor| var.set(&tensor))
                .map_err(|error| error.to_string())?;
        }
        self.values = values;
        Ok(())
    }

    fn sft_gradients(
        &self,
        batch: &[WeightedSequence],
        weight: f64,
        cancel: &Cancel,
    ) -> Result<Share, LmError> {
        let total: f64 =
            batch.iter().flat_map(|s| s.weights.iter().skip(1)).map(|w| f64::from(*w)).sum();
        let scale = weight / total.max(1e-12);
        let tokens = |row: &WeightedSequence| row.ids.len();
        self.share_out(batch, tokens, cancel, |decoder, part| self.sft_share(decoder, part, scale))
    }

    fn sft_share(
        &self,
        decoder: &Decoder,
        batch: &[WeightedSequence],
        scale: f64,
    ) -> Result<Share, LmError> {
        let mut rows = PackedRows::default();
        let mut scored = Scored::default();
        let mut weights = Vec::new();
        for sequence in batch {
            let placed = rows.push(&sequence.ids);
            let scoring = sequence.ids.iter().zip(&sequence.weights).enumerate().skip(1);
            for (at, (id, weight)) in scoring.filter(|(_, (_, w))| **w != 0.0) {
                scored.push(placed.start + at, &[*id]);
                weights.push((f64::from(*weight) * scale) as f32);
            }
        }
        if scored.at.is_empty() {
            return Ok(Share::default());
        }
        let hidden = decoder.hidden(&rows)?;
        let logps = decoder.logps(&hidden, &scored.at, &scored.targets)?;
        let weights = Tensor::from_vec(weights, scored.at.len(), &Device::Cpu)?;
        let loss = (logps * weights)?.sum_all()?.neg()?;
        let figures = StepFigures {
            loss: f64::from(loss.to_scalar::<f32>()?),
            num_tokens: rows.ids.len() as u64,
            ..StepFigures::default()
        };
        Ok(Share { grads: self.gradients(&loss)?, figures })
    }

    fn dpo_gradients(
        &self,
        batch: &[DpoExample],
        dpo: &DpoSettings,
        cancel: &Cancel,
    ) -> Result<Share, LmError> {
        let scale = 1.0 / batch.len().max(1) as f64;
        let tokens = |e: &DpoExample| 2 * e.prompt.len() + e.chosen.len() + e.rejected.len();
        let compute =
            |decoder: &Decoder, part: &[DpoExample]| self.dpo_share(decoder, part, dpo, scale);
        self.share_out(batch, tokens, cancel, compute)
    }

    fn dpo_share(
        &self,
        decoder: &Decoder,
        batch: &[DpoExample],
        dpo: &DpoSettings,
        scale: f64,
    ) -> Result<Share, LmError> {
        let mut rows = PackedRows::default();
        let mut scored = Scored::default();
        for example in batch {
            if example.prompt.is_empty() {
                return Err(LmError::Training("a pair has an empty prompt".to_owned()));
            }
            for response in [&example.chosen, &example.rejected] {
                let placed = rows.push(&[example.prompt.as_slice(), response].concat());
                scored.push(placed.start + example.prompt.len(), response);
            }
        }
        let hidden = decoder.hidden(&rows)?;
        let logps = decoder.logps(&hidden, &scored.at, &scored.targets)?;
        let mut tokens = logps.to_vec1::<f32>()?.into_iter().map(f64::from);
        let mut figures =
            StepFigures { num_tokens: rows.ids.len() as u64, ..StepFigures::default() };
        let mut slopes = Vec::with_capacity(scored.at.len());
        for example in batch {
            let pair = PairLogps {
                chosen: tokens.by_ref().take(example.chosen.len()).sum(),
                rejected: tokens.by_ref().take(example.rejected.len()).sum(),
                reference_chosen: example.reference_chosen,
                reference_rejected: example.reference_rejected,
                tokens_chosen: example.chosen.len(),
                tokens_rejected: example.rejected.len(),
            };
            let loss = pair_loss(&pair, dpo);
            note(&mut figures, &pair, loss.loss, dpo.beta, scale);
            slopes.extend(std::iter::repeat_n((loss.d_chosen * scale) as f32, pair.tokens_chosen));
            let rejected =
                std::iter::repeat_n((loss.d_rejected * scale) as f32, pair.tokens_rejected);
            slopes.extend(rejected);
        }
        // The loss is a function of the summed log-probabilities whose slopes are known, so
        // `sum(slope * logp)` has exactly its gradient.
        let slopes = Tensor::from_vec(slopes, scored.at.len(), &Device::Cpu)?;
        let grads = self.gradients(&(logps * slopes)?.sum_all()?)?;
        Ok(Share { grads, figures })
    }

    fn gradients(&self, loss: &Tensor) -> Result<BTreeMap<String, Vec<f32>>, LmError> {
        let store = loss.backward()?;
        let mut grads = BTreeMap::new();
        for (name, var) in &self.vars {
            if let Some(grad) = store.get(var.as_tensor()) {
                grads.insert(name.clone(), grad.contiguous()?.flatten_all()?.to_vec1::<f32>()?);
            }
        }
        Ok(grads)
    }

    /// Deals `batch` out to the threads in nearly equal parts, cuts each part into micro-batches
    /// that fit in [`MICRO_BATCH_BYTES`], computes the parts side by side, and adds the shares in
    /// order.
    fn share_out<T: Sync>(
        &self,
        batch: &[T],
        tokens: impl Fn(&T) -> usize + Sync,
        cancel: &Cancel,
        compute: impl Fn(&Decoder, &[T]) -> Result<Share, LmError> + Sync,
    ) -> Result<Share, LmError> {
        cancel.check()?;
        let decoder = self.decoder()?;
        let size = batch.len().div_ceil(self.pool.len()).max(1);
        let most = MICRO_BATCH_BYTES / activation_bytes_per_token(&self.config).max(1);
        let part_share = |part: &[T]| {
            let mut sum = Share::default();
            for micro in micro_batches(part, &tokens, most) {
                cancel.check()?;
                sum.add(compute(&decoder, micro)?);
            }
            Ok(sum)
        };
        let shares: Vec<Result<Share, LmError>> = std::thread::scope(|scope| {
            let running: Vec<_> = batch
                .chunks(size)
                .zip(&self.pool)
                .map(|(part, pool)| {
                    let part_share = &part_share;
                    // One thread per part: candle's matmul splits over the current pool.
                    scope.spawn(move || pool.install(|| part_share(part)))
                })
                .collect();
            let lost = || Err(LmError::Training("a training thread panicked".to_owned()));
            running.into_iter().map(|thread| thread.join().unwrap_or_else(|_| lost())).collect()
        });
        cancel.check()?;
        let mut sum = Share::default();
        for share in shares {
            sum.add(share?);
        }
        Ok(sum)
    }

    /// Refuses to begin unless every moving tensor gets a finite gradient that is not zero: an op
    /// without a backward would cut the graph silently. (A fresh adapter's A has a zero gradient
    /// because its B is zero; there B is what counts.)
    ///
    /// # Errors
    /// [`LmError::Training`] naming the tensors.
    pub fn check_gradient_coverage(&self, batch: &[WeightedSequence]) -> Result<(), LmError> {
        let share = self.sft_gradients(batch, 1.0, &Cancel::default())?;
        let exempt = |name: &str| name.ends_with("lora_A.weight");
        let good = |g: &Vec<f32>| g.iter().all(|v| v.is_finite()) && g.iter().any(|v| *v != 0.0);
        let bad: Vec<&str> = self
            .vars
            .keys()
            .filter(|name| !exempt(name) && !share.grads.get(*name).is_some_and(good))
            .map(String::as_str)
            .collect();
        if bad.is_empty() {
            return Ok(());
        }
        Err(LmError::Training(format!(
            "{} of {} tensors get no usable gradient: {}",
            bad.len(),
            self.vars.len(),
            bad.join(", ")
        )))
    }

    /// Refuses to begin unless the loss before the first step is what policy = reference gives
    /// (ln 2 for the sigmoid loss): anything else means a wrong reference, mask or shift.
    ///
    /// # Errors
    /// [`LmError::Training`] with both numbers.
    pub fn check_initial_dpo_loss(
        &self,
        batch: &[DpoExample],
        dpo: &DpoSettings,
    ) -> Result<(), LmError> {
        let plain = DpoSettings { nll_weight: 0.0, label_smoothing: 0.0, ..*dpo };
        let found = self.dpo_gradients(batch, &plain, &Cancel::default())?.figures.loss;
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

fn add_gradients(sum: &mut BTreeMap<String, Vec<f32>>, more: BTreeMap<String, Vec<f32>>) {
    for (name, grad) in more {
        match sum.get_mut(&name) {
            None => {
                sum.insert(name, grad);
            }
            Some(sum) => sum.iter_mut().zip(&grad).for_each(|(s, g)| *s += g),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lm::decoder::{InitSettings, random_weights};
    use crate::lm::logp::sequence_logps;
    use crate::lm::optimizer::Schedule;
    use crate::lm::weights::WeightDtype;

    fn config() -> ModelConfig {
        ModelConfig {
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
        let settings = TrainSettings { method, optimizer, threads };
        Trainer::new(&config(), &weights(), None, settings, Seed::root(2)).unwrap()
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
        let decoder = Decoder::new(&config(), weights, None).unwrap();
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
                (t.weights().to_bytes(WeightDtype::F32).unwrap(), t.values.clone(), optimizer)
            };
            let before = state(&t);
            let report = t.sft_step(&rows(), &Cancel::default()).unwrap();
            assert!(matches!(report, StepReport::Skipped { .. }), "{report:?}");
            assert!(state(&t) == before);
            // A gradient whose square is not finite would leave an infinite moment behind.
            t.settings.optimizer.learning_rate = 1e-3;
            t.settings.optimizer.max_grad_norm = 0.0;
            let name = t.values.keys().next().unwrap().clone();
            let share = |t: &Trainer| Share {
                grads: t
                    .values
                    .iter()
                    .map(|(n, v)| (n.clone(), vec![if *n == name { 1e30 } else { 0.1 }; v.len()]))
                    .collect(),
                figures: StepFigures { loss: 1.0, ..StepFigures::default() },
            };
            let report = t.apply(share(&t));
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
        let bits = |t: &Trainer| -> Vec<u32> {
            t.values.values().flatten().map(|v| v.to_bits()).collect()
        };
        for method in [Method::Full, lora()] {
            let mut whole = trainer(method.clone(), 2);
            (0..10).for_each(|_| drop(whole.sft_step(&rows(), &Cancel::default()).unwrap()));
            let mut half = trainer(method, 2);
            (0..5).for_each(|_| drop(half.sft_step(&rows(), &Cancel::default()).unwrap()));
            let saved = half.optimizer_state().unwrap().to_bytes(WeightDtype::F32).unwrap();
            let state = Weights::from_bytes(&saved).unwrap();
            let mut rest = Trainer::new(
                &config(),
                &half.weights(),
                half.adapter().as_ref(),
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
        let before = t.values.clone();
        let report = t.sft_step(&bad, &Cancel::default()).unwrap();
        assert!(matches!(report, StepReport::Skipped { .. }), "{report:?}");
        assert_eq!(before, t.values);
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
            let now = t.frozen.0[name].flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert_eq!(now, tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap());
        }
    }
}
