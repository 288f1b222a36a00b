//! Scores from probabilities (G-Eval, arXiv 2303.16634): where in a reply they are read, and what
//! they come to.

use super::StageError;
use crate::domain::{Completion, StopReason};
use crate::lm::policy::LanguageModel;
use crate::rubric::Readout;

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

/// The judge's prompt and its reply up to and including the last `lead`; a reply without one gets
/// it appended, after its turn-end token is taken off.
pub(super) fn readout_context(
    model: &dyn LanguageModel,
    prompt_ids: &[u32],
    reply: &Completion,
    lead: &str,
) -> Result<Vec<u32>, StageError> {
    let lead = lead.trim_end();
    let mut ids = reply.token_ids.clone();
    if reply.stop == StopReason::TurnEnd {
        ids.pop();
    }
    let mut context = prompt_ids.to_vec();
    for end in (1..=ids.len()).rev() {
        let head = ids.get(..end).unwrap_or_default();
        if model.decode(head)?.trim_end().ends_with(lead) {
            context.extend_from_slice(head);
            return Ok(context);
        }
    }
    context.extend_from_slice(&ids);
    context.extend(model.encode_text(&format!("\n{lead}"))?);
    Ok(context)
}

/// A score to be read from probabilities: which reply, the context, the choices.
pub(super) struct PendingReadout {
    pub question: usize,
    pub sample: usize,
    pub context: Vec<u32>,
    pub readout: Readout,
}

impl PendingReadout {
    pub fn choices(&self) -> Vec<String> {
        self.readout.choices.iter().map(|(text, _)| text.clone()).collect()
    }
}

/// The expected score of every candidate, probabilities normalised over the choices.
pub(super) fn expectation(logps: &[f64], readout: &Readout) -> Option<Vec<f64>> {
    let most = logps.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = logps.iter().map(|l| (l - most).exp()).collect();
    let total: f64 = weights.iter().sum();
    let (_, first) = readout.choices.first()?;
    let expected = (0..first.len()).map(|at| {
        let given = |scores: &Vec<f64>| scores.get(at).copied().unwrap_or_default();
        let sum: f64 =
            weights.iter().zip(&readout.choices).map(|(w, (_, scores))| w * given(scores)).sum();
        sum / total
    });
    (total.is_finite() && total > 0.0).then(|| expected.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_expectation_is_each_candidates() {
        let choices = vec![(" A".to_owned(), vec![1.0, 0.0]), (" B".to_owned(), vec![0.0, 1.0])];
        let readout = Readout { lead: "Better:".into(), choices };
        let scores = expectation(&[0.75f64.ln(), 0.25f64.ln()], &readout).unwrap();
        assert!((scores[0] - 0.75).abs() < 1e-12 && (scores[1] - 0.25).abs() < 1e-12);
        assert_eq!(expectation(&[f64::NEG_INFINITY, f64::NEG_INFINITY], &readout), None);
    }
}
