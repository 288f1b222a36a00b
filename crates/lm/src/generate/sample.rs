//! Choosing one token from logits. Pure: the same logits, settings and number give the same token.
//! Knows no network and no text.

use crate::error::LmError;
use crate::ops::{self, folded, wide};
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::collections::BTreeSet;

/// How tokens are drawn. The cuts are applied in this order: temperature, top-k, top-p, min-p,
/// each on what the one before left over (the order of transformers).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sampling {
    /// Divides the logits; 0 takes the likeliest token.
    pub temperature: f32,
    /// Keeps the likeliest tokens up to and including the one that crosses this mass; 1 keeps all.
    pub top_p: f32,
    /// Keeps this many tokens.
    pub top_k: Option<usize>,
    /// Keeps tokens at least this times as likely as the likeliest.
    pub min_p: Option<f32>,
    /// Tokens of the prompt and of what is drawn have their logits divided by this where they are
    /// above 0, multiplied where below; 1 leaves them. Comes before everything else.
    #[serde(default = "no_penalty")]
    pub repetition_penalty: f32,
    /// Bound on the length of a completion, the turn-end token included.
    pub max_new_tokens: usize,
    /// Drawing one of these ends the completion; it is its last id.
    pub stop_ids: Vec<u32>,
}

impl Sampling {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`LmError::Config`] with the field and its value.
    pub fn validate(&self) -> Result<(), LmError> {
        let bad = |what: String| Err(LmError::Config(what));
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            return bad(format!("temperature ({}) must be 0 or more", self.temperature));
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return bad(format!("top_p ({}) must be above 0 and at most 1", self.top_p));
        }
        if self.top_k == Some(0) {
            return bad("top_k (0) must be 1 or more; leave it out to keep all".into());
        }
        if self.min_p.is_some_and(|p| !(0.0..=1.0).contains(&p)) {
            return bad(format!("min_p ({:?}) must lie between 0 and 1", self.min_p));
        }
        if !(self.repetition_penalty > 0.0 && self.repetition_penalty.is_finite()) {
            return bad(format!(
                "repetition_penalty ({}) must be above 0; 1 leaves the logits as they are",
                self.repetition_penalty
            ));
        }
        if self.max_new_tokens == 0 {
            return bad("max_new_tokens (0) must be 1 or more".into());
        }
        Ok(())
    }
}

fn no_penalty() -> f32 {
    1.0
}

/// The logits after [`Sampling::repetition_penalty`] for tokens that were seen.
pub fn penalised(logits: &[f32], seen: &BTreeSet<u32>, penalty: f32) -> Vec<f32> {
    let mut logits = logits.to_vec();
    for id in seen {
        if let Some(logit) = logits.get_mut(*id as usize) {
            *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
        }
    }
    logits
}

/// Natural log of the sum of exponentials, over f32 logits, summed in f64.
pub fn log_sum_exp(logits: &[f32]) -> f64 {
    ops::log_sum_exp(logits)
}

/// Log-probability of `token` under the unmodified distribution.
pub fn logp_of(logits: &[f32], token: u32) -> f64 {
    f64::from(logits[token as usize]) - log_sum_exp(logits)
}

wide! {
    /// The highest logit, and whether one is not a number.
    fn peak<'a>(logits: &'a [f32]) -> (f32, bool) {
        let broken = logits.iter().fold(false, |broken, logit| broken | logit.is_nan());
        (folded(logits, f32::NEG_INFINITY, |a, b| if b > a { b } else { a }), broken)
    }

    /// What the logits stand for beside the highest, which stands for 1.
    fn weigh<'a>(logits: &'a [f32], most_scale: (f32, f32), masses: &'a mut [f32]) {
        for (mass, logit) in masses.iter_mut().zip(logits) {
            let x = (logit - most_scale.0) * most_scale.1;
            // Below, a mass is nothing beside the largest.
            *mass = if x > -87.0 { ops::exp(x) } else { 0.0 };
        }
    }

    /// The sum of all masses, and of those that are at least as large as each bound.
    fn held_above<'a>(masses: &'a [f32], least: [f32; BOUNDS]) -> (f64, [f64; BOUNDS]) {
        let (mut total, mut held) = (0f64, [0f64; BOUNDS]);
        for masses in masses.chunks(64) {
            total += f64::from(folded(masses, 0.0, |a, b| a + b));
            for (held, least) in held.iter_mut().zip(least) {
                // Lanes are folded into each other at the end; all of them are sums of such masses.
                let mut lanes = [0f32; 16];
                for chunk in masses.chunks(16) {
                    for (lane, mass) in lanes.iter_mut().zip(chunk) {
                        *lane += if *mass >= least { *mass } else { 0.0 };
                    }
                }
                *held += f64::from(lanes.iter().sum::<f32>());
            }
        }
        (total, held)
    }
}

