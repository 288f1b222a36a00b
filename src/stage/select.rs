//! Which two candidates of a prompt make a pair: best against worst by mean score (paper, 2.3),
//! ties dropped, with the length control of Meta-Rewarding (arXiv 2407.19594) as an option.
//! Pure: knows neither log nor model.

use crate::domain::plan::{Difference, PairingRule, SampleSet};
use crate::domain::{SkipReason, TextRef};

/// One candidate with everything the choice looks at.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Which of the prompt's completions it is.
    pub text: TextRef,
    /// Mean of its scores; `None` without any.
    pub score: Option<f64>,
    /// Standard error of that over the judge's samples; `None`: not known, and taken for none.
    pub error: Option<f64>,
    /// Its length in tokens.
    pub length_tokens: u32,
    /// Whether it ended its turn by itself.
    pub ended: bool,
    /// Its token ids, to tell identical ones.
    pub token_ids: Vec<u32>,
}

/// The pair's indices into the given slice, or why there is none. Ties within a side go to the
/// lower index, so the choice is a function of the set.
///
/// # Errors
/// The reason there is no pair.
pub fn select(candidates: &[Candidate], rule: &PairingRule) -> Result<(usize, usize), SkipReason> {
    let of = |set: &str| candidates.iter().enumerate().filter(|(_, c)| c.is_in(set)).collect();
    match rule {
        PairingRule::BestWorst(difference) => best_worst(of(SampleSet::POLICY), difference),
        PairingRule::Anchored { difference, rejected_from } => {
            anchored(of(SampleSet::POLICY), of(rejected_from), difference)
        }
    }
}

impl Candidate {
    /// Whether it is one of a sample set's.
    pub fn is_in(&self, set: &str) -> bool {
        matches!(&self.text, TextRef::Completion { set: ours, .. } if ours == set)
    }
}

fn best_worst(
    candidates: Vec<(usize, &Candidate)>,
    rule: &Difference,
) -> Result<(usize, usize), SkipReason> {
    let identical = candidates.windows(2).all(|w| match w {
        [(_, a), (_, b)] => a.token_ids == b.token_ids,
        _ => true,
    });
    if identical {
        return Err(SkipReason::Identical);
    }
    let competing: Vec<(usize, &Candidate)> =
        candidates.into_iter().filter(|(_, c)| c.ended || !rule.require_ended).collect();
    if competing.len() < 2 {
        return Err(SkipReason::Truncated);
    }
    let scored: Vec<(usize, &Candidate, f64)> = competing
        .into_iter()
        .filter_map(|(at, c)| c.score.filter(|s| s.is_finite()).map(|score| (at, c, score)))
        .collect();
    if scored.len() < 2 {
        return Err(SkipReason::Unparsed);
    }
    let best = scored.iter().map(|(_, _, s)| *s).fold(f64::NEG_INFINITY, f64::max);
    let worst = scored.iter().map(|(_, _, s)| *s).fold(f64::INFINITY, f64::min);
    // Means of k scores differ in the last bits; a gap must be more than that.
    if best - worst <= rule.min_gap.max(1e-9) {
        return Err(SkipReason::Tie);
    }
    let slack = rule.length_control * (best - worst);
    let chosen = scored.iter().filter(|(_, _, s)| *s >= best - slack - 1e-12).min_by(|a, b| {
        a.1.length_tokens.cmp(&b.1.length_tokens).then(b.2.total_cmp(&a.2)).then(a.0.cmp(&b.0))
    });
    let rejected = scored.iter().filter(|(_, _, s)| *s <= worst + slack + 1e-12).min_by(|a, b| {
        b.1.length_tokens.cmp(&a.1.length_tokens).then(a.2.total_cmp(&b.2)).then(a.0.cmp(&b.0))
    });
    let plain_best = scored.iter().find(|(_, _, s)| *s >= best);
    let plain_worst = scored.iter().find(|(_, _, s)| *s <= worst);
    let (winner, loser) =
        if rule.length_control > 0.0 { (chosen, rejected) } else { (plain_best, plain_worst) };
    match (winner, loser) {
        (Some(w), Some(l)) if w.0 != l.0 && w.2 > l.2 && w.1.token_ids != l.1.token_ids => {
            let error = |c: &Candidate| c.error.unwrap_or_default();
            match w.2 - l.2 > rule.noise * error(w.1).hypot(error(l.1)) {
                true => Ok((w.0, l.0)),
                false => Err(SkipReason::Noise),
            }
        }
        _ => Err(SkipReason::LengthControl),
    }
}

