//! Drawing on a device: rows are read behind what was read before, whose keys and values stay in
//! blocks that sequences share; tokens are chosen there as well, so that no logits leave it.

use super::batch::{TilePlan, tile_rows};
use super::buffer::{DeviceBuffer, Scratch};
use super::context::Gpu;
use super::driver::ElementType;
use super::kernels::{self, ASKED_WORDS, CHOSEN_WORDS, gather_rows};
use super::layer::{BatchView, KeySource};
use super::passes::{GpuDecoder, PassScratch};
use super::weights::{Base, WeightStore};
use crate::config::ModelConfig;
use crate::error::LmError;
use crate::estimate::gpu::{ENDS_AT_ONCE, GROWN_BY, LIVE_MAX, READ_ROWS_MAX};
use crate::generate::{
    Generator, InputToken, KvSession, NodeId, OpensSessions, PrefixTree, TokenRequest, not_a_number,
};
use crate::ops::WIDTH;
use crate::packed::{ScoredTokens, check_ids};

/// Blocks that are set aside at first.
const BLOCKS_MIN: usize = 64;

/// Keys and values of every layer [places, kv_heads * D].
#[derive(Default)]
struct DeviceKvCache {
    layers: Vec<(DeviceBuffer, DeviceBuffer)>,
    blocks: usize,
}

impl DeviceKvCache {
    /// Room for so many blocks. Layers grow one after another, so that only one is held twice.
    fn grow(
        &mut self,
        gpu: &Gpu,
        blocks: usize,
        (layers, width): (usize, usize),
    ) -> Result<(), LmError> {
        if blocks <= self.blocks {
            return Ok(());
        }
        let blocks = blocks.max(self.blocks + self.blocks / GROWN_BY).max(BLOCKS_MIN);
        let (held, len) = (self.blocks * WIDTH * width, blocks * WIDTH * width);
        for layer in 0..layers {
            let fresh = || DeviceBuffer::zeros(gpu, gpu.work(), len);
            let (k, v) = (fresh()?, fresh()?);
            match self.layers.get_mut(layer) {
                Some(old) => {
                    k.part(0, held).copy(&old.0.part(0, held))?;
                    v.part(0, held).copy(&old.1.part(0, held))?;
                    *old = (k, v);
                }
                None => self.layers.push((k, v)),
            }
        }
        self.blocks = blocks;
        Ok(())
    }
}

/// Scratch of a session.
#[derive(Default)]
struct SessionScratch {
    space: PassScratch,
    states: Scratch,
    logits: Scratch,
    chosen: Scratch,
}

/// Contexts that are being read on a device.
struct GpuSession<'a> {
    decoder: &'a GpuDecoder,
    tree: PrefixTree,
    caches: DeviceKvCache,
    scratch: SessionScratch,
    /// Rows of the last reading.
    rows: usize,
}

/// Rows as a device wants them.
struct PlacedTokens {
    ids: Vec<u32>,
    positions: Vec<u32>,
    slots: Vec<u32>,
    plan: TilePlan,
}

