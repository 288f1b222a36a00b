//! A term of a step's loss: a batch, cut into parts that fit, each turned into rows, into
//! log-probabilities by whoever computes, and into figures. Knows no device and no thread.

use super::{DpoExample, StepMetrics, WeightedSequence};
use crate::decoder::LossGradient;
use crate::error::LmError;
use crate::loss::{DpoSettings, PairLogps, pair_loss};
use crate::packed::{PackedRows, ScoredTokens, rows_of};
use std::ops::Range;

/// Adds the gradients of a loss over log-probabilities of rows.
pub(crate) type Differentiate<'a> =
    dyn FnMut(&PackedRows, &ScoredTokens, LossGradient<'_>) -> Result<(), LmError> + 'a;

/// A batch and its loss.
#[derive(Clone, Copy)]
pub(crate) enum LossTerm<'a> {
    /// The weighted sum of `-log p`, times `scale`.
    Sft { batch: &'a [WeightedSequence], scale: f64 },
    /// The sum of pairs' losses, times `scale`.
    Dpo { batch: &'a [DpoExample], dpo: &'a DpoSettings, scale: f64 },
}

impl<'a> LossTerm<'a> {
    /// The weighted mean of `-log p` over the batch's tokens, times `weight`.
    pub fn sft(batch: &'a [WeightedSequence], weight: f64) -> LossTerm<'a> {
        let weights = batch.iter().flat_map(|s| s.weights.iter().skip(1));
        let total: f64 = weights.map(|w| f64::from(*w)).sum();
        LossTerm::Sft { batch, scale: weight / total.max(1e-12) }
    }

    /// The mean of the pairs' losses.
    pub fn dpo(batch: &'a [DpoExample], dpo: &'a DpoSettings) -> LossTerm<'a> {
        LossTerm::Dpo { batch, dpo, scale: 1.0 / batch.len().max(1) as f64 }
    }

    /// Sequences or pairs.
    pub fn len(&self) -> usize {
        match self {
            LossTerm::Sft { batch, .. } => batch.len(),
            LossTerm::Dpo { batch, .. } => batch.len(),
        }
    }

    /// Rows that one of them takes.
    fn rows(&self, index: usize) -> usize {
        match self {
            LossTerm::Sft { batch, .. } => batch[index].ids.len(),
            LossTerm::Dpo { batch, .. } => {
                let pair = &batch[index];
                pair.prompt.len() + pair.chosen.len() + pair.rejected.len()
            }
        }
    }

    /// Cuts a part where its rows would pass `most`; what is longer alone stands alone.
    pub fn micro_batches(&self, part: Range<usize>, most: usize) -> Vec<Range<usize>> {
        let mut cuts = Vec::new();
        let (mut from, mut held) = (part.start, 0);
        for at in part.clone() {
            let size = self.rows(at);
            if at > from && held + size > most {
                cuts.push(from..at);
                (from, held) = (at, 0);
            }
            held += size;
        }
        if from < part.end {
            cuts.push(from..part.end);
        }
        cuts
    }

    /// The most rows that a micro-batch of at most `most` rows comes to.
    pub fn rows_max(&self, most: usize) -> usize {
        let cuts = self.micro_batches(0..self.len(), most).into_iter();
        cuts.map(|part| part.map(|at| self.rows(at)).sum()).max().unwrap_or(0)
    }

    /// The figures of a part, whose gradients are added.
    pub fn compute(
        &self,
        part: Range<usize>,
        differentiate: &mut Differentiate<'_>,
    ) -> Result<StepMetrics, LmError> {
        match *self {
            LossTerm::Sft { batch, scale } => sft_part(&batch[part], scale, differentiate),
            LossTerm::Dpo { batch, dpo, scale } => {
                dpo_part(&batch[part], (dpo, scale), differentiate)
            }
        }
    }
}

fn sft_part(
    batch: &[WeightedSequence],
    scale: f64,
    differentiate: &mut Differentiate<'_>,
) -> Result<StepMetrics, LmError> {
    let (mut rows, mut scored) = (PackedRows::default(), ScoredTokens::default());
    let (mut weights, mut tokens) = (Vec::new(), 0);
    for sequence in batch {
        let scoring = sequence.ids.iter().zip(&sequence.weights).enumerate().skip(1);
        let scoring: Vec<_> = scoring.filter(|(_, (_, w))| **w != 0.0).collect();
        let Some((last, _)) = scoring.last() else { continue };
        // What comes after the last scored token, and that token itself, predict nothing.
        let placed = rows.push(&sequence.ids[..*last]);
        tokens += sequence.ids.len() as u64;
        for (at, (id, weight)) in scoring {
            scored.push(placed.start + at - 1, *id);
            weights.push(-(f64::from(*weight) * scale) as f32);
        }
        scored.end_unit();
    }
    let mut figures = StepMetrics { num_tokens: tokens, ..StepMetrics::default() };
    if scored.at.is_empty() {
        return Ok(figures);
    }
    let mut loss_gradient = |unit: usize, logps: &[f32]| {
        let weights = &weights[scored.unit(unit)];
        let terms = logps.iter().zip(weights).map(|(l, w)| f64::from(*l) * f64::from(*w));
        figures.loss += terms.sum::<f64>();
        weights.to_vec()
    };
    differentiate(&rows, &scored, &mut loss_gradient)?;
    Ok(figures)
}

/// A pair is a group with a common prefix: its prompt once, then both completions.
fn dpo_part(
    batch: &[DpoExample],
    (dpo, scale): (&DpoSettings, f64),
    differentiate: &mut Differentiate<'_>,
) -> Result<StepMetrics, LmError> {
    let (mut rows, mut scored) = (PackedRows::default(), ScoredTokens::default());
    let mut figures = StepMetrics::default();
    for example in batch {
        if example.prompt.is_empty() {
            return Err(LmError::Training("a pair has an empty prompt".to_owned()));
        }
        let before = rows.ids.len() + example.prompt.len() - 1;
        let both = [example.chosen.as_slice(), &example.rejected];
        let firsts = rows.push_group(&example.prompt, &both.map(rows_of));
        for (response, first) in both.into_iter().zip(firsts) {
            scored.push_response(before, first, response);
            figures.num_tokens += (example.prompt.len() + response.len()) as u64;
        }
        scored.end_unit();
    }
    let mut loss_gradient = |unit: usize, logps: &[f32]| {
        let example = &batch[unit];
        let (chosen, rejected) = logps.split_at(example.chosen.len());
        let sum = |logps: &[f32]| logps.iter().map(|l| f64::from(*l)).sum::<f64>();
        let pair = PairLogps {
            chosen: sum(chosen),
            rejected: sum(rejected),
            reference_chosen: example.reference_chosen,
            reference_rejected: example.reference_rejected,
            tokens_chosen: chosen.len(),
            tokens_rejected: rejected.len(),
        };
        let loss = pair_loss(&pair, example.belief, dpo);
        note(&mut figures, &pair, loss.loss, dpo.loss.beta(), scale);
        let mut d_logps = vec![(loss.d_chosen * scale) as f32; chosen.len()];
        d_logps.resize(logps.len(), (loss.d_rejected * scale) as f32);
        d_logps
    };
    differentiate(&rows, &scored, &mut loss_gradient)?;
    Ok(figures)
}

fn note(figures: &mut StepMetrics, pair: &PairLogps, loss: f64, beta: f64, scale: f64) {
    let chosen = beta * (pair.chosen - pair.reference_chosen);
    let rejected = beta * (pair.rejected - pair.reference_rejected);
    figures.loss += loss * scale;
    figures.rewards_chosen += chosen * scale;
    figures.rewards_rejected += rejected * scale;
    figures.rewards_margin += (chosen - rejected) * scale;
    figures.rewards_accuracy += if chosen > rejected { scale } else { 0.0 };
    figures.logps_chosen += pair.chosen * scale;
    figures.logps_rejected += pair.rejected * scale;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_cut_where_they_would_not_fit() {
        let cut = |sizes: &[usize], most| {
            let row =
                |len: &usize| WeightedSequence { ids: vec![0; *len], weights: vec![1.0; *len] };
            let batch: Vec<_> = sizes.iter().map(row).collect();
            let term = LossTerm::sft(&batch, 1.0);
            (term.micro_batches(0..batch.len(), most), term.rows_max(most))
        };
        assert_eq!(cut(&[3, 3, 3], 9), (Vec::from_iter(std::iter::once(0..3)), 9));
        assert_eq!(cut(&[3, 3, 3], 8), (vec![0..2, 2..3], 6));
        assert_eq!(cut(&[20, 1, 1], 8), (vec![0..1, 1..3], 20), "what is longer stands alone");
        assert_eq!(cut(&[], 8), (vec![], 0));
    }
}
