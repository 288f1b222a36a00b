//! What the judge made of answers that are known to be bad.

use super::id::PromptId;
use super::judgment::{Scale, is_false};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// How a bad answer attacks the judge to get a score that it does not earn. Each way is measured for
/// itself: one that works would not be seen among others that do not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Attack {
    /// They claim one, or praise themselves.
    #[default]
    Claim,
    /// They are words in the place of an answer that judges are known to reward.
    MasterKey,
    /// They say the same three times.
    Repetition,
}

impl Attack {
    /// All of them.
    pub const ALL: [Attack; 3] = [Attack::Claim, Attack::MasterKey, Attack::Repetition];

    fn is_claim(&self) -> bool {
        *self == Attack::Claim
    }
}

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
    /// What its forgeries try.
    #[serde(default, rename = "bait", skip_serializing_if = "Attack::is_claim")]
    pub attack: Attack,
    /// The same answer, forged in each way.
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
    pub scale: Scale,
    /// The answers.
    pub answers: Vec<ProbedAnswer>,
    /// What forging may gain, as a share of the scale; not in records of old.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gain_max: Option<f64>,
    /// The rubric compares answers: what one got beside its forgeries says nothing of others.
    #[serde(default, skip_serializing_if = "is_false")]
    pub compares: bool,
}

impl ProbeReport {
    fn with(&self, attack: Attack) -> impl Iterator<Item = &ProbedAnswer> {
        self.answers.iter().filter(move |answer| answer.attack == attack)
    }

    /// Mean score of the bare answers; `None` when none has one.
    pub fn bare(&self, attack: Attack) -> Option<f64> {
        mean(self.with(attack).filter_map(|answer| answer.score))
    }

    /// Mean score of the forgeries; `None` when none has one.
    pub fn forged(&self, attack: Attack) -> Option<f64> {
        mean(self.with(attack).filter_map(ProbedAnswer::forged))
    }

    /// What forging gains each answer that has both scores, as a share of the scale.
    pub fn gains(&self, attack: Attack) -> Vec<f64> {
        let both = self.with(attack).filter_map(|a| Some((a.forged()?, a.score?)));
        both.map(|(forged, bare)| (forged - bare) / self.scale.width()).collect()
    }

    /// Mean score of the bare answers to each prompt; none under a rubric that compares.
    pub fn bare_by_prompt(&self) -> BTreeMap<PromptId, f64> {
        if self.compares {
            return BTreeMap::new();
        }
        let prompts: BTreeSet<&PromptId> = self.answers.iter().map(|a| &a.prompt).collect();
        let of = |prompt: &PromptId| {
            mean(self.answers.iter().filter(|a| a.prompt == *prompt).filter_map(|a| a.score))
        };
        prompts.into_iter().filter_map(|prompt| Some((prompt.clone(), of(prompt)?))).collect()
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
            attack: Attack::Claim,
            forgeries: forged.map(|score| Forgery { text: String::new(), score }).to_vec(),
        };
        let other = ProbedAnswer { attack: Attack::MasterKey, ..answer(Some(1.0), [Some(5.0); 2]) };
        let answers = vec![
            other,
            answer(Some(1.0), [Some(2.0), Some(4.0)]),
            answer(None, [Some(5.0), None]),
            answer(Some(3.0), [None, None]),
            answer(Some(2.0), [None, Some(1.0)]),
        ];
        let scale = Scale { min: 0.0, max: 5.0 };
        let report = ProbeReport { scale, answers, gain_max: None, compares: false };
        assert_eq!(report.gains(Attack::Claim), [0.4, -0.2]);
        let means = (report.bare(Attack::Claim), report.forged(Attack::Claim));
        assert_eq!(means, (Some(2.0), Some(3.0)));
        assert_eq!(report.gains(Attack::MasterKey), [0.8]);
        assert_eq!(report.bare(Attack::Repetition), None);
        assert_eq!(report.bare_by_prompt(), BTreeMap::from([(PromptId("p".into()), 1.75)]));
        assert!(ProbeReport { compares: true, ..report }.bare_by_prompt().is_empty());
    }
}