impl<'a> GpuSession<'a> {
    /// Nothing was read yet.
    fn new(decoder: &'a GpuDecoder) -> GpuSession<'a> {
        GpuSession {
            decoder,
            tree: PrefixTree::default(),
            caches: DeviceKvCache::default(),
            scratch: SessionScratch::default(),
            rows: 0,
        }
    }

    fn gpu(&self) -> &Gpu {
        self.decoder.gpu()
    }

    fn place(&mut self, rows: &[InputToken], ids: Vec<u32>) -> PlacedTokens {
        let indices: Vec<usize> = rows.iter().map(|row| self.tree.extend(row.node)).collect();
        let places = rows.iter().zip(&indices);
        let slots = places.map(|(row, at)| self.tree.node(row.node).place(*at) as u32);
        let mut placed = PlacedTokens {
            ids,
            positions: rows.iter().map(|row| row.position as u32).collect(),
            slots: slots.collect(),
            plan: TilePlan::default(),
        };
        let most = tile_rows(self.decoder.store.config.attention());
        let mut from = 0;
        for run in rows.chunk_by(|a, b| a.node == b.node) {
            let (before, at) = self.list(run[0].node, &mut placed.plan);
            placed.plan.push(from, run.len(), at, before + indices[from] + 1, most);
            from += run.len();
        }
        placed
    }

    /// Lists the places of a node and of those before it; how many those before have, and where the
    /// list begins.
    fn list(&self, id: NodeId, plan: &mut TilePlan) -> (usize, usize) {
        let node = |id: NodeId| self.tree.node(id);
        let (own, before) = (node(id), node(id).chain.iter().filter(|other| **other != id));
        let count = before.clone().map(|id| node(*id).len()).sum();
        let places = before.flat_map(|id| node(*id).places());
        (count, plan.list(places.chain(own.places())))
    }

    /// Reads rows; gives the words in `asked` as they were sent along.
    fn read_with(&mut self, rows: &[InputToken], asked: &[u32]) -> Result<DeviceBuffer, LmError> {
        let ids: Vec<u32> = rows.iter().map(|row| row.token).collect();
        check_ids(&self.decoder.store.config, &ids)?;
        let placed = self.place(rows, ids);
        self.forward(&placed, asked)
    }

    fn forward(&mut self, placed: &PlacedTokens, asked: &[u32]) -> Result<DeviceBuffer, LmError> {
        let store = &self.decoder.store;
        let gpu = &store.gpu;
        let (rows, width) = (placed.ids.len(), store.config.hidden_size);
        let key_width = store.config.attention().key_width();
        self.caches.grow(gpu, self.tree.blocks(), (store.net.layers.len(), key_width))?;
        let space = &mut self.scratch.space;
        let PlacedTokens { ids, positions, slots, plan } = placed;
        let (tiles, keys) = plan.words();
        let pieces = [ids.as_slice(), positions, slots, tiles, keys, asked];
        let [ids, places, slots, tiles, keys, asked] = space.sent.send(gpu, pieces)?;
        let all = self.decoder.angles(positions)?;
        let angles = space.angles.rows(&all, &places, store.config.attention().dim / 2)?;
        let tiles = plan.sent((tiles, keys), rows, self.caches.blocks * WIDTH);
        space.streams.resize_with(1, Scratch::default);
        space.tapes.resize_with(1, Default::default);
        let x = space.streams[0].get(gpu, ElementType::F32, rows * width)?;
        store.embed(&ids, &x)?;
        let at = BatchView { rows, angles: &angles, tiles: &tiles };
        for (layer, (k, v)) in store.net.layers.iter().zip(&self.caches.layers) {
            let keys = KeySource::Cached { slots: &slots, k, v };
            let tape = &mut space.tapes[0];
            store.layer_forward(layer, (&at, &keys), (&x, &x), tape, &mut space.scratch)?;
        }
        self.decoder.end_norm(&x, space)?;
        self.rows = rows;
        Ok(asked)
    }

    /// The last hidden states, normed.
    fn hidden(&mut self) -> Result<DeviceBuffer, LmError> {
        let store = &self.decoder.store;
        let len = self.rows * store.config.hidden_size;
        self.scratch.space.hidden.get(&store.gpu, store.gpu.work(), len)
    }

    /// Logits [rows, V] of states, which stay on the device.
    fn logits_of(&mut self, states: &DeviceBuffer) -> Result<DeviceBuffer, LmError> {
        let store = &self.decoder.store;
        let rows = states.len() / store.config.hidden_size;
        let len = rows * store.config.vocab_size;
        let logits = self.scratch.logits.get(&store.gpu, ElementType::F32, len)?;
        store.logits(states, &logits)?;
        Ok(logits)
    }

    /// These of the last hidden states, with words that were sent along.
    fn states(
        &mut self,
        at: &[usize],
        words: &[u32],
    ) -> Result<(DeviceBuffer, DeviceBuffer), LmError> {
        let gpu = self.gpu().clone();
        let width = self.decoder.store.config.hidden_size;
        assert!(at.iter().all(|row| *row < self.rows), "a row that was not read");
        let rows: Vec<u32> = at.iter().map(|row| *row as u32).collect();
        let [rows, words] = self.scratch.space.sent.send(&gpu, [&rows, words])?;
        let states = self.scratch.states.get(&gpu, gpu.work(), at.len() * width)?;
        gather_rows(&self.hidden()?, &rows, &states, width)?;
        Ok((states, words))
    }

    /// A token after each of these states; `asked` is how, in words.
    fn chosen(
        &mut self,
        states: &DeviceBuffer,
        requests: &[TokenRequest<'_>],
        asked: &DeviceBuffer,
    ) -> Result<Vec<(u32, f64)>, LmError> {
        let vocab = self.decoder.store.config.vocab_size;
        let logits = self.logits_of(states)?;
        let gpu = &self.decoder.store.gpu;
        let chosen =
            self.scratch.chosen.get(gpu, ElementType::U32, requests.len() * CHOSEN_WORDS)?;
        kernels::choose(&logits, asked, &chosen, vocab)?;
        let chosen = chosen.read::<u32>()?;
        let rows = requests.iter().zip(chosen.chunks_exact(CHOSEN_WORDS)).enumerate();
        rows.map(|(row, (request, words))| {
            // Who penalises what was seen needs all logits, and takes them home.
            if request.seen.is_some() {
                return request.of(&logits.part(row * vocab, vocab).read()?);
            }
            match words[3] {
                0 => {
                    Ok((words[2], f64::from_bits(u64::from(words[1]) << 32 | u64::from(words[0]))))
                }
                broken => Err(not_a_number(broken as usize - 1)),
            }
        })
        .collect()
    }
}

/// `gradus_kernels::Choice` in words.
fn words(request: &TokenRequest<'_>) -> [u32; ASKED_WORDS] {
    let (unit, sampling) = (request.unit.to_bits(), request.sampling);
    [
        unit as u32,
        (unit >> 32) as u32,
        sampling.temperature.to_bits(),
        sampling.top_p.to_bits(),
        sampling.min_p.unwrap_or(0.0).to_bits(),
        sampling.top_k.map_or(0, |k| u32::try_from(k).unwrap_or(u32::MAX)),
    ]
}

impl OpensSessions for GpuDecoder {
    fn session(&self) -> Box<dyn KvSession + '_> {
        Box::new(GpuSession::new(self))
    }
}

impl Generator {
    /// Draws from a network on a device.
    pub(crate) fn on(config: &ModelConfig, decoder: GpuDecoder) -> Generator {
        Generator::over(config, Box::new(decoder), LIVE_MAX)
    }

