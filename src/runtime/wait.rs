//! WAIT: until a run has reached its goal.

use super::background::{CancelOnDrop, on_a_thread};
use super::core::Core;
use super::running::{Runtime, RuntimeState};
use super::{Freed, Goal, WaitOutcome, outcome, retention};
use crate::error::Error;
use crate::lm::cancel::Cancel;
use crate::log::Log;
use crate::machine::Found;
use crate::stage::{Cause, StageError};
use crate::view::RunView;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// Between two looks at what no event tells: progress, a stage that waits, a folder that is away.
const LOOK: Duration = Duration::from_millis(100);

impl Runtime {
    /// Waits until the goal is reached, `stop` is set or somebody asks the process to end. `tick` is
    /// called about ten times a second with what is known, for a screen. Drops old iterations after
    /// each one, as `storage.keep_iterations` says; a host that waits in its own way calls
    /// [`Runtime::retain`].
    ///
    /// # Errors
    /// When the log cannot be read to begin with. When it refuses later, what is known stays as it
    /// was, and the stages wait until it can be read.
    pub fn wait_blocking(
        &self,
        goal: Goal,
        stop: &Cancel,
        tick: impl FnMut(&RunView),
    ) -> Result<WaitOutcome, Error> {
        self.inner.wait(goal, stop, tick)
    }

    /// As [`Runtime::wait_blocking`], for a host that awaits. Dropping the future ends the waiting and
    /// not the run.
    ///
    /// # Errors
    /// As [`Runtime::wait_blocking`].
    pub async fn wait(&self, goal: Goal) -> Result<WaitOutcome, Error> {
        let (inner, stop) = (self.inner.clone(), Cancel::default());
        let _dropped = CancelOnDrop(stop.clone());
        on_a_thread(move || inner.wait(goal, &stop, |_| {})).await
    }
}

impl RuntimeState {
    fn wait(
        &self,
        goal: Goal,
        stop: &Cancel,
        mut tick: impl FnMut(&RunView),
    ) -> Result<WaitOutcome, Error> {
        let bell = self.core()?.log.subscribe();
        let mut view = self.handle.view()?;
        let before = view.finished();
        let mut finished = None;
        loop {
            // A screen that fails is no reason to leave the run alone.
            if catch_unwind(AssertUnwindSafe(|| tick(&view))).is_err() {
                tracing::error!("what the host shows of the run panicked");
            }
            let Ok(core) = self.core() else { return Ok(WaitOutcome::Stopped) };
            if finished.replace(view.finished()) != Some(view.finished()) {
                self.after_an_iteration(&core, &view);
            }
            let asked = core.live.as_ref().is_some_and(|live| live.stop.is_cancelled());
            if asked || stop.is_cancelled() {
                return Ok(WaitOutcome::Stopped);
            }
            if let Some(end) = self.end(&core, goal, &view, before) {
                return Ok(end);
            }
            drop(core);
            let _ = bell.recv_timeout(LOOK);
            match self.handle.view() {
                Ok(known) => view = known,
                Err(Error::Closed) => return Ok(WaitOutcome::Stopped),
                Err(Error::Log(error))
                    if StageError::from(error.clone()).cause() == Cause::Shortage =>
                {
                    tracing::debug!(%error, "the log cannot be read at present");
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Why waiting for a goal ends now, if it does; `before` iterations were over when it began.
    fn end(&self, core: &Core, goal: Goal, view: &RunView, before: u32) -> Option<WaitOutcome> {
        let log = core.log.as_ref();
        let to_an_end = goal == Goal::Iterations;
        if let Some(failed) = outcome::stopped_by(view, log).filter(|_| to_an_end) {
            return Some(WaitOutcome::Failed(failed));
        }
        if to_an_end && view.finished() >= core.iterations_wanted(view) {
            return Some(outcome::reached(view, before, log));
        }
        if let Some(reason) = self.lost(core) {
            return Some(WaitOutcome::Lost(reason));
        }
        let halted = || halted(core);
        let ended =
            halted().or_else(|| outcome::paused(view)).or_else(|| self.out_of_prompts(core, view));
        ended.filter(|_| to_an_end)
    }

    /// Whether no prompt is left, where the settings do not have the run wait for more.
    fn out_of_prompts(&self, core: &Core, view: &RunView) -> Option<WaitOutcome> {
        let waits = self.config.prompts.wait_for > 0 || view.paused;
        let over = view.finished();
        core.awaited(view).filter(|_| !waits).map(|_| WaitOutcome::OutOfPrompts { over })
    }

    /// What is gone that this process does not get back, if anything is.
    fn lost(&self, core: &Core) -> Option<String> {
        let lost = core.stages().into_iter().find_map(|stage| stage.state.lost);
        lost.or_else(|| {
            let folder = self.place.path().display();
            (self.place.look() == Found::Another).then(|| {
                format!(
                    "{folder} is not the folder any more that the run was started in, but another. \
                     Put the right one back in its place"
                )
            })
        })
    }

    pub(super) fn retain(&self, keep: u32) -> Result<Freed, Error> {
        retention::retain(&self.core()?.log, &self.blobs, keep)
    }

    /// Drops what nothing needs any more. That it fails must not stop a run.
    fn after_an_iteration(&self, core: &Core, view: &RunView) {
        if let Some(live) = &core.live {
            live.models.trainer().discard(&view.superseded_by_the_end());
        }
        let keep = self.config.storage.keep_iterations;
        if keep == 0 {
            return;
        }
        match self.retain(keep) {
            Ok(freed) => tracing::info!(?freed, "old iterations were compacted"),
            Err(error) => tracing::warn!(%error, "old iterations stay for now"),
        }
    }
}

/// The first stage that waits for the host, as an outcome.
fn halted(core: &Core) -> Option<WaitOutcome> {
    core.stages().into_iter().find_map(|s| {
        let (stage, reason) = (s.stage.to_owned(), s.state.halted?);
        Some(WaitOutcome::Halted { stage, reason })
    })
}
