//! From hidden states to log-probabilities of tokens and back, a chunk of logits at a time, as
//! `decoder::head`: logits are f32, and there are never more than [`LOGIT_BYTES_MAX`] of them.

use super::Kind;
use super::batch::additions;
use super::kernels::{
    Product, Side, add_rows, gather_rows, product, token_logps, token_logps_backward,
};
use super::numbers::{Numbers, Room};
use super::store::Store;
use crate::decoder::Slopes;
use crate::device::estimate::LOGIT_BYTES_MAX;
use crate::error::LmError;
use crate::logp::Scored;
use std::ops::Range;

/// Room for a chunk.
#[derive(Default)]
pub(super) struct HeadRooms {
    sent: Room,
    states: Room,
    d_states: Room,
    logits: Room,
    d_logits: Room,
    logps: Room,
    totals: Room,
    /// For sums over rows of what is not a layer's.
    pub partial: Room,
}

/// Logits of some scored positions, and where their states came from.
struct Chunk {
    at: Vec<u32>,
    targets: Numbers,
    states: Numbers,
    logits: Numbers,
    totals: Numbers,
    logps: Vec<f32>,
}

impl Store {
    fn logit_rows(&self) -> usize {
        let row = self.config.vocab_size * (size_of::<f32>() + self.gpu.work().bytes());
        (LOGIT_BYTES_MAX as usize / row).max(16)
    }

    /// `logits` [rows, V] of states [rows, H].
    pub(super) fn logits(&self, states: &Numbers, logits: &Numbers) -> Result<(), LmError> {
        let (width, vocab) = (self.config.hidden_size, self.config.vocab_size);
        product(&Product {
            a: Side::plain(states, width),
            b: Side::turned(&self.matrix(self.net.head, vocab * width)?, width),
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
        hidden: &Numbers,
        scored: &Scored,
        rows: Range<usize>,
        rooms: &mut HeadRooms,
    ) -> Result<Chunk, LmError> {
        let (gpu, width) = (&self.gpu, self.config.hidden_size);
        let n = rows.len();
        let at = scored.at[rows.clone()].to_vec();
        let [index, targets] = rooms.sent.send(gpu, [&at, &scored.targets[rows]])?;
        let states = rooms.states.get(gpu, gpu.work(), n * width)?;
        gather_rows(hidden, &index, &states, width)?;
        let logits = rooms.logits.get(gpu, Kind::F32, n * self.config.vocab_size)?;
        self.logits(&states, &logits)?;
        let logps = rooms.logps.get(gpu, Kind::F32, n)?;
        let totals = rooms.totals.get(gpu, Kind::F32, n)?;
        token_logps(&logits, &targets, (&logps, &totals))?;
        Ok(Chunk { at, targets, states, logits, totals, logps: logps.read()? })
    }

    /// Log-probabilities of everything scored.
    pub(super) fn logps(
        &self,
        hidden: &Numbers,
        scored: &Scored,
        rooms: &mut HeadRooms,
    ) -> Result<Vec<f32>, LmError> {
        let mut all = Vec::with_capacity(scored.at.len());
        for from in (0..scored.at.len()).step_by(self.logit_rows()) {
            let rows = from..(from + self.logit_rows()).min(scored.at.len());
            all.extend(self.chunk(hidden, scored, rows, rooms)?.logps);
        }
        Ok(all)
    }

    /// Adds the gradients of hidden states to `d_hidden` [T, H], and that of the head to what is
    /// added up. A unit that is longer than a chunk is read twice: its loss needs all its
    /// log-probabilities before the first logit has a gradient.
    pub(super) fn head_backward(
        &self,
        (hidden, d_hidden): (&Numbers, &Numbers),
        scored: &Scored,
        slopes: Slopes<'_>,
        rooms: &mut HeadRooms,
    ) -> Result<(), LmError> {
        let most = self.logit_rows();
        for (units, rows) in scored.chunks(most) {
            let mut of_units = |logps: &[f32]| -> Vec<f32> {
                let of = |unit: usize| {
                    let at = scored.unit(unit);
                    slopes(unit, &logps[at.start - rows.start..at.end - rows.start])
                };
                units.clone().flat_map(of).collect()
            };
            if rows.is_empty() {
                of_units(&[]);
                continue;
            }
            if rows.len() <= most {
                let chunk = self.chunk(hidden, scored, rows.clone(), rooms)?;
                let slopes = of_units(&chunk.logps);
                self.chunk_backward(&chunk, &slopes, d_hidden, rooms)?;
                continue;
            }
            let parts: Vec<Range<usize>> =
                rows.clone().step_by(most).map(|at| at..(at + most).min(rows.end)).collect();
            let mut logps = Vec::with_capacity(rows.len());
            for part in &parts {
                logps.extend(self.chunk(hidden, scored, part.clone(), rooms)?.logps);
            }
            let slopes = of_units(&logps);
            for part in parts {
                let span = part.start - rows.start..part.end - rows.start;
                let chunk = self.chunk(hidden, scored, part, rooms)?;
                self.chunk_backward(&chunk, &slopes[span], d_hidden, rooms)?;
            }
        }
        Ok(())
    }

    fn chunk_backward(
        &self,
        chunk: &Chunk,
        slopes: &[f32],
        d_hidden: &Numbers,
        rooms: &mut HeadRooms,
    ) -> Result<(), LmError> {
        let (gpu, width, vocab) = (&self.gpu, self.config.hidden_size, self.config.vocab_size);
        let n = chunk.at.len();
        let slopes = Numbers::of(gpu, slopes)?;
        let d_logits = match gpu.work() {
            Kind::F32 => chunk.logits.clone(),
            kind => rooms.d_logits.get(gpu, kind, n * vocab)?,
        };
        let given = (&chunk.targets, &chunk.totals, &slopes);
        token_logps_backward(&chunk.logits, given, &d_logits)?;
        let d_states = rooms.d_states.get(gpu, Kind::F32, n * width)?;
        product(&Product {
            a: Side::plain(&d_logits, vocab),
            b: Side::plain(&self.matrix(self.net.head, vocab * width)?, width),
            c: &d_states,
            c_stride: width,
            rows: n,
            columns: width,
            inner: vocab,
            add: false,
            scale: 1.0,
        })?;
        if let Some(dw) = self.gradient(self.net.head, vocab * width) {
            product(&Product {
                a: Side::turned(&d_logits, vocab),
                b: Side::plain(&chunk.states, width),
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
