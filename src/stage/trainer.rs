//! Sealed data becomes a checkpoint, a segment of steps at a time. The reference's
//! log-probabilities are computed once per iteration and recorded; a segment's steps and its
//! checkpoint are one append, so a step without its weights is never recorded as done.
//!
//! Departure from the paper: supervised seed rows may be rehearsed beside the pairs
//! (`train.dpo.rehearsal_weight`), and an NLL term on the chosen completion may be added
//! (Iterative RPO, arXiv 2404.19733).

use super::lost::Held;
use super::pair_store::{completions_at, wrong};
use super::workshop::{Saved, Segment, SegmentRequest, StepData, StepResult, skipped_in_a_row};
use super::{Desk, Stage, StageError, Weight, task_key};
use crate::config::{Config, TrainConfig};
use crate::domain::event::{IterationKind, ReferenceLogps, SeedRow};
use crate::domain::{
    Event, Iteration, Offset, PairId, PolicyRef, PreferencePair, PromptId, Seed, TaskKey,
};
use crate::lm::lora::LoraSettings;
use crate::lm::optimizer::OptimizerSettings;
use crate::lm::policy::LanguageModel;
use crate::lm::train::{
    DpoExample, DpoSettings, Method, ShortOfMemory, TrainSettings, WeightedSequence,
};
use crate::view::{IterationView, RunView, SeedFacts};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The trainer stage.
pub struct Trainer {
    config: Arc<Config>,
}

/// Where a sealed pair and its completions are.
#[derive(Clone, Debug)]
pub struct PairPlace {
    prompt: PromptId,
    pair: Offset,
    sampled: Offset,
}

/// What the trainer is asked to do.
#[derive(Clone, Debug)]
pub enum TrainTask {
    /// Score every sealed pair under the reference.
    Reference {
        /// The iteration.
        iteration: Iteration,
        /// The frozen policy.
        reference: PolicyRef,
        /// The sealed pairs.
        pairs: Vec<PairPlace>,
    },
    /// Take the steps `from..to` and save.
    Segment(Box<SegmentPlan>),
}

/// One segment of steps.
#[derive(Clone, Debug)]
pub struct SegmentPlan {
    iteration: Iteration,
    kind: IterationKind,
    start: PolicyRef,
    saved: Option<Saved>,
    from: u32,
    to: u32,
    steps_total: u32,
    pairs: Vec<PairPlace>,
    reference_scored: Option<Offset>,
    seed_data: Vec<SeedFacts>,
    skipped_before: u32,
    taken_before: u32,
    /// Where a rollback goes to.
    good: u32,
    rollbacks: u32,
    held: Option<Held>,
    losses: u32,
}

/// Going back to the last checkpoint is granted so often in an iteration.
const ROLLBACKS_MAX: u32 = 2;

/// What a rollback leaves of the learning rate.
fn rate_scale(rollbacks: u32) -> f64 {
    0.5f64.powi(rollbacks as i32)
}

impl Trainer {
    /// A trainer with these settings.
    pub fn new(config: Arc<Config>) -> Trainer {
        Trainer { config }
    }

    fn rows(&self, view: &RunView, open: &IterationView) -> (u32, u32, u32) {
        match open.kind {
            IterationKind::Sft => {
                let rows = view.seed_data.iter().map(|d| d.rows).sum();
                let sft = &self.config.train.sft;
                (rows, sft.train_batch_size, sft.num_train_epochs)
            }
            IterationKind::Dpo => {
                let pairs = open.sealed.as_ref().map_or(0, Vec::len) as u32;
                let dpo = &self.config.train.dpo;
                (pairs, dpo.train_batch_size, dpo.num_train_epochs)
            }
        }
    }

