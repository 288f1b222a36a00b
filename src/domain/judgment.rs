//! One judge reply about one completion. A bad reply is an outcome, not an error, and there is no
//! default score: only [`Outcome::Scored`] can reach a pair.

use super::id::RubricId;
use super::tuple_form;
use serde::{Deserialize, Serialize};

/// What came of a judgment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Outcome {
    /// A score inside the rubric's scale.
    Scored {
        /// The score that counts: the expectation over the places where `parse` read it, where the
        /// rubric says which and the run uses them, else what `parse` read.
        score: f64,
        /// What `parse` read from the text; none of a score that was forced or is a control arm's.
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

/// A rubric's lowest and highest score.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "(f64, f64)", into = "(f64, f64)")]
pub struct Scale {
    /// The lowest.
    pub min: f64,
    /// The highest.
    pub max: f64,
}

tuple_form!(Scale { min: f64, max: f64 });

impl Scale {
    /// Highest less lowest.
    pub fn width(&self) -> f64 {
        self.max - self.min
    }

    /// What says neither good nor bad.
    pub fn middle(&self) -> f64 {
        (self.min + self.max) / 2.0
    }
}

/// How many judgments there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u32, u32)", into = "(u32, u32)")]
pub struct JudgmentCounts {
    /// All of them.
    pub total: u32,
    /// Those without a score.
    pub unscored: u32,
}

tuple_form!(JudgmentCounts { total: u32, unscored: u32 });

impl JudgmentCounts {
    /// Takes in others.
    pub fn add(&mut self, other: JudgmentCounts) {
        self.total += other.total;
        self.unscored += other.unscored;
    }

    /// Takes others out, which are among these.
    pub fn remove(&mut self, other: JudgmentCounts) {
        self.total = self.total.saturating_sub(other.total);
        self.unscored = self.unscored.saturating_sub(other.unscored);
    }

    /// Share of judgments without a score, 0 to 1; 0 of none.
    pub fn unscored_share(&self) -> f64 {
        f64::from(self.unscored) / f64::from(self.total.max(1))
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

/// How a score was read from the judge's probabilities.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReadoutFacts {
    /// The judge wrote no score: it was made to begin one (`judge.readout: forced`).
    #[serde(default, skip_serializing_if = "is_false")]
    pub forced: bool,
    /// How likely any of the choices was, from 0 to 1; of several places the mean by their weight.
    /// Near 0 the score is made of what the judge would not have written.
    pub mass: f64,
    /// Shannon entropy of the choices, normalised to 1, in nats; the mean likewise.
    pub entropy: f64,
}

pub(super) fn is_false(value: &bool) -> bool {
    !*value
}

/// A part of a verdict, as the rubric names it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Criterion {
    /// Its name.
    pub name: String,
    /// What it came to.
    pub value: f64,
}

/// What a rubric read from a reply besides the scores. Nothing is made of it; it is for people.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Remarks {
    /// Sub-scores.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub criteria: Vec<Criterion>,
    /// Why, in the judge's words, where that is not the whole reply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rationale: Option<String>,
}

impl Remarks {
    fn is_empty(&self) -> bool {
        self.criteria.is_empty() && self.rationale.is_none()
    }
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
    /// How the score was read from probabilities; none where it is what `parse` read, and in
    /// records of old.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readout: Option<ReadoutFacts>,
    /// What else the rubric read.
    #[serde(default, skip_serializing_if = "Remarks::is_empty")]
    pub remarks: Remarks,
}

impl Judgment {
    /// How many they are, and how many of them have no score.
    pub fn count(judgments: &[Judgment]) -> JudgmentCounts {
        let unscored = judgments.iter().filter(|j| j.outcome.score().is_none()).count();
        JudgmentCounts { total: judgments.len() as u32, unscored: unscored as u32 }
    }

    /// Whether the judge wrote a score itself.
    pub fn is_parsed(&self) -> bool {
        self.outcome.score().is_some() && !self.is_forced()
    }

    /// Whether the judge wrote none and was made to begin one.
    pub fn is_forced(&self) -> bool {
        self.readout.is_some_and(|readout| readout.forced)
    }

    /// The completions that were shown, in the order shown: one alone or several.
    pub fn shown(&self) -> &[u32] {
        if self.seen.is_empty() { std::slice::from_ref(&self.candidate) } else { &self.seen }
    }

    /// What each of the completions that were shown got; none without a score.
    pub fn each(&self) -> Vec<f64> {
        match self.seen.is_empty() {
            true => self.outcome.score().into_iter().collect(),
            false => self.scores.clone(),
        }
    }

    /// The probability that the judge put on the rubric's choices where it wrote its score; `None`
    /// where nobody looked, or it wrote none.
    pub fn mass(&self) -> Option<f64> {
        self.readout.filter(|readout| !readout.forced).map(|readout| readout.mass)
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
