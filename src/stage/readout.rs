//! Scores from probabilities (G-Eval, arXiv 2303.16634). Where `parse` read a score in a reply, the
//! model is asked how likely it was to write each of the scores it could have written there; their
//! expectation replaces the one it happened to draw. A reply without a score has no such place: it
//! gets none, but where somebody asks for it (`judge.readout: forced`), and then the record says so.

use super::StageError;
use super::ask::Reply;
use crate::domain::{Completion, Outcome, ReadoutFacts, StopReason};
use crate::lm::cancel::Cancel;
use crate::lm::fork::{Fork, Written, exclusive, fork};
use crate::lm::policy::LanguageModel;
use crate::rubric::{Place, Readout};

/// The reply up to the first of the texts that end it.
pub(super) fn stopped(
    model: &dyn LanguageModel,
    reply: &Completion,
    stop: &[String],
) -> Result<Completion, StageError> {
    let ends = stop.iter().filter(|s| !s.is_empty()).filter_map(|s| reply.text.find(s));
    let Some(end) = ends.min() else { return Ok(reply.clone()) };
    let mut reply = reply.clone();
    reply.text.truncate(end);
    reply.stop = StopReason::StopText;
    while let Some((_, head)) = reply.token_ids.split_last() {
        if model.decode(&reply.token_ids)?.len() <= end {
            break;
        }
        reply.token_ids = head.to_vec();
    }
    Ok(reply)
}

/// What a judge was asked and said.
#[derive(Clone, Copy)]
pub(super) struct Said<'a> {
    /// Ids of the question.
    pub prompt: &'a [u32],
    /// Ids that were drawn; none of a reply that is only known as text.
    pub ids: &'a [u32],
    /// Their text.
    pub text: &'a str,
}

impl<'a> Said<'a> {
    /// A reply that was drawn.
    pub fn drawn(prompt: &'a [u32], reply: &'a Completion) -> Said<'a> {
        let ids = match (reply.stop, reply.token_ids.split_last()) {
            // The turn's end is not part of what was said.
            (StopReason::TurnEnd, Some((_, said))) => said,
            _ => &reply.token_ids,
        };
        Said { prompt, ids, text: &reply.text }
    }
}

/// Where the probabilities of a reply's score are to be looked up.
pub(super) struct PendingReadout {
    /// Whose reply it is.
    pub question: usize,
    pub sample: usize,
    /// The judge wrote no score there.
    pub forced: bool,
    pub forks: Vec<(Place, Fork)>,
}

/// A reading of what was said at the places where its score was read; `None` when there are none, or
/// when the model cannot spell what could stand there or has no room left to read it.
pub(super) fn at_places(
    model: &dyn LanguageModel,
    said: Said<'_>,
    places: &[Place],
) -> Result<Option<PendingReadout>, StageError> {
    let mut forks = Vec::with_capacity(places.len());
    for place in places {
        let Some(before) = said.text.get(..place.start) else { return Ok(None) };
        match forked(model, said, before, place)? {
            Some(fork) => forks.push((place.clone(), fork)),
            None => return Ok(None),
        }
    }
    let found = PendingReadout { question: 0, sample: 0, forced: false, forks };
    Ok((!places.is_empty()).then_some(found))
}

/// A reading of a reply without a score, as if it went on with the readout's lead.
pub(super) fn forced(
    model: &dyn LanguageModel,
    said: Said<'_>,
    readout: &Readout,
) -> Result<Option<PendingReadout>, StageError> {
    let before = format!("{}\n{} ", said.text, readout.lead.trim());
    let choices = readout.choices.iter().map(|(text, scores)| (text.trim().into(), scores.clone()));
    let (start, end) = (before.len(), before.len());
    let place = Place { start, end, weight: 1.0, choices: choices.collect() };
    let fork = forked(model, said, &before, &place)?;
    Ok(fork.map(|fork| PendingReadout {
        question: 0,
        sample: 0,
        forced: true,
        forks: vec![(place, fork)],
    }))
}

fn forked(
    model: &dyn LanguageModel,
    said: Said<'_>,
    before: &str,
    place: &Place,
) -> Result<Option<Fork>, StageError> {
    let choices: Vec<String> = place.choices.iter().map(|(text, _)| text.clone()).collect();
    let written = Written { prompt: said.prompt, reply: said.ids, text: before };
    let fits = |fork: &Fork| {
        let longest = fork.choices.iter().map(Vec::len).max().unwrap_or_default();
        fork.context.len() + longest <= model.context_tokens_max()
    };
    Ok(fork(model, written, &choices)?.filter(fits))
}

/// What probabilities say at one place.
#[derive(Clone, Debug, PartialEq)]
struct Looked {
    weight: f64,
    /// Expected score of every candidate, the choices normalised to 1.
    scores: Vec<f64>,
    mass: f64,
    entropy: f64,
}

fn looked(logps: &[f64], fork: &Fork, place: &Place) -> Option<Looked> {
    let exact = exclusive(logps, &fork.choices);
    let most = exact.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = exact.iter().map(|logp| (logp - most).exp()).collect();
    let total: f64 = weights.iter().sum();
    let (_, first) = place.choices.first()?;
    let expected = (0..first.len()).map(|at| {
        let given = |scores: &Vec<f64>| scores.get(at).copied().unwrap_or_default();
        let sum: f64 =
            weights.iter().zip(&place.choices).map(|(w, (_, scores))| w * given(scores)).sum();
        sum / total
    });
    let shares = weights.iter().map(|w| w / total).filter(|share| *share > 0.0);
    (total.is_finite() && total > 0.0).then(|| Looked {
        weight: place.weight,
        scores: expected.collect(),
        mass: exact.iter().map(|logp| logp.exp()).sum(),
        entropy: shares.map(|share| -share * share.ln()).sum(),
    })
}

