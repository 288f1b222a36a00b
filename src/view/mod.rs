//! WHAT IS KNOWN: folds over the log. A view is pure, total and disposable; it holds ids, counts
//! and offsets, never bodies: those are read from the log by offset.
//!
//! There is one view, [`RunView`], because every stage needs a slice of the same small state.

mod figures;
mod find;
mod finished;
mod fold;
mod iteration;
mod live;
mod pool;
mod probes;
mod rubrics;
mod shared;
mod shared_map;
mod shared_set;
mod taken_back;
#[cfg(test)]
mod tests;
mod watch;

pub use figures::{Deviations, RubricFigures, RunningMean};
pub use finished::FinishedIteration;
pub use iteration::{
    CheckpointFacts, GateDecision, IterationView, PairSums, PromptJudgments, TimeSpan, WritingRound,
};
pub use live::{LiveView, Look};
pub use probes::{AttackScores, BadAnswerMargin, ProbeProgress, ProbeResult};
use rubrics::PanelState;
pub use rubrics::{RubricFacts, RubricsView, TrialProgress};
pub use shared::Shared;
pub use shared_map::{Iter, SharedMap};
pub use shared_set::SharedSet;

use crate::domain::plan::{SeedSet, SettingChange};
use crate::domain::vote::VoteCounts;
use crate::domain::{
    AdapterShape, BlobHash, Event, Iteration, Offset, Panel, PolicyRef, PromptId, PromptOrigin,
    RubricId, Seed, TaskKey, When,
};
use crate::log::{Log, LogError, Recorded};
use pool::Turn;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::{BTreeMap, BTreeSet};

/// A prompt's place in the log.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PromptFacts {
    /// Where its text is.
    pub offset: Offset,
    /// Where it came from.
    pub origin: PromptOrigin,
    /// Prompts of a higher one are answered first.
    #[serde(default, skip_serializing_if = "is_usual")]
    pub priority: i32,
}

fn is_usual(priority: &i32) -> bool {
    *priority == 0
}

fn is_none(count: &u64) -> bool {
    *count == 0
}

/// Records folded at a time.
pub(crate) const FOLD_RECORDS: usize = 512;

fn no_votes(votes: &VoteCounts) -> bool {
    votes.all() == 0
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// What a view keeps of iterations that are over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Keeps {
    /// Everything: for reports, and for judging again.
    #[default]
    Everything,
    /// What is needed to go on: of the last one everything, for results that were in hand when it
    /// ended; of those before it a [`FinishedIteration`].
    ToGoOn,
}

