//! What is known of one iteration.

use super::figures::{RubricFigures, RunningMean};
use super::probes::{AttackScores, BadAnswerMargin, ProbeProgress};
use super::taken_back::TakenBack;
use super::{Shared, SharedMap, SharedSet};
use crate::domain::evaluation::Evaluation;
use crate::domain::event::{IterationKind, IterationOutcome, StepMetrics};
use crate::domain::plan::{KeepCheckpoints, MovingMean, SampleSet, SettingChange};
use crate::domain::{
    Attack, BlobHash, IterationPlan, Judgment, JudgmentCounts, Offset, PairId, Panel, PolicyRef,
    PreferencePair, ProbeReport, PromptId, RubricId, RubricName, SkipReason, tuple_form,
};
use crate::log::Recorded;
use serde::{Deserialize, Deserializer, Serialize};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

/// Names of parts of verdicts that are summed up, of each rubric.
const CRITERIA_MAX: usize = 64;

/// The last saved checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckpointFacts {
    /// Steps it contains.
    pub step: u32,
    /// Steps the iteration plans.
    pub steps_total: u32,
    /// Its weights.
    pub policy: PolicyRef,
    /// Its optimiser state.
    pub optimizer: BlobHash,
    /// Steps skipped in a row at its end. Here and not beside the steps: a view that has folded
    /// half of a segment's batch must still plan the same next task.
    pub skipped_in_a_row: u32,
    /// Steps in it that moved the weights.
    pub steps_taken: u32,
}

/// Who judged a prompt, and what that came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PromptJudgments {
    /// The rubrics.
    pub rubrics: BTreeSet<RubricId>,
    /// How many judgments.
    pub judgments: JudgmentCounts,
    /// How many are whose, where they are of several rubrics.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub each: BTreeMap<RubricId, u32>,
    /// What each rubric's judgments of it came to.
    #[serde(default)]
    pub figures: BTreeMap<RubricId, RubricFigures>,
}

impl PromptJudgments {
    fn of(judgments: &[Judgment], named: &[RubricName], lengths: &[u32]) -> PromptJudgments {
        let mut each: BTreeMap<RubricId, u32> =
            named.iter().map(|name| (name.rubric.clone(), 0)).collect();
        for judgment in judgments {
            *each.entry(judgment.rubric.clone()).or_default() += 1;
        }
        let rubrics: BTreeSet<RubricId> = each.keys().cloned().collect();
        if rubrics.len() < 2 {
            each.clear();
        }
        let figures = rubrics
            .iter()
            .map(|rubric| (rubric.clone(), RubricFigures::of_prompt(rubric, judgments, lengths)));
        let (figures, judgments) = (figures.collect(), Judgment::count(judgments));
        PromptJudgments { rubrics, judgments, each, figures }
    }

    /// How many judgments are a rubric's.
    pub fn judgments_by(&self, rubric: &RubricId) -> u32 {
        match self.each.is_empty() && self.rubrics.contains(rubric) {
            true => self.judgments.total,
            false => self.each.get(rubric).copied().unwrap_or_default(),
        }
    }
}

/// What a round of prompt writing gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u32, u32)", into = "(u32, u32)")]
pub struct WritingRound {
    /// Prompts that passed the filters.
    pub admitted: u32,
    /// Prompts that did not.
    pub rejected: u32,
}

tuple_form!(WritingRound { admitted: u32, rejected: u32 });

/// When something began and when it was last heard of, milliseconds of the clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u64, u64)", into = "(u64, u64)")]
pub struct TimeSpan {
    /// First record.
    pub first_ms: u64,
    /// Last record.
    pub last_ms: u64,
}

tuple_form!(TimeSpan { first_ms: u64, last_ms: u64 });

/// What the gate said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum GateDecision {
    /// The checkpoint acts from now on.
    Promoted,
    /// The old policy stays.
    Rejected(String),
}

