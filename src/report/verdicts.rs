//! What judges said of an answer, in their own words.

use crate::domain::{Judgment, Outcome, RubricId};
use serde::{Deserialize, Serialize};

/// What a judge said of an answer once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecordedVerdict {
    /// The rubric that asked: `additive-five@0.2.0`.
    pub rubric: String,
    /// Which of its k judgments, from 0.
    pub sample: u32,
    /// What the answer got; `None` without a score.
    pub score: Option<f64>,
    /// Whether the judge wrote no score and was made to begin one.
    pub forced: bool,
    /// Why there is no score, where there is none.
    pub reason: Option<String>,
    /// The judge's own words.
    pub text: String,
}

/// What was said of the answer at an index, also beside others; `named` says what a rubric is called.
pub(crate) fn verdicts(
    named: &dyn Fn(&RubricId) -> String,
    judgments: &[Judgment],
    at: u32,
) -> Vec<RecordedVerdict> {
    let one = |judgment: &Judgment| {
        let place = judgment.shown().iter().position(|shown| *shown == at)?;
        let reason = match &judgment.outcome {
            Outcome::Scored { .. } => None,
            Outcome::Unparsed { reason }
            | Outcome::Refused { reason }
            | Outcome::Trapped { reason } => Some(reason.clone()),
        };
        Some(RecordedVerdict {
            rubric: named(&judgment.rubric),
            sample: judgment.sample,
            score: judgment.each().get(place).copied(),
            forced: judgment.is_forced(),
            reason,
            text: judgment.text.clone(),
        })
    };
    judgments.iter().filter_map(one).collect()
}
