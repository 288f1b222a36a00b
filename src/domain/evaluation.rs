//! Measured quality of a checkpoint on held-out prompts.

use super::id::PolicyId;
use serde::{Deserialize, Serialize};

/// A mean with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The mean.
    pub mean: f64,
    /// Lower end of the 95 % interval.
    pub low: f64,
    /// Upper end of the 95 % interval.
    pub high: f64,
    /// How many values it is the mean of.
    pub n: u32,
}

/// Who said which of two answers is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Referee {
    /// A program that knows the truth; never seen by the training loop.
    Oracle,
    /// The policy that entered the iteration, under the active rubric.
    Judge,
}

/// Head-to-head on the same held-out prompts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeadToHead {
    /// `previous` or `first` (M1).
    pub opponent: String,
    /// The opponent's weights.
    pub policy: PolicyId,
    /// Who compared.
    pub referee: Referee,
    /// The opponent's mean score by the same referee on the same prompts.
    pub opponent_score: Estimate,
    /// Mean length of the opponent's answers in tokens.
    pub opponent_length: f64,
    /// Prompts where this checkpoint scored higher.
    pub wins: u32,
    /// Prompts with equal scores.
    pub ties: u32,
    /// Prompts where it scored lower.
    pub losses: u32,
    /// Share of wins with ties counted half, with its interval.
    pub win_rate: Estimate,
}

/// How well the policy judges, against known scores (the paper's measures).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JudgeQuality {
    /// Share of truly ordered pairs ordered the same; a judged tie counts half.
    pub pairwise_accuracy: f64,
    /// Share of prompts whose whole ranking is the same.
    pub exact_match: f64,
    /// Mean Spearman correlation over prompts where it is defined.
    pub spearman: f64,
    /// Mean Kendall tau-b over prompts where it is defined.
    pub kendall: f64,
    /// Prompts with more than one distinct true score.
    pub prompts: u32,
    /// Share of judgments without a score.
    pub unparsed: f64,
}

/// Everything measured of one checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// The checkpoint's policy.
    pub policy: PolicyId,
    /// Mean score of its held-out answers by the referee.
    pub score: Estimate,
    /// Who gave that score.
    pub referee: Referee,
    /// Mean length of its held-out answers in tokens.
    pub length: Estimate,
    /// Share of held-out answers that ended by themselves.
    pub ended: f64,
    /// Against earlier policies.
    pub head_to_head: Vec<HeadToHead>,
    /// How it judges, where the truth is known.
    pub judge: Option<JudgeQuality>,
}