    fn segment(&self, view: &RunView, iteration: Iteration, open: &IterationView) -> SegmentPlan {
        let (rows, batch, epochs) = self.rows(view, open);
        let steps_total = rows.div_ceil(batch.max(1)) * epochs.max(1);
        let from = open.checkpoint.as_ref().map_or(0, |c| c.step);
        let to = steps_total.min(from + self.config.train.segment_steps.max(1));
        SegmentPlan {
            iteration,
            kind: open.kind,
            start: open.policy.clone(),
            saved: open
                .checkpoint
                .as_ref()
                .map(|c| Saved { policy: c.policy.clone(), optimizer: c.optimizer.clone() }),
            from,
            to,
            steps_total,
            pairs: places(open),
            reference_scored: open.reference_scored,
            seed_data: view.seed_data.clone(),
            skipped_before: open.checkpoint.as_ref().map_or(0, |c| c.skipped_in_a_row),
            taken_before: open.checkpoint.as_ref().map_or(0, |c| c.steps_taken),
            good: open.good.as_ref().map_or(0, |c| c.step),
            rollbacks: open.rollbacks,
            held: Held::of(iteration, open),
            losses: open.losses,
        }
    }
}

fn places(open: &IterationView) -> Vec<PairPlace> {
    open.pairs
        .iter()
        .filter_map(|(prompt, (_, pair))| {
            let sampled = *open.sampled.get(prompt)?;
            Some(PairPlace { prompt: prompt.clone(), pair: *pair, sampled })
        })
        .collect()
}

/// The adapter settings of a run.
pub(crate) fn lora_settings(train: &TrainConfig) -> LoraSettings {
    LoraSettings {
        r: train.lora_r as usize,
        alpha: train.lora_alpha,
        target_modules: train.lora_target_modules.clone(),
    }
}

/// The settings as the model room takes them. The supervised iteration trains all weights: an
/// adapter belongs to the preference iterations.
fn train_settings(train: &TrainConfig, kind: IterationKind, steps_total: u32) -> TrainSettings {
    let (sft, dpo) = (&train.sft, &train.dpo);
    let common = OptimizerSettings { steps_total, ..OptimizerSettings::default() };
    let optimizer = match kind {
        IterationKind::Sft => OptimizerSettings {
            learning_rate: sft.learning_rate,
            schedule: sft.lr_scheduler_type,
            warmup_steps: sft.warmup_steps,
            final_ratio: sft.final_ratio,
            weight_decay: sft.weight_decay,
            max_grad_norm: sft.max_grad_norm,
            ..common
        },
        IterationKind::Dpo => OptimizerSettings {
            learning_rate: dpo.learning_rate,
            schedule: dpo.lr_scheduler_type,
            warmup_steps: dpo.warmup_steps,
            final_ratio: dpo.final_ratio,
            weight_decay: dpo.weight_decay,
            max_grad_norm: dpo.max_grad_norm,
            ..common
        },
    };
    let adapter = train.use_peft && kind == IterationKind::Dpo;
    let method = if adapter { Method::Lora(lora_settings(train)) } else { Method::Full };
    TrainSettings {
        method,
        optimizer,
        threads: train.threads as usize,
        gradient_checkpointing: train.gradient_checkpointing,
    }
}

fn dpo_settings(train: &TrainConfig) -> DpoSettings {
    DpoSettings {
        beta: train.dpo.beta,
        loss_type: train.dpo.loss_type,
        label_smoothing: train.dpo.label_smoothing,
        nll_weight: train.dpo.nll_weight,
        rehearsal_weight: train.dpo.rehearsal_weight,
    }
}

/// The rows of step `step`: a seeded permutation of `rows` for each epoch, cut into batches; the
/// last batch of an epoch may be short.
pub(crate) fn batch_rows(seed: Seed, step: u32, rows: u32, batch: u32) -> Vec<u32> {
    let per_epoch = rows.div_ceil(batch.max(1)).max(1);
    let order = permutation(seed.index(u64::from(step / per_epoch)), rows);
    let at = (step % per_epoch) as usize * batch as usize;
    order.into_iter().skip(at).take(batch as usize).collect()
}

fn permutation(seed: Seed, n: u32) -> Vec<u32> {
    let mut rng = ChaCha8Rng::from_seed(seed.0);
    let mut order: Vec<u32> = (0..n).collect();
    for last in (1..order.len()).rev() {
        // Multiply-shift: the bias of 2^-64 is far below anything that could matter.
        let at = ((u128::from(rng.next_u64()) * (last as u128 + 1)) >> 64) as usize;
        order.swap(last, at);
    }
    order
}

