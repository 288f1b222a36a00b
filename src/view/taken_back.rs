//! What a rollback takes back in the open iteration: what the rubrics judged, the pairs that were
//! formed from it, and what was trained on those and measured under them. It is done again, as if
//! they had never judged.
//!
//! Stages work on while a rubric is rolled back, and what they had in hand is recorded after it. The
//! key of each such record tells the last rollback that made void what its task does, as far as
//! the task knew; when there was a later one, the record does not count.

use super::iteration::{IterationView, PairSums};
use crate::domain::event::IterationKind;
use crate::domain::{BlobHash, Event, Panel, PromptId, RubricId, SkipReason, TaskKey};
use crate::log::Recorded;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What rollbacks took back in an iteration. Rollbacks are numbered from 1.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct TakenBack {
    /// Whose judgments do not count, also those to come.
    rubrics: BTreeSet<RubricId>,
    /// The last rollback of each rubric.
    probes: BTreeMap<RubricId, u32>,
    /// The last rollback that took back a prompt's judgments.
    prompts: BTreeMap<PromptId, u32>,
    /// The last rollback that took back any prompt's judgments: pairs are sealed and trained on anew.
    paired: u32,
    /// The last rollback after which the iteration is measured and decided about anew.
    decided: u32,
    /// Blobs of checkpoints that came of it.
    blobs: BTreeSet<BlobHash>,
    /// A rollback of old was here, after which prompts with a pair were judged a second time.
    of_old: bool,
    /// Prompts whose judgments were taken back, for each rubric that had judged them.
    counts: BTreeMap<RubricId, u32>,
}

impl TakenBack {
    /// A record of old took something back.
    pub fn note_old(&mut self) {
        self.of_old = true;
    }

    pub fn blobs(&self) -> impl Iterator<Item = &BlobHash> {
        self.blobs.iter()
    }
}

impl IterationView {
    /// Whether a record of this iteration counts, which comes next.
    pub(super) fn accepts(&self, record: &Recorded) -> bool {
        // What no stage decided knows what it does.
        let knew = record.key.as_ref().map_or(u32::MAX, TaskKey::rollback);
        let of_old = self.taken_back.of_old;
        let decided = |p: &PromptId| self.pairs.contains_key(p) || self.skipped.contains_key(p);
        let pair = |p: &PromptId| knew >= self.prompt_voided(p) && (of_old || !decided(p));
        match &record.event {
            Event::JudgmentsRecorded { prompt, judgments, rubrics: named, .. } => {
                let asked = judgments.iter().map(|j| &j.rubric);
                let mut asked = asked.chain(named.iter().map(|n| &n.rubric));
                // Each prompt is judged by one panel: the first that did.
                let first = of_old || !self.judged.contains_key(prompt);
                first && !asked.any(|rubric| self.is_taken_back(rubric))
            }
            Event::JudgeProbed { rubric, round, .. } => {
                *round == self.probe_rounds(rubric) && knew >= self.probe_voided(rubric)
            }
            Event::PairFormed { pair: formed, .. } => pair(&formed.prompt),
            Event::PairSkipped { prompt, .. } => pair(prompt),
            Event::PairsSealed { .. }
            | Event::ReferenceScored { .. }
            | Event::StepTaken { .. }
            | Event::StepSkipped { .. }
            | Event::MemoryShort { .. }
            | Event::TrainingRolledBack { .. }
            | Event::TrainingDiverged { .. }
            | Event::CheckpointSaved { .. }
            | Event::CheckpointLost { .. } => knew >= self.pairs_voided(),
            Event::HeldOutJudged { .. } | Event::EvaluationFinished { .. } => {
                let first = self.evaluation.is_none() && self.outcome.is_none();
                first && knew >= self.end_voided()
            }
            Event::PromptQuarantined { .. }
            | Event::CheckpointPromoted { .. }
            | Event::CheckpointRejected { .. }
            | Event::AlarmRaised { .. }
            | Event::IterationFinished { .. } => knew >= self.end_voided(),
            _ => true,
        }
    }

    /// The last rollback that took a prompt's judgments back; 0 for none.
    pub fn prompt_voided(&self, prompt: &PromptId) -> u32 {
        self.taken_back.prompts.get(prompt).copied().unwrap_or_default()
    }

    /// The same of any prompt of a chunk.
    pub fn chunk_voided(&self, prompts: &[PromptId]) -> u32 {
        prompts.iter().map(|prompt| self.prompt_voided(prompt)).max().unwrap_or_default()
    }

    /// The last rollback that made the sealed pairs void, and what is trained on them; 0 for none.
    pub fn pairs_voided(&self) -> u32 {
        self.taken_back.paired
    }

    /// The last rollback that made void how the iteration is measured and ends; 0 for none.
    pub fn end_voided(&self) -> u32 {
        self.taken_back.decided
    }

    /// The last rollback of a rubric; 0 for none.
    pub fn probe_voided(&self, rubric: &RubricId) -> u32 {
        self.taken_back.probes.get(rubric).copied().unwrap_or_default()
    }

