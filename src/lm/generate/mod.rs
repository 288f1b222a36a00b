//! DRAWING: completions and choice probabilities from weights and token ids. Knows no text, file
//! or chat.
//!
//! A context that several requests share, or the beginning that they share, is read once
//! ([`plan`]). All live sequences take their next step together; one that ends makes room for the
//! next. What a sequence becomes depends on its prompt, its seed and its sampling alone, not on
//! its company (see [`network`]).

mod attention;
mod cache;
mod choice;
mod network;
mod plan;
mod sample;

pub use sample::{Kept, Sampling, argmax, choose, kept, log_sum_exp, logp_of, penalised};

use super::cancel::Cancel;
use super::config::ModelConfig;
use super::error::LmError;
use super::ops::{Storage, WIDTH, awake};
use super::weights::{Weights, expected_shapes};
use crate::domain::{Seed, StopReason};
use cache::{Cache, CacheShape, NodeId};
use network::{Buffers, Network, Row};
use plan::Plan;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use rayon::prelude::*;
use std::collections::{BTreeSet, HashMap};

/// Rows read in one go; bounds the memory of activations.
const ROWS_MAX: usize = 512;

/// One prompt and the candidates wanted for it.
#[derive(Clone, Debug)]
pub struct DrawRequest {
    /// The prompt's token ids, generation prompt included.
    pub prompt: Vec<u32>,
    /// One per candidate.
    pub seeds: Vec<Seed>,
    /// How tokens are chosen.
    pub sampling: Sampling,
}

/// One drawn sequence.
#[derive(Clone, Debug, PartialEq)]
pub struct Drawn {
    /// The ids, a stop id included.
    pub token_ids: Vec<u32>,
    /// Sum of their log-probabilities under the unmodified distribution.
    pub logp: f64,
    /// Why it ended.
    pub stop: StopReason,
}

/// Sequences of a model of this shape that are drawn at the same time.
pub fn live_max(config: &ModelConfig) -> usize {
    if config.hidden_size >= 512 { 96 } else { 256 }
}

/// Bytes that an open policy of this shape holds, its matrices kept so.
pub fn open_bytes(config: &ModelConfig, storage: Storage) -> u64 {
    let bytes = |(name, shape): (String, Vec<usize>)| {
        let numbers = shape.iter().map(|n| *n as u64).product::<u64>();
        // A table beside the head is looked up in and not multiplied with.
        let table = name.contains("embed_tokens") && !config.tie_word_embeddings;
        match (storage, shape.len()) {
            (Storage::EightBit, 2..) if !table => numbers + numbers / 8,
            _ => 4 * numbers,
        }
    };
    expected_shapes(config).into_iter().map(bytes).sum()
}

/// Bytes of keys and values that `tokens` read tokens take, in whole blocks.
pub fn cache_bytes(config: &ModelConfig, tokens: usize) -> u64 {
    tokens.div_ceil(WIDTH) as u64 * CacheShape::of(config).block_bytes()
}

/// Bytes of what is computed beside keys and values while `live` sequences take a step, or the
/// most rows that are read in one go: activations, logits, and logits that wait at prompts' ends.
pub fn drawing_bytes(config: &ModelConfig, live: usize) -> u64 {
    let (queries, keys) = (config.num_attention_heads, 2 * config.num_key_value_heads);
    let wide = (2 * config.intermediate_size).max((queries + keys) * config.head_dim);
    let row = wide + config.intermediate_size.max(queries * config.head_dim);
    let rows = ROWS_MAX * (2 * row + 2 * config.hidden_size);
    ((rows + 2 * live * config.vocab_size) * size_of::<f32>()) as u64
}

/// Weights arranged for drawing. Immutable: any number of threads may draw from it.
pub struct Generator {
    network: Network,
    live_max: usize,
}

impl Generator {
    /// Arranges weights.
    ///
    /// # Errors
    /// A tensor is missing or has the wrong shape.
    pub fn new(config: &ModelConfig, weights: Weights) -> Result<Generator, LmError> {
        Generator::stored(config, weights, Storage::Exact)
    }

