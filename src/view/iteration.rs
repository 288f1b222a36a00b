//! What is known of one iteration.

use super::figures::RubricFigures;
use super::probes::{Liking, Probed, Probing};
use super::taken_back::TakenBack;
use crate::domain::evaluation::Evaluation;
use crate::domain::event::{IterationKind, IterationOutcome, StepMetrics};
use crate::domain::{
    Bait, BlobHash, Event, Judgment, Offset, PairId, Panel, PolicyRef, PreferencePair, ProbeReport,
    PromptId, RubricId, RubricName, SkipReason,
};
use crate::log::Recorded;
use serde::{Deserialize, Serialize};
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

/// Who judged a prompt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Under {
    /// The rubrics.
    pub rubrics: BTreeSet<RubricId>,
    /// Judgments, and those of them without a score.
    pub judgments: (u32, u32),
    /// How many are whose, where they are of several rubrics.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub each: BTreeMap<RubricId, u32>,
    /// What each rubric's judgments of it came to.
    #[serde(default)]
    pub figures: BTreeMap<RubricId, RubricFigures>,
}

impl Under {
    fn of(judgments: &[Judgment], named: &[RubricName], lengths: &[u32]) -> Under {
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
        Under { rubrics, judgments, each, figures }
    }

    /// How many judgments are a rubric's.
    pub fn judgments_by(&self, rubric: &RubricId) -> u32 {
        match self.each.is_empty() && self.rubrics.contains(rubric) {
            true => self.judgments.0,
            false => self.each.get(rubric).copied().unwrap_or_default(),
        }
    }
}

