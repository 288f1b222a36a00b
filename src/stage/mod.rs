//! DECIDE AND DO. A stage is two functions: [`Stage::next`] decides one task from a view and is
//! pure; [`Stage::run`] does it and is the only place that computes, waits or fails.
//!
//! One prompt's journey, a stage each: [`conductor`] opens the iteration and seals its prompts,
//! [`sampler`] answers them, [`judge`] scores the answers, [`pair_store`] (with [`select`]) makes
//! pairs, [`trainer`] learns from them, [`evaluator`] measures, and the conductor's gate promotes
//! or rejects. No stage asks another a question: what it needs is in the log, and recorded texts are
//! read back in one place (`bodies`).

mod alarms;
pub(crate) mod bodies;
pub mod conductor;
pub mod error;
pub mod evaluator;
pub mod gate;
pub mod held_out;
pub mod judge;
pub(crate) mod lost;
pub mod pair_store;
mod pair_texts;
pub mod sampler;
pub mod select;
#[cfg(test)]
mod testing;
pub mod trainer;
mod training_set;
pub mod verdict;
pub mod writer;

pub use crate::engine::Needs;
pub use error::{Cause, StageError};
pub use writer::PromptWriter;

use crate::blob::ReadBlobs;
use crate::domain::{Event, Seed, TaskKey};
use crate::engine::ModelBackend;
use crate::lm::cancel::Cancel;
use crate::log::Log;
use crate::rubric::RubricRegistry;
use crate::view::RunView;
use std::sync::Arc;

/// Telemetry of the task in hand: never truth, only what a screen shows.
pub trait Gauge: Send + Sync {
    /// `done` of `total` units of the stage's work are through.
    fn progress(&self, stage: &'static str, done: u64, total: u64);
}

/// A gauge nobody looks at.
#[derive(Debug, Default)]
pub struct NoGauge;

impl Gauge for NoGauge {
    fn progress(&self, _stage: &'static str, _done: u64, _total: u64) {}
}

/// A program that knows how good a completion is.
pub trait Oracle: Send + Sync {
    /// The score of a completion, or `None` when the task is not one the program understands.
    fn score(&self, task: &str, completion: &str) -> Option<f64>;
}

/// Whether there is memory to begin a heavy task.
pub trait Headroom: Send + Sync {
    /// Why there is too little, if there is; the task is asked about again a second later.
    fn lacking(&self) -> Option<String>;
}

/// Enough of everything.
#[derive(Debug, Default)]
pub struct Ample;

impl Headroom for Ample {
    fn lacking(&self) -> Option<String> {
        None
    }
}

/// What a stage may use while it runs a task.
#[derive(Clone)]
pub struct StageContext {
    /// Bodies are read from here by offset.
    pub log: Arc<dyn Log>,
    /// Who answers, judges, scores and trains.
    pub models: Arc<ModelBackend>,
    /// Seed data.
    pub blobs: Arc<dyn ReadBlobs>,
    /// Lets the policy write new prompts.
    pub writer: Arc<dyn PromptWriter>,
    /// Installed rubrics by id.
    pub rubrics: Arc<RubricRegistry>,
    /// Knows the truth about a completion, where such a program exists. Only the evaluator and
    /// the oracle control arm may ask it.
    pub oracle: Option<Arc<dyn Oracle>>,
    /// Looked at per token and per micro-batch.
    pub cancel: Cancel,
    /// Where progress goes.
    pub gauge: Arc<dyn Gauge>,
    /// Asked before a heavy task.
    pub headroom: Arc<dyn Headroom>,
}

/// What a stage does in the loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duty {
    /// It works on the iteration: nobody waits for its task when the run pauses, or when another
    /// policy was chosen than the one that the iteration began with.
    Works,
    /// It decides and keeps the books, and brings such an iteration to its end.
    KeepsBooks,
}

/// A role in the loop.
pub trait Stage: Send + 'static {
    /// One unit of work: what one is ready to lose in a crash.
    type Task: Send + 'static;
    /// The glossary name, for logs and screens.
    const NAME: &'static str;
    /// What becomes of its task when nobody waits for it any more.
    const DUTY: Duty;

    /// What is next, given what is known? Pure. `None`: nothing until the log grows.
    fn next(&self, view: &RunView) -> Option<(TaskKey, Self::Task)>;

    /// What a task takes of the machine: one that computes here waits for the device lease, and one
    /// that asks an engine elsewhere, or a program, does not hold it.
    fn needs(&self, task: &Self::Task, view: &RunView, context: &StageContext) -> Needs;

    /// Does it. The events and the task's key are committed together, or not at all.
    ///
    /// # Errors
    /// Any [`StageError`]; nothing is recorded but the failure.
    fn run(
        &mut self,
        task: Self::Task,
        view: &RunView,
        context: &StageContext,
    ) -> Result<Vec<Event>, StageError>;
}

/// The key of a task: the stage, the run's seed, and everything else the result depends on.
///
/// Total. A view without a seed is one of a run that has not begun, which has no policy either, so
/// that no stage has a task; its keys are as if the seed were all zeros. The parts are plain data,
/// which JSON holds; where it ever would not (a map whose keys are no texts), their debug text takes
/// its place, so that different parts still have different keys.
pub(crate) fn task_key<T>(stage: &str, view: &RunView, parts: &T) -> TaskKey
where
    T: serde::Serialize + std::fmt::Debug,
{
    let seed = view.seed.map_or([0; 32], |seed| seed.0);
    match serde_json::to_vec(parts) {
        Ok(body) => TaskKey::of(stage, &[&seed, &body]),
        Err(_) => TaskKey::of(stage, &[&seed, b"not JSON", format!("{parts:?}").as_bytes()]),
    }
}

/// The root of the run's randomness.
///
/// # Errors
/// [`StageError::Missing`] when the run has not begun.
pub(crate) fn root_seed(view: &RunView) -> Result<Seed, StageError> {
    let missing = || StageError::Missing("the run's seed (no `run_started` is in the log)".into());
    view.seed.ok_or_else(missing)
}

/// A task is not tried again after this many failures.
pub const ATTEMPTS_MAX: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn different_parts_have_different_keys_also_where_json_takes_neither() {
        let view = RunView::default();
        // A list is no key of a JSON object.
        let odd = |n: u8| BTreeMap::from([(vec![n], n)]);
        assert!(serde_json::to_vec(&odd(1)).is_err());
        let key = |n: u8| task_key("sampler", &view, &odd(n));
        assert_eq!(key(1), key(1));
        assert_ne!(key(1), key(2));
        assert_ne!(key(1), task_key("judge", &view, &odd(1)));
        assert_ne!(task_key("sampler", &view, &1), task_key("sampler", &view, &2));
    }
}
