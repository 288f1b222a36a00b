//! DRAWING: completions and choice probabilities from weights and token ids. Knows no text, file
//! or chat.
//!
//! A context that several requests share, or the beginning that they share, is read once
//! (`plan`). All live sequences take their next step together; one that ends makes room for the
//! next. What a sequence becomes depends on its prompt, its seed and its sampling alone, not on
//! its company (see `network`).

mod attention;
mod cache;
mod choice;
mod continuous;
mod network;
mod plan;
mod sample;
mod session;
mod tree;

pub use continuous::{DrawSource, ToldToken};
pub(crate) use sample::not_a_number;
pub use sample::{Sampling, TokenMass, argmax, choose, kept, log_sum_exp, logp_of, penalised};
pub(crate) use session::{KvSession, OpensSessions, TokenRequest};
pub(crate) use tree::{InputToken, NodeId, PrefixTree};

use super::cancel::Cancel;
use super::config::ModelConfig;
use super::device::DeviceKind;
use super::error::LmError;
use super::estimate::gpu::LIVE_MAX;
use super::ops::Storage;
use super::weights::Weights;
use crate::completion::StopReason;
use crate::seed::Seed;
use network::PackedNetwork;
use plan::PrefillPlan;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};

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

/// Sequences of a model of this shape that are drawn at the same time, where this computes.
pub fn live_max(config: &ModelConfig, kind: DeviceKind) -> usize {
    match kind {
        DeviceKind::Cuda(_) | DeviceKind::Emulated => LIVE_MAX,
        DeviceKind::Cpu if config.hidden_size >= 512 => 96,
        DeviceKind::Cpu => 256,
    }
}

