//! WHAT IS KNOWN: folds over the log. A view is pure, total and disposable; it holds ids, counts
//! and offsets, never bodies: those are read from the log by offset.
//!
//! There is one view, [`RunView`], because every stage needs a slice of the same small state.

mod figures;
mod find;
mod iteration;
mod probes;
mod rubrics;
mod taken_back;
mod watch;

pub use figures::RubricFigures;
pub use iteration::{CheckpointFacts, Decision, IterationView, PairSums, Under};
pub use probes::{Known, Liking, Probed, Probing};
use rubrics::Scene;
pub use rubrics::{OnTrial, RubricFacts, RubricsView};

use crate::domain::{
    Event, Iteration, Offset, Panel, PolicyRef, PromptId, PromptOrigin, RubricId, Seed, TaskKey,
    When, event::IterationKind,
};
use crate::log::{Log, LogError, Recorded};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// A prompt's place in the log.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PromptFacts {
    /// Where its text is.
    pub offset: Offset,
    /// Where it came from.
    pub origin: PromptOrigin,
}

/// Seed data by name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SeedFacts {
    /// `ift` or `eft`.
    pub name: String,
    /// Its blob.
    pub blob: crate::domain::BlobHash,
    /// How many rows.
    pub rows: u32,
}

/// The state of a run after the records folded so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunView {
    /// First record not folded yet.
    pub next: Offset,
    /// Root of all randomness, once the run has started.
    pub seed: Option<Seed>,
    /// M0.
    pub base: Option<PolicyRef>,
    /// The promoted policy.
    pub policy: Option<PolicyRef>,
    /// The first promoted policy after the base (M1), which later ones are compared with.
    pub first: Option<PolicyRef>,
    /// Judges iterations opened from here on.
    #[serde(rename = "rubric")]
    pub panel: Option<Panel>,
    /// What is known of rubrics.
    #[serde(default)]
    pub rubrics: RubricsView,
    /// Everything admitted.
    pub prompts: BTreeMap<PromptId, PromptFacts>,
    /// Prompts that an iteration has sealed.
    pub used: BTreeSet<PromptId>,
    /// `prompts.held_out` as it was last obeyed. Not in views of old.
    #[serde(default)]
    pub held_out_wanted: Option<u32>,
    /// How many held-out prompts are measured on at most, once the setting was changed.
    #[serde(default)]
    pub measured_max: Option<u32>,
    /// Rows for supervised fine-tuning.
    pub seed_data: Vec<SeedFacts>,
    /// All iterations, open and finished.
    pub iterations: BTreeMap<Iteration, IterationView>,
    /// The host asked for a pause.
    pub paused: bool,
    /// How often each task failed.
    pub failures: BTreeMap<TaskKey, u32>,
}

impl RunView {
    /// The view's name in a compacted log.
    pub const NAME: &'static str = "run";

