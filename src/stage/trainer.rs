//! Sealed data becomes a checkpoint, a segment of steps at a time. The reference's
//! log-probabilities are computed once per iteration and recorded; a segment's steps and its
//! checkpoint are one append, so a step without its weights is never recorded as done.
//!
//! What is trained is in the plan and in recorded texts; both are read once for an iteration
//! (`training_set`).
//!
//! Departure from the paper: supervised seed rows may be rehearsed beside the pairs
//! (`train.dpo.rehearsal_weight`), and an NLL term on the chosen completion may be added
//! (Iterative RPO, arXiv 2404.19733).

use super::lost::LastCheckpoint;
use super::training_set::{TrainingSet, TrainingSetCache, TrainingSetRef};
use super::{Duty, Needs, Stage, StageContext, StageError, root_seed, task_key};
use crate::domain::event::{IterationKind, ReferenceLogps};
use crate::domain::plan::{
    KeepCheckpoints, Loss, MovingMean, Objective, OptimizerPlan, ReferenceRule, Trained,
    TrainingPlan,
};
use crate::domain::{AdapterShape, Event, Iteration, IterationPlan, PolicyRef, Seed, TaskKey};
use crate::engine::training::{
    Saved, SegmentRequest, StepData, StepResult, TrainedSegment, skipped_in_a_row,
};
use crate::lm::lora::LoraSettings;
use crate::lm::optimizer::OptimizerSettings;
use crate::lm::train::{DpoSettings, Method, ShortOfMemory, TrainSettings};
use crate::view::{IterationView, RunView, Shared};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// The trainer stage.
#[derive(Default)]
pub struct Trainer {
    /// What the iteration in hand trains on.
    training_set: TrainingSetCache,
}

/// What the trainer is asked to do.
#[derive(Clone, Debug)]
pub enum TrainTask {
    /// Merge the policy's adapter, which is not one that this iteration trains.
    Merge {
        /// The iteration.
        iteration: Iteration,
        /// The policy with the adapter.
        policy: PolicyRef,
    },
    /// Make the reference, which did not exist before.
    Average {
        /// The iteration.
        iteration: Iteration,
        /// What it is the mean of.
        of: MovingMean,
    },
    /// Score sealed pairs under the reference.
    Reference(Box<ReferencePlan>),
    /// Take some steps and save.
    Segment(Box<SegmentPlan>),
}

/// Sealed pairs that are scored under the reference.
#[derive(Clone, Debug)]
pub struct ReferencePlan {
    training_set: TrainingSetRef,
    reference: PolicyRef,
    /// Pairs that are scored already, and those that are at the end of this.
    from: usize,
    to: usize,
}

/// One segment of steps.
#[derive(Clone, Debug)]
pub struct SegmentPlan {
    iteration: Iteration,
    plan: Shared<IterationPlan>,
    training_set: TrainingSetRef,
    start: PolicyRef,
    saved: Option<Saved>,
    from: u32,
    to: u32,
    steps_total: u32,
    skipped_before: u32,
    taken_before: u32,
    /// Where a rollback goes to.
    good: u32,
    rollbacks: u32,
    last: Option<LastCheckpoint>,
    losses: u32,
}

/// Going back to the last checkpoint is granted so often in an iteration.
const ROLLBACKS_MAX: u32 = 2;
/// Pairs that the reference scores in one task.
const REFERENCE_PAIRS: usize = 1024;

/// What a rollback leaves of the learning rate.
fn rate_scale(rollbacks: u32) -> f64 {
    0.5f64.powi(rollbacks as i32)
}

/// Rows or pairs that a plan trains on.
fn rows(open: &IterationView, plan: &IterationPlan) -> u32 {
    match &plan.objective {
        Objective::Supervised { data } => data.iter().map(|set| set.rows).sum(),
        Objective::Preference { .. } => {
            open.sealed.as_ref().map_or(0, |sealed| sealed.len()) as u32
        }
    }
}

/// The adapter that a policy has, as far as it is known.
fn shape_of<'a>(
    policy: &'a PolicyRef,
    of_old: &'a Option<AdapterShape>,
) -> Option<&'a AdapterShape> {
    policy.adapter.as_ref()?.shape.as_ref().or(of_old.as_ref())
}

/// Whether training can begin with a policy as it is: without an adapter, or with the very one that
/// goes on.
fn fits(policy: &PolicyRef, trained: &Trained, of_old: &Option<AdapterShape>) -> bool {
    match trained {
        _ if policy.adapter.is_none() => true,
        Trained::All => false,
        Trained::Adapter(shape) => shape_of(policy, of_old) == Some(shape),
    }
}