/// The likeliest token; of equals the one with the lowest id.
///
/// # Errors
/// [`LmError::Model`] if a logit is not a number.
pub fn argmax(logits: &[f32]) -> Result<u32, LmError> {
    let (most, broken) = peak(logits);
    if broken {
        return Err(not_a_number(logits.iter().position(|l| l.is_nan()).unwrap_or(0)));
    }
    Ok(logits.iter().position(|l| *l == most).unwrap_or(0) as u32)
}

/// What is said of a logit that is not a number.
pub(crate) fn not_a_number(id: usize) -> LmError {
    LmError::Model(format!("the logit of token {id} is not a number: the weights are broken"))
}

/// Chooses a token with `unit`, a number in [0, 1): inverse distribution function in f64, over the
/// kept tokens in the order of [`kept`].
///
/// # Errors
/// [`LmError::Model`] if a logit is not a number.
pub fn choose(logits: &[f32], sampling: &Sampling, unit: f64) -> Result<u32, LmError> {
    if sampling.temperature == 0.0 {
        return argmax(logits);
    }
    let kept = kept(logits, sampling)?;
    let total: f64 = kept.iter().map(|k| k.mass).sum();
    let target = unit * total;
    let mut below = 0.0;
    for token in &kept {
        below += token.mass;
        if target < below {
            return Ok(token.id);
        }
    }
    // Rounding can leave the target a hair above the last sum.
    Ok(kept.last().map_or(0, |k| k.id))
}

/// A token that the cuts left over.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenMass {
    /// Which token.
    pub id: u32,
    /// Its probability up to a common factor: `exp((logit - max) / temperature)`.
    pub mass: f64,
}

fn likelier(a: &TokenMass, b: &TokenMass) -> Ordering {
    b.mass.total_cmp(&a.mass).then(a.id.cmp(&b.id))
}

/// The tokens that may be drawn. With a cut (top-k, top-p) they come likeliest first, equals by
/// id; without one by id.
///
/// # Errors
/// [`LmError::Model`] if a logit is not a number.
pub fn kept(logits: &[f32], sampling: &Sampling) -> Result<Vec<TokenMass>, LmError> {
    let max = logits[argmax(logits)? as usize];
    let scale = 1.0 / sampling.temperature;
    let mut masses = vec![0f32; logits.len()];
    weigh(logits, (max, scale), &mut masses);
    let top_p = f64::from(sampling.top_p);
    let mut all = match sampling.top_k {
        None if sampling.top_p < 1.0 => head(&masses, top_p),
        _ => None,
    }
    .unwrap_or_else(|| LikeliestTokens { tokens: at_least(&masses, 0.0), total: None });
    let tokens = &mut all.tokens;
    if let Some(k) = sampling.top_k.filter(|&k| k < tokens.len()) {
        tokens.select_nth_unstable_by(k - 1, likelier);
        tokens.truncate(k);
        tokens.sort_unstable_by(likelier);
    }
    if sampling.top_p < 1.0 {
        let total = all.total.unwrap_or_else(|| tokens.iter().map(|k| k.mass).sum());
        nucleus(tokens, top_p * total);
    }
    if let Some(min_p) = sampling.min_p {
        // The largest mass is 1 by construction.
        tokens.retain(|k| k.mass >= f64::from(min_p));
    }
    Ok(all.tokens)
}

