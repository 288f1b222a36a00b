//! FRONT DOOR: create a run, start it, hand out [`Handle`]s, wait for a goal, stop it. Nothing
//! here is global: a process may hold as many runtimes as it has folders.

mod builder;
pub mod doctor;
mod draft;
mod drops;
pub mod estimate;
pub mod folder;
mod handle;
mod held_out;
pub mod identity;
pub mod inbox;
pub mod memory;
mod outcome;
mod panels;
mod present;
mod referees;
mod retention;
pub mod rubrics;
mod settings;
mod space;
mod spelling;
mod subscription;
mod watched;

pub use builder::Builder;
pub use folder::{Folder, NewRun, fold};
pub use handle::Handle;
pub use held_out::HeldOutChange;
pub use outcome::{FailedIteration, Goal, Outcome};
pub use retention::Freed;
pub use settings::SettingsToCome;
pub use subscription::Subscription;

use crate::actor::{ActorSystem, StageStatus};
use crate::blob::BlobStore;
use crate::config::Config;
use crate::domain::Iteration;
use crate::error::Error;
use crate::lm::cancel::Cancel;
use crate::lm::device::SelectedDevice;
use crate::log::{DurableLog, Health};
use crate::machine::{Found, Place};
use crate::stage::candle_workshop::CandleWorkshop;
use crate::stage::{Cause, StageContext, StageError, Workshop};
use crate::view::RunView;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use watched::Watched;

/// A running run. Dropping it stops it without loss.
pub struct Runtime {
    handle: Handle,
    context: StageContext,
    config: Arc<Config>,
    to_come: Option<SettingsToCome>,
    place: Place,
    device: SelectedDevice,
    held_out: Option<HeldOutChange>,
    log: Arc<DurableLog>,
    blobs: Arc<BlobStore>,
    system: Mutex<ActorSystem>,
    _watched: Vec<Watched>,
}

impl Runtime {
    /// A runtime over a folder that `init` or [`Folder::create`] laid out.
    pub fn builder(dir: impl Into<PathBuf>) -> Builder {
        Builder::at(Folder::at(dir))
    }

    /// A handle that may be cloned and sent anywhere.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// What computes, and why.
    pub fn device(&self) -> &SelectedDevice {
        &self.device
    }

    /// What a change of `prompts.held_out` came to, where it was changed since the last start.
    pub fn held_out_change(&self) -> Option<&HeldOutChange> {
        self.held_out.as_ref()
    }

    /// What of the settings counts from the next iteration on, where they were changed.
    pub fn settings_to_come(&self) -> Option<&SettingsToCome> {
        self.to_come.as_ref()
    }

    /// What every stage is doing.
    pub fn stages(&self) -> Vec<StageStatus> {
        self.system.lock().unwrap_or_else(PoisonError::into_inner).status()
    }

    /// Waits until the goal is reached or `stop` is set. `tick` is called about ten times a
    /// second with what is known, for a screen. Drops old iterations after each one, as
    /// `storage.keep_iterations` says; a host that waits in its own way calls [`Runtime::retain`].
    ///
    /// # Errors
    /// When the log cannot be read to begin with. When it refuses later, what is known stays as it
    /// was, and the stages wait until it can be read.
    pub fn wait(
        &self,
        goal: Goal,
        stop: &Cancel,
        mut tick: impl FnMut(&RunView),
    ) -> Result<Outcome, Error> {
        let bell = self.context.log.subscribe();
        let mut view = self.handle.view()?;
        let before = outcome::over(&view);
        let mut finished = None;
        loop {
            tick(&view);
            if finished.replace(view.finished()) != Some(view.finished()) {
                self.workshop().discard(&view.superseded_by_the_end());
                self.retain_as_configured();
            }
            if stop.is_cancelled() {
                return Ok(Outcome::Stopped);
            }
            if let Some(end) = self.end(goal, &view, &before) {
                return Ok(end);
            }
            let _ = bell.recv_timeout(Duration::from_millis(100));
            match self.handle.view() {
                Ok(known) => view = known,
                Err(Error::Log(error))
                    if StageError::from(error.clone()).cause() == Cause::Shortage =>
                {
                    tracing::debug!(%error, "the log cannot be read at present");
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Why waiting for a goal ends now, if it does; `before` were over when it began.
    fn end(&self, goal: Goal, view: &RunView, before: &BTreeSet<Iteration>) -> Option<Outcome> {
        let log = self.log.as_ref();
        let to_an_end = goal == Goal::Iterations;
        if let Some(failed) = outcome::stopped_by(view, log).filter(|_| to_an_end) {
            return Some(Outcome::Failed(failed));
        }
        if to_an_end && view.finished() >= self.config.iterations {
            return Some(outcome::reached(view, before, log));
        }
        if let Some(reason) = self.lost() {
            return Some(Outcome::Lost(reason));
        }
        self.halted().or_else(|| outcome::paused(view)).filter(|_| to_an_end)
    }

    /// What is gone that this process does not get back, if anything is.
    fn lost(&self) -> Option<String> {
        let lost = self.stages().into_iter().find_map(|stage| stage.state.lost);
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

    /// Drops what iterations older than the last `keep` finished ones left: completions, judgments,
    /// pairs, checkpoints on the way. What they came to stays.
    ///
    /// # Errors
    /// When there is no space, or the log is damaged; nothing that is needed is gone then.
    pub fn retain(&self, keep: u32) -> Result<Freed, Error> {
        retention::retain(&self.log, &self.blobs, keep)
    }

    /// After an iteration, where the settings want it. That it fails must not stop a run.
    fn retain_as_configured(&self) {
        let keep = self.config.storage.keep_iterations;
        if keep == 0 {
            return;
        }
        match self.retain(keep) {
            Ok(freed) => tracing::info!(?freed, "old iterations were compacted"),
            Err(error) => tracing::warn!(%error, "old iterations stay for now"),
        }
    }

    fn workshop(&self) -> &CandleWorkshop {
        &self.handle.workshop
    }

    /// The first stage that waits for the host, as an outcome.
    fn halted(&self) -> Option<Outcome> {
        self.stages().into_iter().find_map(|s| {
            let (stage, reason) = (s.stage.to_owned(), s.state.halted?);
            Some(Outcome::Halted { stage, reason })
        })
    }

    /// Whether the log takes events.
    pub fn log_health(&self) -> Health {
        self.context.log.health()
    }

    /// Stops at the next safe point; what was recorded is durable when this returns.
    pub fn shutdown(self) {
        self.system.lock().unwrap_or_else(PoisonError::into_inner).stop();
    }
}