/// A pair with its token ids.
struct Triple {
    id: PairId,
    prompt: Vec<u32>,
    chosen: Vec<u32>,
    rejected: Vec<u32>,
}

fn triple(
    place: &PairPlace,
    model: &dyn LanguageModel,
    view: &RunView,
    desk: &Desk,
) -> Result<Triple, StageError> {
    let pair: PreferencePair = match desk.event(place.pair)? {
        Event::PairFormed { pair, .. } => pair,
        other => return Err(wrong(place.pair, "a pair", &other)),
    };
    let completions = completions_at(desk, place.sampled)?;
    let ids = |index: u32| {
        let completion = completions.get(index as usize);
        completion.map(|c| c.token_ids.clone()).ok_or_else(|| {
            StageError::Missing(format!("completion {index} of prompt {}", place.prompt))
        })
    };
    Ok(Triple {
        chosen: ids(pair.chosen)?,
        rejected: ids(pair.rejected)?,
        prompt: model.encode_chat(&desk.prompt(view, &place.prompt)?.messages)?,
        id: pair.id,
    })
}

fn score_reference(
    iteration: Iteration,
    reference: &PolicyRef,
    pairs: &[PairPlace],
    view: &RunView,
    desk: &Desk,
) -> Result<Vec<Event>, StageError> {
    let model = desk.workshop.policy(reference)?;
    let mut ids = Vec::with_capacity(pairs.len());
    let mut sequences = Vec::with_capacity(2 * pairs.len());
    for place in pairs {
        let triple = triple(place, model.as_ref(), view, desk)?;
        ids.push(triple.id);
        sequences.push((triple.prompt.clone(), triple.chosen));
        sequences.push((triple.prompt, triple.rejected));
    }
    let logps = desk.workshop.logps(reference, &sequences, &desk.cancel)?;
    let logps = ids.into_iter().zip(logps.chunks(2)).filter_map(|(pair, two)| match two {
        [chosen, rejected] => Some(ReferenceLogps { pair, chosen: *chosen, rejected: *rejected }),
        _ => None,
    });
    Ok(vec![Event::ReferenceScored {
        iteration,
        reference: reference.id(),
        logps: logps.collect(),
    }])
}

/// A supervised row as token ids: loss on the answer and its turn end only.
fn sequence(row: &SeedRow, model: &dyn LanguageModel) -> Result<WeightedSequence, StageError> {
    let mut ids = model.encode_chat(&row.messages)?;
    let prompt = ids.len();
    ids.extend(model.encode_text(&row.completion)?);
    ids.push(model.turn_end());
    let weights = (0..ids.len()).map(|at| if at < prompt { 0.0 } else { 1.0 }).collect();
    Ok(WeightedSequence { ids, weights })
}

fn seed_rows(data: &[SeedFacts], desk: &Desk) -> Result<Vec<SeedRow>, StageError> {
    let mut rows = Vec::new();
    for facts in data {
        let bytes = desk.workshop.blob(&facts.blob)?;
        for line in bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
            let row = serde_json::from_slice(line).map_err(|error| {
                StageError::Missing(format!("seed data {}: {error}", facts.name))
            })?;
            rows.push(row);
        }
    }
    Ok(rows)
}

impl SegmentPlan {
    fn data(&self, root: Seed, view: &RunView, desk: &Desk) -> Result<Vec<StepData>, StageError> {
        let model = desk.workshop.policy(&self.start)?;
        let order = root.derive("order").index(u64::from(self.iteration.0));
        match self.kind {
            IterationKind::Sft => {
                let rows = seed_rows(&self.seed_data, desk)?;
                let batch = desk.config.train.sft.train_batch_size;
                (self.from..self.to)
                    .map(|step| {
                        let chosen = batch_rows(order, step, rows.len() as u32, batch);
                        Ok(StepData::Sft(sequences(&rows, &chosen, model.as_ref())?))
                    })
                    .collect()
            }
            IterationKind::Dpo => self.dpo_data(order, model.as_ref(), view, desk),
        }
    }