    /// As [`Generator::new`], with the matrices kept as told.
    ///
    /// # Errors
    /// As [`Generator::new`].
    pub fn stored(
        config: &ModelConfig,
        weights: Weights,
        storage: Storage,
    ) -> Result<Generator, LmError> {
        Ok(Generator {
            network: Network::new(config, weights, storage)?,
            live_max: live_max(config),
        })
    }

    /// Bounds the sequences that are drawn at the same time (memory against speed; the results do
    /// not change).
    pub fn with_live_max(mut self, live_max: usize) -> Generator {
        self.live_max = live_max.max(1);
        self
    }

    /// Shape of the network.
    pub fn config(&self) -> &ModelConfig {
        &self.network.config
    }

    /// Draws every candidate of every request, in the order of the requests and their seeds.
    /// `cancel` is looked at before every step.
    ///
    /// # Errors
    /// A prompt that is empty or fills the context, a setting out of range, a token outside the
    /// vocabulary, broken weights, [`LmError::Cancelled`].
    pub fn draw(
        &self,
        requests: &[DrawRequest],
        cancel: &Cancel,
    ) -> Result<Vec<Vec<Drawn>>, LmError> {
        for request in requests {
            self.check_context(&request.prompt)?;
            request.sampling.validate()?;
        }
        let prompts: Vec<&[u32]> = requests.iter().map(|r| r.prompt.as_slice()).collect();
        let users: Vec<usize> = requests.iter().map(|r| r.seeds.len()).collect();
        let mut reader = Reader::new(&self.network, prompts, &users);
        let mut done: Vec<Vec<Option<Drawn>>> =
            requests.iter().map(|r| vec![None; r.seeds.len()]).collect();
        let mut waiting = requests
            .iter()
            .enumerate()
            .flat_map(|(r, request)| (0..request.seeds.len()).map(move |c| (r, c)));
        let mut live: Vec<Live<'_>> = Vec::new();
        let mut exhausted = false;
        loop {
            cancel.check()?;
            // Newcomers are let in by the quarter, so that their prompts are read together.
            if !exhausted && live.len() <= self.live_max * 3 / 4 {
                let room = self.live_max - live.len();
                let newcomers: Vec<(usize, usize)> = waiting.by_ref().take(room).collect();
                exhausted = newcomers.len() < room;
                let admitted = admit(&mut reader, requests, &newcomers, cancel)?;
                live.extend(admitted);
                retire(&mut live, &mut reader.cache, &mut done);
                continue;
            }
            if live.is_empty() {
                break;
            }
            awake(|| self.step(&mut live, &mut reader))?;
            retire(&mut live, &mut reader.cache, &mut done);
        }
        Ok(done.into_iter().map(|r| r.into_iter().flatten().collect()).collect())
    }

    /// One token for every live sequence.
    fn step(&self, live: &mut [Live<'_>], reader: &mut Reader<'_>) -> Result<(), LmError> {
        let Reader { cache, buffers, .. } = reader;
        let rows: Vec<Row> = live.iter_mut().map(|l| l.next_row(cache)).collect();
        self.network.read(&rows, cache, buffers)?;
        let hidden = std::mem::take(&mut buffers.stream);
        self.network.logits(&hidden, buffers);
        buffers.stream = hidden;
        live.par_iter_mut()
            .zip(buffers.logits.par_chunks_exact(self.network.config.vocab_size))
            .try_for_each(|(sequence, logits)| {
                sequence.take(logits, self.network.config.max_position_embeddings)
            })
    }

    fn check_context(&self, context: &[u32]) -> Result<(), LmError> {
        let room = self.network.config.max_position_embeddings;
        if context.is_empty() || context.len() >= room {
            return Err(LmError::Model(format!(
                "a context of {} tokens: it must have at least 1, and fewer than the {room} that \
                 the model can read",
                context.len()
            )));
        }
        Ok(())
    }
}

/// A sequence being drawn.
struct Live<'a> {
    request: usize,
    candidate: usize,
    sampling: &'a Sampling,
    prompt_tokens: usize,
    /// Where its prompt ends in the cache, then, from its second token, its own node.
    node: NodeId,
    owns_node: bool,
    rng: ChaCha8Rng,
    /// Tokens that are penalised, where any are.
    seen: Option<BTreeSet<u32>>,
    ids: Vec<u32>,
    logp: f64,
    stop: Option<StopReason>,
}

