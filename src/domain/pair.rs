//! One training example of a preference loss: two texts of which one is better, and where they are
//! recorded.

use super::id::{BlobHash, Iteration, PromptId, RubricId};
use super::plan::SampleSet;
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

/// Where a text is recorded that a pair speaks of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "snake_case")]
#[non_exhaustive]
pub enum TextRef {
    /// A completion of the pair's prompt, in its iteration.
    Completion {
        /// Name of the sample set.
        set: String,
        /// Index within the set.
        index: u32,
    },
    /// What the judge replied about a completion of the pair's prompt. The question is then what is
    /// answered.
    Judgment {
        /// The rubric that asked.
        rubric: RubricId,
        /// Index of the completion among all of the prompt's.
        candidate: u32,
        /// Which of the k replies.
        sample: u32,
    },
    /// The answer of a seed row.
    SeedAnswer {
        /// The rows' blob.
        blob: BlobHash,
        /// Index of the row.
        row: u32,
    },
}

impl TextRef {
    /// One of the policy's own completions.
    pub fn own(index: u32) -> TextRef {
        TextRef::Completion { set: SampleSet::POLICY.to_owned(), index }
    }
}

/// One of a pair's texts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Side {
    /// Where it is recorded.
    pub text: TextRef,
    /// Mean score; `None` of a text that nobody scored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
    /// Standard error of that, over the judge's samples; `None` where it is not known: fewer than
    /// two samples, or a record of old.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<f64>,
    /// Its tokens.
    pub tokens: u32,
}

fn one() -> f64 {
    1.0
}

fn is_one(number: &f64) -> bool {
    *number == 1.0
}

/// Two texts of one prompt, of which one is better.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PreferencePair {
    /// Unique within a run.
    pub id: PairId,
    /// What was asked.
    pub prompt: PromptId,
    /// The better one.
    pub chosen: Side,
    /// The other.
    pub rejected: Side,
    /// What the pair's loss is multiplied by.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub weight: f64,
    /// Probability that chosen is the better one.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub label: f64,
}

/// Why a prompt gave no pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
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
