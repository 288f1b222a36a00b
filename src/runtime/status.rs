//! STATUS: what a run is doing, made by the runtime itself, so that a host that embeds it has it too.
//! It is told to whoever asks ([`super::Query::Status`]) and written into the run's folder once a
//! second, into a file that is open from the beginning: when file handles are used up or the folder
//! is away, that is when somebody reads it. Never truth: the log is.

use super::policies;
use super::settings::SettingsToCome;
use crate::actor::StageStatus;
use crate::actor::shell::ShellState;
use crate::domain::Iteration;
use crate::domain::event::IterationKind;
use crate::log::Health;
use crate::stage::Gauge;
use crate::stage::conductor::PromptsAwaited;
use crate::view::RunView;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a run is doing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Status {
    /// The process that works on it; 0 where it is not known.
    pub pid: u32,
    /// What computes.
    pub device: String,
    /// When this was so, milliseconds since 1970.
    pub at_ms: u64,
    /// What it is at, in a word.
    pub activity: Activity,
    /// `M2 DPO`: what the open iteration, or the last one, makes.
    pub model: String,
    /// The stage that reported last.
    pub stage: String,
    /// Done and total of each stage in this iteration.
    pub progress: BTreeMap<String, (u64, u64)>,
    /// Iterations that are over.
    pub finished: u32,
    /// Iterations that are wanted in all.
    pub wanted: u32,
    /// What the policy that acts is called, and whether somebody wants it to stay.
    pub policy: String,
    /// Whether somebody wants it to stay, whatever later iterations come to.
    pub pinned: bool,
    /// Prompts that wait to be answered.
    pub prompts_waiting: usize,
    /// Records of the log.
    pub records: u64,
    /// What each stage is doing, its failures and restarts.
    pub stages: BTreeMap<String, ShellState>,
    /// Whether the log takes events.
    pub log: Health,
    /// What of the settings counts from the next iteration on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub settings_to_come: Option<SettingsToCome>,
}

impl Status {
    /// What a view says of a run, whoever works on it; the process that asks is named.
    pub fn of(view: &RunView) -> Status {
        Status {
            pid: std::process::id(),
            activity: Activity::of(view, 0, || None),
            model: model_name(view),
            finished: view.finished(),
            policy: policies::acting(view).unwrap_or_default(),
            pinned: view.pinned,
            prompts_waiting: view.waiting(),
            records: view.next.0,
            ..Status::default()
        }
    }
}

/// What a run is at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Activity {
    /// An iteration is open or about to be.
    #[default]
    Working,
    /// Somebody asked it to wait, or an iteration ended so that it does.
    Paused,
    /// Too few prompts wait for an iteration (`prompts.wait_for`).
    WaitingForPrompts {
        /// How many there are.
        waiting: usize,
        /// How many there have to be.
        wanted: usize,
    },
    /// All its iterations are over.
    Finished,
}

impl Activity {
    /// What a run is at that shall have so many iterations.
    pub(super) fn of(
        view: &RunView,
        wanted: u32,
        awaited: impl FnOnce() -> Option<PromptsAwaited>,
    ) -> Activity {
        if view.paused {
            return Activity::Paused;
        }
        if view.open().is_some() {
            return Activity::Working;
        }
        if view.finished() >= wanted {
            return Activity::Finished;
        }
        match awaited() {
            Some(PromptsAwaited { waiting, wanted }) => {
                Activity::WaitingForPrompts { waiting, wanted }
            }
            None => Activity::Working,
        }
    }
}

/// What an iteration makes: `M2 DPO`.
pub(super) fn model_name(view: &RunView) -> String {
    let Some((iteration, last)) = view.iterations.last_key_value() else { return String::new() };
    let kind = match last.kind {
        IterationKind::Sft => "SFT",
        IterationKind::Dpo => "DPO",
    };
    format!("M{iteration} {kind}")
}

/// The stages, by name.
pub(super) fn by_name(stages: Vec<StageStatus>) -> BTreeMap<String, ShellState> {
    stages.into_iter().map(|s| (s.stage.to_owned(), s.state)).collect()
}

#[derive(Default)]
struct Reported {
    iteration: Option<Iteration>,
    stage: String,
    progress: BTreeMap<String, (u64, u64)>,
}

/// Keeps the stages' progress, and passes it on to the host's gauge. That the host's gauge panics is
/// the host's matter: it is said once, and the task goes on.
pub(super) struct Progress {
    host: Arc<dyn Gauge>,
    broken: AtomicBool,
    reported: Mutex<Reported>,
}

impl Progress {
    pub(super) fn passed_on_to(host: Arc<dyn Gauge>) -> Progress {
        Progress { host, broken: AtomicBool::new(false), reported: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Reported> {
        self.reported.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The stage that reported last, and how far each is in the iteration that is open.
    pub(super) fn known(&self, open: Option<Iteration>) -> (String, BTreeMap<String, (u64, u64)>) {
        let mut reported = self.lock();
        if open.is_some() && reported.iteration != open {
            *reported = Reported { iteration: open, ..Reported::default() };
        }
        (reported.stage.clone(), reported.progress.clone())
    }
}

impl Gauge for Progress {
    fn progress(&self, stage: &'static str, done: u64, total: u64) {
        {
            let mut reported = self.lock();
            stage.clone_into(&mut reported.stage);
            reported.progress.insert(stage.to_owned(), (done, total));
        }
        if self.broken.load(Ordering::Relaxed) {
            return;
        }
        let told = catch_unwind(AssertUnwindSafe(|| self.host.progress(stage, done, total)));
        if told.is_err() && !self.broken.swap(true, Ordering::Relaxed) {
            tracing::error!("the host's gauge panicked; it is not told of progress any more");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Panics;

    impl Gauge for Panics {
        fn progress(&self, _stage: &'static str, _done: u64, _total: u64) {
            panic!("no screen");
        }
    }

    #[test]
    fn a_gauge_that_panics_costs_nobody_his_task() {
        let progress = Progress::passed_on_to(Arc::new(Panics));
        progress.progress("judge", 1, 4);
        progress.progress("judge", 2, 4);
        let (stage, known) = progress.known(None);
        assert_eq!((stage.as_str(), known["judge"]), ("judge", (2, 4)));
        let (_, known) = progress.known(Some(Iteration(2)));
        assert!(known.is_empty(), "what is known is of the open iteration");
    }
}
