//! A checkpoint of the iteration in hand whose bytes are gone or are not its own: it is never used,
//! it is recorded as lost, and training goes on from one before it that is still there, or begins
//! again, and ends in the same bits.

use super::StageError;
use crate::domain::{BlobHash, Event, Iteration, PolicyRef};
use crate::view::{CheckpointFacts, IterationView};

/// So many checkpoints of an iteration may be lost; a disk that loses more wants a person.
const LOSSES_MAX: u32 = 3;

/// The last checkpoint of an iteration, as a task that opens it knows it.
#[derive(Clone, Debug)]
pub(super) struct LastCheckpoint {
    iteration: Iteration,
    step: u32,
    /// The checkpoint before it that is still on the disk; 0 for none.
    back_to: u32,
    /// What is there for this checkpoint alone.
    blobs: Vec<BlobHash>,
    losses: u32,
}

/// What only this checkpoint names: the frozen weights below an adapter belong to the start.
fn own_blobs(start: &PolicyRef, checkpoint: &CheckpointFacts) -> Vec<BlobHash> {
    let CheckpointFacts { policy, optimizer, .. } = checkpoint;
    let weights = Some(&policy.weights).filter(|hash| **hash != start.weights);
    let adapter = policy.adapter.as_ref().map(|adapter| &adapter.weights);
    weights.into_iter().chain(adapter).chain([optimizer]).cloned().collect()
}

impl LastCheckpoint {
    /// The last checkpoint, if there is one.
    pub fn of(iteration: Iteration, open: &IterationView) -> Option<LastCheckpoint> {
        let checkpoint = open.checkpoint.as_ref()?;
        let blobs = own_blobs(open.start(), checkpoint);
        let (step, back_to) = (checkpoint.step, open.step_before(checkpoint.step));
        Some(LastCheckpoint { iteration, step, back_to, blobs, losses: open.losses })
    }

    /// What to record when `error` says that one of its blobs cannot be had.
    pub fn lost(&self, error: &StageError) -> Option<Event> {
        let StageError::Blob(blob) = error else { return None };
        let hash = blob.lost()?;
        if !self.blobs.contains(&hash) || self.losses >= LOSSES_MAX {
            return None;
        }
        let (iteration, step, reason) = (self.iteration, self.step, error.to_string());
        tracing::warn!(%iteration, step, reason, "a checkpoint is lost; training goes on before it");
        Some(Event::CheckpointLost {
            iteration,
            step,
            blob: hash,
            reason,
            back_to: Some(self.back_to),
        })
    }
}
