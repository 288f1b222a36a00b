//! Measured quality of a checkpoint on held-out prompts.

use super::id::{PolicyId, RubricId};
use super::judgment::RubricName;
use crate::lm::completion::Completion;
use serde::{Deserialize, Serialize};

/// A mean with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The mean; 0 of no value.
    pub mean: f64,
    /// Lower end of the 95 % interval; `None` where it is not known, as of a single score.
    pub low: Option<f64>,
    /// Upper end of the 95 % interval.
    pub high: Option<f64>,
    /// How many values it is the mean of.
    pub n: u32,
}

impl Estimate {
    /// A mean of `n` values between two ends; an end that is not finite is not known.
    pub fn between(mean: f64, low: f64, high: f64, n: u32) -> Estimate {
        let known = |end: f64| Some(end).filter(|end| end.is_finite());
        Estimate { mean, low: known(low), high: known(high), n }
    }

    /// `+11 % [-3, 25]`: as shares of something; without ends where they are not known.
    pub fn percent(&self) -> String {
        let of = |share: f64| format!("{:+.0}", share * 100.0);
        let ends = self
            .bounds()
            .map_or_else(|| "[?]".to_owned(), |(low, high)| format!("[{}, {}]", of(low), of(high)));
        format!("{} % {ends}", of(self.mean))
    }

    /// Both ends of the interval, where they are known.
    pub fn bounds(&self) -> Option<(f64, f64)> {
        self.low.zip(self.high)
    }
}

/// Who said which of two answers is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Referee {
    /// A program that knows the truth; never seen by the training loop.
    Oracle,
    /// The policy that entered the iteration, under the rubrics that judge it.
    Judge,
    /// The same policy under the rubrics that `evaluate.rubrics` names (some ask no model).
    Rubrics,
}

/// Whether a checkpoint is better than another policy, in one of three words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Surely, and neither by length alone nor at the price of answers that do not end.
    Better,
    /// It is not known.
    Unproven,
    /// Surely worse, or its answers surely end less often.
    Worse,
}

impl Verdict {
    /// The word for tables and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Better => "better",
            Verdict::Unproven => "unproven",
            Verdict::Worse => "worse",
        }
    }
}

/// On how many prompts the two answers ended by themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Both did.
    pub both: u32,
    /// The checkpoint's alone.
    pub ours: u32,
    /// The opponent's alone.
    pub theirs: u32,
    /// Neither.
    pub neither: u32,
}

impl Ended {
    /// How many prompts.
    pub fn all(&self) -> u32 {
        self.both + self.ours + self.theirs + self.neither
    }
}

/// What a head-to-head shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// In one word.
    pub verdict: Verdict,
    /// Why that word.
    pub reason: String,
    /// The exact two-sided sign test of wins against losses.
    pub p_value: f64,
    /// Mean length of the checkpoint's answers to the prompts that were compared, tokens.
    pub length: f64,
    /// The same of the opponent's.
    pub opponent_length: f64,
    /// Of all prompts that both answered.
    pub ended: Ended,
}

/// Head-to-head on the same held-out prompts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeadToHead {
    /// `previous`, or `first` (the first policy that was promoted).
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
    /// What that shows. Not in records of old.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finding: Option<Finding>,
}

impl HeadToHead {
    /// It in figures, for a sentence.
    pub fn figures(&self) -> String {
        let HeadToHead { wins, ties, losses, win_rate: rate, .. } = self;
        let bounds = rate.bounds().map_or_else(String::new, |(low, high)| {
            format!(" [{:.1}, {:.1}]", low * 100.0, high * 100.0)
        });
        let mut text = format!(
            "wins/ties/losses against the {} policy {wins}/{ties}/{losses}, win rate {:.1} %{bounds}",
            self.opponent,
            rate.mean * 100.0
        );
        if let Some(Finding { length, opponent_length, ended, .. }) = &self.finding {
            text.push_str(&format!(
                "; {length:.1} tokens against {opponent_length:.1}; {} of {} answers end by \
                 themselves against {}",
                ended.both + ended.ours,
                ended.all(),
                ended.both + ended.theirs
            ));
        }
        text
    }
}