/// A candidate's place with its score, of those that have one and may compete.
fn scored<'c>(
    candidates: Vec<(usize, &'c Candidate)>,
    rule: &Difference,
) -> Result<Vec<(usize, &'c Candidate, f64)>, SkipReason> {
    let competing: Vec<(usize, &Candidate)> =
        candidates.into_iter().filter(|(_, c)| c.ended || !rule.require_ended).collect();
    if competing.is_empty() {
        return Err(SkipReason::Truncated);
    }
    let score = |(at, c): (usize, &'c Candidate)| Some((at, c, c.score.filter(|s| s.is_finite())?));
    let scored: Vec<(usize, &Candidate, f64)> = competing.into_iter().filter_map(score).collect();
    if scored.is_empty() { Err(SkipReason::Unparsed) } else { Ok(scored) }
}

fn anchored(
    own: Vec<(usize, &Candidate)>,
    anchor: Vec<(usize, &Candidate)>,
    rule: &Difference,
) -> Result<(usize, usize), SkipReason> {
    let (own, anchor) = (scored(own, rule)?, scored(anchor, rule)?);
    // Ties go to the lower index.
    let best = own.iter().min_by(|a, b| b.2.total_cmp(&a.2).then(a.0.cmp(&b.0)));
    let worst = anchor.iter().min_by(|a, b| a.2.total_cmp(&b.2).then(a.0.cmp(&b.0)));
    let (Some((chosen, best, high)), Some((rejected, worst, low))) = (best, worst) else {
        return Err(SkipReason::Unparsed);
    };
    if best.token_ids == worst.token_ids {
        return Err(SkipReason::Identical);
    }
    if high - low <= rule.min_gap.max(1e-9) {
        return Err(SkipReason::Tie);
    }
    let error = |c: &Candidate| c.error.unwrap_or_default();
    match high - low > rule.noise * error(best).hypot(error(worst)) {
        true => Ok((*chosen, *rejected)),
        false => Err(SkipReason::Noise),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Difference =
        Difference { min_gap: 0.0, noise: 1.0, length_control: 0.0, require_ended: true };

    fn choose(all: &[Candidate], difference: Difference) -> Result<(usize, usize), SkipReason> {
        select(all, &PairingRule::BestWorst(difference))
    }

    fn candidate(index: u32, score: Option<f64>, length_tokens: u32) -> Candidate {
        let (error, token_ids) = (None, vec![index]);
        let text = TextRef::own(index);
        Candidate { text, score, error, length_tokens, ended: true, token_ids }
    }

    #[test]
    fn best_against_worst() {
        let four = [
            candidate(0, Some(2.0), 5),
            candidate(1, Some(4.0), 9),
            candidate(2, Some(1.0), 3),
            candidate(3, Some(4.0), 2),
        ];
        assert_eq!(choose(&four, PLAIN), Ok((1, 2)));
    }

    #[test]
    fn every_reason_not_to_pair() {
        let tie = [candidate(0, Some(3.0), 5), candidate(1, Some(3.0), 6)];
        assert_eq!(choose(&tie, PLAIN), Err(SkipReason::Tie));
        let gap = [candidate(0, Some(3.0), 5), candidate(1, Some(3.4), 6)];
        assert_eq!(choose(&gap, Difference { min_gap: 0.5, ..PLAIN }), Err(SkipReason::Tie));
        let unparsed = [candidate(0, Some(3.0), 5), candidate(1, None, 6)];
        assert_eq!(choose(&unparsed, PLAIN), Err(SkipReason::Unparsed));
        let nan = [candidate(0, Some(3.0), 5), candidate(1, Some(f64::NAN), 6)];
        assert_eq!(choose(&nan, PLAIN), Err(SkipReason::Unparsed));
        let same = [
            Candidate { token_ids: vec![7], ..candidate(0, Some(3.0), 5) },
            Candidate { token_ids: vec![7], ..candidate(1, Some(1.0), 5) },
        ];
        assert_eq!(choose(&same, PLAIN), Err(SkipReason::Identical));
        let cut =
            [candidate(0, Some(3.0), 5), Candidate { ended: false, ..candidate(1, Some(1.0), 9) }];
        assert_eq!(choose(&cut, PLAIN), Err(SkipReason::Truncated));
        assert_eq!(choose(&cut, Difference { require_ended: false, ..PLAIN }), Ok((0, 1)));
    }

    /// Case A11. The standard error of a difference is the root of the squares' sum: 0.5 of 0.3, 0.4.
    #[test]
    fn a_difference_is_more_than_its_noise() {
        let noisy = |best: f64| {
            [
                Candidate { error: Some(0.3), ..candidate(0, Some(best), 5) },
                Candidate { error: Some(0.4), ..candidate(1, Some(2.0), 6) },
                Candidate { error: Some(9.0), ..candidate(2, Some(2.2), 6) },
            ]
        };
        assert_eq!(choose(&noisy(2.49), PLAIN), Err(SkipReason::Noise));
        assert_eq!(choose(&noisy(2.51), PLAIN), Ok((0, 1)));
        assert_eq!(
            choose(&noisy(2.51), Difference { noise: 2.0, ..PLAIN }),
            Err(SkipReason::Noise)
        );
        assert_eq!(choose(&noisy(2.49), Difference { noise: 0.0, ..PLAIN }), Ok((0, 1)));
    }

    #[test]
    fn an_unscored_candidate_is_never_rejected() {
        let some = [candidate(0, Some(3.0), 5), candidate(1, None, 6), candidate(2, Some(4.0), 5)];
        assert_eq!(choose(&some, PLAIN), Ok((2, 0)));
    }

    #[test]
    fn length_control_prefers_short_chosen_and_long_rejected() {
        let four = [
            candidate(0, Some(5.0), 90),
            candidate(1, Some(4.5), 20),
            candidate(2, Some(1.0), 10),
            candidate(3, Some(1.5), 80),
        ];
        let rule = Difference { length_control: 0.2, ..PLAIN };
        assert_eq!(choose(&four, rule), Ok((1, 3)));
    }

    #[test]
    fn an_anchor_gives_what_is_rejected() {
        let anchor = |index: u32, score: Option<f64>| {
            let text = TextRef::Completion { set: "initial".to_owned(), index };
            Candidate { text, ..candidate(10 + index, score, 5) }
        };
        let all = [
            candidate(0, Some(3.0), 5),
            candidate(1, Some(4.0), 5),
            candidate(2, Some(0.5), 5),
            anchor(0, Some(2.0)),
            anchor(1, Some(1.0)),
        ];
        let rule =
            |difference| PairingRule::Anchored { difference, rejected_from: "initial".to_owned() };
        assert_eq!(select(&all, &rule(PLAIN)), Ok((1, 4)), "not the policy's own worst");
        assert_eq!(choose(&all, PLAIN), Ok((1, 2)), "whose answers others are does not matter");
        let gap = Difference { min_gap: 3.0, ..PLAIN };
        assert_eq!(select(&all, &rule(gap)), Err(SkipReason::Tie));
        assert_eq!(select(&all[..3], &rule(PLAIN)), Err(SkipReason::Truncated), "no anchor");
        let worse = [candidate(0, Some(1.0), 5), anchor(0, Some(2.0))];
        assert_eq!(
            select(&worse, &rule(PLAIN)),
            Err(SkipReason::Tie),
            "no pair the wrong way round"
        );
        let unscored = [candidate(0, Some(1.0), 5), anchor(0, None)];
        assert_eq!(select(&unscored, &rule(PLAIN)), Err(SkipReason::Unparsed));
    }
}
