//! What events change of an iteration.

use super::{CheckpointFacts, IterationView, PairSums, PromptJudgments, TimeSpan};
use crate::domain::event::{IterationOutcome, StepMetrics};
use crate::domain::plan::SampleSet;
use crate::domain::{
    Attack, BlobHash, Judgment, Offset, PairId, PolicyRef, PreferencePair, ProbeReport, PromptId,
    RubricId, RubricName, SkipReason,
};
use crate::log::Recorded;
use crate::view::probes::AttackScores;
use crate::view::{Shared, SharedMap};
use std::borrow::Cow;

/// Names of parts of verdicts that are summed up, of each rubric.
const CRITERIA_MAX: usize = 64;

impl IterationView {
    /// A record of this iteration was written.
    pub(in crate::view) fn note_time(&mut self, record: &Recorded) {
        if self.span.first_ms == 0 {
            self.span = TimeSpan { first_ms: record.at_ms, last_ms: record.at_ms };
        }
        let passed = record.at_ms.saturating_sub(self.span.last_ms);
        *self.stage_ms.entry(Cow::Borrowed(record.event.stage())).or_default() += passed;
        self.span.last_ms = record.at_ms;
    }

    pub(in crate::view) fn seal_prompts(&mut self, part: &[PromptId], left: u32) {
        self.sealing_prompts.extend(part.iter().cloned());
        if left == 0 {
            let mut all = std::mem::take(&mut self.sealing_prompts);
            all.sort();
            self.prompts = Some(all.into());
        }
    }

    pub(in crate::view) fn sample(&mut self, set: &str, prompt: &PromptId, at: Offset) {
        let places = match set {
            SampleSet::POLICY => &mut self.sampled,
            other => self.other_samples.entry(other.to_owned()).or_default(),
        };
        places.insert(prompt.clone(), at);
    }

    pub(in crate::view) fn form_pair(&mut self, pair: &PreferencePair, at: Offset) {
        // Before a rollback of old, its judgments were here; afterwards they are kept apart.
        if self.prompt_judgments.contains_key(&pair.prompt) {
            self.pair_judgments.remove(&pair.prompt);
        }
        let part = PairSums::of(pair);
        self.pair_sums.add(&part);
        self.pair_parts.insert(pair.prompt.clone(), part);
        self.pairs.insert(pair.prompt.clone(), (pair.id.clone(), at));
    }

    pub(in crate::view) fn quarantine(&mut self, prompt: &PromptId, stage: &str) {
        self.skipped.insert(prompt.clone(), SkipReason::Quarantined);
        if stage != "sampler" {
            let rubrics = self.panel.members().iter().map(|member| member.rubric.clone());
            self.left_out.insert(prompt.clone(), rubrics.collect());
        }
    }

    pub(in crate::view) fn seal_pairs(&mut self, part: &[PairId], left: u32) {
        self.sealing_pairs.extend(part.iter().cloned());
        if left == 0 {
            self.sealed = Some(std::mem::take(&mut self.sealing_pairs).into());
        }
    }

    /// What judged a prompt's answers, with everything that is counted of it.
    pub(in crate::view) fn judge(
        &mut self,
        prompt: &PromptId,
        judgments: &[Judgment],
        (rubrics, lengths): (&[RubricName], &[u32]),
        at: Offset,
    ) {
        self.add_criteria(judgments);
        let prompt_judgments = PromptJudgments::of(judgments, rubrics, lengths);
        self.apply_judgments(prompt, prompt_judgments, at);
    }

    fn add_criteria(&mut self, judgments: &[Judgment]) {
        for judgment in judgments.iter().filter(|j| !j.remarks.criteria.is_empty()) {
            let means = self.criteria.entry(judgment.rubric.clone()).or_default();
            for part in &judgment.remarks.criteria {
                // Prompts may bring criteria of their own, without end.
                if means.len() < CRITERIA_MAX || means.contains_key(&part.name) {
                    means.entry(part.name.clone()).or_default().push(part.value);
                }
            }
        }
    }

    pub(in crate::view) fn probe(&mut self, rubric: &RubricId, report: &ProbeReport) {
        self.probe_progress.entry(rubric.clone()).or_default().add(report);
        let [claim, others @ ..] = Attack::ALL.map(|attack| AttackScores::of(report, attack));
        let attacks = self.other_attacks.entry(rubric.clone()).or_default();
        for other in others.into_iter().filter(|probed| !probed.gains.is_empty()) {
            match attacks.iter_mut().find(|known| known.attack == other.attack) {
                Some(known) => known.add(&other),
                None => attacks.push(other),
            }
        }
        let first = self.first_claim_scores.is_none()
            || self.first_claim_scores.as_ref() == self.claim_scores.get(rubric);
        let known = self.claim_scores.entry(rubric.clone());
        let known = known.and_modify(|known| known.add(&claim)).or_insert(claim);
        if first {
            self.first_claim_scores = Some(known.clone());
        }
    }

