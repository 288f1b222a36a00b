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
use crate::view::{IterationView, RunView, Shared};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

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
    /// How far the open iteration is; none between two.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iteration: Option<IterationProgress>,
    /// Tokens drawn a second, over the last ten; none while none are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_second: Option<f64>,
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

/// How far an open iteration is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct IterationProgress {
    /// Its number.
    pub number: u32,
    /// Seconds since it was opened.
    pub seconds: f64,
    /// Pairs so far.
    pub pairs: usize,
    /// Loss of the last step that is recorded: steps are, at each checkpoint.
    pub loss: Option<f64>,
    /// Its reward margin, where it was on pairs.
    pub margin: Option<f64>,
    /// Seconds that each stage will still take at the speed that it has, where it has begun.
    pub left_seconds: BTreeMap<String, f64>,
    /// Seconds that are left in all: of stages that have not begun, as long as they took in the last
    /// iteration of the same kind.
    pub all_left_seconds: Option<f64>,
    /// Whether that is at least so much, for some stage has not begun and never took any time yet.
    pub at_least: bool,
}

/// The stages that take an iteration's time, in the order of the loop.
const TIMED: [&str; 4] = ["sampler", "judge", "trainer", "evaluator"];

impl IterationProgress {
    /// Of the iteration that is open; `now_ms` as records tell the time.
    pub(super) fn of(
        view: &RunView,
        now_ms: u64,
        known: &KnownProgress,
    ) -> Option<IterationProgress> {
        let (number, open) = view.open()?;
        let alike =
            |other: &&Shared<IterationView>| other.kind == open.kind && other.outcome.is_some();
        let before = view.iterations.values().rev().find(alike);
        let (mut all, mut at_least) = (0.0, false);
        let wanted = TIMED.into_iter().filter(|stage| match open.kind {
            IterationKind::Sft => ["trainer", "evaluator"].contains(stage),
            IterationKind::Dpo => true,
        });
        for stage in wanted {
            let over = known.progress.get(stage).is_some_and(|(done, total)| done >= total);
            let took =
                || before.and_then(|before| before.stage_ms.get(stage)).map(|ms| *ms as f64 / 1e3);
            match known.left_seconds.get(stage).copied().or_else(took) {
                _ if over => {}
                Some(seconds) => all += seconds,
                None => at_least = true,
            }
        }
        let last = open.steps.last().map(|(_, step)| step);
        let on_pairs = open.kind == IterationKind::Dpo;
        Some(IterationProgress {
            number: number.0,
            seconds: now_ms.saturating_sub(open.span.first_ms) as f64 / 1e3,
            pairs: open.pairs.len(),
            loss: last.map(|step| step.loss),
            margin: last.filter(|_| on_pairs).map(|step| step.rewards_margin),
            left_seconds: known.left_seconds.clone(),
            all_left_seconds: (all > 0.0).then_some(all),
            at_least,
        })
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

/// What stages reported of the open iteration.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct KnownProgress {
    /// The stage that reported last.
    pub stage: String,
    /// Done and total of each.
    pub progress: BTreeMap<String, (u64, u64)>,
    /// Seconds that each will still take at the speed that it has.
    pub left_seconds: BTreeMap<String, f64>,
    /// Tokens drawn a second.
    pub tokens_per_second: Option<f64>,
}

/// How far a stage is, and since when.
struct StageProgress {
    /// When it reported for the first time, and how much was done then.
    first: (Instant, u64),
    done: u64,
    total: u64,
}

impl StageProgress {
    fn left_seconds(&self) -> Option<f64> {
        let (since, before) = self.first;
        let done = self.done.checked_sub(before).filter(|done| *done > 0)?;
        let left = self.total.checked_sub(self.done).filter(|left| *left > 0)?;
        Some(since.elapsed().as_secs_f64() / done as f64 * left as f64)
    }
}

/// How long the rate of tokens looks back.
const LOOKED_BACK: Duration = Duration::from_secs(10);
/// Between two counts of it.
const BETWEEN: Duration = Duration::from_millis(900);

/// Counts of tokens at moments, the oldest first.
#[derive(Default)]
struct TokenRate(VecDeque<(Instant, u64)>);

impl TokenRate {
    fn per_second(&mut self, drawn: u64) -> Option<f64> {
        let now = Instant::now();
        if self.0.back().is_none_or(|(last, _)| now.duration_since(*last) >= BETWEEN) {
            self.0.push_back((now, drawn));
        }
        let old = |first: &(Instant, u64)| now.duration_since(first.0) > LOOKED_BACK;
        while self.0.len() > 2 && self.0.front().is_some_and(old) {
            self.0.pop_front();
        }
        let ((first, before), (last, after)) = self.0.front().zip(self.0.back())?;
        let seconds = last.duration_since(*first).as_secs_f64();
        let tokens = after.saturating_sub(*before);
        (seconds > 0.0 && tokens > 0).then(|| tokens as f64 / seconds)
    }
}

#[derive(Default)]
struct Reported {
    iteration: Option<Iteration>,
    stage: String,
    stages: BTreeMap<String, StageProgress>,
    tokens: TokenRate,
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

