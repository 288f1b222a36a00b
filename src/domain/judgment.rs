//! One judge reply about one completion. A bad reply is an outcome, not an error, and there is no
//! default score: only [`Outcome::Scored`] can reach a pair.

use super::id::RubricId;
use serde::{Deserialize, Serialize};

/// What came of a judgment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Outcome {
    /// A score inside the rubric's scale.
    Scored {
        /// The score that counts: the expectation over the readout where the rubric offers one
        /// and the run uses it, else what `parse` read.
        score: f64,
        /// What `parse` read from the text, where it read anything.
        parsed: Option<f64>,
    },
    /// The reply holds no usable score.
    Unparsed {
        /// The rubric's reason.
        reason: String,
    },
    /// The rubric would not render this item.
    Refused {
        /// The rubric's reason.
        reason: String,
    },
    /// The rubric broke its sandbox's limits.
    Trapped {
        /// What the sandbox said.
        reason: String,
    },
}

impl Outcome {
    /// The score, if there is one.
    pub fn score(&self) -> Option<f64> {
        match self {
            Outcome::Scored { score, .. } => Some(*score),
            Outcome::Unparsed { .. } | Outcome::Refused { .. } | Outcome::Trapped { .. } => None,
        }
    }
}

/// Which version of a rubric an id stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RubricName {
    /// Its bytes' hash.
    pub rubric: RubricId,
    /// What it calls itself.
    pub name: String,
    /// Its own version.
    pub version: String,
}

/// One judge reply, kept whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judgment {
    /// Which rubric asked and read.
    pub rubric: RubricId,
    /// Which of the completions, from 0; of several that were shown together, the first.
    pub candidate: u32,
    /// Which of the k judgments of what was shown, from 0.
    pub sample: u32,
    /// What came of it.
    pub outcome: Outcome,
    /// The judge's own text.
    pub text: String,
    /// Fuel that rendering and parsing used.
    pub fuel: u64,
    /// The completions that were shown together, in the order shown; none when it was one alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub seen: Vec<u32>,
    /// What each of those got; none when it was one alone, or without scores.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scores: Vec<f64>,
}

impl Judgment {
    /// How many they are, and how many of them have no score.
    pub fn count(judgments: &[Judgment]) -> (u32, u32) {
        let unscored = judgments.iter().filter(|j| j.outcome.score().is_none()).count();
        (judgments.len() as u32, unscored as u32)
    }

    /// What each of the completions that were shown got; none without a score.
    pub fn each(&self) -> Vec<f64> {
        match self.seen.is_empty() {
            true => self.outcome.score().into_iter().collect(),
            false => self.scores.clone(),
        }
    }

    /// Whether a score was read from what the judge wrote.
    pub fn is_parsed(&self) -> bool {
        self.outcome.score().is_some()
    }

    /// The probability that the judge put on the rubric's choices where its score was read;
    /// `None` where nobody looked.
    pub fn mass(&self) -> Option<f64> {
        None
    }

    /// Whether the judge was asked and said something, if only nothing.
    pub fn has_reply(&self) -> bool {
        match self.outcome {
            Outcome::Scored { .. } | Outcome::Unparsed { .. } => true,
            Outcome::Trapped { .. } => !self.text.is_empty(),
            Outcome::Refused { .. } => false,
        }
    }
}
