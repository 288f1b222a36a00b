//! What is noticed of an iteration that looks like a loop going wrong: the judge pleased and not the
//! people, the model narrowed, nothing left to learn from.

use serde::{Deserialize, Serialize};

/// What looks wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum AlarmKind {
    /// Answers got much longer, or shorter, than those of the first policy.
    LengthDrift,
    /// Of the answers to a prompt the longer ones score higher (or the shorter ones).
    LengthBuysScores,
    /// Scores of a prompt's answers hardly differ any more.
    ScoreCeiling,
    /// A policy gives the same answer again and again: its entropy is gone.
    AnswersAlike,
    /// What was chosen became less likely in training.
    ChosenLogpsFall,
    /// Few prompts gave a pair.
    PairYield,
    /// The judge scores the first policy's answers otherwise than the judge before it did.
    JudgeDrift,
    /// The judge prefers the new policy, and the referees that chose no pairs the one before it.
    JudgeAgainstReferees,
}

impl AlarmKind {
    /// Its name, as in records.
    pub fn as_str(self) -> &'static str {
        match self {
            AlarmKind::LengthDrift => "length_drift",
            AlarmKind::LengthBuysScores => "length_buys_scores",
            AlarmKind::ScoreCeiling => "score_ceiling",
            AlarmKind::AnswersAlike => "answers_alike",
            AlarmKind::ChosenLogpsFall => "chosen_logps_fall",
            AlarmKind::PairYield => "pair_yield",
            AlarmKind::JudgeDrift => "judge_drift",
            AlarmKind::JudgeAgainstReferees => "judge_against_referees",
        }
    }
}

/// Something that looks wrong, with its figures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alarm {
    /// What.
    pub kind: AlarmKind,
    /// What was measured.
    pub value: f64,
    /// What it may be.
    pub limit: f64,
    /// In words, with what to do.
    pub message: String,
}