/// The state of a run after the records folded so far.
///
/// A copy costs next to nothing, whatever the run has behind it, and folding on while somebody holds
/// one copies what changes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct RunView {
    /// First record not folded yet.
    pub next: Offset,
    /// Root of all randomness, once the run has started.
    pub seed: Option<Seed>,
    /// M0.
    pub base: Option<PolicyRef>,
    /// The settings as they were last recorded.
    #[serde(default)]
    pub settings: Option<Shared<serde_json::Value>>,
    /// Settings that are others from the next iteration on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(self) settings_changing: Vec<SettingChange>,
    /// What adapters of schema 1 are, whose records do not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapters_of_old: Option<AdapterShape>,
    /// The model's files that stay what they are, by the hash of their bytes.
    #[serde(default)]
    pub model_files: Shared<BTreeMap<String, BlobHash>>,
    /// The promoted policy.
    pub policy: Option<PolicyRef>,
    /// Whether somebody wants that one to stay, whatever iterations come to.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pinned: bool,
    /// How many iterations somebody wants, where the settings say fewer.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub iterations_raised: u32,
    /// What people said of answers.
    #[serde(default, skip_serializing_if = "no_votes")]
    pub votes: VoteCounts,
    /// The first promoted policy after the base (M1), which later ones are compared with.
    pub first: Option<PolicyRef>,
    /// Judges iterations opened from here on.
    #[serde(rename = "rubric")]
    pub panel: Option<Panel>,
    /// What is known of rubrics.
    #[serde(default)]
    pub rubrics: Shared<RubricsView>,
    /// Everything admitted.
    pub prompts: SharedMap<PromptId, PromptFacts>,
    /// Prompts that an iteration has sealed.
    pub used: SharedSet<PromptId>,
    /// `prompts.held_out` as it was last obeyed. Not in views of old.
    #[serde(default)]
    pub held_out_wanted: Option<u32>,
    /// How many held-out prompts are measured on at most, once the setting was changed.
    #[serde(default)]
    pub measured_max: Option<u32>,
    /// Rows for supervised fine-tuning.
    pub seed_data: Vec<SeedSet>,
    /// The open iteration, and of those that are over all that the view keeps
    /// ([`RunView::is_whole`]).
    pub iterations: BTreeMap<Iteration, Shared<IterationView>>,
    /// The host asked for a pause.
    pub paused: bool,
    /// How often the host said go on.
    #[serde(default, skip_serializing_if = "is_none")]
    pub resumed: u64,
    /// How often each task failed, since the last iteration that is over.
    pub failures: BTreeMap<TaskKey, u32>,
    /// Tasks that failed before that.
    #[serde(default, skip_serializing_if = "is_none")]
    failed_before: u64,
    #[serde(skip)]
    keeps: Keeps,
    // What follows is made of what stands before it.
    /// What finished iterations came to.
    #[serde(skip)]
    past: SharedMap<Iteration, Shared<FinishedIteration>>,
    /// Where the first iteration was opened.
    #[serde(skip)]
    began: Option<Offset>,
    /// Prompts that wait to be answered, the next one first.
    #[serde(skip)]
    waiting: SharedSet<Turn>,
    /// Prompts that are never trained on.
    #[serde(skip)]
    never_trained_on: SharedSet<PromptId>,
}

impl Serialize for RunView {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        RunView::serialize(self, to)
    }
}

impl<'de> Deserialize<'de> for RunView {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<RunView, D::Error> {
        let mut view = RunView::deserialize(from)?;
        view.index_iterations();
        view.index_prompts();
        Ok(view)
    }
}

impl RunView {
    /// The view's name in a compacted log.
    pub const NAME: &'static str = "run";

    /// What is known where a log begins: nothing, or what was known at the floor of a compacted one.
    ///
    /// # Errors
    /// When that cannot be read.
    pub fn at_the_floor(log: &dyn Log) -> Result<RunView, LogError> {
        let Some(base) = log.compacted() else { return Ok(RunView::default()) };
        let floor = base.floor();
        let found = base.view(RunView::NAME)?.map(serde_json::from_value::<RunView>).transpose();
        match found {
            Ok(Some(view)) if view.next == floor => Ok(view),
            Ok(_) => Err(LogError::Read(format!("no view of the records before {floor}"))),
            Err(error) => Err(LogError::Read(format!("the view of record {floor}: {error}"))),
        }
    }