fn segment(
    iteration: Iteration,
    open: &IterationView,
    plan: &Shared<IterationPlan>,
) -> SegmentPlan {
    let TrainingPlan { batch_size, epochs, segment_steps, .. } = plan.training;
    let steps_total = rows(open, plan).div_ceil(batch_size.max(1)) * epochs.max(1);
    let from = open.checkpoint.as_ref().map_or(0, |c| c.step);
    let saved = open.checkpoint.as_ref();
    SegmentPlan {
        iteration,
        plan: plan.clone(),
        training_set: TrainingSetRef::of(iteration, open, plan),
        start: open.start().clone(),
        saved: saved.map(|c| Saved { policy: c.policy.clone(), optimizer: c.optimizer.clone() }),
        from,
        to: steps_total.min(from + segment_steps.max(1)),
        steps_total,
        skipped_before: saved.map_or(0, |c| c.skipped_in_a_row),
        taken_before: saved.map_or(0, |c| c.steps_taken),
        good: open.last_good.as_ref().map_or(0, |c| c.step),
        rollbacks: open.rollbacks,
        last: LastCheckpoint::of(iteration, open),
        losses: open.losses,
    }
}

/// The next pairs that the reference has yet to score.
fn reference(
    view: &RunView,
    iteration: Iteration,
    open: &IterationView,
    plan: &IterationPlan,
) -> Option<(TaskKey, TrainTask)> {
    let sealed = open.sealed.as_ref()?;
    if plan.reference.rule == ReferenceRule::None || open.is_referenced() {
        return None;
    }
    if let Some(of) = open.reference_to_make().cloned() {
        let key = task_key("mean", view, &(iteration, &of));
        return Some((key, TrainTask::Average { iteration, of }));
    }
    let policy = &open.reference;
    let from = open.pairs_scored();
    let to = sealed.len().min(from + REFERENCE_PAIRS);
    let parts = (iteration, policy.id(), sealed.get(from..to));
    let key = task_key("reference", view, &parts).after(open.pairs_voided());
    let (training_set, reference) = (TrainingSetRef::of(iteration, open, plan), policy.clone());
    let task = ReferencePlan { training_set, reference, from, to };
    Some((key, TrainTask::Reference(Box::new(task))))
}

impl TrainingPlan {
    /// As the model room takes it.
    fn settings(&self, steps_total: u32) -> TrainSettings {
        let OptimizerPlan {
            learning_rate,
            schedule,
            warmup_steps,
            final_ratio,
            weight_decay,
            max_grad_norm,
        } = self.optimizer;
        TrainSettings {
            method: match &self.trained {
                Trained::All => Method::Full,
                Trained::Adapter(shape) => Method::Lora(LoraSettings {
                    r: shape.r as usize,
                    alpha: shape.alpha,
                    target_modules: shape.target_modules.clone(),
                }),
            },
            optimizer: OptimizerSettings {
                learning_rate,
                schedule,
                warmup_steps,
                steps_total,
                final_ratio,
                weight_decay,
                max_grad_norm,
                ..OptimizerSettings::default()
            },
            threads: self.threads as usize,
            gradient_checkpointing: self.gradient_checkpointing,
        }
    }
}