/// Weights arranged for drawing. Immutable: any number of threads may draw from it.
pub struct Generator {
    config: ModelConfig,
    network: Box<dyn OpensSessions>,
    live_max: AtomicUsize,
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
        let network = Box::new(PackedNetwork::new(config, weights, storage)?);
        Ok(Generator::over(config, network, live_max(config, DeviceKind::Cpu)))
    }

    /// Draws from a network that computes somewhere.
    pub(crate) fn over(
        config: &ModelConfig,
        network: Box<dyn OpensSessions>,
        live_max: usize,
    ) -> Generator {
        Generator { config: config.clone(), network, live_max: live_max.into() }
    }

    /// Bounds the sequences that are drawn at the same time (memory against speed; the results do
    /// not change).
    pub fn with_live_max(mut self, live_max: usize) -> Generator {
        self.live_max = live_max.max(1).into();
        self
    }

    /// Shape of the network.
    pub fn config(&self) -> &ModelConfig {
        &self.config
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
        self.fitting(|live_max| self.draw_with(requests, live_max, cancel))
    }

    /// Does it with so many sequences alive at once, and where a device has no room for their keys
    /// and values with half of them, until it fits. What did not fit is not tried again later.
    fn fitting<T>(&self, act: impl Fn(usize) -> Result<T, LmError>) -> Result<T, LmError> {
        loop {
            let live_max = self.live_max.load(Ordering::Relaxed);
            match act(live_max) {
                Err(LmError::DeviceMemory { wanted, held, why }) if live_max > 1 => {
                    let live_max = live_max / 2;
                    self.live_max.fetch_min(live_max, Ordering::Relaxed);
                    tracing::warn!(wanted, held, why, live_max, "fewer sequences at a time");
                }
                done => return done,
            }
        }
    }

    fn draw_with(
        &self,
        requests: &[DrawRequest],
        live_max: usize,
        cancel: &Cancel,
    ) -> Result<Vec<Vec<Drawn>>, LmError> {
        let prompts: Vec<&[u32]> = requests.iter().map(|r| r.prompt.as_slice()).collect();
        let users: Vec<usize> = requests.iter().map(|r| r.seeds.len()).collect();
        let mut session = self.network.session();
        let mut prefill = Prefill::new(&mut *session, &self.config, prompts, &users);
        let mut firsts = FirstTokens::new(&prefill.plan.leaves, requests);
        let mut done: Vec<Vec<Option<Drawn>>> =
            requests.iter().map(|r| vec![None; r.seeds.len()]).collect();
        let mut waiting = requests
            .iter()
            .enumerate()
            .flat_map(|(r, request)| (0..request.seeds.len()).map(move |c| (r, c)));
        let mut live: Vec<LiveSequence> = Vec::new();
        let mut exhausted = false;
        loop {
            cancel.check()?;
            // Newcomers are let in by the quarter, so that their prompts are read together.
            if !exhausted && live.len() <= live_max * 3 / 4 {
                let room = live_max - live.len();
                let newcomers: Vec<(usize, usize)> = waiting.by_ref().take(room).collect();
                exhausted = newcomers.len() < room;
                let admitted = admit(&mut prefill, &mut firsts, &newcomers, cancel)?;
                live.extend(admitted);
                retire(&mut live, prefill.session.tree(), &mut done);
                continue;
            }
            if live.is_empty() {
                break;
            }
            self.step(&mut live, prefill.session)?;
            cancel.note_drawn(live.len() as u64);
            retire(&mut live, prefill.session.tree(), &mut done);
        }
        Ok(done.into_iter().map(|r| r.into_iter().flatten().collect()).collect())
    }

    /// One token for every live sequence.
    fn step(&self, live: &mut [LiveSequence], session: &mut dyn KvSession) -> Result<(), LmError> {
        let rows: Vec<InputToken> = live.iter_mut().map(|l| l.next_row(session.tree())).collect();
        let requests: Vec<TokenRequest<'_>> =
            live.iter_mut().map(LiveSequence::request_token).collect();
        let chosen = session.step(&rows, &requests)?;
        for (sequence, chosen) in live.iter_mut().zip(chosen) {
            sequence.accept(chosen, self.config.max_position_embeddings);
        }
        Ok(())
    }

    fn check_context(&self, context: &[u32]) -> Result<(), LmError> {
        let room = self.config.max_position_embeddings;
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
struct LiveSequence {
    request: usize,
    candidate: usize,
    sampling: Sampling,
    prompt_tokens: usize,
    /// Where its prompt ends in the cache, then, from its second token, its own node.
    node: NodeId,
    owns_node: bool,
    rng: ChaCha8Rng,
    /// Tokens that are penalised, where any are.
    seen: Option<BTreeSet<u32>>,
    ids: Vec<u32>,
    logp: f64,
    /// That of the last token alone.
    last_logp: f64,
    stop: Option<StopReason>,
}

impl LiveSequence {
    fn next_row(&mut self, tree: &mut PrefixTree) -> InputToken {
        if !self.owns_node {
            self.node = tree.add(Some(self.node), self.prompt_tokens, 1);
            self.owns_node = true;
        }
        let position = self.prompt_tokens + self.ids.len() - 1;
        InputToken { node: self.node, position, token: self.ids.last().copied().unwrap_or(0) }
    }

    /// How the next token is chosen. The n-th token uses the n-th number of the stream.
    fn request_token(&mut self) -> TokenRequest<'_> {
        let unit = unit(&mut self.rng);
        TokenRequest { sampling: &self.sampling, unit, seen: self.seen.as_ref() }
    }

    fn accept(&mut self, (id, logp): (u32, f64), context_max: usize) {
        if let Some(seen) = &mut self.seen {
            seen.insert(id);
        }
        self.logp += logp;
        self.last_logp = logp;
        self.ids.push(id);
        let full = self.prompt_tokens + self.ids.len() >= context_max;
        if self.sampling.stop_ids.contains(&id) {
            self.stop = Some(StopReason::TurnEnd);
        } else if full || self.ids.len() >= self.sampling.max_new_tokens {
            self.stop = Some(StopReason::Length);
        }
    }
}