/// The mean over the places by their weight.
fn mean(all: &[Looked], forced: bool) -> Option<(Vec<f64>, ReadoutFacts)> {
    let total: f64 = all.iter().map(|looked| looked.weight).sum();
    let of = |value: &dyn Fn(&Looked) -> f64| {
        all.iter().map(|looked| looked.weight * value(looked)).sum::<f64>() / total
    };
    let candidates = all.first()?.scores.len();
    let score = |at: usize| of(&|looked| looked.scores.get(at).copied().unwrap_or_default());
    let facts = ReadoutFacts { forced, mass: of(&|l| l.mass), entropy: of(&|l| l.entropy) };
    Some(((0..candidates).map(score).collect(), facts))
}

/// Looks up what is pending, all places with the same choices in one batch, and replaces the scores.
/// `replies` are each question's.
pub(super) fn apply(
    model: &dyn LanguageModel,
    pending: &[PendingReadout],
    replies: &mut [Vec<Reply>],
    cancel: &Cancel,
) -> Result<(), StageError> {
    let mut found: Vec<Vec<Looked>> = pending.iter().map(|_| Vec::new()).collect();
    let mut waiting: Vec<(usize, &(Place, Fork))> = Vec::new();
    for (at, one) in pending.iter().enumerate() {
        waiting.extend(one.forks.iter().map(|fork| (at, fork)));
    }
    while let Some((_, (_, first))) = waiting.first() {
        let choices = first.choices.clone();
        let (batch, rest): (Vec<_>, Vec<_>) =
            waiting.into_iter().partition(|(_, (_, fork))| fork.choices == choices);
        waiting = rest;
        let contexts: Vec<Vec<u32>> =
            batch.iter().map(|(_, (_, fork))| fork.context.clone()).collect();
        let logps = model.choice_logps(&contexts, &choices, cancel)?;
        for ((at, (place, fork)), logps) in batch.iter().zip(logps) {
            if let (Some(found), Some(one)) = (found.get_mut(*at), looked(&logps, fork, place)) {
                found.push(one);
            }
        }
    }
    for (one, found) in pending.iter().zip(found) {
        let reply = replies.get_mut(one.question).and_then(|r| r.get_mut(one.sample));
        // All places, or none: a mean over some of them would be another score.
        let whole = found.len() == one.forks.len();
        if let (Some(reply), Some((scores, facts)), true) = (reply, mean(&found, one.forced), whole)
        {
            let parsed = reply.outcome.score();
            let score = scores.first().copied().unwrap_or_default();
            reply.outcome = Outcome::Scored { score, parsed };
            reply.scores = scores;
            reply.readout = Some(facts);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(weight: f64, choices: &[(&str, &[f64])]) -> Place {
        let choices = choices.iter().map(|(text, s)| ((*text).to_owned(), s.to_vec())).collect();
        Place { start: 0, end: 1, weight, choices }
    }

    fn fork_of(choices: &[&[u32]]) -> Fork {
        Fork { context: Vec::new(), choices: choices.iter().map(|c| c.to_vec()).collect() }
    }

    #[test]
    fn the_expectation_is_each_candidates() {
        let place = place(1.0, &[("A", &[1.0, 0.0]), ("B", &[0.0, 1.0])]);
        let fork = fork_of(&[&[1], &[2]]);
        let one = looked(&[0.3f64.ln(), 0.1f64.ln()], &fork, &place).unwrap();
        assert!((one.scores[0] - 0.75).abs() < 1e-12 && (one.scores[1] - 0.25).abs() < 1e-12);
        assert!((one.mass - 0.4).abs() < 1e-12);
        let entropy = -(0.75f64 * 0.75f64.ln() + 0.25 * 0.25f64.ln());
        assert!((one.entropy - entropy).abs() < 1e-12);
        assert_eq!(looked(&[f64::NEG_INFINITY; 2], &fork, &place), None);
    }

    /// A judge that is sure of 10, whose tokenizer writes `1` `0`: of `1` all but a little is `10`.
    #[test]
    fn a_beginning_takes_nothing_from_what_it_begins() {
        let place = place(1.0, &[("1", &[1.0]), ("2", &[2.0]), ("10", &[10.0])]);
        let fork = fork_of(&[&[1], &[2], &[1, 0]]);
        let logps = [0.97f64.ln(), 0.03f64.ln(), (0.97f64 * 0.99).ln()];
        let one = looked(&logps, &fork, &place).unwrap();
        let wanted = 0.97 * 0.01 + 2.0 * 0.03 + 10.0 * 0.97 * 0.99;
        assert!((one.scores[0] - wanted).abs() < 1e-9, "{one:?}");
        assert!((one.mass - 1.0).abs() < 1e-9);
    }

    #[test]
    fn several_places_are_a_mean_by_weight() {
        let yes = |p: f64, weight| Looked { weight, scores: vec![p], mass: p, entropy: 1.0 - p };
        let (scores, facts) = mean(&[yes(0.5, 3.0), yes(0.1, 1.0)], false).unwrap();
        assert!((scores[0] - 0.4).abs() < 1e-12);
        assert!((facts.mass - 0.4).abs() < 1e-12 && (facts.entropy - 0.6).abs() < 1e-12);
        assert_eq!(mean(&[], false), None);
    }
}

#[cfg(test)]
mod goldens;