    /// Folds all further records of a log.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn catch_up(&mut self, log: &dyn Log) -> Result<(), LogError> {
        while self.follow(log, FOLD_RECORDS, |_| {})? > 0 {}
        Ok(())
    }

    /// Folds up to `max` further records of a log, `each` of which is shown first; how many there
    /// were. One that is behind a compacted log's floor begins there.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn follow(
        &mut self,
        log: &dyn Log,
        max: usize,
        mut each: impl FnMut(&Recorded),
    ) -> Result<usize, LogError> {
        let records = log.read(self.next, max)?;
        // Looked at afterwards: what was read may have gaps if it was compacted meanwhile.
        if log.compacted().is_some_and(|base| self.next < base.floor()) {
            let keeps = self.keeps;
            *self = RunView::at_the_floor(log)?;
            if keeps == Keeps::ToGoOn {
                self.forget_finished();
            }
            return self.follow(log, max, each);
        }
        for record in &records {
            each(record);
            self.apply(record);
        }
        Ok(records.len())
    }

    /// Folds one record. Records come in order; one that was folded already is ignored, so a
    /// doubled read changes nothing.
    pub fn apply(&mut self, record: &Recorded) {
        if record.offset < self.next {
            return;
        }
        self.next = Offset(record.offset.0 + 1);
        if !self.accepts(record) {
            return;
        }
        if let Some((iteration, view)) = self.iteration_of(&record.event) {
            view.fold(record);
            if view.outcome.is_some() {
                self.note_finished(iteration);
            }
        }
        self.fold(record);
    }

    /// What an event comes to for the rubrics, who are shown what judges.
    fn update_rubrics(&mut self, tell: impl FnOnce(&mut RubricsView, &PanelState<'_>)) {
        let mut rubrics = std::mem::take(&mut self.rubrics);
        let on_trial = !rubrics.trials.is_empty();
        let open = self.open().map(|(_, open)| open);
        let last = on_trial && open.is_none_or(IterationView::all_judged);
        let open = open.map(|open| &open.panel);
        tell(&mut rubrics, &PanelState { panel: self.panel.as_ref(), open, last });
        self.rubrics = rubrics;
    }

    /// A new panel, for the open iteration too where that is wanted and its pairs are not fixed.
    fn set_panel(&mut self, panel: &Panel, when: When) {
        self.panel = Some(panel.clone());
        if let Some(open) = self.iterations.values_mut().last()
            && when == When::Immediately
            && open.outcome.is_none()
            && open.sealed.is_none()
        {
            open.set_panel(panel);
        }
    }

    /// `back_to` takes the place of a panel with one of these rubrics, and what they judged in the
    /// open iteration counts for nothing.
    fn take_back(&mut self, rubrics: &[RubricId], back_to: &Panel) {
        let sits = |panel: &Panel| rubrics.iter().any(|rubric| panel.has(rubric));
        if self.panel.as_ref().is_none_or(sits) {
            self.panel = Some(back_to.clone());
        }
        if let Some(open) = self.iterations.values_mut().last() {
            open.take_back(rubrics, back_to);
        }
    }

    /// A rubric that failed and the panel to go back to, if there is one. Nothing is judged or
    /// decided until the conductor has gone back. So it is with one that was rolled back while the
    /// iteration was being opened with it.
    pub fn failing(&self) -> Option<(&RubricId, &String, &Panel)> {
        let (_, open) = self.open()?;
        let ours = |(rubric, _): &(&RubricId, &String)| open.panel.has(rubric);
        if let Some((rubric, reason)) = self.rubrics.failed.iter().find(ours) {
            return Some((rubric, reason, self.rubrics.fallback(&open.panel)?));
        }
        let (rubric, reason) = self.rubrics.retired.iter().find(ours)?;
        let back_to = self.panel.as_ref().filter(|panel| !panel.has(rubric))?;
        open.sealed.is_none().then_some((rubric, reason, back_to))
    }

    /// Why a rubric that judges fails, if it does and stays: nobody judged before it that could come
    /// back.
    pub fn kept_though_failing(&self, rubric: &RubricId) -> Option<&String> {
        let on_panel = self.panel.as_ref().is_some_and(|panel| panel.has(rubric));
        let leaves = self.failing().is_some();
        self.rubrics.kept_though_failing(rubric).filter(|_| on_panel && !leaves)
    }

    fn change_settings(&mut self, changes: &[SettingChange]) {
        let settings = &mut **self.settings.get_or_insert_default();
        for SettingChange { key, to, .. } in changes {
            let mut place = &mut *settings;
            for level in key.split('.') {
                if !place.is_object() {
                    *place = serde_json::Value::Object(serde_json::Map::new());
                }
                place = &mut place[level];
            }
            *place = to.clone();
        }
        self.settings_changing.extend(changes.iter().cloned());
    }

    /// What was changed until then belongs to an iteration.
    fn note_settings(&mut self, iteration: Iteration) {
        if let Some(open) = self.iterations.get_mut(&iteration) {
            open.settings_changed = std::mem::take(&mut self.settings_changing);
        }
    }

    fn admit_seed_data(&mut self, name: &str, rows: u32, blob: &BlobHash) {
        self.seed_data.push(SeedSet { name: name.to_owned(), blob: blob.clone(), rows });
    }

    fn open_iteration(&mut self, iteration: Iteration, view: IterationView, record: &Recorded) {
        let opened = record.offset;
        let span = TimeSpan { first_ms: record.at_ms, last_ms: record.at_ms };
        self.iterations.insert(iteration, IterationView { opened, span, ..view }.into());
        self.began.get_or_insert(opened);
        self.note_settings(iteration);
    }

    fn iteration_of(&mut self, event: &Event) -> Option<(Iteration, &mut IterationView)> {
        let iteration = event.iteration()?;
        Some((iteration, self.iterations.get_mut(&iteration)?))
    }

    /// Whether a record counts, which was not folded yet: one that was decided before a rubric was
    /// rolled back, and came after, may not; nor does one of an iteration that was over so long ago
    /// that a running run has forgotten it.
    pub fn accepts(&self, record: &Recorded) -> bool {
        let Some(iteration) = record.event.iteration() else { return true };
        match self.iterations.get(&iteration) {
            Some(open) => open.accepts(record),
            None => !self.past.contains_key(&iteration),
        }
    }

    /// The blobs that a run needs which keeps iterations opened at `whole_from` and later whole.
    pub fn blobs(&self, whole_from: Offset) -> BTreeSet<BlobHash> {
        let policies = self.base.iter().chain(&self.policy).chain(&self.first);
        let mut needed: BTreeSet<BlobHash> = policies.flat_map(PolicyRef::blobs).cloned().collect();
        needed.extend(self.seed_data.iter().map(|data| data.blob.clone()));
        for iteration in self.iterations.values() {
            needed.extend(iteration.blobs(iteration.opened >= whole_from));
        }
        let forgotten = self.past.iter().filter(|(n, _)| !self.iterations.contains_key(n));
        needed.extend(forgotten.flat_map(|(_, past)| past.blobs.iter().cloned()));
        needed
    }

    /// The blobs that a run cannot do without: checkpoints of the open iteration are made again where
    /// they are gone.
    pub fn lasting_blobs(&self) -> BTreeSet<BlobHash> {
        let mut lasting = self.blobs(self.next);
        if let Some((_, open)) = self.open() {
            let ours = [&open.policy, &open.reference].into_iter().chain(&open.merged);
            let ours: BTreeSet<&BlobHash> = ours.flat_map(PolicyRef::blobs).collect();
            let again = open.checkpoint_blobs();
            lasting.retain(|blob| ours.contains(blob) || !again.contains(blob));
        }
        lasting
    }

    /// Blobs of checkpoints that others have taken the place of, and of what finished iterations
    /// needed on the way. For whoever writes checkpoints, between two of them.
    pub fn superseded(&self) -> Vec<BlobHash> {
        self.unneeded(self.iterations.values().map(|iteration| &**iteration))
    }

    /// The same of finished iterations alone, for whoever works beside.
    pub fn superseded_by_the_end(&self) -> Vec<BlobHash> {
        let over = self.iterations.values().filter(|iteration| iteration.outcome.is_some());
        self.unneeded(over.map(|iteration| &**iteration))
    }

    fn unneeded<'v>(&self, of: impl Iterator<Item = &'v IterationView>) -> Vec<BlobHash> {
        let needed = self.blobs(Offset(0));
        let named = of.flat_map(IterationView::checkpoint_blobs);
        named.filter(|blob| !needed.contains(blob)).collect()
    }

    /// The iteration that is not finished, if any.
    pub fn open(&self) -> Option<(Iteration, &IterationView)> {
        let (iteration, view) = self.iterations.last_key_value()?;
        view.outcome.is_none().then_some((*iteration, view))
    }

    /// Whether the open iteration began with a policy that somebody has chosen another for since.
    pub fn is_overruled(&self) -> bool {
        let undecided = self.open().filter(|(_, open)| open.decision.is_none());
        undecided.is_some_and(|(_, open)| self.policy.as_ref() != Some(&open.policy))
    }
}