    /// What is known of the iteration that is open, so many tokens having been drawn in all.
    pub(super) fn known(&self, open: Option<Iteration>, drawn: u64) -> KnownProgress {
        let mut reported = self.lock();
        if open.is_some() && reported.iteration != open {
            let tokens = std::mem::take(&mut reported.tokens);
            *reported = Reported { iteration: open, tokens, ..Reported::default() };
        }
        let stages = reported.stages.iter();
        let left =
            |(stage, one): (&String, &StageProgress)| Some((stage.clone(), one.left_seconds()?));
        KnownProgress {
            stage: reported.stage.clone(),
            left_seconds: stages.clone().filter_map(left).collect(),
            progress: stages.map(|(stage, one)| (stage.clone(), (one.done, one.total))).collect(),
            tokens_per_second: reported.tokens.per_second(drawn),
        }
    }
}

impl Gauge for Progress {
    fn progress(&self, stage: &'static str, done: u64, total: u64) {
        {
            let mut reported = self.lock();
            stage.clone_into(&mut reported.stage);
            let begun = || StageProgress { first: (Instant::now(), done), done, total };
            let one = reported.stages.entry(stage.to_owned()).or_insert_with(begun);
            // One that begins anew is another, as the trainer after a rollback.
            if done < one.done || total != one.total {
                *one = begun();
            }
            one.done = done;
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

    struct Quiet;

    impl Gauge for Quiet {
        fn progress(&self, _stage: &'static str, _done: u64, _total: u64) {}
    }

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
        let known = progress.known(None, 0);
        assert_eq!((known.stage.as_str(), known.progress["judge"]), ("judge", (2, 4)));
        assert!(known.left_seconds["judge"] >= 0.0 && known.tokens_per_second.is_none());
        let known = progress.known(Some(Iteration(2)), 0);
        assert!(known.progress.is_empty(), "what is known is of the open iteration");
    }

    #[test]
    fn tokens_are_counted_by_the_second() {
        let mut rate = TokenRate::default();
        assert_eq!(rate.per_second(100), None);
        std::thread::sleep(BETWEEN);
        let found = rate.per_second(1000).unwrap();
        assert!(found > 0.0 && found <= 900.0 / BETWEEN.as_secs_f64(), "{found}");
    }

    /// A stage that has not begun takes as long as in the iteration before, where there was one.
    #[test]
    fn what_is_left_is_the_stages_own_speed_and_else_the_last_iterations() {
        let progress = Progress::passed_on_to(Arc::new(Quiet));
        progress.progress("sampler", 1, 5);
        std::thread::sleep(Duration::from_millis(20));
        progress.progress("sampler", 3, 5);
        let known = progress.known(None, 0);
        let left = known.left_seconds["sampler"];
        assert!((0.02..2.0).contains(&left), "{left}");
        let (view, none) = (RunView::default(), KnownProgress::default());
        assert!(IterationProgress::of(&view, 0, &none).is_none(), "no iteration is open");
    }
}
