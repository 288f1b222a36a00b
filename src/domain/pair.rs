//! One training example of DPO: the better and the worse of a prompt's candidates.

use super::id::{Iteration, PromptId};
use serde::{Deserialize, Serialize};

/// Name of a pair: its prompt in its iteration.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PairId(pub String);

impl PairId {
    /// The pair of a prompt in an iteration; of one whose pair was taken back by the rollback with
    /// this number (0: by none), so that the pair that is formed again has another name.
    pub fn of(iteration: Iteration, prompt: &PromptId, rollback: u32) -> PairId {
        match rollback {
            0 => PairId(format!("{iteration}/{prompt}")),
            n => PairId(format!("{iteration}/{prompt}/{n}")),
        }
    }
}

/// The best and the worst candidate of one prompt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PreferencePair {
    /// Unique within a run.
    pub id: PairId,
    /// What was asked.
    pub prompt: PromptId,
    /// Index of the preferred candidate.
    pub chosen: u32,
    /// Index of the other.
    pub rejected: u32,
    /// Mean score of the chosen one.
    pub score_chosen: f64,
    /// Mean score of the rejected one.
    pub score_rejected: f64,
    /// Standard error of the chosen one's score, over the judge's samples; none where it is not
    /// known: fewer than two samples, or a record of old.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_chosen: Option<f64>,
    /// That of the rejected one's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_rejected: Option<f64>,
    /// Tokens in the chosen one.
    pub length_chosen: u32,
    /// Tokens in the rejected one.
    pub length_rejected: u32,
}

/// Why a prompt gave no pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SkipReason {
    /// Best and worst have the same score, or differ by less than the configured gap.
    Tie,
    /// Best and worst differ by less than what the judge's samples differ by themselves.
    Noise,
    /// Fewer than two candidates have a score.
    Unparsed,
    /// All candidates are the same token sequence.
    Identical,
    /// Fewer than two candidates ended by themselves.
    Truncated,
    /// Length control left no chosen or no rejected.
    LengthControl,
    /// A task with this prompt alone failed again and again.
    Quarantined,
}

impl SkipReason {
    /// The word in tables.
    pub fn as_str(self) -> &'static str {
        match self {
            SkipReason::Tie => "tie",
            SkipReason::Noise => "within the noise",
            SkipReason::Unparsed => "unparsed",
            SkipReason::Identical => "identical",
            SkipReason::Truncated => "truncated",
            SkipReason::LengthControl => "length control",
            SkipReason::Quarantined => "quarantined",
        }
    }
}