/// Tokens, and the mass of the whole distribution where they are not all of it.
struct LikeliestTokens {
    tokens: Vec<TokenMass>,
    total: Option<f64>,
}

/// Tokens of at least this mass, by id.
fn at_least(masses: &[f32], least: f32) -> Vec<TokenMass> {
    let kept = masses.iter().enumerate().filter(|(_, mass)| **mass >= least);
    kept.map(|(id, mass)| TokenMass { id: id as u32, mass: f64::from(*mass) }).collect()
}

/// Bounds that [`head`] tries.
const BOUNDS: usize = 5;

/// The likeliest tokens, if they hold more than `p` of the mass. Holding and sorting a whole
/// vocabulary is the dearest part of sampling; if the tokens above some mass hold `p` of it, the
/// nucleus lies among them, because all others are less likely. Of a few such bounds, the highest
/// that holds enough leaves the fewest tokens to sort.
fn head(masses: &[f32], p: f64) -> Option<LikeliestTokens> {
    const LEAST: [f32; BOUNDS] = [1e-1, 2e-2, 2.5e-3, 3e-4, 1e-5];
    let (total, held) = held_above(masses, LEAST);
    let enough = p * total * (1.0 + 1e-6);
    let least = LEAST.into_iter().zip(held).find(|(_, held)| *held > enough)?.0;
    Some(LikeliestTokens { tokens: at_least(masses, least), total: Some(total) })
}

