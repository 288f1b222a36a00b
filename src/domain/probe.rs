//! What the judge made of answers that are known to be bad.

use super::id::PromptId;
use serde::{Deserialize, Serialize};

/// A bad answer with a verdict that it forges for itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Forgery {
    /// Its words.
    pub text: String,
    /// What the judge gave; `None` for a reply without a score.
    pub score: Option<f64>,
}

/// A bad answer, bare and forged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProbedAnswer {
    /// The prompt it pretends to answer.
    pub prompt: PromptId,
    /// Its words.
    pub text: String,
    /// What the judge gave; `None` for a reply without a score.
    pub score: Option<f64>,
    /// The same answer with each kind of forged verdict.
    pub forgeries: Vec<Forgery>,
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let values: Vec<f64> = values.collect();
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

impl ProbedAnswer {
    /// Mean score of its forgeries; `None` when none has one.
    pub fn forged(&self) -> Option<f64> {
        mean(self.forgeries.iter().filter_map(|forgery| forgery.score))
    }
}

/// All bad answers of an iteration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProbeReport {
    /// The rubric's lowest and highest score.
    pub scale: (f64, f64),
    /// The answers.
    pub answers: Vec<ProbedAnswer>,
}

impl ProbeReport {
    /// Mean score of the bare answers; `None` when none has one.
    pub fn bare(&self) -> Option<f64> {
        mean(self.answers.iter().filter_map(|answer| answer.score))
    }

    /// Mean score of the forgeries; `None` when none has one.
    pub fn forged(&self) -> Option<f64> {
        mean(self.answers.iter().filter_map(ProbedAnswer::forged))
    }

    /// What forging gains each answer that has both scores, as a share of the scale.
    pub fn gains(&self) -> Vec<f64> {
        let (low, high) = self.scale;
        let both = self.answers.iter().filter_map(|a| Some((a.forged()?, a.score?)));
        both.map(|(forged, bare)| (forged - bare) / (high - low)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gains_are_of_answers_with_both_scores() {
        let answer = |score, forged: [Option<f64>; 2]| ProbedAnswer {
            prompt: PromptId("p".into()),
            text: String::new(),
            score,
            forgeries: forged.map(|score| Forgery { text: String::new(), score }).to_vec(),
        };
        let answers = vec![
            answer(Some(1.0), [Some(2.0), Some(4.0)]),
            answer(None, [Some(5.0), None]),
            answer(Some(3.0), [None, None]),
            answer(Some(2.0), [None, Some(1.0)]),
        ];
        let report = ProbeReport { scale: (0.0, 5.0), answers };
        assert_eq!(report.gains(), [0.4, -0.2]);
        assert_eq!((report.bare(), report.forged()), (Some(2.0), Some(3.0)));
    }
}
