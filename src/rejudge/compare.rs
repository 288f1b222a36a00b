//! The same completions under two judges: which pairs they would make, whether they rank alike, and
//! whether length buys a score. Pure: knows neither log nor model.

use crate::domain::plan::PairingRule;
use crate::domain::{JudgmentCounts, PromptId, SkipReason};
use crate::stage::judge::aggregate::AggregateScore;
use crate::stage::select::{Candidate, PairIndices, select};
use crate::stats::spearman;
use serde::Serialize;
use std::collections::BTreeMap;

/// One prompt's completions with what each came to on the left and on the right.
#[derive(Clone, Debug)]
pub(crate) struct TwiceJudged {
    pub prompt: PromptId,
    /// On the left. The right has the same but for the scores, or the first of them.
    pub candidates: Vec<Candidate>,
    pub right: Vec<Option<AggregateScore>>,
    /// The rule for pairs of its iteration.
    pub rule: PairingRule,
    /// The rule on the right.
    pub right_rule: PairingRule,
    /// How many judgments: left, right.
    pub judgments: [JudgmentCounts; 2],
}

/// What became of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PairChange {
    /// The same two, the same way round.
    Same,
    /// The right puts the left's rejected above its chosen.
    Flipped,
    /// Other completions; the right does not contradict the left's pair.
    Changed,
    /// There was none.
    Appeared,
    /// There is none any more.
    Vanished,
}

/// A prompt whose pair is not the same.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChangedPair {
    /// Which.
    pub prompt: PromptId,
    /// How.
    pub how: PairChange,
    /// The pair on the left, as indices of the prompt's completions.
    pub left: Option<PairIndices>,
    /// On the right.
    pub right: Option<PairIndices>,
    /// Why there is no pair on one side.
    pub reason: Option<SkipReason>,
}

/// One judge's figures.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct JudgeFigures {
    /// Judgments.
    pub judgments: u32,
    /// Those without a score.
    pub unparsed: u32,
    /// Completions without a score.
    pub unscored: u32,
    /// Mean of the scores of completions, in the judge's own scale.
    pub mean: Option<f64>,
    /// Pairs by the run's rule.
    pub pairs: u32,
    /// Prompts without a pair, by reason.
    pub skipped: BTreeMap<SkipReason, u32>,
    /// Spearman's correlation of score and length in tokens, mean over prompts: how much longer
    /// answers get more.
    pub length_correlation: Option<f64>,
}

/// How two judges order different completions of the same prompt that both scored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct OrderAgreement {
    /// Both put the same one first.
    pub agree: u32,
    /// They contradict each other.
    pub disagree: u32,
    /// The left has a tie, the right has not.
    pub tied_left: u32,
    /// The right has a tie, the left has not.
    pub tied_right: u32,
    /// Both have a tie.
    pub tied_both: u32,
}

/// Two judges side by side.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Comparison {
    /// Prompts with completions.
    pub prompts: u32,
    /// Their completions.
    pub completions: u32,
    /// The left.
    pub left: JudgeFigures,
    /// The right.
    pub right: JudgeFigures,
    /// What became of the left's pairs.
    pub pairs: BTreeMap<PairChange, u32>,
    /// How they order what both scored.
    pub order: OrderAgreement,
    /// Spearman's correlation of the two scores, mean over prompts.
    pub rank_correlation: Option<f64>,
    /// The same over all completions at once.
    pub rank_correlation_overall: Option<f64>,
    /// Prompts whose pair is not the same, in order.
    pub moved: Vec<ChangedPair>,
}

/// Scores that differ by less are the same: means of k scores differ in the last bits.
const SAME: f64 = 1e-9;

type Pair = Result<PairIndices, SkipReason>;

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// Of the values that both sides have.
fn both(left: &[Option<f64>], right: &[Option<f64>]) -> (Vec<f64>, Vec<f64>) {
    left.iter().zip(right).filter_map(|(l, r)| Some(((*l)?, (*r)?))).unzip()
}

/// What became of a pair, if anything did.
fn moved(
    left: Pair,
    right: Pair,
    scores: &[Option<f64>],
) -> Option<(PairChange, Option<SkipReason>)> {
    let of = |at: usize| scores.get(at).copied().flatten();
    Some(match (left, right) {
        (Err(_), Err(_)) => return None,
        (Err(reason), Ok(_)) => (PairChange::Appeared, Some(reason)),
        (Ok(_), Err(reason)) => (PairChange::Vanished, Some(reason)),
        (Ok(left), Ok(right)) if left == right => (PairChange::Same, None),
        (Ok(PairIndices { chosen, rejected }), Ok(_)) => match (of(chosen), of(rejected)) {
            (Some(c), Some(r)) if r > c + SAME => (PairChange::Flipped, None),
            _ => (PairChange::Changed, None),
        },
    })
}

