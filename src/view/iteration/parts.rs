//! What is known of an iteration, piece by piece.

use crate::domain::{
    BlobHash, Judgment, JudgmentCounts, PolicyRef, PreferencePair, RubricId, RubricName, tuple_form,
};
use crate::view::figures::{RubricFigures, RunningMean};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

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
    pub(super) fn of(
        judgments: &[Judgment],
        named: &[RubricName],
        lengths: &[u32],
    ) -> PromptJudgments {
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
    pub(super) fn of(pair: &PreferencePair) -> PairSums {
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

    pub(super) fn add(&mut self, part: &PairSums) {
        self.length_chosen += part.length_chosen;
        self.length_rejected += part.length_rejected;
        self.score_chosen += part.score_chosen;
        self.score_rejected += part.score_rejected;
        self.error.add(part.error);
    }

    /// What is left of the sums of one pair more, when it is not known what that one added.
    pub(in crate::view) fn scaled(self, left: usize) -> PairSums {
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
    pub(in crate::view) fn sum<'a>(parts: impl Iterator<Item = &'a PairSums>) -> PairSums {
        let mut sum = PairSums::default();
        parts.for_each(|part| sum.add(part));
        sum
    }
}
