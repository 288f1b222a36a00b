//! Scores from probabilities (G-Eval, arXiv 2303.16634). Where `parse` read a score in a reply, the
//! model is asked how likely it was to write each of the scores it could have written there; their
//! expectation replaces the one it happened to draw. A reply without a score has no such place: it
//! gets none, but where somebody asks for it (`judge.readout: forced`), and then the record says so.

use super::StageError;
use super::ask::Reply;
use crate::domain::{Completion, Outcome, ReadoutFacts, StopReason};
use crate::engine::{ChatModel, ChoiceRequest, Prepared};
use crate::lm::cancel::Cancel;
use crate::rubric::{Place, Readout};
use std::sync::Arc;

/// What a judge was asked and said.
#[derive(Clone, Copy)]
pub(super) struct Said<'a> {
    /// The question.
    pub prompt: &'a Arc<Prepared>,
    /// Ids that were drawn; none of a reply that is only known as text.
    pub ids: &'a [u32],
    /// Their text.
    pub text: &'a str,
}

impl<'a> Said<'a> {
    /// A reply that was drawn.
    pub fn drawn(prompt: &'a Arc<Prepared>, reply: &'a Completion) -> Said<'a> {
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
    pub places: Vec<(Place, ChoiceRequest)>,
}

/// A reading of what was said at the places where its score was read; `None` when there are none.
pub(super) fn at_places(said: Said<'_>, places: &[Place]) -> Option<PendingReadout> {
    let asked = |place: &Place| {
        let before = said.text.get(..place.start)?;
        Some((place.clone(), choices(said, before.to_owned(), place)))
    };
    let places = places.iter().map(asked).collect::<Option<Vec<_>>>()?;
    (!places.is_empty()).then_some(PendingReadout { question: 0, sample: 0, forced: false, places })
}

/// A reading of a reply without a score, as if it went on with the readout's lead.
pub(super) fn forced(said: Said<'_>, readout: &Readout) -> PendingReadout {
    let before = format!("{}\n{} ", said.text, readout.lead.trim());
    let choices_of = readout.choices.iter();
    let each = choices_of.map(|(text, scores)| (text.trim().into(), scores.clone()));
    let (start, end) = (before.len(), before.len());
    let place = Place { start, end, weight: 1.0, choices: each.collect() };
    let request = choices(said, before, &place);
    PendingReadout { question: 0, sample: 0, forced: true, places: vec![(place, request)] }
}

fn choices(said: Said<'_>, before: String, place: &Place) -> ChoiceRequest {
    ChoiceRequest {
        prompt: said.prompt.clone(),
        reply_ids: said.ids.to_vec(),
        before,
        choices: place.choices.iter().map(|(text, _)| text.clone()).collect(),
    }
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

/// From the log-probabilities of exactly each choice.
fn looked(exact: &[f64], place: &Place) -> Option<Looked> {
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

/// Looks up what is pending, all of it in one call, and replaces the scores. A place that the model
/// cannot spell or has no room for leaves its reply as it was read. `replies` are each question's.
pub(super) fn apply(
    model: &dyn ChatModel,
    pending: Vec<PendingReadout>,
    replies: &mut [Vec<Reply>],
    cancel: &Cancel,
) -> Result<(), StageError> {
    let asked = pending.iter().flat_map(|one| one.places.iter().map(|(_, asked)| asked.clone()));
    let asked: Vec<ChoiceRequest> = asked.collect();
    let mut logps = model.choice_logps(&asked, cancel)?.into_iter();
    for one in pending {
        let found = one.places.iter().map(|(place, _)| looked(&logps.next().flatten()?, place));
        // All of them are taken, whatever is found.
        let found: Vec<Option<Looked>> = found.collect();
        // All places, or none: a mean over some of them would be another score.
        let Some(found) = found.into_iter().collect::<Option<Vec<Looked>>>() else { continue };
        let reply = replies.get_mut(one.question).and_then(|r| r.get_mut(one.sample));
        if let (Some(reply), Some((scores, facts))) = (reply, mean(&found, one.forced)) {
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
    use crate::lm::fork::exclusive;

    fn place(weight: f64, choices: &[(&str, &[f64])]) -> Place {
        let choices = choices.iter().map(|(text, s)| ((*text).to_owned(), s.to_vec())).collect();
        Place { start: 0, end: 1, weight, choices }
    }

    #[test]
    fn the_expectation_is_each_candidates() {
        let place = place(1.0, &[("A", &[1.0, 0.0]), ("B", &[0.0, 1.0])]);
        let one = looked(&[0.3f64.ln(), 0.1f64.ln()], &place).unwrap();
        assert!((one.scores[0] - 0.75).abs() < 1e-12 && (one.scores[1] - 0.25).abs() < 1e-12);
        assert!((one.mass - 0.4).abs() < 1e-12);
        let entropy = -(0.75f64 * 0.75f64.ln() + 0.25 * 0.25f64.ln());
        assert!((one.entropy - entropy).abs() < 1e-12);
        assert_eq!(looked(&[f64::NEG_INFINITY; 2], &place), None);
    }

    /// A judge that is sure of 10, whose tokenizer writes `1` `0`: of `1` all but a little is `10`.
    #[test]
    fn a_beginning_takes_nothing_from_what_it_begins() {
        let place = place(1.0, &[("1", &[1.0]), ("2", &[2.0]), ("10", &[10.0])]);
        let logps = [0.97f64.ln(), 0.03f64.ln(), (0.97f64 * 0.99).ln()];
        let exact = exclusive(&logps, &[vec![1], vec![2], vec![1, 0]]);
        let one = looked(&exact, &place).unwrap();
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
