//! Which two candidates of a prompt make a pair: best against worst by mean score (paper, 2.3),
//! ties dropped, with the length control of Meta-Rewarding (arXiv 2407.19594) as an option.
//! Pure: knows neither log nor model.

use crate::domain::plan::{Difference, PairingRule, SampleSet};
use crate::domain::{SkipReason, TextRef, tuple_form};

/// One candidate with everything the choice looks at.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Which of the prompt's completions it is.
    pub text: TextRef,
    /// Mean of its scores; `None` without any.
    pub score: Option<f64>,
    /// Standard error of that over the judge's samples; `None`: not known, and taken for none.
    pub standard_error: Option<f64>,
    /// Its length in tokens.
    pub length_tokens: u32,
    /// Whether it ended its turn by itself.
    pub ended: bool,
    /// Its token ids, to tell identical ones.
    pub token_ids: Vec<u32>,
}

/// A pair of candidates, by their indices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(into = "(usize, usize)")]
pub struct PairIndices {
    /// The better one.
    pub chosen: usize,
    /// The other.
    pub rejected: usize,
}

tuple_form!(PairIndices { chosen: usize, rejected: usize });

/// A candidate that competes, with its index and its score.
#[derive(Clone, Copy)]
struct Ranked<'c> {
    index: usize,
    candidate: &'c Candidate,
    score: f64,
}

impl Ranked<'_> {
    fn standard_error(&self) -> f64 {
        self.candidate.standard_error.unwrap_or_default()
    }

    fn tokens(&self) -> u32 {
        self.candidate.length_tokens
    }
}

/// The pair's indices into the given slice, or why there is none. Ties within a side go to the
/// lower index, so the choice is a function of the set.
///
/// # Errors
/// The reason there is no pair.
pub fn select(candidates: &[Candidate], rule: &PairingRule) -> Result<PairIndices, SkipReason> {
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
) -> Result<PairIndices, SkipReason> {
    let identical = candidates.windows(2).all(|w| match w {
        [(_, a), (_, b)] => a.token_ids == b.token_ids,
        _ => true,
    });
    if identical {
        return Err(SkipReason::Identical);
    }
    let competing = competing(candidates, rule);
    if competing.len() < 2 {
        return Err(SkipReason::Truncated);
    }
    let ranked = ranked(competing);
    if ranked.len() < 2 {
        return Err(SkipReason::Unparsed);
    }
    let best = ranked.iter().map(|one| one.score).fold(f64::NEG_INFINITY, f64::max);
    let worst = ranked.iter().map(|one| one.score).fold(f64::INFINITY, f64::min);
    if best - worst <= gap_of(rule) {
        return Err(SkipReason::Tie);
    }
    let (chosen, rejected) = match rule.length_control > 0.0 {
        true => length_controlled(&ranked, best, worst, rule.length_control),
        // Ties go to the lower index.
        false => (
            ranked.iter().find(|one| one.score >= best),
            ranked.iter().find(|one| one.score <= worst),
        ),
    };
    match (chosen, rejected) {
        (Some(chosen), Some(rejected))
            if chosen.index != rejected.index
                && chosen.score > rejected.score
                && chosen.candidate.token_ids != rejected.candidate.token_ids =>
        {
            more_than_noise(*chosen, *rejected, rule)
        }
        _ => Err(SkipReason::LengthControl),
    }
}

/// Of those near the best the shortest, of those near the worst the longest.
fn length_controlled<'r, 'c>(
    ranked: &'r [Ranked<'c>],
    best: f64,
    worst: f64,
    rho: f64,
) -> (Option<&'r Ranked<'c>>, Option<&'r Ranked<'c>>) {
    let slack = rho * (best - worst);
    let near_best = ranked.iter().filter(|one| one.score >= best - slack - 1e-12);
    let near_worst = ranked.iter().filter(|one| one.score <= worst + slack + 1e-12);
    let chosen = near_best.min_by(|a, b| {
        let by_score = b.score.total_cmp(&a.score);
        a.tokens().cmp(&b.tokens()).then(by_score).then(a.index.cmp(&b.index))
    });
    let rejected = near_worst.min_by(|a, b| {
        let by_score = a.score.total_cmp(&b.score);
        b.tokens().cmp(&a.tokens()).then(by_score).then(a.index.cmp(&b.index))
    });
    (chosen, rejected)
}

/// What a gap must exceed: means of k scores differ in the last bits, and a gap is more than that.
fn gap_of(rule: &Difference) -> f64 {
    rule.min_gap.max(1e-9)
}