/// What is added up for one side.
#[derive(Default)]
struct Sums {
    side: JudgeFigures,
    scores: Vec<Option<f64>>,
    length: Vec<f64>,
}

impl Sums {
    fn add(
        &mut self,
        candidates: &[Candidate],
        judgments: JudgmentCounts,
        rule: &PairingRule,
    ) -> Pair {
        let lengths: Vec<Option<f64>> =
            candidates.iter().map(|c| Some(f64::from(c.length_tokens))).collect();
        let scores: Vec<Option<f64>> = candidates.iter().map(|c| c.score).collect();
        let (score, length) = both(&scores, &lengths);
        self.length.extend(spearman(&score, &length));
        self.scores.extend(scores);
        self.side.judgments += judgments.total;
        self.side.unparsed += judgments.unscored;
        let pair = select(candidates, rule);
        match pair {
            Ok(_) => self.side.pairs += 1,
            Err(reason) => *self.side.skipped.entry(reason).or_default() += 1,
        }
        pair
    }

    fn finish(self) -> (JudgeFigures, Vec<Option<f64>>) {
        let scored: Vec<f64> = self.scores.iter().copied().flatten().collect();
        let unscored = (self.scores.len() - scored.len()) as u32;
        let length_correlation = mean(&self.length);
        let side = JudgeFigures { unscored, mean: mean(&scored), length_correlation, ..self.side };
        (side, self.scores)
    }
}

impl OrderAgreement {
    /// Counts one prompt's completions, identical ones once.
    fn add(&mut self, left: &[Candidate], right: &[Candidate]) {
        for (at, (a, x)) in left.iter().zip(right).enumerate() {
            for (b, y) in left.iter().zip(right).skip(at + 1) {
                let (Some(a_), Some(b_), Some(x_), Some(y_)) = (a.score, b.score, x.score, y.score)
                else {
                    continue;
                };
                if a.token_ids == b.token_ids {
                    continue;
                }
                let (left, right) = (a_ - b_, x_ - y_);
                *match (left.abs() <= SAME, right.abs() <= SAME) {
                    (true, true) => &mut self.tied_both,
                    (true, false) => &mut self.tied_left,
                    (false, true) => &mut self.tied_right,
                    _ if (left > 0.0) == (right > 0.0) => &mut self.agree,
                    _ => &mut self.disagree,
                } += 1;
            }
        }
    }
}