/// What the gate said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Decision {
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
    /// How it trains.
    pub kind: IterationKind,
    /// The policy that answers and judges.
    pub policy: PolicyRef,
    /// The frozen policy in the loss.
    pub reference: PolicyRef,
    /// Judges its completions.
    #[serde(rename = "rubric")]
    pub panel: Panel,
    /// Rounds of prompt writing so far, and what they gave.
    pub written: Vec<(u32, u32)>,
    /// The prompts it answers, sorted, once sealed.
    pub prompts: Option<Vec<PromptId>>,
    /// Where each prompt's completions are.
    pub sampled: BTreeMap<PromptId, Offset>,
    /// What the judge made of bad answers under the first rubric it was probed under.
    pub probed: Option<Probed>,
    /// The same under each rubric. Empty in views of old, which had one.
    #[serde(default)]
    pub(super) probes: BTreeMap<RubricId, Probed>,
    /// The same for other ways than claims.
    #[serde(default)]
    pub(super) baits: BTreeMap<RubricId, Vec<Probed>>,
    /// How far the probing is under each rubric.
    #[serde(default)]
    pub probing: BTreeMap<RubricId, Probing>,
    /// Where each prompt's judgments are.
    pub judged: BTreeMap<PromptId, Offset>,
    /// Under which rubrics, and how many of them have no score.
    #[serde(default)]
    pub under: BTreeMap<PromptId, Under>,
    /// Where each shadow's judgments of each prompt are.
    #[serde(default)]
    pub shadowed: BTreeMap<RubricId, BTreeMap<PromptId, Offset>>,
    /// How often a rubric that failed was rolled back.
    #[serde(default)]
    pub rubrics_rolled_back: u32,
    /// What rollbacks took back here.
    #[serde(default)]
    pub(super) taken_back: TakenBack,
    /// Judgments that pairs of old were formed from, which other judgments have replaced since, and
    /// where those are: a rollback used to leave such pairs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) formed_under: BTreeMap<PromptId, (Under, Offset)>,
    /// What each formed pair adds to the sums, while it may still be taken back.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) pair_parts: BTreeMap<PromptId, PairSums>,
    /// Prompts that were left out for their judging, and the panel's rubrics then.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) left_out: BTreeMap<PromptId, BTreeSet<RubricId>>,
    /// Judgments so far, and those of them without a score.
    pub judgments: (u32, u32),
    /// Groups of answers that rubrics which compare were not shown, for there were too many.
    #[serde(default)]
    pub not_compared: u64,
    /// Sums of the parts of each rubric's verdicts, by name, and how many they are of. What was taken
    /// back when another rubric of its panel was rolled back is still in it.
    #[serde(default)]
    pub(super) criteria: BTreeMap<RubricId, BTreeMap<String, (f64, u32)>>,
    /// Where each formed pair is.
    pub pairs: BTreeMap<PromptId, (PairId, Offset)>,
    /// Prompts without a pair, and why.
    pub skipped: BTreeMap<PromptId, SkipReason>,
    /// Prompts whose tasks are of one prompt each, after one of several failed too often.
    pub split: BTreeSet<PromptId>,
    /// The pairs it trains on, once sealed.
    pub sealed: Option<Vec<PairId>>,
    /// Where the reference's log-probabilities are.
    pub reference_scored: Option<Offset>,
    /// Every step taken.
    pub steps: Vec<(u32, StepMetrics)>,
    /// Steps that were skipped for non-finite numbers.
    pub steps_skipped: u32,
    /// Micro-batches that did not fit on the device and were taken in parts.
    #[serde(default)]
    pub memory_short: u32,
    /// Steps skipped in a row, of those folded so far.
    pub(super) skipped_in_a_row: u32,
    /// The last checkpoint that does not end in a skipped step: where a rollback goes to.
    pub good: Option<CheckpointFacts>,
    /// How often training went back to the last checkpoint.
    pub rollbacks: u32,
    /// Why training was given up.
    pub diverged: Option<String>,
    /// The last checkpoint.
    pub checkpoint: Option<CheckpointFacts>,
    /// Those before it, in order.
    pub(super) earlier: Vec<CheckpointFacts>,
    /// Checkpoints whose bytes were lost.
    pub losses: u32,
    /// Its held-out quality.
    pub evaluation: Option<Evaluation>,
    /// Where that is; not in views of old.
    #[serde(default)]
    pub evaluated_at: Option<Offset>,
    /// What the gate said.
    pub decision: Option<Decision>,
    /// How it ended.
    pub outcome: Option<IterationOutcome>,
    /// Sums over the formed pairs.
    pub pair_sums: PairSums,
    /// When its first and last records were written, milliseconds; for people only.
    pub span_ms: (u64, u64),
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
    /// Standard errors of the differences, and of how many pairs they are known.
    #[serde(default)]
    pub error: (f64, u32),
}

impl PairSums {
    fn of(pair: &PreferencePair) -> PairSums {
        PairSums {
            length_chosen: f64::from(pair.length_chosen),
            length_rejected: f64::from(pair.length_rejected),
            score_chosen: pair.score_chosen,
            score_rejected: pair.score_rejected,
            error: match (pair.error_chosen, pair.error_rejected) {
                (Some(a), Some(b)) => (a.hypot(b), 1),
                _ => (0.0, 0),
            },
        }
    }

