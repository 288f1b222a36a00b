//! Scores from probabilities (G-Eval, arXiv 2303.16634). Where `parse` read a score in a reply, the
//! model is asked how likely it was to write each of the scores it could have written there; their
//! expectation replaces the one it happened to draw. A reply without a score has no such place: it
//! gets none, but where somebody asks for it (`judge.readout: forced`), and then the record says so.

use super::reply::JudgeReply;
use crate::domain::{Completion, ReadoutFacts, StopReason};
use crate::engine::{ChatModel, ChoiceRequest, Prepared};
use crate::lm::cancel::Cancel;
use crate::rubric::{Readout, ScorePlace};
use crate::stage::StageError;
use std::sync::Arc;

/// A judge's reply with the question it answers.
#[derive(Clone, Copy)]
pub(super) struct JudgeText<'a> {
    /// The question.
    pub question: &'a Arc<Prepared>,
    /// Token ids that were drawn; none of a reply that is only known as text.
    pub ids: &'a [u32],
    /// Their text.
    pub text: &'a str,
}

impl<'a> JudgeText<'a> {
    /// A reply that was drawn.
    pub fn drawn(question: &'a Arc<Prepared>, reply: &'a Completion) -> JudgeText<'a> {
        let ids = match (reply.stop, reply.token_ids.split_last()) {
            // The turn's end is not part of the text.
            (StopReason::TurnEnd, Some((_, before))) => before,
            _ => &reply.token_ids,
        };
        JudgeText { question, ids, text: &reply.text }
    }
}

/// Where the probabilities of a reply's score are to be looked up.
pub(super) struct PendingReadout {
    /// Whose reply it is.
    pub question: usize,
    pub sample: usize,
    /// The judge wrote no score there.
    pub forced: bool,
    pub places: Vec<(ScorePlace, ChoiceRequest)>,
}

/// What to look up for a reply at the places where its score was read; `None` when there are none.
pub(super) fn at_places(reply: JudgeText<'_>, places: &[ScorePlace]) -> Option<PendingReadout> {
    let asked = |place: &ScorePlace| {
        let before = reply.text.get(..place.start)?;
        Some((place.clone(), choices(reply, before.to_owned(), place)))
    };
    let places = places.iter().map(asked).collect::<Option<Vec<_>>>()?;
    (!places.is_empty()).then_some(PendingReadout { question: 0, sample: 0, forced: false, places })
}

/// What to look up for a reply without a score, as if it went on with the readout's lead.
pub(super) fn forced(reply: JudgeText<'_>, readout: &Readout) -> PendingReadout {
    let before = format!("{}\n{} ", reply.text, readout.lead.trim());
    let choices_of = readout.choices.iter();
    let each = choices_of.map(|(text, scores)| (text.trim().into(), scores.clone()));
    let (start, end) = (before.len(), before.len());
    let place = ScorePlace { start, end, weight: 1.0, choices: each.collect() };
    let request = choices(reply, before, &place);
    PendingReadout { question: 0, sample: 0, forced: true, places: vec![(place, request)] }
}

fn choices(reply: JudgeText<'_>, before: String, place: &ScorePlace) -> ChoiceRequest {
    ChoiceRequest {
        prompt: reply.question.clone(),
        reply_ids: reply.ids.to_vec(),
        before,
        choices: place.choices.iter().map(|(text, _)| text.clone()).collect(),
    }
}

/// What probabilities say at one place.
#[derive(Clone, Debug, PartialEq)]
struct PlaceReadout {
    weight: f64,
    /// Expected score of every candidate, the choices normalised to 1.
    scores: Vec<f64>,
    mass: f64,
    entropy: f64,
}

/// From the log-probabilities of exactly each choice.
fn read_place(exact: &[f64], place: &ScorePlace) -> Option<PlaceReadout> {
    let most = exact.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = exact.iter().map(|logp| (logp - most).exp()).collect();
    let total: f64 = weights.iter().sum();
    let (_, first) = place.choices.first()?;
    let expected = (0..first.len()).map(|at| {
        let choices = weights.iter().zip(&place.choices);
        let sum: Option<f64> =
            choices.map(|(w, (_, scores))| scores.get(at).map(|score| w * score)).sum();
        sum.map(|sum| sum / total)
    });
    // A choice that says nothing of a candidate says nothing of where it stands, either.
    let scores: Vec<f64> = expected.collect::<Option<_>>()?;
    let shares = weights.iter().map(|w| w / total).filter(|share| *share > 0.0);
    (total.is_finite() && total > 0.0).then(|| PlaceReadout {
        weight: place.weight,
        scores,
        mass: exact.iter().map(|logp| logp.exp()).sum(),
        entropy: shares.map(|share| -share * share.ln()).sum(),
    })
}

