//! Which policies answer at this moment, each with what draws for all of its callers.

use super::policies::PolicyRow;
use super::served::ServedPolicy;
use crate::domain::plan::{PlannedEngine, PlannedSampling};
use crate::engine::batcher::Batcher;
use crate::engine::local::LocalModel;
use crate::error::Error;
use crate::lm::cancel::Cancel;
use crate::lm::foreground::Foreground;
use crate::stage::StageError;
use std::sync::{Arc, Mutex, PoisonError};

/// Policies that are kept ready; one that is asked for beyond takes the place of the one that was
/// asked least lately, which ends what it has in hand.
const READY_MAX: usize = 2;

/// The policies that answer.
#[derive(Default)]
pub(super) struct AnsweringPolicies {
    foreground: Foreground,
    ready: Mutex<Vec<ServedPolicy>>,
}

impl AnsweringPolicies {
    /// A flag for work that gives way to answers.
    pub fn behind(&self) -> Cancel {
        Cancel::behind(&self.foreground)
    }

    /// A policy, ready to answer.
    ///
    /// # Errors
    /// When its weights are missing or damaged, or the system gives no thread.
    pub fn serve(
        &self,
        row: &PolicyRow,
        local: &LocalModel,
        (engine, sampling): (&PlannedEngine, &PlannedSampling),
    ) -> Result<ServedPolicy, Error> {
        let policy = &row.policy;
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        let known = ready.iter().position(|served| served.policy() == policy);
        let served = match known {
            Some(at) => ready.remove(at),
            None => {
                let model = local.policy(policy, engine).map_err(StageError::from)?;
                let batcher = Batcher::start(model.clone(), self.foreground.clone());
                let batcher = Arc::new(batcher.map_err(|error| Error::io("a thread", error))?);
                if ready.len() >= READY_MAX {
                    ready.remove(0);
                }
                ServedPolicy::new(policy.clone(), (model, batcher), sampling)
            }
        };
        ready.push(served.clone());
        Ok(served.named(&row.name))
    }

    /// Answers that wait for their first token, and those that are being drawn.
    pub fn load(&self) -> (usize, usize) {
        let ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        let loads = ready.iter().map(ServedPolicy::load);
        loads.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }
}