    fn add(&mut self, part: &PairSums) {
        self.length_chosen += part.length_chosen;
        self.length_rejected += part.length_rejected;
        self.score_chosen += part.score_chosen;
        self.score_rejected += part.score_rejected;
        self.error.0 += part.error.0;
        self.error.1 += part.error.1;
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

/// The stage that writes events of this kind within an iteration.
fn stage_of(event: &Event) -> &'static str {
    match event {
        Event::PromptsWritten { .. } | Event::CompletionsSampled { .. } => "sampler",
        Event::JudgeProbed { .. }
        | Event::JudgmentsRecorded { .. }
        | Event::ShadowJudged { .. } => "judge",
        Event::PairFormed { .. } | Event::PairSkipped { .. } => "pair_store",
        Event::ReferenceScored { .. }
        | Event::StepTaken { .. }
        | Event::StepSkipped { .. }
        | Event::MemoryShort { .. }
        | Event::TrainingRolledBack { .. }
        | Event::TrainingDiverged { .. }
        | Event::CheckpointLost { .. }
        | Event::CheckpointSaved { .. } => "trainer",
        Event::HeldOutJudged { .. } | Event::EvaluationFinished { .. } => "evaluator",
        _ => "conductor",
    }
}

impl IterationView {
    /// An iteration nothing has happened in yet.
    pub fn open(
        kind: IterationKind,
        policy: &PolicyRef,
        reference: &PolicyRef,
        panel: &Panel,
    ) -> IterationView {
        IterationView {
            opened: Offset(0),
            kind,
            policy: policy.clone(),
            reference: reference.clone(),
            panel: panel.clone(),
            written: Vec::new(),
            prompts: None,
            sampled: BTreeMap::new(),
            probed: None,
            probes: BTreeMap::new(),
            baits: BTreeMap::new(),
            probing: BTreeMap::new(),
            judged: BTreeMap::new(),
            under: BTreeMap::new(),
            shadowed: BTreeMap::new(),
            rubrics_rolled_back: 0,
            taken_back: TakenBack::default(),
            formed_under: BTreeMap::new(),
            pair_parts: BTreeMap::new(),
            left_out: BTreeMap::new(),
            judgments: (0, 0),
            not_compared: 0,
            criteria: BTreeMap::new(),
            pairs: BTreeMap::new(),
            skipped: BTreeMap::new(),
            split: BTreeSet::new(),
            sealed: None,
            reference_scored: None,
            steps: Vec::new(),
            steps_skipped: 0,
            memory_short: 0,
            skipped_in_a_row: 0,
            good: None,
            rollbacks: 0,
            diverged: None,
            checkpoint: None,
            earlier: Vec::new(),
            losses: 0,
            evaluation: None,
            evaluated_at: None,
            decision: None,
            outcome: None,
            pair_sums: PairSums::default(),
            span_ms: (0, 0),
            stage_ms: BTreeMap::new(),
        }
    }

    /// Folds a record of this iteration.
    pub fn apply(&mut self, record: &Recorded) {
        if self.span_ms.0 == 0 {
            self.span_ms = (record.at_ms, record.at_ms);
        }
        let passed = record.at_ms.saturating_sub(self.span_ms.1);
        *self.stage_ms.entry(Cow::Borrowed(stage_of(&record.event))).or_default() += passed;
        self.span_ms.1 = record.at_ms;
        self.apply_prompts(record);
        self.apply_training(record);
    }

    fn apply_prompts(&mut self, record: &Recorded) {
        match &record.event {
            Event::PromptsWritten { admitted, rejected, .. } => {
                self.written.push((*admitted, *rejected));
            }
            Event::PromptsSealed { prompts, .. } => {
                let mut sorted = prompts.clone();
                sorted.sort();
                self.prompts = Some(sorted);
            }
            Event::CompletionsSampled { prompt, .. } => {
                self.sampled.insert(prompt.clone(), record.offset);
            }
            Event::JudgeProbed { rubric, report, .. } => self.probe(rubric, report),
            Event::JudgmentsRecorded {
                prompt, judgments, rubrics, lengths, not_compared, ..
            } => {
                self.not_compared += not_compared;
                self.add_criteria(judgments);
                let under = Under::of(judgments, rubrics, lengths);
                self.apply_judgments(prompt, under, record.offset);
            }
            Event::ShadowJudged { prompt, rubric, .. } => {
                let shadowed = self.shadowed.entry(rubric.clone()).or_default();
                shadowed.insert(prompt.clone(), record.offset);
            }
            Event::PairFormed { pair, .. } => {
                // Before a rollback of old, its judgments were here; afterwards they are kept apart.
                if self.under.contains_key(&pair.prompt) {
                    self.formed_under.remove(&pair.prompt);
                }
                let part = PairSums::of(pair);
                self.pair_sums.add(&part);
                self.pair_parts.insert(pair.prompt.clone(), part);
                self.pairs.insert(pair.prompt.clone(), (pair.id.clone(), record.offset));
            }
            Event::PairSkipped { prompt, reason, .. } => {
                self.skipped.insert(prompt.clone(), *reason);
            }
            Event::PromptsSplit { prompts, .. } => self.split.extend(prompts.iter().cloned()),
            Event::PromptQuarantined { prompt, stage, .. } => {
                self.skipped.insert(prompt.clone(), SkipReason::Quarantined);
                if stage != "sampler" {
                    let rubrics = self.panel.seats().iter().map(|seat| seat.rubric.clone());
                    self.left_out.insert(prompt.clone(), rubrics.collect());
                }
            }
            Event::PairsSealed { pairs, .. } => self.sealed = Some(pairs.clone()),
            _ => {}
        }
    }