impl Comparison {
    /// Compares the two sides of every prompt.
    pub(crate) fn of(all: &[TwiceJudged]) -> Comparison {
        let mut comparison = Comparison::default();
        let (mut left, mut right) = (Sums::default(), Sums::default());
        let mut ranks = Vec::new();
        for scored in all {
            let ours = &scored.candidates;
            let theirs: Vec<Candidate> = ours
                .iter()
                .zip(&scored.right)
                .map(|(c, score)| Candidate {
                    score: score.map(|one| one.score),
                    standard_error: score.and_then(|one| one.standard_error),
                    ..c.clone()
                })
                .collect();
            let pairs = (
                left.add(ours, scored.judgments[0], &scored.rule),
                right.add(&theirs, scored.judgments[1], &scored.right_rule),
            );
            comparison.prompts += 1;
            comparison.completions += ours.len() as u32;
            comparison.order.add(ours, &theirs);
            let scores: Vec<Option<f64>> = ours.iter().map(|c| c.score).collect();
            let right: Vec<Option<f64>> = theirs.iter().map(|c| c.score).collect();
            let (x, y) = both(&scores, &right);
            ranks.extend(spearman(&x, &y));
            if let Some((how, reason)) = moved(pairs.0, pairs.1, &right) {
                *comparison.pairs.entry(how).or_default() += 1;
                let (left, right) = (pairs.0.ok(), pairs.1.ok());
                let prompt = scored.prompt.clone();
                if how != PairChange::Same {
                    comparison.moved.push(ChangedPair { prompt, how, left, right, reason });
                }
            }
        }
        let (scores_left, scores_right);
        (comparison.left, scores_left) = left.finish();
        (comparison.right, scores_right) = right.finish();
        let (x, y) = both(&scores_left, &scores_right);
        comparison.rank_correlation_overall = spearman(&x, &y);
        comparison.rank_correlation = mean(&ranks);
        comparison
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::TextRef;
    use crate::domain::plan::Difference;

    const RULE: PairingRule = PairingRule::BestWorst(Difference {
        min_gap: 0.0,
        noise: 0.0,
        length_control: 0.0,
        require_ended: true,
    });

    fn scored(prompt: &str, left: &[Option<f64>], right: &[Option<f64>]) -> TwiceJudged {
        let candidate = |(index, score): (u32, &Option<f64>)| Candidate {
            text: TextRef::own(index),
            score: *score,
            standard_error: None,
            length_tokens: 10 * (index + 1),
            ended: true,
            token_ids: vec![index],
        };
        TwiceJudged {
            prompt: PromptId(prompt.into()),
            candidates: (0..).zip(left).map(candidate).collect(),
            right: right
                .iter()
                .map(|s| s.map(|score| AggregateScore { score, standard_error: None }))
                .collect(),
            judgments: [0, 1].map(|unscored| JudgmentCounts { total: 2, unscored }),
            rule: RULE,
            right_rule: RULE,
        }
    }

    /// Every figure worked out by hand.
    #[test]
    fn pairs_move() {
        let s = |v: f64| Some(v);
        let all = [
            scored("same", &[s(1.0), s(2.0), s(3.0)], &[s(0.0), s(4.0), s(5.0)]),
            scored("flipped", &[s(1.0), s(3.0)], &[s(3.0), s(1.0)]),
            scored("other, reversed", &[s(1.0), s(2.0), s(3.0)], &[s(3.0), s(5.0), s(1.0)]),
            scored("changed", &[s(1.0), s(2.0), s(3.0)], &[s(2.0), s(1.0), s(3.0)]),
            scored("appeared", &[s(2.0), s(2.0)], &[s(2.0), s(1.0)]),
            scored("vanished", &[s(2.0), s(1.0)], &[None, s(1.0)]),
            scored("never", &[s(2.0), s(2.0)], &[s(1.0), s(1.0)]),
        ];
        let found = Comparison::of(&all);
        let counts: Vec<(PairChange, u32)> = found.pairs.clone().into_iter().collect();
        use PairChange::{Appeared, Changed, Flipped, Same, Vanished};
        assert_eq!(counts, [(Same, 1), (Flipped, 2), (Changed, 1), (Appeared, 1), (Vanished, 1)]);
        let moved: Vec<(&str, PairChange)> =
            found.moved.iter().map(|m| (m.prompt.0.as_str(), m.how)).collect();
        assert_eq!(moved[0], ("flipped", Flipped));
        assert_eq!(
            (moved[4], found.moved[4].reason),
            (("vanished", Vanished), Some(SkipReason::Unparsed))
        );
        assert_eq!((found.left.pairs, found.right.pairs), (5, 5));
        assert_eq!((found.left.unscored, found.right.unscored), (0, 1));
        assert_eq!((found.right.judgments, found.right.unparsed), (14, 7));
        assert_eq!(found.left.skipped, BTreeMap::from([(SkipReason::Tie, 2)]));
        // same 3, flipped 1 against, reversed 1 for (0<1) and 2 against, changed 2 for and 1
        // against.
        let order =
            OrderAgreement { agree: 6, disagree: 4, tied_left: 1, tied_right: 0, tied_both: 1 };
        assert_eq!(found.order, order);
    }

    #[test]
    fn correlations_are_means_over_prompts() {
        let s = |v: f64| Some(v);
        let all = [
            scored("up", &[s(1.0), s(2.0), s(3.0)], &[s(1.0), s(2.0), s(3.0)]),
            scored("down", &[s(3.0), s(2.0), s(1.0)], &[s(1.0), s(2.0), s(3.0)]),
            scored("constant", &[s(2.0), s(2.0)], &[s(1.0), s(2.0)]),
        ];
        let found = Comparison::of(&all);
        assert!(found.rank_correlation.unwrap().abs() < 1e-12);
        assert!(found.left.length_correlation.unwrap().abs() < 1e-12);
        assert!((found.right.length_correlation.unwrap() - 1.0).abs() < 1e-12);
        assert_eq!(Comparison::of(&[]), Comparison::default());
    }
}
