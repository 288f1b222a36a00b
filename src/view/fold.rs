//! What every event comes to, in one place and without a rest: an event that is added does not
//! compile before it is said here.

use super::{GateDecision, IterationView, RunView, WritingRound};
use crate::domain::event::Event::*;
use crate::domain::{Panel, PolicyRef, RubricId, Seed, When};
use crate::log::Recorded;

impl IterationView {
    /// Folds a record of this iteration.
    pub(super) fn fold(&mut self, record: &Recorded) {
        self.note_time(record);
        let at = record.offset;
        match &record.event {
            PlanAdopted { plan, .. } => self.plan = Some((**plan).clone().into()),
            PromptsWritten { admitted, rejected, .. } => {
                self.written.push(WritingRound { admitted: *admitted, rejected: *rejected });
            }
            PromptsSealed { prompts, left, .. } => self.seal_prompts(prompts, *left),
            CompletionsSampled { prompt, set, .. } => self.sample(set, prompt, at),
            JudgeProbed { rubric, report, .. } => self.probe(rubric, report),
            JudgmentsRecorded { prompt, judgments, rubrics, lengths, not_compared, .. } => {
                self.not_compared += not_compared;
                self.judge(prompt, judgments, (rubrics, lengths), at);
            }
            ShadowJudged { prompt, rubric, .. } => {
                self.shadowed.entry(rubric.clone()).or_default().insert(prompt.clone(), at);
            }
            PairFormed { pair, .. } => self.form_pair(pair, at),
            PairSkipped { prompt, reason, .. } => {
                self.skipped.insert(prompt.clone(), *reason);
            }
            PairsSealed { pairs, left, .. } => self.seal_pairs(pairs, *left),
            ReferenceScored { logps, .. } => self.score_reference(logps.len(), at),
            ReferenceMade { policy, .. } => self.reference = policy.clone(),
            AdapterMerged { merged, .. } => self.merged = Some(merged.clone()),
            StepTaken { step, metrics, .. } => self.take_step(*step, metrics),
            StepSkipped { .. } => self.skip_step(),
            MemoryShort { .. } => self.memory_short += 1,
            TrainingRolledBack { step, .. } => self.roll_training_back(*step),
            TrainingDiverged { reason, .. } => self.diverged = Some(reason.clone()),
            CheckpointSaved { step, steps_total, policy, optimizer, .. } => {
                self.save_checkpoint((*step, *steps_total), policy, optimizer);
            }
            CheckpointLost { back_to, .. } => self.lose_checkpoint(*back_to),
            EvaluationFinished { evaluation, .. } => {
                self.evaluation = Some(evaluation.clone());
                self.evaluated_at = Some(at);
            }
            AlarmRaised { alarm, .. } => self.alarms.push(alarm.clone()),
            CheckpointPromoted { .. } => self.decision = Some(GateDecision::Promoted),
            CheckpointRejected { reason, .. } => {
                self.decision = Some(GateDecision::Rejected(reason.clone()));
            }
            IterationFinished { outcome, .. } => self.finish(outcome),
            PromptsSplit { prompts, .. } => self.split.extend(prompts.iter().cloned()),
            PromptQuarantined { prompt, stage, .. } => self.quarantine(prompt, stage),
            // Read where it lies, by who audits an evaluation.
            HeldOutJudged { .. } => {}
            RunStarted { .. } | ModelPinned { .. } | SettingsChanged { .. } => {}
            RubricInstalled { .. } | RubricActivated { .. } | RubricRefused { .. } => {}
            RubricRolledBack { .. } | ShadowsSet { .. } => {}
            PromptAdmitted { .. } | PromptRejected { .. } | PromptsHeldOut { .. } => {}
            SeedDataAdmitted { .. } => {}
            IterationStarted { .. } | IterationStartedUnplanned { .. } => {}
            PolicyChosen { .. } | IterationsRaised { .. } | VoteRecorded { .. } => {}
            TaskFailed { .. } | StageHalted { .. } | PauseRequested | ResumeRequested => {}
            LogRepaired { .. } | LogCompacted { .. } => {}
        }
    }
}