    /// A new panel judges; what its rubrics say counts.
    pub(super) fn set_panel(&mut self, panel: &Panel) {
        self.panel = panel.clone();
        self.taken_back.rubrics.retain(|rubric| !panel.has(rubric));
    }

    /// What these rubrics judged counts for nothing from here on, and what came of it is void.
    pub(super) fn take_back(&mut self, rubrics: &[RubricId], back_to: &Panel) {
        if self.outcome.is_some() {
            return;
        }
        self.rubrics_rolled_back += 1;
        let number = self.rubrics_rolled_back;
        self.taken_back.rubrics.extend(rubrics.iter().cloned());
        self.taken_back.probes.extend(rubrics.iter().map(|rubric| (rubric.clone(), number)));
        self.forget_probes(rubrics);
        if rubrics.iter().any(|rubric| self.panel.has(rubric)) {
            self.set_panel(back_to);
            self.taken_back.decided = number;
        }
        let theirs = |judges: &BTreeSet<RubricId>| rubrics.iter().any(|r| judges.contains(r));
        let judged = self.prompt_judgments.iter().filter(|(prompt, prompt_judgments)| {
            let formed = self
                .formed_from(prompt)
                .is_some_and(|(prompt_judgments, _)| theirs(&prompt_judgments.rubrics));
            formed || theirs(&prompt_judgments.rubrics)
        });
        let judged: Vec<PromptId> = judged.map(|(prompt, _)| prompt.clone()).collect();
        let left_out = self.left_out.iter().filter(|(_, judges)| theirs(judges));
        let left_out: Vec<PromptId> = left_out.map(|(prompt, _)| prompt.clone()).collect();
        judged.iter().for_each(|prompt| self.forget_judgments(prompt, rubrics));
        for prompt in &left_out {
            self.left_out.remove(prompt);
            self.skipped.remove(prompt);
        }
        for prompt in judged.into_iter().chain(left_out) {
            self.taken_back.prompts.insert(prompt, number);
            (self.taken_back.paired, self.taken_back.decided) = (number, number);
        }
        if self.taken_back.paired == number && self.kind == IterationKind::Dpo {
            self.forget_training();
        }
        if self.taken_back.decided == number {
            self.evaluation = None;
            self.evaluated_at = None;
            self.decision = None;
        }
    }

    /// Prompts whose judgments by a rubric were taken back.
    pub fn taken_back_of(&self, rubric: &RubricId) -> u32 {
        self.taken_back.counts.get(rubric).copied().unwrap_or_default()
    }

    /// Whether what a rubric judges in this iteration counts for nothing.
    pub fn is_taken_back(&self, rubric: &RubricId) -> bool {
        self.taken_back.rubrics.contains(rubric)
    }

    fn forget_probes(&mut self, rubrics: &[RubricId]) {
        for rubric in rubrics {
            self.other_attacks.remove(rubric);
            self.probe_progress.remove(rubric);
            self.criteria.remove(rubric);
            if self
                .claim_scores
                .remove(rubric)
                .is_some_and(|gone| Some(&gone) == self.first_claim_scores.as_ref())
            {
                self.first_claim_scores = self.claim_scores.values().next().cloned();
            }
        }
    }

    fn forget_judgments(&mut self, prompt: &PromptId, rubrics: &[RubricId]) {
        let prompt_judgments = self.prompt_judgments.remove(prompt);
        self.uncount(prompt_judgments.as_deref());
        for rubric in
            rubrics.iter().filter(|r| prompt_judgments.iter().any(|u| u.rubrics.contains(r)))
        {
            *self.taken_back.counts.entry(rubric.clone()).or_default() += 1;
        }
        self.judged.remove(prompt);
        self.pair_judgments.remove(prompt);
        if self.skipped.get(prompt) != Some(&SkipReason::Quarantined) {
            self.skipped.remove(prompt);
        }
        if self.pairs.remove(prompt).is_some() {
            self.pair_parts.remove(prompt);
            // A view of old does not know each pair's part: the means stay as they are then.
            self.pair_sums = match self.pair_parts.len() == self.pairs.len() {
                true => PairSums::sum(self.pair_parts.values()),
                false => self.pair_sums.scaled(self.pairs.len()),
            };
        }
    }

    fn forget_training(&mut self) {
        let earlier = std::mem::take(&mut *self.earlier);
        let saved = earlier.into_iter().chain(self.last_good.take()).chain(self.checkpoint.take());
        for gone in saved {
            self.taken_back.blobs.extend(gone.policy.blobs().cloned());
            self.taken_back.blobs.insert(gone.optimizer);
        }
        self.sealed = None;
        self.sealing_pairs.clear();
        self.reference_scored.clear();
        self.pairs_scored = 0;
        self.steps.clear();
        self.steps_skipped = 0;
        self.memory_short = 0;
        self.skipped_in_a_row = 0;
        self.rollbacks = 0;
        self.diverged = None;
        self.losses = 0;
    }
}