/// One trip from M(t) to M(t+1), as far as it got.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IterationView {
    /// Where it was opened.
    pub opened: Offset,
    /// What it does; `None` as long as an iteration of schema 1 has adopted none.
    #[serde(default)]
    pub plan: Option<Shared<IterationPlan>>,
    /// Settings that were others when the iteration before it was opened.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub settings_changed: Vec<SettingChange>,
    /// How it trains.
    pub kind: IterationKind,
    /// The policy that acts.
    pub policy: PolicyRef,
    /// The frozen policy in the loss; the one that acts where the loss has none.
    pub reference: PolicyRef,
    /// What training begins with, where the policy's adapter was merged first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merged: Option<PolicyRef>,
    /// Judges its completions.
    #[serde(rename = "rubric")]
    pub panel: Panel,
    /// Rounds of prompt writing so far.
    pub written: Vec<WritingRound>,
    /// The prompts it answers, sorted, once sealed.
    pub prompts: Option<Shared<[PromptId]>>,
    /// Parts of the prompts, while their last one is on its way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) sealing_prompts: Vec<PromptId>,
    /// Where each prompt's completions by the policy are.
    pub sampled: SharedMap<PromptId, Offset>,
    /// The same of other sample sets, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) other_samples: BTreeMap<String, SharedMap<PromptId, Offset>>,
    /// How the judge scored bad answers that claim a verdict, under the first rubric it was probed
    /// under.
    #[serde(rename = "probed")]
    pub first_claim_scores: Option<AttackScores>,
    /// The same under each rubric. Empty in views of old, which had one.
    #[serde(default, rename = "probes")]
    pub(super) claim_scores: Shared<BTreeMap<RubricId, AttackScores>>,
    /// The same for attacks other than claims.
    #[serde(default, rename = "baits")]
    pub(super) other_attacks: Shared<BTreeMap<RubricId, Vec<AttackScores>>>,
    /// How far the probing is under each rubric.
    #[serde(default, rename = "probing")]
    pub probe_progress: Shared<BTreeMap<RubricId, ProbeProgress>>,
    /// Where each prompt's judgments are.
    pub judged: SharedMap<PromptId, Offset>,
    /// Under which rubrics, and how many of them have no score.
    #[serde(default, rename = "under")]
    pub prompt_judgments: SharedMap<PromptId, Shared<PromptJudgments>>,
    /// Where each shadow's judgments of each prompt are.
    #[serde(default)]
    pub shadowed: BTreeMap<RubricId, SharedMap<PromptId, Offset>>,
    /// How often a rubric that failed was rolled back.
    #[serde(default)]
    pub rubrics_rolled_back: u32,
    /// What rollbacks took back here.
    #[serde(default)]
    pub(super) taken_back: Shared<TakenBack>,
    /// Judgments that pairs of old were formed from, which other judgments have replaced since, and
    /// where those are: a rollback used to leave such pairs.
    #[serde(default, rename = "formed_under", skip_serializing_if = "SharedMap::is_empty")]
    pub(super) pair_judgments: SharedMap<PromptId, (Shared<PromptJudgments>, Offset)>,
    /// What each formed pair adds to the sums, while it may still be taken back.
    #[serde(default, skip_serializing_if = "SharedMap::is_empty")]
    pub(super) pair_parts: SharedMap<PromptId, PairSums>,
    /// Prompts that were left out for their judging, and the panel's rubrics then.
    #[serde(default, skip_serializing_if = "SharedMap::is_empty")]
    pub(super) left_out: SharedMap<PromptId, BTreeSet<RubricId>>,
    /// How many judgments so far.
    pub judgments: JudgmentCounts,
    /// Groups of answers that rubrics which compare were not shown, for there were too many.
    #[serde(default)]
    pub not_compared: u64,
    /// Means of the parts of each rubric's verdicts, by name. What was taken back when another rubric
    /// of its panel was rolled back is still in it.
    #[serde(default)]
    pub(super) criteria: Shared<BTreeMap<RubricId, BTreeMap<String, RunningMean>>>,
    /// Where each formed pair is.
    pub pairs: SharedMap<PromptId, (PairId, Offset)>,
    /// Prompts without a pair, and why.
    pub skipped: SharedMap<PromptId, SkipReason>,
    /// Prompts whose tasks are of one prompt each, after one of several failed too often.
    pub split: SharedSet<PromptId>,
    /// The pairs it trains on, once sealed.
    pub sealed: Option<Shared<[PairId]>>,
    /// Parts of the pairs, while their last one is on its way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) sealing_pairs: Vec<PairId>,
    /// Where the reference's log-probabilities are, in the order of the pairs.
    #[serde(deserialize_with = "none_one_or_many")]
    pub reference_scored: Vec<Offset>,
    /// How many pairs those are of.
    #[serde(default)]
    pub(super) pairs_scored: usize,
    /// Every step taken.
    pub steps: Shared<Vec<(u32, StepMetrics)>>,
    /// Steps that were skipped for non-finite numbers.
    pub steps_skipped: u32,
    /// Micro-batches that did not fit on the device and were taken in parts.
    #[serde(default)]
    pub memory_short: u32,
    /// Steps skipped in a row, of those folded so far.
    pub(super) skipped_in_a_row: u32,
    /// The last checkpoint that does not end in a skipped step: where a rollback goes to.
    #[serde(rename = "good")]
    pub last_good: Option<CheckpointFacts>,
    /// How often training went back to the last checkpoint.
    pub rollbacks: u32,
    /// Why training was given up.
    pub diverged: Option<String>,
    /// The last checkpoint.
    pub checkpoint: Option<CheckpointFacts>,
    /// Those before it, in order.
    pub(super) earlier: Shared<Vec<CheckpointFacts>>,
    /// Checkpoints whose bytes were lost.
    pub losses: u32,
    /// Its held-out quality.
    pub evaluation: Option<Evaluation>,
    /// Where that is; not in views of old.
    #[serde(default)]
    pub evaluated_at: Option<Offset>,
    /// What the gate said.
    pub decision: Option<GateDecision>,
    /// How it ended.
    pub outcome: Option<IterationOutcome>,
    /// Sums over the formed pairs.
    pub pair_sums: PairSums,
    /// When its first and last records were written; for people only.
    #[serde(rename = "span_ms")]
    pub span: TimeSpan,
    /// Milliseconds until each record since the one before, by the stage that wrote it: where the
    /// time went, as far as records show it.
    pub stage_ms: BTreeMap<Cow<'static, str>, u64>,
}