    /// What is known where a log begins: nothing, or what was known at the floor of a compacted one.
    ///
    /// # Errors
    /// When that cannot be read.
    pub fn at_the_floor(log: &dyn Log) -> Result<RunView, LogError> {
        let Some(base) = log.base() else { return Ok(RunView::default()) };
        let floor = base.floor();
        let found = base.view(RunView::NAME)?.map(serde_json::from_value::<RunView>).transpose();
        match found {
            Ok(Some(view)) if view.next == floor => Ok(view),
            Ok(_) => Err(LogError::Read(format!("no view of the records before {floor}"))),
            Err(error) => Err(LogError::Read(format!("the view of record {floor}: {error}"))),
        }
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
        if log.base().is_some_and(|base| self.next < base.floor()) {
            *self = RunView::at_the_floor(log)?;
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
        if let Some(view) = self.iteration_of(&record.event) {
            if !view.heeds(record) {
                return;
            }
            view.apply(record);
        }
        let on_trial = !self.rubrics.trials.is_empty();
        let open = self.iterations.values().last().filter(|open| open.outcome.is_none());
        let last = on_trial && open.is_none_or(IterationView::all_judged);
        let open = open.map(|open| &open.panel);
        let scene = Scene { panel: self.panel.as_ref(), open, last };
        self.rubrics.apply(&record.event, &scene);
        self.apply_run(record);
    }

    /// A new panel, for the open iteration too where that is wanted and its pairs are not fixed.
    fn seat(&mut self, panel: &Panel, when: When) {
        self.panel = Some(panel.clone());
        if let Some(open) = self.iterations.values_mut().last()
            && when == When::Immediately
            && open.outcome.is_none()
            && open.sealed.is_none()
        {
            open.seat(panel);
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
        let (rubric, reason) = self.rubrics.put_away.iter().find(ours)?;
        let back_to = self.panel.as_ref().filter(|panel| !panel.has(rubric))?;
        open.sealed.is_none().then_some((rubric, reason, back_to))
    }

    /// Why a rubric that judges fails, if it does and stays: nobody judged before it that could come
    /// back.
    pub fn ails(&self, rubric: &RubricId) -> Option<&String> {
        let seated = self.panel.as_ref().is_some_and(|panel| panel.has(rubric));
        let leaves = self.failing().is_some();
        self.rubrics.ails(rubric).filter(|_| seated && !leaves)
    }

    fn apply_run(&mut self, record: &Recorded) {
        match &record.event {
            Event::RunStarted { seed, base, settings } => {
                let wanted = settings.pointer("/prompts/held_out").and_then(|n| n.as_u64());
                self.held_out_wanted = wanted.and_then(|n| u32::try_from(n).ok());
                self.seed = Some(Seed::root(*seed));
                self.base = Some(base.clone());
                self.policy = Some(base.clone());
            }
            Event::RubricActivated { panel, when, .. } => self.seat(panel, *when),
            Event::RubricRolledBack { back_to, taken_back, .. } if !taken_back.is_empty() => {
                self.take_back(taken_back, back_to);
            }
            Event::RubricRolledBack { rubric, back_to, .. } => {
                self.seat(back_to, When::Immediately);
                if let Some(open) = self.iterations.values_mut().last() {
                    open.forget_judgments_under(rubric);
                }
            }
            Event::PromptAdmitted { prompt } => {
                let facts = PromptFacts { offset: record.offset, origin: prompt.origin };
                self.prompts.entry(prompt.id.clone()).or_insert(facts);
            }
            Event::PromptsHeldOut { wanted, prompts } => {
                for id in prompts {
                    if let Some(facts) = self.prompts.get_mut(id) {
                        facts.origin = PromptOrigin::HeldOut;
                    }
                }
                self.held_out_wanted = Some(*wanted);
                self.measured_max = Some(*wanted);
            }
            Event::SeedDataAdmitted { name, rows, blob } => self.seed_data.push(SeedFacts {
                name: name.clone(),
                blob: blob.clone(),
                rows: *rows,
            }),
            Event::IterationStarted { iteration, kind, policy, reference, panel } => {
                let mut view = IterationView::open(*kind, policy, reference, panel);
                view.opened = record.offset;
                view.span_ms = (record.at_ms, record.at_ms);
                self.iterations.insert(*iteration, view);
            }
            Event::PromptsSealed { prompts, .. } => self.used.extend(prompts.iter().cloned()),
            Event::CheckpointPromoted { policy, .. } => {
                self.first.get_or_insert_with(|| policy.clone());
                self.policy = Some(policy.clone());
            }
            Event::PauseRequested => self.paused = true,
            Event::ResumeRequested => self.paused = false,
            Event::TaskFailed { task, .. } => {
                *self.failures.entry(task.clone()).or_default() += 1;
            }
            _ => {}
        }
    }

    fn iteration_of(&mut self, event: &Event) -> Option<&mut IterationView> {
        let iteration = match event {
            Event::PromptsWritten { iteration, .. }
            | Event::PromptsSplit { iteration, .. }
            | Event::PromptQuarantined { iteration, .. }
            | Event::PromptsSealed { iteration, .. }
            | Event::CompletionsSampled { iteration, .. }
            | Event::JudgeProbed { iteration, .. }
            | Event::JudgmentsRecorded { iteration, .. }
            | Event::ShadowJudged { iteration, .. }
            | Event::PairFormed { iteration, .. }
            | Event::PairSkipped { iteration, .. }
            | Event::PairsSealed { iteration, .. }
            | Event::ReferenceScored { iteration, .. }
            | Event::StepTaken { iteration, .. }
            | Event::StepSkipped { iteration, .. }
            | Event::MemoryShort { iteration, .. }
            | Event::TrainingRolledBack { iteration, .. }
            | Event::TrainingDiverged { iteration, .. }
            | Event::CheckpointSaved { iteration, .. }
            | Event::CheckpointLost { iteration, .. }
            | Event::HeldOutJudged { iteration, .. }
            | Event::EvaluationFinished { iteration, .. }
            | Event::CheckpointPromoted { iteration, .. }
            | Event::CheckpointRejected { iteration, .. }
            | Event::IterationFinished { iteration, .. } => *iteration,
            _ => return None,
        };
        self.iterations.get_mut(&iteration)
    }

    /// Whether a record counts, which was not folded yet: one that was decided before a rubric was
    /// rolled back, and came after, may not.
    pub fn heeds(&mut self, record: &Recorded) -> bool {
        self.iteration_of(&record.event).is_none_or(|open| open.heeds(record))
    }

    /// The iteration that is not finished, if any.
    pub fn open(&self) -> Option<(Iteration, &IterationView)> {
        let (iteration, view) = self.iterations.last_key_value()?;
        view.outcome.is_none().then_some((*iteration, view))
    }

    /// How many iterations are over.
    pub fn finished(&self) -> u32 {
        let count = self.iterations.values().filter(|view| view.outcome.is_some()).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Prompts for training that no iteration has used, in the order of their ids.
    pub fn unused(&self) -> impl Iterator<Item = (&PromptId, &PromptFacts)> {
        self.prompts.iter().filter(|(id, facts)| {
            let ours = matches!(facts.origin, PromptOrigin::Given | PromptOrigin::Generated);
            ours && !self.used.contains(*id)
        })
    }

    /// Prompts that are never trained on, in the order of their ids.
    pub fn never_trained_on(&self) -> impl Iterator<Item = (&PromptId, &PromptFacts)> {
        self.prompts.iter().filter(|(_, facts)| facts.origin == PromptOrigin::HeldOut)
    }

    /// Prompts to measure on, in the order of their ids: those that are never trained on, or as
    /// many of them as `prompts.held_out` was changed to.
    pub fn held_out(&self) -> impl Iterator<Item = (&PromptId, &PromptFacts)> {
        let most = self.measured_max.map_or(usize::MAX, |most| most as usize);
        self.never_trained_on().take(most)
    }

    /// What the next iteration would be: supervised first, if there is seed data.
    pub fn next_iteration(&self) -> (Iteration, IterationKind) {
        let next = self.iterations.last_key_value().map_or(Iteration(1), |(last, _)| last.next());
        let seeded = !self.seed_data.is_empty();
        let kind = if next.0 == 1 && seeded { IterationKind::Sft } else { IterationKind::Dpo };
        (next, kind)
    }
}