/// What a preference step of a plan minimises.
fn dpo_settings(objective: &Objective) -> DpoSettings {
    match objective {
        Objective::Preference { loss, nll_weight, rehearsal } => DpoSettings {
            loss: *loss,
            nll_weight: *nll_weight,
            rehearsal_weight: rehearsal.as_ref().map_or(0.0, |rehearsal| rehearsal.weight),
        },
        // No step of a supervised segment looks at it.
        Objective::Supervised { .. } => DpoSettings {
            loss: Loss::Sigmoid { beta: 0.0, label_smoothing: 0.0 },
            nll_weight: 0.0,
            rehearsal_weight: 0.0,
        },
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

impl Trainer {
    fn merge(
        iteration: Iteration,
        policy: PolicyRef,
        context: &StageContext,
    ) -> Result<Vec<Event>, StageError> {
        let merged = context.models.trainer().merge(&policy)?;
        Ok(vec![Event::AdapterMerged { iteration, policy, merged }])
    }

    fn score(
        &mut self,
        task: &ReferencePlan,
        view: &RunView,
        context: &StageContext,
    ) -> Result<Vec<Event>, StageError> {
        let iteration = task.training_set.iteration;
        let set = self.training_set.get(&task.training_set, view, context)?;
        let pairs = set.some_pairs(task.from..task.to)?;
        let mut sequences = Vec::with_capacity(2 * pairs.len());
        for pair in pairs {
            sequences.push((pair.prompt.clone(), pair.chosen.clone()));
            sequences.push((pair.prompt.clone(), pair.rejected.clone()));
        }
        let logps = context.models.scorer().logps(&task.reference, &sequences, &context.cancel)?;
        let logps = pairs.iter().zip(logps.as_chunks::<2>().0).map(|(pair, [chosen, rejected])| {
            ReferenceLogps { pair: pair.id.clone(), chosen: *chosen, rejected: *rejected }
        });
        let (reference, logps) = (task.reference.id(), logps.collect());
        Ok(vec![Event::ReferenceScored { iteration, reference, logps }])
    }

    fn train(
        &mut self,
        plan: &SegmentPlan,
        view: &RunView,
        context: &StageContext,
    ) -> Result<Vec<Event>, StageError> {
        let root = root_seed(view)?;
        let (from, total) = (u64::from(plan.from), u64::from(plan.steps_total));
        let training = &plan.plan.training;
        let mut settings = training.settings(plan.steps_total);
        settings.optimizer.learning_rate *= rate_scale(plan.rollbacks);
        if training.keep_checkpoints == KeepCheckpoints::Newest {
            context.models.trainer().discard(&view.superseded());
        }
        let set = self.training_set.get(&plan.training_set, view, context)?;
        let trained = context.models.trainer().train(SegmentRequest {
            start: &plan.start,
            saved: plan.saved.clone(),
            settings,
            dpo: dpo_settings(&plan.plan.objective),
            reference: plan.plan.reference.rule,
            steps: plan.data(root, set)?,
            seed: root.derive("lora").index(u64::from(plan.iteration.0)),
            cancel: &context.cancel,
            on_step: &|done| context.gauge.progress(Self::NAME, from + done, total),
            skipped_before: plan.skipped_before,
        });
        Ok(plan.events(trained?))
    }
}

impl SegmentPlan {
    fn data(&self, root: Seed, set: &TrainingSet) -> Result<Vec<StepData>, StageError> {
        let order = root.derive("order").index(u64::from(self.iteration.0));
        let batch = self.plan.training.batch_size;
        let (pairs, rows) = (set.pairs() as u32, set.rows() as u32);
        (self.from..self.to)
            .map(|step| match &self.plan.objective {
                Objective::Supervised { .. } => {
                    Ok(StepData::Sft(set.sequences(&batch_rows(order, step, rows, batch))))
                }
                Objective::Preference { .. } => Ok(StepData::Dpo {
                    pairs: set.examples(&batch_rows(order, step, pairs, batch))?,
                    rehearsal: set.sequences(&batch_rows(
                        order.derive("rehearsal"),
                        step,
                        rows,
                        batch,
                    )),
                }),
            })
            .collect()
    }

    fn events(&self, segment: TrainedSegment) -> Vec<Event> {
        let TrainedSegment { steps, saved, short } = segment;
        let iteration = self.iteration;
        let moved = steps.iter().any(|step| matches!(step, StepResult::Taken(_)));
        let reached = self.from + steps.len() as u32;
        let nothing = reached == self.steps_total && self.taken_before == 0 && !moved;
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
            step: reached,
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

impl Stage for Trainer {
    type Task = TrainTask;
    const NAME: &'static str = "trainer";
    const DUTY: Duty = Duty::Works;

    fn next(&self, view: &RunView) -> Option<(TaskKey, TrainTask)> {
        let (iteration, open) = view.open()?;
        let plan = open.plan.as_ref()?;
        if open.trained() || open.diverged.is_some() {
            return None;
        }
        if open.kind == IterationKind::Dpo && open.sealed.is_none() {
            return None;
        }
        if let Some(task) = reference(view, iteration, open, plan) {
            return Some(task);
        }
        let begun = open.merged.is_some() || open.checkpoint.is_some();
        if !begun && !fits(&open.policy, &plan.training.trained, &view.adapters_of_old) {
            let policy = open.policy.clone();
            let key = task_key("merge", view, &(iteration, policy.id()));
            return Some((key, TrainTask::Merge { iteration, policy }));
        }
        let segment = segment(iteration, open, plan);
        let saved = segment.saved.as_ref().map(|s| (s.policy.id(), &s.optimizer));
        let past = (segment.skipped_before, segment.rollbacks, segment.losses);
        let steps = (segment.from, segment.to);
        let parts = (iteration, segment.start.id(), saved, steps, past, &open.sealed);
        let planned = (&plan.objective, &plan.reference, &plan.training);
        let key = task_key(Self::NAME, view, &(parts, planned)).after(open.pairs_voided());
        Some((key, TrainTask::Segment(Box::new(segment))))
    }

    fn needs(&self, task: &TrainTask, _: &RunView, context: &StageContext) -> Needs {
        match task {
            TrainTask::Reference(_) => context.models.scorer().needs(),
            TrainTask::Merge { .. } | TrainTask::Average { .. } | TrainTask::Segment(_) => {
                context.models.trainer().needs()
            }
        }
    }

    fn run(
        &mut self,
        task: TrainTask,
        view: &RunView,
        context: &StageContext,
    ) -> Result<Vec<Event>, StageError> {
        match task {
            TrainTask::Merge { iteration, policy } => Trainer::merge(iteration, policy, context),
            TrainTask::Average { iteration, of } => {
                let policy = context.models.trainer().average(&of)?;
                Ok(vec![Event::ReferenceMade { iteration, policy }])
            }
            TrainTask::Reference(task) => self.score(&task, view, context),
            TrainTask::Segment(plan) => {
                self.train(&plan, view, context).or_else(|error| {
                    match plan.last.as_ref().and_then(|last| last.lost(&error)) {
                        Some(lost) => Ok(vec![lost]),
                        None => Err(error),
                    }
                })
            }
        }
    }
}

#[cfg(test)]
mod tests;