/// Sums over formed pairs; divided by their count they are means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PairSums {
    /// Tokens of chosen completions.
    pub length_chosen: f64,
    /// Tokens of rejected completions.
    pub length_rejected: f64,
    /// Scores of chosen completions.
    pub score_chosen: f64,
    /// Scores of rejected completions.
    pub score_rejected: f64,
    /// Standard errors of the differences, of the pairs where they are known.
    #[serde(default)]
    pub error: RunningMean,
}

impl PairSums {
    fn of(pair: &PreferencePair) -> PairSums {
        PairSums {
            length_chosen: f64::from(pair.chosen.tokens),
            length_rejected: f64::from(pair.rejected.tokens),
            score_chosen: pair.chosen.score.unwrap_or_default(),
            score_rejected: pair.rejected.score.unwrap_or_default(),
            error: match (pair.chosen.error, pair.rejected.error) {
                (Some(a), Some(b)) => RunningMean { sum: a.hypot(b), count: 1 },
                _ => RunningMean::default(),
            },
        }
    }

    fn add(&mut self, part: &PairSums) {
        self.length_chosen += part.length_chosen;
        self.length_rejected += part.length_rejected;
        self.score_chosen += part.score_chosen;
        self.score_rejected += part.score_rejected;
        self.error.add(part.error);
    }

    /// What is left of the sums of one pair more, when it is not known what that one added.
    pub(super) fn scaled(self, left: usize) -> PairSums {
        let share = left as f64 / (left + 1) as f64;
        PairSums {
            length_chosen: self.length_chosen * share,
            length_rejected: self.length_rejected * share,
            score_chosen: self.score_chosen * share,
            score_rejected: self.score_rejected * share,
            error: self.error,
        }
    }

