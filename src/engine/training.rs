//! THE TRAINING PORT and its words: a stretch of steps that ends in a checkpoint, and what is made
//! of weights beside it. Checkpoints are blobs of the run, durable before they are named.

use super::{EngineError, Needs};
use crate::domain::event::StepMetrics;
use crate::domain::plan::{MovingMean, ReferenceRule};
use crate::domain::{BlobHash, PolicyRef, Seed};
use crate::lm::cancel::Cancel;
use crate::lm::train::{DpoExample, DpoSettings, ShortOfMemory, TrainSettings, WeightedSequence};

/// The data of one optimiser step.
#[derive(Clone, Debug)]
pub enum StepData {
    /// Supervised.
    Sft(Vec<WeightedSequence>),
    /// Preference pairs, and supervised rows rehearsed beside them.
    Dpo {
        /// The pairs.
        pairs: Vec<DpoExample>,
        /// Rows whose loss is added, weighted by `rehearsal_weight`.
        rehearsal: Vec<WeightedSequence>,
    },
}

/// A saved state to go on from.
#[derive(Clone, Debug)]
pub struct Saved {
    /// The weights.
    pub policy: PolicyRef,
    /// The optimiser's moments and step.
    pub optimizer: BlobHash,
}

/// A stretch of training that ends in a checkpoint.
pub struct SegmentRequest<'a> {
    /// Where the iteration began.
    pub start: &'a PolicyRef,
    /// The last checkpoint of the iteration, if there is one.
    pub saved: Option<Saved>,
    /// Method, learning rate, schedule.
    pub settings: TrainSettings,
    /// Loss of the preference steps.
    pub dpo: DpoSettings,
    /// What their reference is: where it is the start, the first loss is known beforehand.
    pub reference: ReferenceRule,
    /// The steps to take, in order.
    pub steps: Vec<StepData>,
    /// Where LoRA's first weights come from.
    pub seed: Seed,
    /// Looked at per micro-batch. Where it is interrupted the segment is cut: the step in hand is
    /// given up, and those before it are saved.
    pub cancel: &'a Cancel,
    /// Told after each step.
    pub on_step: &'a dyn Fn(u64),
    /// Steps that were skipped one after the other right before these.
    pub skipped_before: u32,
}

/// So many steps skipped in a row end a segment: going on would not help.
pub const SKIPPED_IN_A_ROW_MAX: u32 = 3;

/// How many steps at the end of `steps` were skipped in a row; `before` were before them.
pub fn skipped_in_a_row(before: u32, steps: &[StepResult]) -> u32 {
    let skipped = |step: &&StepResult| matches!(step, StepResult::Skipped(_));
    let last = steps.iter().rev().take_while(skipped).count();
    let carried = if last == steps.len() { before } else { 0 };
    carried + last as u32
}

/// What became of one step.
#[derive(Clone, Debug)]
pub enum StepResult {
    /// Weights moved.
    Taken(StepMetrics),
    /// Non-finite numbers; nothing changed.
    Skipped(String),
}

/// The end of a stretch of training.
#[derive(Clone, Debug)]
pub struct TrainedSegment {
    /// One for each requested step, or for each until too many were skipped or the segment was cut.
    pub steps: Vec<StepResult>,
    /// The new state; none when too many steps in a row were skipped.
    pub saved: Option<Saved>,
    /// Where the device's memory was short: the place of the step among `steps`, and what became of
    /// its micro-batch. In order. The steps are whole all the same.
    pub short: Vec<(usize, ShortOfMemory)>,
}

/// What moves weights.
pub trait TrainBackend: Send + Sync {
    /// What training takes.
    fn needs(&self) -> Needs {
        Needs::Device
    }

    /// Trains a segment and saves its checkpoint among the run's blobs, which are durable when this
    /// returns.
    ///
    /// # Errors
    /// When training cannot begin (gradient coverage, ln 2 at step 0) or is cancelled.
    fn train(&self, request: SegmentRequest<'_>) -> Result<TrainedSegment, EngineError>;

    /// The policy with its adapter merged into the weights below it; durable when this returns.
    ///
    /// # Errors
    /// When its blobs are missing, damaged or do not fit the model, or the disk is full.
    fn merge(&self, policy: &PolicyRef) -> Result<PolicyRef, EngineError>;

    /// The mean of two policies' weights, adapters merged; durable when this returns.
    ///
    /// # Errors
    /// As [`TrainBackend::merge`].
    fn average(&self, of: &MovingMean) -> Result<PolicyRef, EngineError>;

    /// Removes blobs that nothing needs any more. One that is not there is gone already; one that
    /// cannot be removed stays, and is said in the log output.
    fn discard(&self, blobs: &[BlobHash]);
}