/// The next number of a stream, in [0, 1).
fn unit(rng: &mut ChaCha8Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

/// Tokens of a request's prompt, where tokens that were seen are penalised.
fn penalised_at_first(request: &DrawRequest) -> Option<BTreeSet<u32>> {
    let penalised = request.sampling.repetition_penalty != 1.0;
    penalised.then(|| request.prompt.iter().copied().collect())
}

/// The first token of every candidate. They are chosen when their prompt has been read, whether the
/// candidate is alive yet or not, so that nothing has to be kept of what a prompt ends in.
struct FirstTokens<'a> {
    requests: &'a [DrawRequest],
    /// Requests whose prompt ends in a planned leaf.
    of_leaf: HashMap<usize, Vec<usize>>,
    /// By request and candidate; none before its prompt was read.
    chosen: Vec<Vec<(u32, f64)>>,
}

impl<'a> FirstTokens<'a> {
    fn new(leaves: &[usize], requests: &'a [DrawRequest]) -> FirstTokens<'a> {
        let mut of_leaf: HashMap<usize, Vec<usize>> = HashMap::new();
        for (request, leaf) in leaves.iter().enumerate() {
            of_leaf.entry(*leaf).or_default().push(request);
        }
        FirstTokens { requests, of_leaf, chosen: vec![Vec::new(); requests.len()] }
    }

    /// Chooses those whose prompts end here: a row of the last reading, and a leaf.
    fn choose(
        &mut self,
        session: &mut dyn KvSession,
        ends: &[(usize, usize)],
    ) -> Result<(), LmError> {
        let ended = ends.iter().flat_map(|(row, leaf)| {
            self.of_leaf.get(leaf).into_iter().flatten().map(move |request| (*row, *request))
        });
        let ended: Vec<(usize, usize, Option<BTreeSet<u32>>)> = ended
            .map(|(row, request)| (row, request, penalised_at_first(&self.requests[request])))
            .collect();
        let (mut at, mut token_requests) = (Vec::new(), Vec::new());
        for (row, request, seen) in &ended {
            let DrawRequest { seeds, sampling, .. } = &self.requests[*request];
            for seed in seeds {
                let unit = unit(&mut ChaCha8Rng::from_seed(seed.0));
                at.push(*row);
                token_requests.push(TokenRequest { sampling, unit, seen: seen.as_ref() });
            }
        }
        let mut chosen = session.choose(&at, &token_requests)?.into_iter();
        for (_, request, _) in &ended {
            let count = self.requests[*request].seeds.len();
            self.chosen[*request] = chosen.by_ref().take(count).collect();
        }
        Ok(())
    }
}

/// Reads the prompts of newcomers; they have their first tokens then.
fn admit<'a>(
    prefill: &mut Prefill<'_>,
    firsts: &mut FirstTokens<'a>,
    newcomers: &[(usize, usize)],
    cancel: &Cancel,
) -> Result<Vec<LiveSequence>, LmError> {
    let contexts: Vec<usize> = newcomers.iter().map(|n| n.0).collect();
    prefill.read(&contexts, cancel, &mut |session, ends| firsts.choose(session, ends))?;
    let context_max = prefill.config.max_position_embeddings;
    let live = newcomers.iter().map(|&(request, candidate)| {
        let wanted = &firsts.requests[request];
        let mut live = LiveSequence {
            request,
            candidate,
            sampling: wanted.sampling.clone(),
            prompt_tokens: wanted.prompt.len(),
            node: prefill.end_node(request),
            owns_node: false,
            rng: ChaCha8Rng::from_seed(wanted.seeds[candidate].0),
            seen: penalised_at_first(wanted),
            ids: Vec::new(),
            logp: 0.0,
            last_logp: 0.0,
            stop: None,
        };
        // The first token has had the first number.
        unit(&mut live.rng);
        live.accept(firsts.chosen[request][candidate], context_max);
        live
    });
    Ok(live.collect())
}