    /// Their sum, in the order of the prompts.
    pub(super) fn sum<'a>(parts: impl Iterator<Item = &'a PairSums>) -> PairSums {
        let mut sum = PairSums::default();
        parts.for_each(|part| sum.add(part));
        sum
    }
}

/// Views of old have one place, or none.
fn none_one_or_many<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Offset>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Any {
        Many(Vec<Offset>),
        One(Offset),
        None(()),
    }
    Ok(match Any::deserialize(from)? {
        Any::Many(all) => all,
        Any::One(one) => vec![one],
        Any::None(()) => Vec::new(),
    })
}

impl IterationView {
    /// An iteration nothing has happened in yet.
    pub fn planned(plan: &IterationPlan) -> IterationView {
        let reference = plan.reference.policy.as_ref().unwrap_or(&plan.policy);
        let (kind, panel) = (plan.kind(), &plan.judge.panel);
        let view = IterationView::open(kind, &plan.policy, reference, panel);
        IterationView { plan: Some(plan.clone().into()), ..view }
    }

    /// The same of one that schema 1 recorded, of which no plan is known.
    pub fn open(
        kind: IterationKind,
        policy: &PolicyRef,
        reference: &PolicyRef,
        panel: &Panel,
    ) -> IterationView {
        IterationView {
            opened: Offset(0),
            plan: None,
            settings_changed: Vec::new(),
            kind,
            policy: policy.clone(),
            reference: reference.clone(),
            merged: None,
            panel: panel.clone(),
            written: Vec::new(),
            prompts: None,
            sealing_prompts: Vec::new(),
            sampled: Default::default(),
            other_samples: Default::default(),
            first_claim_scores: None,
            claim_scores: Default::default(),
            other_attacks: Default::default(),
            probe_progress: Default::default(),
            judged: Default::default(),
            prompt_judgments: Default::default(),
            shadowed: Default::default(),
            rubrics_rolled_back: 0,
            taken_back: Default::default(),
            pair_judgments: Default::default(),
            pair_parts: Default::default(),
            left_out: Default::default(),
            judgments: JudgmentCounts::default(),
            not_compared: 0,
            criteria: Default::default(),
            pairs: Default::default(),
            skipped: Default::default(),
            split: Default::default(),
            sealed: None,
            sealing_pairs: Vec::new(),
            reference_scored: Vec::new(),
            pairs_scored: 0,
            steps: Default::default(),
            steps_skipped: 0,
            memory_short: 0,
            skipped_in_a_row: 0,
            last_good: None,
            rollbacks: 0,
            diverged: None,
            checkpoint: None,
            earlier: Default::default(),
            losses: 0,
            evaluation: None,
            evaluated_at: None,
            decision: None,
            outcome: None,
            pair_sums: PairSums::default(),
            span: TimeSpan::default(),
            stage_ms: Default::default(),
        }
    }

    /// A record of this iteration was written.
    pub(super) fn note_time(&mut self, record: &Recorded) {
        if self.span.first_ms == 0 {
            self.span = TimeSpan { first_ms: record.at_ms, last_ms: record.at_ms };
        }
        let passed = record.at_ms.saturating_sub(self.span.last_ms);
        *self.stage_ms.entry(Cow::Borrowed(record.event.stage())).or_default() += passed;
        self.span.last_ms = record.at_ms;
    }

    pub(super) fn seal_prompts(&mut self, part: &[PromptId], left: u32) {
        self.sealing_prompts.extend(part.iter().cloned());
        if left == 0 {
            let mut all = std::mem::take(&mut self.sealing_prompts);
            all.sort();
            self.prompts = Some(all.into());
        }
    }

    pub(super) fn sample(&mut self, set: &str, prompt: &PromptId, at: Offset) {
        let places = match set {
            SampleSet::POLICY => &mut self.sampled,
            other => self.other_samples.entry(other.to_owned()).or_default(),
        };
        places.insert(prompt.clone(), at);
    }

