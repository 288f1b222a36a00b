//! From hidden states to log-probabilities of tokens and back, a chunk of logits at a time: what
//! is computed for the loss is turned into its gradient in place, before the next chunk comes.

use super::Decoder;
use super::net::Gradients;
use super::passes::sized;
use crate::ops::{Mat, MatMut, matmul, token_logps, token_logps_backward};
use crate::packed::ScoredTokens;
use std::ops::Range;

/// Given the number of a unit and the log-probabilities of its tokens, the loss's derivative by
/// each of them.
pub(crate) type LossGradient<'a> = &'a mut dyn FnMut(usize, &[f32]) -> Vec<f32>;

/// One batch's way through the head.
pub(super) struct HeadPass<'a> {
    decoder: &'a Decoder,
    scored: &'a ScoredTokens,
    /// [P, H], and their gradients.
    states: Vec<f32>,
    d_states: Vec<f32>,
    logits: &'a mut Vec<f32>,
}

impl<'a> HeadPass<'a> {
    pub fn new(
        decoder: &'a Decoder,
        scored: &'a ScoredTokens,
        states: Vec<f32>,
        logits: &'a mut Vec<f32>,
    ) -> HeadPass<'a> {
        let d_states = vec![0.0; states.len()];
        HeadPass { decoder, scored, states, d_states, logits }
    }

    /// All chunks. A unit that is longer than a chunk is read twice: its loss needs all its
    /// log-probabilities before the first logit has a gradient.
    pub fn run(&mut self, loss_gradient: LossGradient<'_>, grads: &mut Gradients) {
        let most = self.decoder.logit_rows();
        let scored = self.scored;
        for (units, rows) in scored.chunks(most) {
            if rows.len() <= most {
                let mut own = |logps: &[f32]| {
                    let of = |unit: usize| {
                        let at = scored.unit(unit);
                        loss_gradient(unit, &logps[at.start - rows.start..at.end - rows.start])
                    };
                    units.clone().flat_map(of).collect()
                };
                self.chunk(rows.clone(), &mut own, grads);
                continue;
            }
            let parts: Vec<Range<usize>> =
                rows.clone().step_by(most).map(|from| from..(from + most).min(rows.end)).collect();
            let logps: Vec<f32> =
                parts.iter().flat_map(|part| self.logps(part.clone()).0).collect();
            let known = loss_gradient(units.start, &logps);
            for part in parts {
                let span = part.start - rows.start..part.end - rows.start;
                self.chunk(part, &mut |_| known[span.clone()].to_vec(), grads);
            }
        }
    }

    /// Leaves the logits of these positions in place; their log-probabilities and totals.
    fn logps(&mut self, rows: Range<usize>) -> (Vec<f32>, Vec<f32>) {
        if rows.is_empty() {
            return (Vec::new(), Vec::new());
        }
        let (width, vocab) = (self.decoder.config.hidden_size, self.decoder.config.vocab_size);
        let logits = sized(self.logits, rows.len() * vocab);
        self.decoder.logits_into(&self.states[rows.start * width..rows.end * width], logits);
        token_logps(logits, &self.scored.targets[rows])
    }

    fn chunk(
        &mut self,
        rows: Range<usize>,
        d_logps: &mut dyn FnMut(&[f32]) -> Vec<f32>,
        grads: &mut Gradients,
    ) {
        let (logps, totals) = self.logps(rows.clone());
        let d_logps = d_logps(&logps);
        if rows.is_empty() {
            return;
        }
        token_logps_backward(self.logits, &self.scored.targets[rows.clone()], &totals, &d_logps);
        let (width, vocab) = (self.decoder.config.hidden_size, self.decoder.config.vocab_size);
        let (n, span) = (rows.len(), rows.start * width..rows.end * width);
        let d_logits = Mat::new(self.logits, n, vocab);
        let d_states = MatMut::new(&mut self.d_states[span.clone()], n, width);
        matmul(d_states, d_logits, self.decoder.head(), false, 1.0);
        if let Some((dw, add)) = grads.slot(self.decoder.net.head) {
            let states = Mat::new(&self.states[span], n, width);
            matmul(MatMut::new(dw, vocab, width), d_logits.t(), states, add, 1.0);
        }
    }

    /// Adds the gradients of the states to the rows [T, H] they were taken from.
    pub fn spread(&self, d_hidden: &mut [f32]) {
        let width = self.decoder.config.hidden_size;
        for (row, d) in self.scored.at.iter().zip(self.d_states.chunks_exact(width)) {
            let to = &mut d_hidden[*row as usize * width..][..width];
            to.iter_mut().zip(d).for_each(|(sum, d)| *sum += d);
        }
    }
}
