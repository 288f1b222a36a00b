//! What drawing requests of whoever computes, and the CPU's answer: rows are read behind what was read
//! before, and then asked for tokens, or how likely some are. Logits stay where they were computed.

use super::cache::KvCache;
use super::network::{ForwardBuffers, PackedNetwork};
use super::sample::{Sampling, choose, log_sum_exp, logp_of, penalised};
use super::tree::{InputToken, PrefixTree};
use crate::error::LmError;
use crate::estimate::cpu::{KvShape, READ_ROWS_MAX};
use crate::ops::awake;
use rayon::prelude::*;
use std::collections::BTreeSet;

/// How a token is to be chosen.
pub(crate) struct TokenRequest<'a> {
    /// The settings.
    pub sampling: &'a Sampling,
    /// Where in the distribution, in [0, 1).
    pub unit: f64,
    /// Tokens that are penalised, where any are.
    pub seen: Option<&'a BTreeSet<u32>>,
}

impl TokenRequest<'_> {
    /// The token, and its log-probability under the unmodified distribution.
    ///
    /// # Errors
    /// [`LmError::Model`] if a logit is not a number.
    pub fn of(&self, logits: &[f32]) -> Result<(u32, f64), LmError> {
        let id = match self.seen {
            None => choose(logits, self.sampling, self.unit)?,
            Some(seen) => {
                let logits = penalised(logits, seen, self.sampling.repetition_penalty);
                choose(&logits, self.sampling, self.unit)?
            }
        };
        Ok((id, logp_of(logits, id)))
    }
}

/// A network that opens sessions, wherever it computes.
pub(crate) trait OpensSessions: Send + Sync {
    /// A session in which nothing was read yet.
    fn session(&self) -> Box<dyn KvSession + '_>;
}

/// Contexts that are being read, with the keys and values of what was read of them.
pub(crate) trait KvSession: Sync {
    /// Which of them hold what in common.
    fn tree(&mut self) -> &mut PrefixTree;

    /// Rows that it reads in one go; bounds the memory of activations.
    fn rows_max(&self) -> usize;

    /// Reads rows. Those of one node come in the order of their positions.
    ///
    /// # Errors
    /// A token outside the vocabulary, or what a device says.
    fn read(&mut self, rows: &[InputToken]) -> Result<(), LmError>;

    /// A token after each of these rows of the last reading, each as it is asked for: ids and
    /// log-probabilities. Rows ascend, and may be asked more than once.
    ///
    /// # Errors
    /// A logit that is not a number, or what a device says.
    fn choose(
        &mut self,
        at: &[usize],
        requests: &[TokenRequest<'_>],
    ) -> Result<Vec<(u32, f64)>, LmError>;

    /// Log-probabilities of these tokens, each after its row of the last reading. Rows ascend, and
    /// may be asked more than once.
    ///
    /// # Errors
    /// What a device says.
    fn logps(&mut self, at: &[usize], tokens: &[u32]) -> Result<Vec<f64>, LmError>;

    /// Reads rows, and chooses a token after each: ids and log-probabilities.
    ///
    /// # Errors
    /// As [`KvSession::read`], and a logit that is not a number.
    fn step(
        &mut self,
        rows: &[InputToken],
        requests: &[TokenRequest<'_>],
    ) -> Result<Vec<(u32, f64)>, LmError>;
}

/// Contexts that are being read on the CPU.
struct CpuSession<'a> {
    network: &'a PackedNetwork,
    cache: KvCache,
    buffers: ForwardBuffers,
}

impl<'a> CpuSession<'a> {
    fn new(network: &'a PackedNetwork) -> CpuSession<'a> {
        let cache = KvCache::new(KvShape::of(&network.config));
        CpuSession { network, cache, buffers: ForwardBuffers::default() }
    }
}

impl OpensSessions for PackedNetwork {
    fn session(&self) -> Box<dyn KvSession + '_> {
        Box::new(CpuSession::new(self))
    }
}

/// Logits after some rows, each there once.
struct EndLogits<'a> {
    rows: Vec<usize>,
    logits: &'a [f32],
}

impl EndLogits<'_> {
    fn place(&self, row: usize) -> usize {
        self.rows.partition_point(|known| *known < row)
    }

    fn after(&self, row: usize) -> &[f32] {
        let vocab = self.logits.len() / self.rows.len();
        &self.logits[self.place(row) * vocab..][..vocab]
    }
}

impl CpuSession<'_> {
    fn logits(&mut self, at: &[usize]) -> EndLogits<'_> {
        let mut rows = at.to_vec();
        rows.dedup();
        let width = self.network.config.hidden_size;
        let row = |at: &usize| &self.buffers.stream[at * width..(at + 1) * width];
        let states: Vec<f32> = rows.iter().flat_map(row).copied().collect();
        self.network.logits(&states, &mut self.buffers);
        EndLogits { rows, logits: &self.buffers.logits }
    }
}

impl KvSession for CpuSession<'_> {
    fn tree(&mut self) -> &mut PrefixTree {
        &mut self.cache.tree
    }

    fn rows_max(&self) -> usize {
        READ_ROWS_MAX
    }

    fn read(&mut self, rows: &[InputToken]) -> Result<(), LmError> {
        let CpuSession { network, cache, buffers } = self;
        awake(|| network.read(rows, cache, buffers))
    }

    fn choose(
        &mut self,
        at: &[usize],
        requests: &[TokenRequest<'_>],
    ) -> Result<Vec<(u32, f64)>, LmError> {
        let ends = self.logits(at);
        at.par_iter().zip(requests).map(|(row, request)| request.of(ends.after(*row))).collect()
    }

    fn logps(&mut self, at: &[usize], tokens: &[u32]) -> Result<Vec<f64>, LmError> {
        let ends = self.logits(at);
        let lses: Vec<f64> =
            ends.rows.par_iter().map(|row| log_sum_exp(ends.after(*row))).collect();
        let logp = |(row, token): (&usize, &u32)| {
            f64::from(ends.after(*row)[*token as usize]) - lses[ends.place(*row)]
        };
        Ok(at.iter().zip(tokens).map(logp).collect())
    }

    fn step(
        &mut self,
        rows: &[InputToken],
        requests: &[TokenRequest<'_>],
    ) -> Result<Vec<(u32, f64)>, LmError> {
        let CpuSession { network, cache, buffers } = self;
        awake(|| {
            network.read(rows, cache, buffers)?;
            let hidden = std::mem::take(&mut buffers.stream);
            network.logits(&hidden, buffers);
            buffers.stream = hidden;
            let logits = buffers.logits.par_chunks_exact(network.config.vocab_size);
            requests.par_iter().zip(logits).map(|(request, logits)| request.of(logits)).collect()
        })
    }
}