    fn dpo_data(
        &self,
        order: Seed,
        model: &dyn LanguageModel,
        view: &RunView,
        desk: &Desk,
    ) -> Result<Vec<StepData>, StageError> {
        let settings = &desk.config.train.dpo;
        let offset = self.reference_scored.unwrap_or_default();
        let logps: BTreeMap<PairId, (f64, f64)> = match desk.event(offset)? {
            Event::ReferenceScored { logps, .. } => {
                logps.into_iter().map(|l| (l.pair, (l.chosen, l.rejected))).collect()
            }
            other => return Err(wrong(offset, "reference log-probabilities", &other)),
        };
        let rehearse = settings.rehearsal_weight > 0.0 && !self.seed_data.is_empty();
        let rows = if rehearse { seed_rows(&self.seed_data, desk)? } else { Vec::new() };
        let batch = settings.train_batch_size;
        let mut steps = Vec::new();
        for step in self.from..self.to {
            let mut pairs = Vec::new();
            for row in batch_rows(order, step, self.pairs.len() as u32, batch) {
                let Some(place) = self.pairs.get(row as usize) else { continue };
                let t = triple(place, model, view, desk)?;
                let (reference_chosen, reference_rejected) =
                    logps.get(&t.id).copied().ok_or_else(|| {
                        StageError::Missing(format!("reference logps of pair {}", t.id.0))
                    })?;
                pairs.push(DpoExample {
                    prompt: t.prompt,
                    chosen: t.chosen,
                    rejected: t.rejected,
                    reference_chosen,
                    reference_rejected,
                });
            }
            let chosen = batch_rows(order.derive("rehearsal"), step, rows.len() as u32, batch);
            let rehearsal = sequences(&rows, &chosen, model)?;
            steps.push(StepData::Dpo { pairs, rehearsal });
        }
        Ok(steps)
    }

    fn events(&self, segment: Segment) -> Vec<Event> {
        let Segment { steps, saved, short } = segment;
        let iteration = self.iteration;
        let moved = steps.iter().any(|step| matches!(step, StepResult::Taken(_)));
        let nothing = self.to == self.steps_total && self.taken_before == 0 && !moved;
        let Some(saved) = saved.filter(|_| !nothing) else {
            // What the machine lacked is told all the same.
            let told = short.iter().map(|short| self.memory_short(short));
            return told.chain([self.setback(&steps)]).collect();
        };
        let mut events = Vec::with_capacity(steps.len() + short.len() + 1);
        for (at, result) in steps.into_iter().enumerate() {
            let ours = short.iter().filter(|(short_at, _)| *short_at == at);
            events.extend(ours.map(|short| self.memory_short(short)));
            let step = self.from + at as u32;
            events.push(match result {
                StepResult::Taken(metrics) => Event::StepTaken { iteration, step, metrics },
                StepResult::Skipped(reason) => Event::StepSkipped { iteration, step, reason },
            });
        }
        events.push(Event::CheckpointSaved {
            iteration,
            step: self.to,
            steps_total: self.steps_total,
            policy: saved.policy,
            optimizer: saved.optimizer,
        });
        events
    }
}

impl SegmentPlan {
    fn memory_short(&self, (at, short): &(usize, ShortOfMemory)) -> Event {
        Event::MemoryShort {
            iteration: self.iteration,
            step: self.from + *at as u32,
            rows: u32::try_from(short.rows).unwrap_or(u32::MAX),
            reason: short.reason.clone(),
        }
    }

    /// What is recorded of a segment that ended in too many skipped steps, or of one that ends an
    /// iteration in which none was taken: nothing of its steps, for its weights are gone with it.
    fn setback(&self, steps: &[StepResult]) -> Event {
        let (iteration, step) = (self.iteration, self.good);
        let mut reasons = steps.iter().rev().filter_map(|step| match step {
            StepResult::Skipped(reason) => Some(reason.as_str()),
            StepResult::Taken(_) => None,
        });
        let last = reasons.next().unwrap_or_default();
        let at = self.from as usize + steps.len().saturating_sub(1);
        let row = skipped_in_a_row(self.skipped_before, steps);
        let reason = format!("step {at} was number {row} in a row to be skipped: {last}");
        if self.rollbacks >= ROLLBACKS_MAX {
            return Event::TrainingDiverged { iteration, step, reason };
        }
        let scale = rate_scale(self.rollbacks + 1);
        Event::TrainingRolledBack { iteration, step, scale, reason }
    }
}

