//! OUTCOME: until when a host waits, and why waiting ended.

use crate::domain::event::IterationOutcome;
use crate::domain::{Event, Iteration, Offset};
use crate::log::{Log, LogError};
use crate::view::RunView;

/// Until when to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Goal {
    /// All iterations of the settings are over.
    Iterations,
    /// The caller says so.
    Forever,
}

/// Why waiting ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WaitOutcome {
    /// The goal is reached.
    Reached,
    /// The iterations are over, and some failed that were to be done: those that ended while waiting,
    /// and the run's last one (`on_failure: continue`).
    ReachedWithFailures(Vec<FailedIteration>),
    /// The caller asked to stop.
    Stopped,
    /// Something is gone that the process does not get back: the log can no longer be written or
    /// read, the device was lost, another folder lies in the place of the run's. What was recorded is
    /// safe.
    Lost(String),
    /// The run pauses after an iteration that gave nothing to learn from
    /// (`pairs.on_no_signal: pause`; only while waiting for a goal).
    Paused {
        /// Why.
        reason: String,
    },
    /// The run pauses after an iteration that failed (`on_failure: stop`; only while waiting for a
    /// goal). [`super::Handle::resume`] goes on with the next one.
    Failed(FailedIteration),
    /// No prompt is left that was not answered, and the settings do not have the run wait for more
    /// (`prompts.wait_for`; only while waiting for a goal).
    OutOfPrompts {
        /// Iterations that are over.
        over: u32,
    },
    /// A stage failed again and again and waits for the host (only while waiting for a goal).
    Halted {
        /// Which.
        stage: String,
        /// Its last failure.
        reason: String,
    },
}

/// An iteration that ended without what was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedIteration {
    /// Which.
    pub iteration: Iteration,
    /// Why, and where a task failed again and again, what it said the last time.
    pub reason: String,
}

/// What a run that has reached its goal came to; so many iterations were over when waiting began.
pub(super) fn reached(view: &RunView, before: u32, log: &dyn Log) -> WaitOutcome {
    let last = view.finished().saturating_sub(1);
    let ours = view.past().skip(before.min(last) as usize).map(|(iteration, _)| iteration);
    let failed: Vec<FailedIteration> =
        ours.filter_map(|iteration| failure(view, iteration, log)).collect();
    match failed.is_empty() {
        true => WaitOutcome::Reached,
        false => WaitOutcome::ReachedWithFailures(failed),
    }
}

/// The failure after which a run pauses, if that is why it does.
pub(super) fn stopped_by(view: &RunView, log: &dyn Log) -> Option<FailedIteration> {
    let (last, _) = view.last_iteration().filter(|_| view.paused)?;
    failure(view, last, log)
}

/// The pause that the last iteration ended in, as an outcome.
pub(super) fn paused(view: &RunView) -> Option<WaitOutcome> {
    let (_, outcome) = view.last_iteration().filter(|_| view.paused)?;
    match outcome? {
        IterationOutcome::NoSignal { reason } | IterationOutcome::JudgeCompromised { reason } => {
            Some(WaitOutcome::Paused { reason: reason.clone() })
        }
        _ => None,
    }
}

/// An iteration's failure, if it failed.
fn failure(view: &RunView, iteration: Iteration, log: &dyn Log) -> Option<FailedIteration> {
    let past = view.finished_iteration(iteration)?;
    let IterationOutcome::Failed { reason } = &past.outcome else { return None };
    // Not of the outcome itself: what a task says may name folders of this machine.
    let said = match past.diverged {
        true => None,
        false => last_failure(log, past.opened, iteration)
            .unwrap_or_else(|error| Some(error.code().says(error))),
    };
    let said = said.map_or_else(String::new, |said| format!(". It said: {said}"));
    Some(FailedIteration { iteration, reason: format!("{reason}{said}") })
}

/// What the last task said that failed in an iteration which began at `from`.
///
/// # Errors
/// When the log cannot be read.
fn last_failure(
    log: &dyn Log,
    from: Offset,
    iteration: Iteration,
) -> Result<Option<String>, LogError> {
    const AT_A_TIME: usize = 256;
    let (mut at, mut said) = (from, None);
    loop {
        let records = log.read(at, AT_A_TIME)?;
        let Some(last) = records.last() else { return Ok(said) };
        at = Offset(last.offset.0 + 1);
        for record in records {
            match record.event {
                Event::TaskFailed { reason, .. } => said = Some(reason),
                Event::IterationFinished { iteration: ended, .. } if ended == iteration => {
                    return Ok(said);
                }
                _ => {}
            }
        }
    }
}