    fn add_criteria(&mut self, judgments: &[Judgment]) {
        for judgment in judgments.iter().filter(|j| !j.remarks.criteria.is_empty()) {
            let sums = self.criteria.entry(judgment.rubric.clone()).or_default();
            for part in &judgment.remarks.criteria {
                // Prompts may bring criteria of their own, without end.
                if sums.len() < CRITERIA_MAX || sums.contains_key(&part.name) {
                    let (sum, n) = sums.entry(part.name.clone()).or_default();
                    (*sum, *n) = (*sum + part.value, *n + 1);
                }
            }
        }
    }

    fn probe(&mut self, rubric: &RubricId, report: &ProbeReport) {
        self.probing.entry(rubric.clone()).or_default().add(report);
        let [claim, others @ ..] = Bait::ALL.map(|bait| Probed::of(report, bait));
        let baits = self.baits.entry(rubric.clone()).or_default();
        for other in others.into_iter().filter(|probed| !probed.gains.is_empty()) {
            match baits.iter_mut().find(|known| known.bait == other.bait) {
                Some(known) => known.add(&other),
                None => baits.push(other),
            }
        }
        let first = self.probed.is_none() || self.probed.as_ref() == self.probes.get(rubric);
        let known = self.probes.entry(rubric.clone());
        let known = known.and_modify(|known| known.add(&claim)).or_insert(claim);
        if first {
            self.probed = Some(known.clone());
        }
    }

    fn apply_judgments(&mut self, prompt: &PromptId, under: Under, at: Offset) {
        self.judgments.0 += under.judgments.0;
        self.judgments.1 += under.judgments.1;
        let before =
            self.under.insert(prompt.clone(), under).zip(self.judged.insert(prompt.clone(), at));
        if let Some(before) = before.filter(|_| self.pairs.contains_key(prompt)) {
            self.formed_under.entry(prompt.clone()).or_insert(before);
        }
    }

    /// The judgments that a prompt's pair was formed from, and where they are.
    pub fn formed_from(&self, prompt: &PromptId) -> Option<(&Under, Offset)> {
        self.pairs.get(prompt)?;
        match self.formed_under.get(prompt) {
            Some((under, at)) => Some((under, *at)),
            None => Some((self.under.get(prompt)?, *self.judged.get(prompt)?)),
        }
    }