    fn apply_judgments(
        &mut self,
        prompt: &PromptId,
        prompt_judgments: PromptJudgments,
        at: Offset,
    ) {
        self.judgments.add(prompt_judgments.judgments);
        let replaced = self.prompt_judgments.insert(prompt.clone(), prompt_judgments.into());
        let before = replaced.zip(self.judged.insert(prompt.clone(), at));
        let apart = self.pair_judgments.contains_key(prompt);
        if let Some(before) = before.filter(|_| self.pairs.contains_key(prompt) && !apart) {
            self.pair_judgments.insert(prompt.clone(), before);
        }
    }

    pub(in crate::view) fn score_reference(&mut self, pairs: usize, at: Offset) {
        self.reference_scored.push(at);
        self.pairs_scored += pairs;
    }

    pub(in crate::view) fn take_step(&mut self, step: u32, metrics: &StepMetrics) {
        self.steps.push((step, *metrics));
        self.skipped_in_a_row = 0;
    }

    pub(in crate::view) fn skip_step(&mut self) {
        self.steps_skipped += 1;
        self.skipped_in_a_row += 1;
    }

    pub(in crate::view) fn roll_training_back(&mut self, step: u32) {
        self.rollbacks += 1;
        self.skipped_in_a_row = 0;
        self.earlier.retain(|earlier| earlier.step < step);
        self.checkpoint = self.last_good.clone();
        self.steps.retain(|(taken, _)| *taken < step);
    }

    /// Training goes back to a step, or in records of old to the checkpoint before.
    pub(in crate::view) fn lose_checkpoint(&mut self, back_to: Option<u32>) {
        self.losses += 1;
        if let Some(step) = back_to {
            self.earlier.retain(|earlier| earlier.step <= step);
        }
        self.checkpoint = self.earlier.pop();
        let last = self.checkpoint.as_ref();
        self.skipped_in_a_row = last.map_or(0, |c| c.skipped_in_a_row);
        let step = last.map_or(0, |c| c.step);
        self.steps.retain(|(taken, _)| *taken < step);
        let mut all = self.earlier.iter().chain(&self.checkpoint);
        self.last_good = all.rfind(|c| c.skipped_in_a_row == 0).cloned();
    }

    pub(in crate::view) fn save_checkpoint(
        &mut self,
        (step, steps_total): (u32, u32),
        policy: &PolicyRef,
        optimizer: &BlobHash,
    ) {
        self.earlier.extend(self.checkpoint.take());
        self.checkpoint = Some(CheckpointFacts {
            step,
            steps_total,
            policy: policy.clone(),
            optimizer: optimizer.clone(),
            skipped_in_a_row: self.skipped_in_a_row,
            steps_taken: self.steps.len() as u32,
        });
        if self.skipped_in_a_row == 0 {
            self.last_good.clone_from(&self.checkpoint);
        }
    }

    pub(in crate::view) fn finish(&mut self, outcome: &IterationOutcome) {
        self.outcome = Some(outcome.clone());
        self.pair_parts = SharedMap::default();
        self.left_out = SharedMap::default();
    }

    /// Takes back what a rubric that failed judged, but for pairs that were formed from it before
    /// it did: what records of old mean, see [`IterationView::take_back`].
    pub(in crate::view) fn forget_judgments_under(&mut self, rubric: &RubricId) {
        if self.outcome.is_some() || self.sealed.is_some() {
            return;
        }
        self.rubrics_rolled_back += 1;
        self.taken_back.note_old();
        self.claim_scores.remove(rubric);
        self.probe_progress.remove(rubric);
        self.criteria.remove(rubric);
        self.other_attacks.remove(rubric);
        let ours = |(prompt, prompt_judgments): (&PromptId, &Shared<PromptJudgments>)| {
            let open =
                prompt_judgments.rubrics.contains(rubric) && !self.pairs.contains_key(prompt);
            open.then(|| prompt.clone())
        };
        let again: Vec<PromptId> = self.prompt_judgments.iter().filter_map(ours).collect();
        for prompt in again {
            let prompt_judgments = self.prompt_judgments.remove(&prompt);
            self.uncount(prompt_judgments.as_deref());
            // A pair may be on the way that was formed from it.
            if let Some(before) = prompt_judgments.zip(self.judged.remove(&prompt)) {
                self.pair_judgments.insert(prompt.clone(), before);
            }
            if !self.is_quarantined(&prompt) {
                self.skipped.remove(&prompt);
            }
        }
    }

    /// Judgments that were taken back are no more among those that are counted.
    pub(in crate::view) fn uncount(&mut self, prompt_judgments: Option<&PromptJudgments>) {
        if let Some(one) = prompt_judgments {
            self.judgments.remove(one.judgments);
        }
    }
}