/// Keeps the fewest likeliest tokens whose mass reaches `need`; at least one.
fn nucleus(tokens: &mut Vec<TokenMass>, need: f64) {
    tokens.sort_unstable_by(likelier);
    let mut sum = 0.0;
    let mut count = 0;
    for token in tokens.iter() {
        sum += token.mass;
        count += 1;
        if sum >= need {
            break;
        }
    }
    tokens.truncate(count.max(1));
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{RngCore, SeedableRng};

    /// No cut, no penalty, one token.
    pub(crate) fn plain(temperature: f32) -> Sampling {
        Sampling {
            temperature,
            top_p: 1.0,
            top_k: None,
            min_p: None,
            repetition_penalty: 1.0,
            max_new_tokens: 1,
            stop_ids: vec![],
        }
    }

    fn ids(logits: &[f32], sampling: &Sampling) -> Vec<u32> {
        kept(logits, sampling).unwrap().iter().map(|k| k.id).collect()
    }

    /// Logits of the distribution 0.1, 0.4, 0.2, 0.25, 0.05.
    fn five() -> Vec<f32> {
        [0.1f32, 0.4, 0.2, 0.25, 0.05].iter().map(|p| p.ln()).collect()
    }

    #[test]
    fn cuts_keep_the_sets_computed_by_hand() {
        let logits = five();
        assert_eq!(ids(&logits, &plain(1.0)), [0, 1, 2, 3, 4]);
        // 0.4 < 0.5 <= 0.65: the token that crosses stays.
        assert_eq!(ids(&logits, &Sampling { top_p: 0.5, ..plain(1.0) }), [1, 3]);
        assert_eq!(ids(&logits, &Sampling { top_p: 0.01, ..plain(1.0) }), [1]);
        assert_eq!(ids(&logits, &Sampling { top_k: Some(3), ..plain(1.0) }), [1, 3, 2]);
        // Of the top three (0.4, 0.25, 0.2 of 0.85), 0.7 needs 0.595: two tokens. Without the
        // renormalisation after top-k it would need three.
        let both = Sampling { top_k: Some(3), top_p: 0.7, ..plain(1.0) };
        assert_eq!(ids(&logits, &both), [1, 3]);
        assert_eq!(ids(&logits, &Sampling { min_p: Some(0.4), ..plain(1.0) }), [1, 2, 3]);
        // Temperature comes first: at 0.25 the first token has 0.844 of the mass (p^4).
        assert_eq!(ids(&logits, &Sampling { top_p: 0.8, ..plain(0.25) }), [1]);
        assert_eq!(ids(&logits, &Sampling { top_p: 0.8, ..plain(1.0) }), [1, 3, 2]);
    }

    /// transformers' RepetitionPenaltyLogitsProcessor, by hand.
    #[test]
    fn what_was_seen_is_less_likely() {
        let seen = BTreeSet::from([0, 2, 9]);
        assert_eq!(penalised(&[2.0, 2.0, -3.0], &seen, 2.0), [1.0, 2.0, -6.0]);
        assert!(Sampling { repetition_penalty: 0.0, ..plain(1.0) }.validate().is_err());
    }

    #[test]
    fn equals_go_by_id() {
        let logits = [1.0, 2.0, 2.0, 2.0, 0.0];
        assert_eq!(argmax(&logits).unwrap(), 1);
        assert_eq!(ids(&logits, &Sampling { top_k: Some(2), ..plain(1.0) }), [1, 2]);
    }

    #[test]
    fn draws_follow_the_distribution() {
        let logits = five();
        let mut rng = ChaCha8Rng::from_seed([7; 32]);
        let sampling = Sampling { top_k: Some(4), ..plain(1.0) };
        let mut counts = [0u32; 5];
        let draws = 100_000;
        for _ in 0..draws {
            let unit = (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
            counts[choose(&logits, &sampling, unit).unwrap() as usize] += 1;
        }
        assert_eq!(counts[4], 0);
        let expected = [0.1 / 0.95, 0.4 / 0.95, 0.2 / 0.95, 0.25 / 0.95];
        let chi: f64 = (0..4)
            .map(|i| {
                let e = expected[i] * f64::from(draws);
                (f64::from(counts[i]) - e).powi(2) / e
            })
            .sum();
        // 3 degrees of freedom: 16.27 is exceeded once in 1,000.
        assert!(chi < 16.27, "chi-square {chi}, counts {counts:?}");
    }

    #[test]
    fn the_short_way_to_the_nucleus_equals_sorting_everything() {
        let mut rng = ChaCha8Rng::from_seed([3; 32]);
        for round in 0..50 {
            let spread = 1.0 + round as f32 / 5.0;
            let logits: Vec<f32> =
                (0..3000).map(|_| (rng.next_u32() as f32 / u32::MAX as f32) * spread).collect();
            for top_p in [0.1, 0.5, 0.9, 0.99] {
                let fast = ids(&logits, &Sampling { top_p, ..plain(0.7) });
                let mut sorted = kept(&logits, &plain(0.7)).unwrap();
                sorted.sort_by(likelier);
                let total: f64 = sorted.iter().map(|k| k.mass).sum();
                let mut sum = 0.0;
                let mut slow = vec![];
                for k in sorted {
                    if sum >= f64::from(top_p) * total {
                        break;
                    }
                    sum += k.mass;
                    slow.push(k.id);
                }
                let (long, short) = (slow.len().max(fast.len()), slow.len().min(fast.len()));
                // Sums in another order may move the crossing by one token.
                assert!(long - short <= 1);
                assert_eq!(fast[..short], slow[..short]);
            }
        }
    }

    #[test]
    fn broken_logits_and_settings_are_errors() {
        assert!(choose(&[0.0, f32::NAN], &plain(1.0), 0.5).is_err());
        assert!(choose(&[0.0, f32::NAN], &plain(0.0), 0.5).is_err());
        assert!(Sampling { top_p: 0.0, ..plain(1.0) }.validate().is_err());
        assert!(plain(f32::NAN).validate().is_err());
        assert!(Sampling { top_k: Some(0), ..plain(1.0) }.validate().is_err());
        assert!(plain(0.7).validate().is_ok());
    }

    #[test]
    fn logp_is_the_unmodified_one() {
        let logits = five();
        assert!((logp_of(&logits, 3) - 0.25f64.ln()).abs() < 1e-6);
    }
}