    fn apply_training(&mut self, record: &Recorded) {
        match &record.event {
            Event::ReferenceScored { .. } => self.reference_scored = Some(record.offset),
            Event::StepTaken { step, metrics, .. } => {
                self.steps.push((*step, *metrics));
                self.skipped_in_a_row = 0;
            }
            Event::StepSkipped { .. } => {
                self.steps_skipped += 1;
                self.skipped_in_a_row += 1;
            }
            Event::MemoryShort { .. } => self.memory_short += 1,
            Event::TrainingRolledBack { step, .. } => {
                self.rollbacks += 1;
                self.skipped_in_a_row = 0;
                self.earlier.retain(|earlier| earlier.step < *step);
                self.checkpoint = self.good.clone();
                self.steps.retain(|(taken, _)| taken < step);
            }
            Event::CheckpointLost { .. } => {
                self.losses += 1;
                self.checkpoint = self.earlier.pop();
                let last = self.checkpoint.as_ref();
                self.skipped_in_a_row = last.map_or(0, |c| c.skipped_in_a_row);
                let step = last.map_or(0, |c| c.step);
                self.steps.retain(|(taken, _)| *taken < step);
                let mut all = self.earlier.iter().chain(&self.checkpoint);
                self.good = all.rfind(|c| c.skipped_in_a_row == 0).cloned();
            }
            Event::TrainingDiverged { reason, .. } => self.diverged = Some(reason.clone()),
            Event::CheckpointSaved { step, steps_total, policy, optimizer, .. } => {
                self.earlier.extend(self.checkpoint.take());
                self.checkpoint = Some(CheckpointFacts {
                    step: *step,
                    steps_total: *steps_total,
                    policy: policy.clone(),
                    optimizer: optimizer.clone(),
                    skipped_in_a_row: self.skipped_in_a_row,
                    steps_taken: self.steps.len() as u32,
                });
                if self.skipped_in_a_row == 0 {
                    self.good.clone_from(&self.checkpoint);
                }
            }
            Event::EvaluationFinished { evaluation, .. } => {
                self.evaluation = Some(evaluation.clone());
                self.evaluated_at = Some(record.offset);
            }
            Event::CheckpointPromoted { .. } => self.decision = Some(Decision::Promoted),
            Event::CheckpointRejected { reason, .. } => {
                self.decision = Some(Decision::Rejected(reason.clone()));
            }
            Event::IterationFinished { outcome, .. } => {
                self.outcome = Some(outcome.clone());
                self.pair_parts.clear();
                self.left_out.clear();
            }
            _ => {}
        }
    }

    /// Takes back what a rubric that failed judged, but for pairs that were formed from it before
    /// it did: what records of old mean, see [`IterationView::take_back`].
    pub(super) fn forget_judgments_under(&mut self, rubric: &RubricId) {
        if self.outcome.is_some() || self.sealed.is_some() {
            return;
        }
        self.rubrics_rolled_back += 1;
        self.taken_back.note_old();
        self.probes.remove(rubric);
        self.probing.remove(rubric);
        self.criteria.remove(rubric);
        self.baits.remove(rubric);
        let ours = |(prompt, under): (&PromptId, &Under)| {
            let open = under.rubrics.contains(rubric) && !self.pairs.contains_key(prompt);
            open.then(|| prompt.clone())
        };
        let again: Vec<PromptId> = self.under.iter().filter_map(ours).collect();
        for prompt in again {
            let under = self.under.remove(&prompt);
            self.uncount(under.as_ref());
            // A pair may be on the way that was formed from it.
            if let Some(before) = under.zip(self.judged.remove(&prompt)) {
                self.formed_under.insert(prompt.clone(), before);
            }
            if !self.is_quarantined(&prompt) {
                self.skipped.remove(&prompt);
            }
        }
    }

    /// Judgments that were taken back are no more among those that are counted.
    pub(super) fn uncount(&mut self, under: Option<&Under>) {
        let (all, unscored) = under.map_or((0, 0), |under| under.judgments);
        self.judgments.0 = self.judgments.0.saturating_sub(all);
        self.judgments.1 = self.judgments.1.saturating_sub(unscored);
    }

    /// What the judge made of bad answers under a rubric.
    pub fn probed_under(&self, rubric: &RubricId) -> Option<&Probed> {
        let of_old = self.probed.as_ref().filter(|_| self.probes.is_empty());
        self.probes.get(rubric).or(of_old)
    }