    pub(super) fn form_pair(&mut self, pair: &PreferencePair, at: Offset) {
        // Before a rollback of old, its judgments were here; afterwards they are kept apart.
        if self.prompt_judgments.contains_key(&pair.prompt) {
            self.pair_judgments.remove(&pair.prompt);
        }
        let part = PairSums::of(pair);
        self.pair_sums.add(&part);
        self.pair_parts.insert(pair.prompt.clone(), part);
        self.pairs.insert(pair.prompt.clone(), (pair.id.clone(), at));
    }

    pub(super) fn quarantine(&mut self, prompt: &PromptId, stage: &str) {
        self.skipped.insert(prompt.clone(), SkipReason::Quarantined);
        if stage != "sampler" {
            let rubrics = self.panel.members().iter().map(|member| member.rubric.clone());
            self.left_out.insert(prompt.clone(), rubrics.collect());
        }
    }

    pub(super) fn seal_pairs(&mut self, part: &[PairId], left: u32) {
        self.sealing_pairs.extend(part.iter().cloned());
        if left == 0 {
            self.sealed = Some(std::mem::take(&mut self.sealing_pairs).into());
        }
    }

    /// What judged a prompt's answers, with everything that is counted of it.
    pub(super) fn judge(
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

    pub(super) fn probe(&mut self, rubric: &RubricId, report: &ProbeReport) {
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

    /// The judgments that a prompt's pair was formed from, and where they are.
    pub fn formed_from(&self, prompt: &PromptId) -> Option<(&PromptJudgments, Offset)> {
        self.pairs.get(prompt)?;
        match self.pair_judgments.get(prompt) {
            Some((prompt_judgments, at)) => Some((prompt_judgments, *at)),
            None => Some((self.prompt_judgments.get(prompt)?, *self.judged.get(prompt)?)),
        }
    }

    pub(super) fn score_reference(&mut self, pairs: usize, at: Offset) {
        self.reference_scored.push(at);
        self.pairs_scored += pairs;
    }

    pub(super) fn take_step(&mut self, step: u32, metrics: &StepMetrics) {
        self.steps.push((step, *metrics));
        self.skipped_in_a_row = 0;
    }

    pub(super) fn skip_step(&mut self) {
        self.steps_skipped += 1;
        self.skipped_in_a_row += 1;
    }

    pub(super) fn roll_training_back(&mut self, step: u32) {
        self.rollbacks += 1;
        self.skipped_in_a_row = 0;
        self.earlier.retain(|earlier| earlier.step < step);
        self.checkpoint = self.last_good.clone();
        self.steps.retain(|(taken, _)| *taken < step);
    }

    /// Training goes back to a step, or in records of old to the checkpoint before.
    pub(super) fn lose_checkpoint(&mut self, back_to: Option<u32>) {
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

    pub(super) fn save_checkpoint(
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

    pub(super) fn finish(&mut self, outcome: &IterationOutcome) {
        self.outcome = Some(outcome.clone());
        self.pair_parts = SharedMap::default();
        self.left_out = SharedMap::default();
    }

    /// Takes back what a rubric that failed judged, but for pairs that were formed from it before
    /// it did: what records of old mean, see [`IterationView::take_back`].
    pub(super) fn forget_judgments_under(&mut self, rubric: &RubricId) {
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
    pub(super) fn uncount(&mut self, prompt_judgments: Option<&PromptJudgments>) {
        if let Some(one) = prompt_judgments {
            self.judgments.remove(one.judgments);
        }
    }

    /// How the judge scored bad answers that claim a verdict, under a rubric.
    pub fn claim_scores_under(&self, rubric: &RubricId) -> Option<&AttackScores> {
        let of_old = self.first_claim_scores.as_ref().filter(|_| self.claim_scores.is_empty());
        self.claim_scores.get(rubric).or(of_old)
    }

    /// The same for every attack.
    pub fn attacks_under(&self, rubric: &RubricId) -> impl Iterator<Item = &AttackScores> {
        self.claim_scores_under(rubric)
            .into_iter()
            .chain(self.other_attacks.get(rubric).into_iter().flatten())
    }

    /// Rounds of probing under a rubric that count.
    pub fn probe_rounds(&self, rubric: &RubricId) -> u32 {
        // A view of old knows that there was one.
        let of_old = u32::from(self.claim_scores.contains_key(rubric));
        self.probe_progress.get(rubric).map_or(of_old, |probing| probing.rounds)
    }

    /// By how much the judge scores the policy's own answers above bad ones under a rubric, at the
    /// prompts of which both are known; `None` without any.
    pub fn bad_answer_margin(&self, rubric: &RubricId) -> Option<BadAnswerMargin> {
        let probing = self.probe_progress.get(rubric)?;
        let own = |prompt: &PromptId| {
            self.prompt_judgments.get(prompt)?.figures.get(rubric)?.mean_score()
        };
        let both = probing.bare.iter().filter_map(|(prompt, bad)| Some(own(prompt)? - bad));
        let differences: Vec<f64> = both.map(|more| more / probing.scale.width()).collect();
        (!differences.is_empty()).then(|| BadAnswerMargin::of(&differences))
    }

    /// The mean of each part of a rubric's verdicts, by name.
    pub fn criteria_of(&self, rubric: &RubricId) -> Vec<(String, f64)> {
        let means = self.criteria.get(rubric).into_iter().flatten();
        means.filter_map(|(name, mean)| Some((name.clone(), mean.mean()?))).collect()
    }

    /// What every rubric's judgments came to that count.
    pub fn figures(&self) -> BTreeMap<&RubricId, RubricFigures> {
        let mut all: BTreeMap<&RubricId, RubricFigures> = Default::default();
        for (rubric, figures) in
            self.prompt_judgments.values().flat_map(|prompt_judgments| &prompt_judgments.figures)
        {
            all.entry(rubric).or_default().add(figures);
        }
        all
    }

    /// The rubrics that judge it or judged any of it.
    pub fn rubrics(&self) -> BTreeSet<&RubricId> {
        let on_panel = self.panel.members().iter().map(|member| &member.rubric);
        on_panel
            .chain(
                self.prompt_judgments
                    .values()
                    .flat_map(|prompt_judgments| &prompt_judgments.rubrics),
            )
            .collect()
    }

    /// Whether a prompt was judged, and a shadow has yet to.
    pub fn waits_for_shadow(&self, rubric: &RubricId, prompt: &PromptId) -> bool {
        let seen = |shadowed: &SharedMap<PromptId, Offset>| shadowed.contains_key(prompt);
        self.judged.contains_key(prompt)
            && !self.is_quarantined(prompt)
            && !self.shadowed.get(rubric).is_some_and(seen)
    }

    /// What training begins with.
    pub fn start(&self) -> &PolicyRef {
        self.merged.as_ref().unwrap_or(&self.policy)
    }

    /// What the reference is yet to be made of.
    pub fn reference_to_make(&self) -> Option<&MovingMean> {
        let made_of = self.plan.as_ref()?.reference.made_of.as_ref()?;
        // Until it is made, the policy stands in its place.
        (self.reference == self.policy).then_some(made_of)
    }

    /// Where a prompt's completions are, by the names of the sample sets in the plan's order; `None`
    /// as long as any is missing.
    pub fn samples_of(&self, prompt: &PromptId) -> Option<Vec<(String, Offset)>> {
        let sets = self.plan.iter().flat_map(|plan| &plan.samples);
        let places = sets.map(|set| Some((set.name.clone(), self.sampled_in(&set.name, prompt)?)));
        match &self.plan {
            Some(_) => places.collect(),
            None => Some(vec![(SampleSet::POLICY.to_owned(), *self.sampled.get(prompt)?)]),
        }
    }

    /// Where a prompt's completions of one sample set are.
    pub fn sampled_in(&self, set: &str, prompt: &PromptId) -> Option<Offset> {
        let places = match set {
            SampleSet::POLICY => Some(&self.sampled),
            other => self.other_samples.get(other),
        };
        places?.get(prompt).copied()
    }

    /// Whether the reference has scored every sealed pair. A record of old did so at once.
    pub fn is_referenced(&self) -> bool {
        let sealed = self.sealed.as_ref().map_or(0, |sealed| sealed.len());
        let of_old = self.pairs_scored == 0;
        !self.reference_scored.is_empty() && (of_old || self.pairs_scored >= sealed)
    }

    /// Pairs that the reference has scored.
    pub fn pairs_scored(&self) -> usize {
        self.pairs_scored
    }

    /// Whether no sealed prompt waits for judgments.
    pub fn all_judged(&self) -> bool {
        self.prompts.as_ref().is_none_or(|prompts| {
            prompts.iter().all(|p| self.judged.contains_key(p) || self.is_quarantined(p))
        })
    }

    /// Whether every checkpoint stays on the disk. Schema 1 kept them all.
    fn keeps_all(&self) -> bool {
        let keeps = |plan: &IterationPlan| plan.training.keep_checkpoints == KeepCheckpoints::All;
        self.plan.as_deref().is_some_and(keeps)
    }

    /// The step of the last checkpoint before `step` that stays on the disk; 0 for none.
    pub fn step_before(&self, step: u32) -> u32 {
        let kept = self.earlier.iter().filter(|_| self.keeps_all()).chain(&self.last_good);
        kept.map(|checkpoint| checkpoint.step).filter(|at| *at < step).max().unwrap_or_default()
    }

    /// Every blob that its checkpoints name, or named before they were taken back.
    pub(super) fn checkpoint_blobs(&self) -> BTreeSet<BlobHash> {
        let saved = self.earlier.iter().chain(&self.last_good).chain(&self.checkpoint);
        let named = saved.flat_map(|saved| saved.policy.blobs().chain([&saved.optimizer]));
        named.chain(self.taken_back.blobs()).cloned().collect()
    }

    /// The blobs that it needs: to go on, as long as it is open; afterwards the weights it came to,
    /// and of one that is kept `whole` everything that its plan wants kept.
    pub fn blobs(&self, whole: bool) -> BTreeSet<BlobHash> {
        let ours = [&self.policy, &self.reference].into_iter().chain(&self.merged);
        let mut blobs: BTreeSet<BlobHash> = ours.flat_map(PolicyRef::blobs).cloned().collect();
        if whole && self.keeps_all() {
            blobs.extend(self.checkpoint_blobs());
        }
        let last = self.checkpoint.iter().chain(&self.last_good);
        match &self.outcome {
            None => {
                let needed = last.flat_map(|c| c.policy.blobs().chain([&c.optimizer]));
                blobs.extend(needed.cloned());
            }
            Some(_) if whole || self.decision == Some(GateDecision::Promoted) => {
                blobs.extend(self.checkpoint.iter().flat_map(|c| c.policy.blobs()).cloned());
            }
            Some(_) => {}
        }
        blobs
    }

    /// Whether every sealed prompt has a pair or a reason.
    pub fn all_decided(&self) -> bool {
        self.prompts.as_ref().is_some_and(|prompts| {
            prompts.iter().all(|p| self.pairs.contains_key(p) || self.skipped.contains_key(p))
        })
    }

    /// Whether the planned steps are all in the last checkpoint.
    pub fn trained(&self) -> bool {
        self.checkpoint.as_ref().is_some_and(|c| c.step >= c.steps_total)
    }

    /// The sealed prompts in planned chunks of `size`, those of a split chunk alone: a task's
    /// membership never depends on what arrived first.
    pub fn chunks(&self, size: u32) -> impl Iterator<Item = &[PromptId]> {
        let prompts = self.prompts.as_deref().unwrap_or_default();
        prompts.chunks(size.max(1) as usize).flat_map(|chunk| {
            let split = chunk.iter().any(|prompt| self.split.contains(prompt));
            chunk.chunks(if split { 1 } else { chunk.len() })
        })
    }

    /// Whether the iteration goes on without this prompt.
    pub fn is_quarantined(&self, prompt: &PromptId) -> bool {
        self.skipped.get(prompt) == Some(&SkipReason::Quarantined)
    }
}