fn retire(live: &mut Vec<LiveSequence>, tree: &mut PrefixTree, done: &mut [Vec<Option<Drawn>>]) {
    live.retain_mut(|sequence| {
        let Some(stop) = sequence.stop else { return true };
        tree.release(sequence.node);
        let token_ids = std::mem::take(&mut sequence.ids);
        done[sequence.request][sequence.candidate] =
            Some(Drawn { token_ids, logp: sequence.logp, stop });
        false
    });
}

/// Asked where contexts end: a row of the last reading, and the leaf that ends there.
type AtPromptEnds<'f> =
    dyn FnMut(&mut dyn KvSession, &[(usize, usize)]) -> Result<(), LmError> + 'f;

/// Reads contexts as they are asked for, shared beginnings once.
struct Prefill<'a> {
    session: &'a mut (dyn KvSession + 'a),
    config: &'a ModelConfig,
    contexts: Vec<&'a [u32]>,
    plan: PrefillPlan,
    /// Per planned node: sequences that need it.
    users: Vec<usize>,
    /// Per planned node: where it is in the tree, once read.
    placed: Vec<Option<NodeId>>,
}

impl<'a> Prefill<'a> {
    fn new(
        session: &'a mut (dyn KvSession + 'a),
        config: &'a ModelConfig,
        contexts: Vec<&'a [u32]>,
        wanted: &[usize],
    ) -> Prefill<'a> {
        let plan = PrefillPlan::new(&contexts);
        let mut users = vec![0; plan.nodes.len()];
        for (context, &leaf) in plan.leaves.iter().enumerate() {
            let mut at = Some(leaf);
            while let Some(node) = at {
                users[node] += wanted[context];
                at = plan.nodes[node].parent;
            }
        }
        let placed = vec![None; plan.nodes.len()];
        Prefill { session, config, contexts, plan, users, placed }
    }

    /// Reads what is not yet read of these contexts; `at_ends` is called once for every leaf.
    fn read(
        &mut self,
        contexts: &[usize],
        cancel: &Cancel,
        at_ends: &mut AtPromptEnds<'_>,
    ) -> Result<(), LmError> {
        let mut rows: Vec<InputToken> = Vec::new();
        let mut ends: Vec<(usize, usize)> = Vec::new();
        for &context in contexts {
            let leaf = self.plan.leaves[context];
            if self.placed[leaf].is_none() {
                self.place(leaf, &mut rows);
                ends.push((rows.len() - 1, leaf));
            }
        }
        let mut ends = ends.into_iter().peekable();
        let most = self.session.rows_max();
        for (chunk_index, chunk) in rows.chunks(most).enumerate() {
            cancel.check()?;
            self.session.read(chunk)?;
            let first = chunk_index * most;
            let mut ended = Vec::new();
            while let Some((row, leaf)) = ends.next_if(|(row, _)| *row < first + chunk.len()) {
                ended.push((row - first, leaf));
            }
            if !ended.is_empty() {
                at_ends(self.session, &ended)?;
            }
        }
        Ok(())
    }

    /// Gives a leaf and its unread ancestors their places; their tokens become rows.
    fn place(&mut self, leaf: usize, rows: &mut Vec<InputToken>) {
        let mut path = vec![];
        let mut at = Some(leaf);
        while let Some(node) = at.filter(|&n| self.placed[n].is_none()) {
            path.push(node);
            at = self.plan.nodes[node].parent;
        }
        for node in path.into_iter().rev() {
            let planned = &self.plan.nodes[node];
            let parent = planned.parent.and_then(|p| self.placed[p]);
            let id = self.session.tree().add(parent, planned.range.start, self.users[node]);
            self.placed[node] = Some(id);
            let tokens = self.contexts[planned.context];
            rows.extend(planned.range.clone().map(|position| InputToken {
                node: id,
                position,
                token: tokens[position],
            }));
        }
    }

    fn end_node(&self, context: usize) -> NodeId {
        self.placed[self.plan.leaves[context]].unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use sample::tests::plain;
#[cfg(test)]
pub(crate) use tests::random_weights;