    /// The same for every way in which they tried to buy a score.
    pub fn baited_under(&self, rubric: &RubricId) -> impl Iterator<Item = &Probed> {
        self.probed_under(rubric).into_iter().chain(self.baits.get(rubric).into_iter().flatten())
    }

    /// Rounds of probing under a rubric that count.
    pub fn probe_rounds(&self, rubric: &RubricId) -> u32 {
        // A view of old knows that there was one.
        let of_old = u32::from(self.probes.contains_key(rubric));
        self.probing.get(rubric).map_or(of_old, |probing| probing.rounds)
    }

    /// By how much more than bad answers the policy's own were worth to the judge under a rubric, at
    /// the prompts of which both are known; `None` without any.
    pub fn liking(&self, rubric: &RubricId) -> Option<Liking> {
        let probing = self.probing.get(rubric)?;
        let (low, high) = probing.scale;
        let own = |prompt: &PromptId| self.under.get(prompt)?.figures.get(rubric)?.mean_score();
        let both = probing.bare.iter().filter_map(|(prompt, bad)| Some(own(prompt)? - bad));
        let differences: Vec<f64> = both.map(|more| more / (high - low)).collect();
        (!differences.is_empty()).then(|| Liking::of(&differences))
    }

    /// The mean of each part of a rubric's verdicts, by name.
    pub fn criteria_of(&self, rubric: &RubricId) -> Vec<(String, f64)> {
        let sums = self.criteria.get(rubric).into_iter().flatten();
        sums.map(|(name, (sum, n))| (name.clone(), sum / f64::from(*n))).collect()
    }

    /// What every rubric's judgments came to that count.
    pub fn figures(&self) -> BTreeMap<&RubricId, RubricFigures> {
        let mut all: BTreeMap<&RubricId, RubricFigures> = BTreeMap::new();
        for (rubric, figures) in self.under.values().flat_map(|under| &under.figures) {
            all.entry(rubric).or_default().add(figures);
        }
        all
    }

    /// The rubrics that judge it or judged any of it.
    pub fn rubrics(&self) -> BTreeSet<&RubricId> {
        let seated = self.panel.seats().iter().map(|seat| &seat.rubric);
        seated.chain(self.under.values().flat_map(|under| &under.rubrics)).collect()
    }

    /// Whether a prompt was judged, and a shadow has yet to.
    pub fn waits_for_shadow(&self, rubric: &RubricId, prompt: &PromptId) -> bool {
        let seen = |shadowed: &BTreeMap<PromptId, Offset>| shadowed.contains_key(prompt);
        self.judged.contains_key(prompt)
            && !self.is_quarantined(prompt)
            && !self.shadowed.get(rubric).is_some_and(seen)
    }

    /// Whether no sealed prompt waits for judgments.
    pub fn all_judged(&self) -> bool {
        self.prompts.as_ref().is_none_or(|prompts| {
            prompts.iter().all(|p| self.judged.contains_key(p) || self.is_quarantined(p))
        })
    }

    /// The blobs it names: all of them, or without its checkpoints on the way.
    pub fn blobs(&self, on_the_way: bool) -> BTreeSet<BlobHash> {
        let all = self.earlier.iter().chain(&self.good).chain(&self.checkpoint);
        let saved = all.filter(|_| on_the_way || self.decision == Some(Decision::Promoted));
        let saved = saved.rev().take(if on_the_way { usize::MAX } else { 1 });
        let mut blobs: BTreeSet<BlobHash> = BTreeSet::new();
        for checkpoint in saved {
            blobs.extend(checkpoint.policy.blobs().cloned());
            blobs.extend(on_the_way.then(|| checkpoint.optimizer.clone()));
        }
        blobs.extend(self.taken_back.blobs().filter(|_| on_the_way).cloned());
        blobs.extend(self.policy.blobs().chain(self.reference.blobs()).cloned());
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