    /// Draws from weights made up on a device: for benchmarks of shapes whose weights are not at
    /// hand.
    ///
    /// # Errors
    /// [`LmError::DeviceMemory`], or what the device says.
    pub fn made_up(gpu: &Gpu, config: &ModelConfig) -> Result<Generator, LmError> {
        let store = WeightStore::over(gpu, config, Base::made_up(gpu, config)?, None)?;
        Ok(Generator::on(config, GpuDecoder::new(store)))
    }
}

impl KvSession for GpuSession<'_> {
    fn tree(&mut self) -> &mut PrefixTree {
        &mut self.tree
    }

    fn rows_max(&self) -> usize {
        READ_ROWS_MAX as usize
    }

    fn read(&mut self, rows: &[InputToken]) -> Result<(), LmError> {
        let gpu = self.gpu().clone();
        let _turn = gpu.turn();
        self.read_with(rows, &[]).map(|_| ())
    }

    fn choose(
        &mut self,
        at: &[usize],
        requests: &[TokenRequest<'_>],
    ) -> Result<Vec<(u32, f64)>, LmError> {
        let gpu = self.gpu().clone();
        let _turn = gpu.turn();
        let mut all = Vec::with_capacity(at.len());
        for (at, requests) in at.chunks(ENDS_AT_ONCE).zip(requests.chunks(ENDS_AT_ONCE)) {
            let asked: Vec<u32> = requests.iter().flat_map(words).collect();
            let (states, asked) = self.states(at, &asked)?;
            all.extend(self.chosen(&states, requests, &asked)?);
        }
        Ok(all)
    }

    fn logps(&mut self, at: &[usize], tokens: &[u32]) -> Result<Vec<f64>, LmError> {
        check_ids(&self.decoder.store.config, tokens)?;
        let gpu = self.gpu().clone();
        let _turn = gpu.turn();
        let mut all = Vec::with_capacity(at.len());
        for (at, tokens) in at.chunks(ENDS_AT_ONCE).zip(tokens.chunks(ENDS_AT_ONCE)) {
            assert!(at.iter().all(|row| *row < self.rows), "a row that was not read");
            let mut scored = ScoredTokens::default();
            at.iter().zip(tokens).for_each(|(row, token)| scored.push(*row, *token));
            let (hidden, head) = (self.hidden()?, &mut self.scratch.space.head);
            let logps = self.decoder.store.logps(&hidden, &scored, head)?;
            all.extend(logps.into_iter().map(f64::from));
        }
        Ok(all)
    }

    fn step(
        &mut self,
        rows: &[InputToken],
        requests: &[TokenRequest<'_>],
    ) -> Result<Vec<(u32, f64)>, LmError> {
        let gpu = self.gpu().clone();
        let _turn = gpu.turn();
        let asked: Vec<u32> = requests.iter().flat_map(words).collect();
        let asked = self.read_with(rows, &asked)?;
        let hidden = self.hidden()?;
        self.chosen(&hidden, requests, &asked)
    }
}
