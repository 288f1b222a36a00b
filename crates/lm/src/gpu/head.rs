//! From hidden states to log-probabilities of tokens and back, a chunk of logits at a time, as
//! `decoder::head`: logits are f32, and there are never more than [`LOGIT_BYTES_MAX`] of them.

use super::batch::additions;
use super::buffer::{DeviceBuffer, Scratch};
use super::driver::ElementType;
use super::kernels::{
    MatrixProduct, Operand, add_rows, gather_rows, product, token_logps, token_logps_backward,
};
use super::weights::WeightStore;
use crate::decoder::LossGradient;
use crate::error::LmError;
use crate::estimate::gpu::LOGIT_BYTES_MAX;
use crate::packed::ScoredTokens;
use std::ops::Range;

/// Room for a chunk.
#[derive(Default)]
pub(super) struct HeadScratch {
    sent: Scratch,
    states: Scratch,
    d_states: Scratch,
    logits: Scratch,
    d_logits: Scratch,
    logps: Scratch,
    totals: Scratch,
    /// For sums over rows of what is not a layer's.
    pub partial: Scratch,
}

/// Logits of some scored positions, and where their states came from.
struct LogitChunk {
    at: Vec<u32>,
    targets: DeviceBuffer,
    states: DeviceBuffer,
    logits: DeviceBuffer,
    totals: DeviceBuffer,
    logps: Vec<f32>,
}

impl WeightStore {
    fn logit_rows(&self) -> usize {
        let row = self.config.vocab_size * (size_of::<f32>() + self.gpu.work().bytes());
        (LOGIT_BYTES_MAX as usize / row).max(16)
    }

    /// `logits` [rows, V] of states [rows, H].
    pub(super) fn logits(
        &self,
        states: &DeviceBuffer,
        logits: &DeviceBuffer,
    ) -> Result<(), LmError> {
        let (width, vocab) = (self.config.hidden_size, self.config.vocab_size);
        product(&MatrixProduct {
            a: Operand::plain(states, width),
            b: Operand::transposed(&self.matrix(self.net.head, vocab * width)?, width),
            c: logits,
            c_stride: vocab,
            rows: states.len() / width,
            columns: vocab,
            inner: width,
            add: false,
            scale: 1.0,
        })
    }

    fn chunk(
        &self,
        hidden: &DeviceBuffer,
        scored: &ScoredTokens,
        rows: Range<usize>,
        scratch: &mut HeadScratch,
    ) -> Result<LogitChunk, LmError> {
        let (gpu, width) = (&self.gpu, self.config.hidden_size);
        let n = rows.len();
        let at = scored.at[rows.clone()].to_vec();
        let [index, targets] = scratch.sent.send(gpu, [&at, &scored.targets[rows]])?;
        let states = scratch.states.get(gpu, gpu.work(), n * width)?;
        gather_rows(hidden, &index, &states, width)?;
        let logits = scratch.logits.get(gpu, ElementType::F32, n * self.config.vocab_size)?;
        self.logits(&states, &logits)?;
        let logps = scratch.logps.get(gpu, ElementType::F32, n)?;
        let totals = scratch.totals.get(gpu, ElementType::F32, n)?;
        token_logps(&logits, &targets, (&logps, &totals))?;
        Ok(LogitChunk { at, targets, states, logits, totals, logps: logps.read()? })
    }

    /// Log-probabilities of everything scored.
    pub(super) fn logps(
        &self,
        hidden: &DeviceBuffer,
        scored: &ScoredTokens,
        scratch: &mut HeadScratch,
    ) -> Result<Vec<f32>, LmError> {
        let mut all = Vec::with_capacity(scored.at.len());
        for from in (0..scored.at.len()).step_by(self.logit_rows()) {
            let rows = from..(from + self.logit_rows()).min(scored.at.len());
            all.extend(self.chunk(hidden, scored, rows, scratch)?.logps);
        }
        Ok(all)
    }

    /// Adds the gradients of hidden states to `d_hidden` [T, H], and that of the head to what is
    /// added up. A unit that is longer than a chunk is read twice: its loss needs all its
    /// log-probabilities before the first logit has a gradient.
    pub(super) fn head_backward(
        &self,
        (hidden, d_hidden): (&DeviceBuffer, &DeviceBuffer),
        scored: &ScoredTokens,
        loss_gradient: LossGradient<'_>,
        scratch: &mut HeadScratch,
    ) -> Result<(), LmError> {
        let most = self.logit_rows();
        for (units, rows) in scored.chunks(most) {
            let mut of_units = |logps: &[f32]| -> Vec<f32> {
                let of = |unit: usize| {
                    let at = scored.unit(unit);
                    loss_gradient(unit, &logps[at.start - rows.start..at.end - rows.start])
                };
                units.clone().flat_map(of).collect()
            };
            if rows.is_empty() {
                of_units(&[]);
                continue;
            }
            if rows.len() <= most {
                let chunk = self.chunk(hidden, scored, rows.clone(), scratch)?;
                let d_logps = of_units(&chunk.logps);
                self.chunk_backward(&chunk, &d_logps, d_hidden, scratch)?;
                continue;
            }
            let parts: Vec<Range<usize>> =
                rows.clone().step_by(most).map(|at| at..(at + most).min(rows.end)).collect();
            let mut logps = Vec::with_capacity(rows.len());
            for part in &parts {
                logps.extend(self.chunk(hidden, scored, part.clone(), scratch)?.logps);
            }
            let d_logps = of_units(&logps);
            for part in parts {
                let span = part.start - rows.start..part.end - rows.start;
                let chunk = self.chunk(hidden, scored, part, scratch)?;
                self.chunk_backward(&chunk, &d_logps[span], d_hidden, scratch)?;
            }
        }
        Ok(())
    }

    fn chunk_backward(
        &self,
        chunk: &LogitChunk,
        d_logps: &[f32],
        d_hidden: &DeviceBuffer,
        scratch: &mut HeadScratch,
    ) -> Result<(), LmError> {
        let (gpu, width, vocab) = (&self.gpu, self.config.hidden_size, self.config.vocab_size);
        let n = chunk.at.len();
        let d_logps = DeviceBuffer::of(gpu, d_logps)?;
        let d_logits = match gpu.work() {
            ElementType::F32 => chunk.logits.clone(),
            kind => scratch.d_logits.get(gpu, kind, n * vocab)?,
        };
        let given = (&chunk.targets, &chunk.totals, &d_logps);
        token_logps_backward(&chunk.logits, given, &d_logits)?;
        let d_states = scratch.d_states.get(gpu, ElementType::F32, n * width)?;
        product(&MatrixProduct {
            a: Operand::plain(&d_logits, vocab),
            b: Operand::plain(&self.matrix(self.net.head, vocab * width)?, width),
            c: &d_states,
            c_stride: width,
            rows: n,
            columns: width,
            inner: vocab,
            add: false,
            scale: 1.0,
        })?;
        if let Some(dw) = self.gradient(self.net.head, vocab * width) {
            product(&MatrixProduct {
                a: Operand::transposed(&d_logits, vocab),
                b: Operand::plain(&chunk.states, width),
                c: &dw,
                c_stride: width,
                rows: vocab,
                columns: width,
                inner: n,
                add: true,
                scale: 1.0,
            })?;
        }
        add_rows(&d_states, &additions(gpu, &chunk.at)?, d_hidden, width)
    }
}
