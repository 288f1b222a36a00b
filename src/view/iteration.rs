//! What is known of one iteration.

use super::figures::{RubricFigures, RunningMean};
use super::probes::{AttackScores, BadAnswerMargin, ProbeProgress};
use super::taken_back::TakenBack;
use super::{Shared, SharedMap, SharedSet};
use crate::domain::evaluation::Evaluation;
use crate::domain::event::{IterationKind, IterationOutcome, StepMetrics};
use crate::domain::plan::{KeepCheckpoints, MovingMean, SampleSet, SettingChange};
use crate::domain::{
    Alarm, BlobHash, IterationPlan, JudgmentCounts, Offset, PairId, Panel, PolicyRef, PromptId,
    RubricId, SkipReason,
};
use serde::{Deserialize, Deserializer, Serialize};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

mod apply;
mod parts;

pub use parts::{CheckpointFacts, GateDecision, PairSums, PromptJudgments, TimeSpan, WritingRound};

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
    /// How many of its prompts an earlier iteration answered too (`prompts.reuse`).
    #[serde(default, skip_serializing_if = "super::is_zero")]
    pub reused: u32,
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
    /// What of it looks like a loop going wrong.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alarms: Vec<Alarm>,
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
            reused: 0,
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
            alarms: Vec::new(),
            decision: None,
            outcome: None,
            pair_sums: PairSums::default(),
            span: TimeSpan::default(),
            stage_ms: Default::default(),
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