fn sequences(
    rows: &[SeedRow],
    chosen: &[u32],
    model: &dyn LanguageModel,
) -> Result<Vec<WeightedSequence>, StageError> {
    chosen.iter().filter_map(|row| rows.get(*row as usize)).map(|r| sequence(r, model)).collect()
}

impl Stage for Trainer {
    type Task = TrainTask;
    const NAME: &'static str = "trainer";
    const WEIGHT: Weight = Weight::Heavy;

    fn next(&self, view: &RunView) -> Option<(TaskKey, TrainTask)> {
        let (iteration, open) = view.open()?;
        if open.trained() || open.diverged.is_some() {
            return None;
        }
        if open.kind == IterationKind::Dpo {
            let sealed = open.sealed.as_ref()?;
            if open.reference_scored.is_none() {
                let reference = open.reference.clone();
                let parts = (iteration, reference.id(), sealed);
                let key = task_key("reference", view, &parts).after(open.pairs_voided());
                let pairs = places(open);
                return Some((key, TrainTask::Reference { iteration, reference, pairs }));
            }
        }
        let plan = self.segment(view, iteration, open);
        let saved = plan.saved.as_ref().map(|s| (s.policy.id(), &s.optimizer));
        let past = (plan.skipped_before, plan.rollbacks, plan.losses);
        let parts = (iteration, plan.start.id(), saved, plan.from, plan.to, past, &open.sealed);
        let key = task_key(Self::NAME, view, &(parts, &self.config.train));
        let key = key.after(open.pairs_voided());
        Some((key, TrainTask::Segment(Box::new(plan))))
    }

    fn run(
        &mut self,
        task: TrainTask,
        view: &RunView,
        desk: &Desk,
    ) -> Result<Vec<Event>, StageError> {
        let plan = match task {
            TrainTask::Reference { iteration, reference, pairs } => {
                return score_reference(iteration, &reference, &pairs, view, desk);
            }
            TrainTask::Segment(plan) => plan,
        };
        let root = view.seed.ok_or_else(|| StageError::Missing("the run's seed".into()))?;
        let total = u64::from(plan.steps_total);
        let from = u64::from(plan.from);
        let mut settings = train_settings(&self.config.train, plan.kind, plan.steps_total);
        settings.optimizer.learning_rate *= rate_scale(plan.rollbacks);
        let segment = desk.workshop.train(SegmentRequest {
            start: &plan.start,
            saved: plan.saved.clone(),
            settings,
            dpo: dpo_settings(&self.config.train),
            steps: plan.data(root, view, desk)?,
            seed: root.derive("lora").index(u64::from(plan.iteration.0)),
            cancel: &desk.cancel,
            on_step: &|done| desk.gauge.progress(Self::NAME, from + done, total),
            skipped_before: plan.skipped_before,
        });
        match segment {
            Ok(segment) => Ok(plan.events(segment)),
            Err(error) => match plan.held.as_ref().and_then(|held| held.lost(&error)) {
                Some(lost) => Ok(vec![lost]),
                None => Err(error),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_sees_every_row_once_and_epochs_differ() {
        let seed = Seed::root(3);
        let epoch = |first: u32| -> Vec<u32> {
            (first..first + 4).flat_map(|step| batch_rows(seed, step, 10, 3)).collect()
        };
        let (one, two) = (epoch(0), epoch(4));
        let mut sorted = one.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..10).collect::<Vec<_>>());
        assert_ne!(one, two);
        assert_eq!(one, epoch(0));
        assert_eq!(batch_rows(seed, 3, 10, 3).len(), 1, "the last batch is short, not dropped");
    }
}