/// The two as a pair, if they differ by more than the judge's samples differ by themselves.
fn more_than_noise(
    chosen: Ranked<'_>,
    rejected: Ranked<'_>,
    rule: &Difference,
) -> Result<PairIndices, SkipReason> {
    let error = chosen.standard_error().hypot(rejected.standard_error());
    match chosen.score - rejected.score > rule.noise * error {
        true => Ok(PairIndices { chosen: chosen.index, rejected: rejected.index }),
        false => Err(SkipReason::Noise),
    }
}

/// The candidates that may compete.
fn competing<'c>(
    candidates: Vec<(usize, &'c Candidate)>,
    rule: &Difference,
) -> Vec<(usize, &'c Candidate)> {
    candidates.into_iter().filter(|(_, c)| c.ended || !rule.require_ended).collect()
}

/// Those of them that have a score.
fn ranked(competing: Vec<(usize, &Candidate)>) -> Vec<Ranked<'_>> {
    let scored = competing.into_iter().filter_map(|(index, candidate)| {
        let score = candidate.score.filter(|score| score.is_finite())?;
        Some(Ranked { index, candidate, score })
    });
    scored.collect()
}

/// The same of one side of a pair alone.
fn ranked_side<'c>(
    candidates: Vec<(usize, &'c Candidate)>,
    rule: &Difference,
) -> Result<Vec<Ranked<'c>>, SkipReason> {
    let competing = competing(candidates, rule);
    if competing.is_empty() {
        return Err(SkipReason::Truncated);
    }
    let ranked = ranked(competing);
    if ranked.is_empty() { Err(SkipReason::Unparsed) } else { Ok(ranked) }
}

fn anchored(
    own: Vec<(usize, &Candidate)>,
    anchor: Vec<(usize, &Candidate)>,
    rule: &Difference,
) -> Result<PairIndices, SkipReason> {
    let (own, anchor) = (ranked_side(own, rule)?, ranked_side(anchor, rule)?);
    // Ties go to the lower index.
    let by_index = |a: &&Ranked<'_>, b: &&Ranked<'_>| a.index.cmp(&b.index);
    let best = own.iter().min_by(|a, b| b.score.total_cmp(&a.score).then(by_index(a, b)));
    let worst = anchor.iter().min_by(|a, b| a.score.total_cmp(&b.score).then(by_index(a, b)));
    let (Some(best), Some(worst)) = (best, worst) else { return Err(SkipReason::Unparsed) };
    if best.candidate.token_ids == worst.candidate.token_ids {
        return Err(SkipReason::Identical);
    }
    if best.score - worst.score <= gap_of(rule) {
        return Err(SkipReason::Tie);
    }
    more_than_noise(*best, *worst, rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Difference =
        Difference { min_gap: 0.0, noise: 1.0, length_control: 0.0, require_ended: true };

    /// Chosen and rejected.
    fn pair(all: &[Candidate], rule: &PairingRule) -> Result<(usize, usize), SkipReason> {
        select(all, rule).map(<(usize, usize)>::from)
    }

    fn choose(all: &[Candidate], difference: Difference) -> Result<(usize, usize), SkipReason> {
        pair(all, &PairingRule::BestWorst(difference))
    }

    fn candidate(index: u32, score: Option<f64>, length_tokens: u32) -> Candidate {
        let (standard_error, token_ids) = (None, vec![index]);
        let text = TextRef::own(index);
        Candidate { text, score, standard_error, length_tokens, ended: true, token_ids }
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
                Candidate { standard_error: Some(0.3), ..candidate(0, Some(best), 5) },
                Candidate { standard_error: Some(0.4), ..candidate(1, Some(2.0), 6) },
                Candidate { standard_error: Some(9.0), ..candidate(2, Some(2.2), 6) },
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
        assert_eq!(pair(&all, &rule(PLAIN)), Ok((1, 4)), "not the policy's own worst");
        assert_eq!(choose(&all, PLAIN), Ok((1, 2)), "whose answers others are does not matter");
        let gap = Difference { min_gap: 3.0, ..PLAIN };
        assert_eq!(pair(&all, &rule(gap)), Err(SkipReason::Tie));
        assert_eq!(pair(&all[..3], &rule(PLAIN)), Err(SkipReason::Truncated), "no anchor");
        let worse = [candidate(0, Some(1.0), 5), anchor(0, Some(2.0))];
        assert_eq!(pair(&worse, &rule(PLAIN)), Err(SkipReason::Tie), "no pair the wrong way round");
        let unscored = [candidate(0, Some(1.0), 5), anchor(0, None)];
        assert_eq!(pair(&unscored, &rule(PLAIN)), Err(SkipReason::Unparsed));
    }
}