/// Whose head-to-heads the gate looks at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GateReferee {
    /// Never the oracle.
    pub referee: Referee,
    /// The rubrics it judges under.
    pub rubrics: Vec<RubricName>,
    /// Whether some of them chose the pairs that the checkpoint was trained on, so that it is
    /// measured by what trained it.
    pub chose_pairs: bool,
}

impl GateReferee {
    /// By whom it was refereed, for a sentence.
    fn sentence(&self) -> String {
        let names: Vec<String> =
            self.rubrics.iter().map(|named| format!("{}@{}", named.name, named.version)).collect();
        let names = names.join(", ");
        match (self.chose_pairs, self.referee) {
            (true, Referee::Rubrics) => {
                format!("refereed by {names}, some of which also chose the pairs it was trained on")
            }
            (true, _) => {
                format!("refereed by what also chose the pairs it was trained on ({names})")
            }
            (false, Referee::Rubrics) => format!("refereed by {names} (evaluate.rubrics)"),
            (false, _) => format!("refereed by {names}"),
        }
    }
}

/// One policy's answer to a held-out prompt, and what it came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeldOutAnswer {
    /// Whose.
    pub policy: PolicyId,
    /// What that policy is in the comparison: `checkpoint`, `previous`, `first`; several where they
    /// are the same.
    pub roles: Vec<String>,
    /// The answer.
    pub completion: Completion,
    /// Its tokens. As many as the completion has ids, but for one too long for a record.
    pub tokens: u32,
    /// Its score under the rubrics that judge the iteration; `None`: no score.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judged: Option<f64>,
    /// Its score under the rubrics of `evaluate.rubrics`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refereed: Option<f64>,
    /// Its score by the oracle, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oracle: Option<f64>,
}

impl HeldOutAnswer {
    /// Its score by a referee.
    pub fn score(&self, by: Referee) -> Option<f64> {
        match by {
            Referee::Judge => self.judged,
            Referee::Rubrics => self.refereed,
            Referee::Oracle => self.oracle,
        }
    }
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
    /// Share of judged answers without a score.
    pub unparsed: f64,
    /// How many answers were judged. Not in records of old.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers: Option<u32>,
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
    /// The same with its interval. Not in records of old.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_share: Option<Estimate>,
    /// Against earlier policies.
    pub head_to_head: Vec<HeadToHead>,
    /// How it judges, where the truth is known.
    pub judge: Option<JudgeQuality>,
    /// Whom the gate believes. Not in records of old, where it is the judge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate_referee: Option<GateReferee>,
}

impl Evaluation {
    /// The head-to-head with the policy before, by whom the gate believes.
    pub fn before_the_gate(&self) -> Option<&HeadToHead> {
        let believed = self.gate_referee.as_ref().map_or(Referee::Judge, |gate| gate.referee);
        let ours = |h: &&HeadToHead| h.opponent == "previous" && h.referee == believed;
        self.head_to_head.iter().find(ours)
    }

    /// A head-to-head in figures, and whose they are.
    pub fn figures(&self, versus: &HeadToHead) -> String {
        let mut text = versus.figures();
        let believed = self.gate_referee.as_ref().filter(|gate| gate.referee == versus.referee);
        if let Some(gate) = believed.filter(|gate| !gate.rubrics.is_empty()) {
            text.push_str(&format!("; {}", gate.sentence()));
        }
        text
    }

    /// Whether a rubric had a part in what the gate believed.
    pub fn is_refereed_under(&self, rubric: &RubricId) -> bool {
        let named = self.gate_referee.iter().flat_map(|gate| &gate.rubrics);
        named.into_iter().any(|named| named.rubric == *rubric)
    }
}