impl RunView {
    /// What a record comes to for the run, after the iteration it belongs to has folded it.
    pub(super) fn fold(&mut self, record: &Recorded) {
        match &record.event {
            RunStarted { seed, base, settings } => self.start(*seed, base, settings),
            ModelPinned { files, adapters_of_old } => {
                self.model_files = files.clone().into();
                self.adapters_of_old.clone_from(adapters_of_old);
            }
            SettingsChanged { changes } => self.change_settings(changes),
            RubricInstalled { rubric, name, version: v } => self.rubrics.install(rubric, name, v),
            RubricActivated { panel, when, trial } => {
                self.update_rubrics(|rubrics, panels| rubrics.activate(panel, *trial, panels));
                self.set_panel(panel, *when);
            }
            ShadowsSet { rubrics } => self.rubrics.shadows.clone_from(rubrics),
            RubricRolledBack { rubric, reason, taken_back, back_to } => {
                self.rubrics.roll_back(rubric, reason, taken_back);
                self.roll_back(rubric, taken_back, back_to);
            }
            PromptAdmitted { prompt } => self.admit(prompt, record.offset),
            PromptsHeldOut { wanted, prompts } => self.hold_out(prompts, *wanted),
            SeedDataAdmitted { name, rows, blob } => self.admit_seed_data(name, *rows, blob),
            IterationStarted { iteration, plan } => {
                self.open_iteration(*iteration, IterationView::planned(plan), record);
            }
            IterationStartedUnplanned { iteration, kind, policy, reference, panel } => {
                let view = IterationView::open(*kind, policy, reference, panel);
                self.open_iteration(*iteration, view, record);
            }
            PromptsSealed { iteration, prompts, .. } => self.use_prompts(*iteration, prompts),
            CheckpointPromoted { policy, .. } => {
                self.first.get_or_insert_with(|| policy.clone());
                self.policy = Some(policy.clone());
            }
            JudgmentsRecorded { judgments, .. } => {
                self.update_rubrics(|rubrics, panels| rubrics.judged(judgments, panels));
            }
            JudgeProbed { .. } | EvaluationFinished { .. } => self.rubrics.judge_replied(),
            PromptQuarantined { .. } => {
                self.update_rubrics(|rubrics, panels| rubrics.end_trials(panels.last));
            }
            TaskFailed { stage, task, reason, questions, .. } => {
                self.update_rubrics(|rubrics, panels| {
                    rubrics.failed_at(stage, (task, reason), *questions, panels);
                });
                *self.failures.entry(task.clone()).or_default() += 1;
            }
            PolicyChosen { policy, pinned, .. } => {
                self.policy = Some(policy.clone());
                self.pinned = *pinned;
            }
            IterationsRaised { total } => self.iterations_raised = *total,
            VoteRecorded { vote } => self.votes.add(&vote.verdict),
            PauseRequested => self.paused = true,
            ResumeRequested => {
                self.paused = false;
                self.resumed += 1;
            }
            PlanAdopted { iteration, .. } => self.note_settings(*iteration),
            PromptsWritten { .. } | PromptsSplit { .. } => {}
            CompletionsSampled { .. } | ShadowJudged { .. } | HeldOutJudged { .. } => {}
            PairFormed { .. } | PairSkipped { .. } | PairsSealed { .. } => {}
            ReferenceScored { .. } | ReferenceMade { .. } | AdapterMerged { .. } => {}
            StepTaken { .. } | StepSkipped { .. } => {}
            MemoryShort { .. } | TrainingRolledBack { .. } | TrainingDiverged { .. } => {}
            CheckpointSaved { .. } | CheckpointLost { .. } | CheckpointRejected { .. } => {}
            AlarmRaised { .. } | IterationFinished { .. } => {}
            RubricRefused { .. } | PromptRejected { .. } => {}
            StageHalted { .. } | LogRepaired { .. } | LogCompacted { .. } => {}
        }
    }
}

/// `prompts.held_out` of recorded settings.
fn held_out(settings: &serde_json::Value) -> Option<u32> {
    let wanted = settings.pointer("/prompts/held_out")?.as_u64()?;
    u32::try_from(wanted).ok()
}

impl RunView {
    fn start(&mut self, seed: u64, base: &PolicyRef, settings: &serde_json::Value) {
        self.held_out_wanted = held_out(settings);
        self.settings = Some(settings.clone().into());
        self.seed = Some(Seed::root(seed));
        self.base = Some(base.clone());
        self.policy = Some(base.clone());
    }

    fn roll_back(&mut self, rubric: &RubricId, taken_back: &[RubricId], back_to: &Panel) {
        if !taken_back.is_empty() {
            return self.take_back(taken_back, back_to);
        }
        self.set_panel(back_to, When::Immediately);
        if let Some(open) = self.iterations.values_mut().last() {
            open.forget_judgments_under(rubric);
        }
    }
}