impl Live<'_> {
    fn next_row(&mut self, cache: &mut Cache) -> Row {
        if !self.owns_node {
            self.node = cache.add(Some(self.node), self.prompt_tokens, 1);
            self.owns_node = true;
        }
        let position = self.prompt_tokens + self.ids.len() - 1;
        Row { node: self.node, position, token: self.ids.last().copied().unwrap_or(0) }
    }

    /// Chooses the next token from its logits. The n-th token uses the n-th number of the stream.
    fn take(&mut self, logits: &[f32], context_max: usize) -> Result<(), LmError> {
        let unit = (self.rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        let penalty = self.sampling.repetition_penalty;
        let id = match &mut self.seen {
            None => choose(logits, self.sampling, unit)?,
            Some(seen) => {
                let id = choose(&penalised(logits, seen, penalty), self.sampling, unit)?;
                seen.insert(id);
                id
            }
        };
        self.logp += logp_of(logits, id);
        self.ids.push(id);
        let full = self.prompt_tokens + self.ids.len() >= context_max;
        if self.sampling.stop_ids.contains(&id) {
            self.stop = Some(StopReason::TurnEnd);
        } else if full || self.ids.len() >= self.sampling.max_new_tokens {
            self.stop = Some(StopReason::Length);
        }
        Ok(())
    }
}

/// Reads the prompts of newcomers and draws their first tokens.
fn admit<'a>(
    reader: &mut Reader<'_>,
    requests: &'a [DrawRequest],
    newcomers: &[(usize, usize)],
    cancel: &Cancel,
) -> Result<Vec<Live<'a>>, LmError> {
    let contexts: Vec<usize> = newcomers.iter().map(|n| n.0).collect();
    reader.read(&contexts, cancel)?;
    let context_max = reader.network.config.max_position_embeddings;
    let mut live = Vec::with_capacity(newcomers.len());
    for &(request, candidate) in newcomers {
        let wanted = &requests[request];
        live.push(Live {
            request,
            candidate,
            sampling: &wanted.sampling,
            prompt_tokens: wanted.prompt.len(),
            node: reader.end_node(request),
            owns_node: false,
            rng: ChaCha8Rng::from_seed(wanted.seeds[candidate].0),
            seen: (wanted.sampling.repetition_penalty != 1.0)
                .then(|| wanted.prompt.iter().copied().collect()),
            ids: Vec::new(),
            logp: 0.0,
            stop: None,
        });
    }
    live.par_iter_mut()
        .try_for_each(|sequence| sequence.take(reader.logits(sequence.request), context_max))?;
    for &(request, _) in newcomers {
        reader.forget_logits(request);
    }
    Ok(live)
}

fn retire(live: &mut Vec<Live<'_>>, cache: &mut Cache, done: &mut [Vec<Option<Drawn>>]) {
    live.retain_mut(|sequence| {
        let Some(stop) = sequence.stop else { return true };
        cache.release(sequence.node);
        let token_ids = std::mem::take(&mut sequence.ids);
        done[sequence.request][sequence.candidate] =
            Some(Drawn { token_ids, logp: sequence.logp, stop });
        false
    });
}

/// Reads contexts as they are asked for, shared beginnings once, and keeps the logits at their
/// ends until every user had them.
struct Reader<'a> {
    network: &'a Network,
    contexts: Vec<&'a [u32]>,
    plan: Plan,
    cache: Cache,
    buffers: Buffers,
    /// Per planned node: sequences that need it.
    users: Vec<usize>,
    /// Per planned node: where it is in the cache, once read.
    placed: Vec<Option<NodeId>>,
    /// Per planned leaf: the logits at its end, and who still wants them.
    ends: HashMap<usize, (Vec<f32>, usize)>,
}