/// The mean over the places by their weight.
fn mean(all: &[PlaceReadout], forced: bool) -> Option<(Vec<f64>, ReadoutFacts)> {
    let total: f64 = all.iter().map(|one| one.weight).sum();
    let of = |value: &dyn Fn(&PlaceReadout) -> Option<f64>| {
        let sum: Option<f64> = all.iter().map(|one| Some(one.weight * value(one)?)).sum();
        sum.map(|sum| sum / total)
    };
    let candidates = 0..all.first()?.scores.len();
    let scores: Option<Vec<f64>> =
        candidates.map(|at| of(&|one| one.scores.get(at).copied())).collect();
    let (mass, entropy) = (of(&|one| Some(one.mass))?, of(&|one| Some(one.entropy))?);
    Some((scores?, ReadoutFacts { forced, mass, entropy }))
}

/// Looks up what is pending, all of it in one call, and replaces the scores. A place that the model
/// cannot spell or has no room for leaves its reply as it was read. `replies` are each question's.
pub(super) fn apply(
    model: &dyn ChatModel,
    pending: Vec<PendingReadout>,
    replies: &mut [Vec<JudgeReply>],
    cancel: &Cancel,
) -> Result<(), StageError> {
    let asked = pending.iter().flat_map(|one| one.places.iter().map(|(_, asked)| asked.clone()));
    let asked: Vec<ChoiceRequest> = asked.collect();
    let mut logps = model.choice_logps(&asked, cancel)?.into_iter();
    for one in pending {
        let found = one.places.iter().map(|(place, _)| read_place(&logps.next().flatten()?, place));
        // All of them are taken, whatever is found.
        let found: Vec<Option<PlaceReadout>> = found.collect();
        // All places, or none: a mean over some of them would be another score.
        let Some(found) = found.into_iter().collect::<Option<Vec<PlaceReadout>>>() else {
            continue;
        };
        let reply = replies.get_mut(one.question).and_then(|r| r.get_mut(one.sample));
        if let (Some(reply), Some((scores, facts))) = (reply, mean(&found, one.forced)) {
            reply.read_out(scores, facts);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lm::fork::exclusive;

    fn place(weight: f64, choices: &[(&str, &[f64])]) -> ScorePlace {
        let choices = choices.iter().map(|(text, s)| ((*text).to_owned(), s.to_vec())).collect();
        ScorePlace { start: 0, end: 1, weight, choices }
    }

    #[test]
    fn the_expectation_is_each_candidates() {
        let place = place(1.0, &[("A", &[1.0, 0.0]), ("B", &[0.0, 1.0])]);
        let one = read_place(&[0.3f64.ln(), 0.1f64.ln()], &place).unwrap();
        assert!((one.scores[0] - 0.75).abs() < 1e-12 && (one.scores[1] - 0.25).abs() < 1e-12);
        assert!((one.mass - 0.4).abs() < 1e-12);
        let entropy = -(0.75f64 * 0.75f64.ln() + 0.25 * 0.25f64.ln());
        assert!((one.entropy - entropy).abs() < 1e-12);
        assert_eq!(read_place(&[f64::NEG_INFINITY; 2], &place), None);
    }

    /// A judge that is sure of 10, whose tokenizer writes `1` `0`: of `1` all but a little is `10`.
    #[test]
    fn a_beginning_takes_nothing_from_what_it_begins() {
        let place = place(1.0, &[("1", &[1.0]), ("2", &[2.0]), ("10", &[10.0])]);
        let logps = [0.97f64.ln(), 0.03f64.ln(), (0.97f64 * 0.99).ln()];
        let exact = exclusive(&logps, &[vec![1], vec![2], vec![1, 0]]);
        let one = read_place(&exact, &place).unwrap();
        let wanted = 0.97 * 0.01 + 2.0 * 0.03 + 10.0 * 0.97 * 0.99;
        assert!((one.scores[0] - wanted).abs() < 1e-9, "{one:?}");
        assert!((one.mass - 1.0).abs() < 1e-9);
    }

    #[test]
    fn several_places_are_a_mean_by_weight() {
        let yes =
            |p: f64, weight| PlaceReadout { weight, scores: vec![p], mass: p, entropy: 1.0 - p };
        let (scores, facts) = mean(&[yes(0.5, 3.0), yes(0.1, 1.0)], false).unwrap();
        assert!((scores[0] - 0.4).abs() < 1e-12);
        assert!((facts.mass - 0.4).abs() < 1e-12 && (facts.entropy - 0.6).abs() < 1e-12);
        assert_eq!(mean(&[], false), None);
    }
}

#[cfg(test)]
mod goldens;