impl<'a> Reader<'a> {
    fn new(network: &'a Network, contexts: Vec<&'a [u32]>, wanted: &[usize]) -> Reader<'a> {
        let plan = Plan::new(&contexts);
        let mut users = vec![0; plan.nodes.len()];
        for (context, &leaf) in plan.leaves.iter().enumerate() {
            let mut at = Some(leaf);
            while let Some(node) = at {
                users[node] += wanted[context];
                at = plan.nodes[node].parent;
            }
        }
        let cache = Cache::new(CacheShape::of(&network.config));
        let placed = vec![None; plan.nodes.len()];
        let buffers = Buffers::default();
        Reader { network, contexts, plan, cache, buffers, users, placed, ends: HashMap::new() }
    }

    /// Reads what is not yet read of these contexts.
    fn read(&mut self, contexts: &[usize], cancel: &Cancel) -> Result<(), LmError> {
        let mut rows: Vec<Row> = Vec::new();
        let mut ends: Vec<(usize, usize)> = Vec::new();
        for &context in contexts {
            let leaf = self.plan.leaves[context];
            if self.placed[leaf].is_none() {
                self.place(leaf, &mut rows);
                ends.push((rows.len() - 1, leaf));
            }
        }
        let hidden_size = self.network.config.hidden_size;
        let mut ends = ends.into_iter().peekable();
        for (chunk_index, chunk) in rows.chunks(ROWS_MAX).enumerate() {
            cancel.check()?;
            let Reader { network, cache, buffers, .. } = &mut *self;
            awake(|| network.read(chunk, cache, buffers))?;
            let first = chunk_index * ROWS_MAX;
            let mut leaves = Vec::new();
            let mut states = Vec::new();
            while let Some((row, leaf)) = ends.next_if(|(row, _)| *row < first + chunk.len()) {
                let at = (row - first) * hidden_size;
                states.extend_from_slice(&self.buffers.stream[at..at + hidden_size]);
                leaves.push(leaf);
            }
            if leaves.is_empty() {
                continue;
            }
            self.network.logits(&states, &mut self.buffers);
            let vocab = self.network.config.vocab_size;
            let logits = self.buffers.logits.chunks_exact(vocab);
            for (leaf, logits) in leaves.into_iter().zip(logits) {
                self.ends.insert(leaf, (logits.to_vec(), self.users[leaf]));
            }
        }
        Ok(())
    }

    /// Gives a leaf and its unread ancestors their places; their tokens become rows.
    fn place(&mut self, leaf: usize, rows: &mut Vec<Row>) {
        let mut path = vec![];
        let mut at = Some(leaf);
        while let Some(node) = at.filter(|&n| self.placed[n].is_none()) {
            path.push(node);
            at = self.plan.nodes[node].parent;
        }
        for node in path.into_iter().rev() {
            let planned = &self.plan.nodes[node];
            let parent = planned.parent.and_then(|p| self.placed[p]);
            let id = self.cache.add(parent, planned.range.start, self.users[node]);
            self.placed[node] = Some(id);
            let tokens = self.contexts[planned.context];
            rows.extend(planned.range.clone().map(|position| Row {
                node: id,
                position,
                token: tokens[position],
            }));
        }
    }

    fn end_node(&self, context: usize) -> NodeId {
        self.placed[self.plan.leaves[context]].unwrap_or_default()
    }

    fn logits(&self, context: usize) -> &[f32] {
        self.ends.get(&self.plan.leaves[context]).map_or(&[], |end| end.0.as_slice())
    }

    fn forget_logits(&mut self, context: usize) {
        let leaf = self.plan.leaves[context];
        if let Some(end) = self.ends.get_mut(&leaf) {
            end.1 = end.1.saturating_sub(1);
            if end.1 == 0 {
                self.ends.remove(&leaf);
            }
        }
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::random_weights;
