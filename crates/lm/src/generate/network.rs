//! The network for reading only: f32 on the CPU, no gradients, matrices in panels.
//!
//! GUARANTEE: a row's result does not depend on which other rows are computed with it, bit for bit
//! on one machine with one binary. Every operation here is row by row, and the product's sums run
//! in the order of the inner index alone (`ops::panel`).

use super::attention::{AttentionTask, TASK_ROWS};
use super::cache::KvCache;
use super::tree::InputToken;
use crate::arch::TensorRole;
use crate::config::ModelConfig;
use crate::error::LmError;
use crate::ops::{
    Panels, ProductScratch, RotaryTable, Storage, norm_some, silu_product, turn_some,
};
use crate::tensors::TensorSpec;
use crate::weights::{Weights, read, with_numbers};
use candle_core::Tensor;
use candle_nn::VarBuilder;
use rayon::prelude::*;

struct PackedLayer {
    attention_norm: Vec<f32>,
    /// Queries, keys and values in one product.
    qkv: Panels,
    qkv_bias: Option<Vec<f32>>,
    /// Of each query head and each key head [D].
    head_norms: Option<(Vec<f32>, Vec<f32>)>,
    out: Panels,
    mlp_norm: Vec<f32>,
    /// Gate, then up.
    gate_up: Panels,
    down: Panels,
}

/// The network.
pub(super) struct PackedNetwork {
    /// Its shape.
    pub config: ModelConfig,
    /// Where the head is another matrix.
    embedding: Option<Vec<f32>>,
    layers: Vec<PackedLayer>,
    norm: Vec<f32>,
    head: Panels,
    frequencies: Vec<f32>,
}

/// ForwardBuffers of a reading, kept from one to the next.
#[derive(Default)]
pub(super) struct ForwardBuffers {
    /// The residual stream [rows, H]; after a reading, the last hidden states.
    pub stream: Vec<f32>,
    /// [rows, V].
    pub logits: Vec<f32>,
    normed: Vec<f32>,
    wide: Vec<f32>,
    narrow: Vec<f32>,
    space: ProductScratch,
}

/// Numbers below which elementwise work stays on one thread: handing it over costs microseconds.
const SHARED_NUMBERS_MIN: usize = 1 << 16;

/// Runs `f` over rows of two buffers, `from` wide and `to` wide.
fn by_rows(
    (from, from_width): (&[f32], usize),
    (to, to_width): (&mut [f32], usize),
    f: impl Fn(&[f32], &mut [f32]) + Sync + Send,
) {
    if from.len() < SHARED_NUMBERS_MIN {
        let rows = from.chunks_exact(from_width).zip(to.chunks_exact_mut(to_width));
        return rows.for_each(|(from, to)| f(from, to));
    }
    let parts = from.par_chunks(8 * from_width).zip(to.par_chunks_mut(8 * to_width));
    parts.for_each(|(from, to)| {
        let rows = from.chunks_exact(from_width).zip(to.chunks_exact_mut(to_width));
        rows.for_each(|(from, to)| f(from, to));
    });
}

/// Reads the tensors of a network and packs its matrices.
struct Loader<'a> {
    config: &'a ModelConfig,
    weights: &'a VarBuilder<'a>,
    storage: Storage,
}

impl Loader<'_> {
    fn tensor(&self, role: TensorRole, layer: Option<usize>) -> Result<Tensor, LmError> {
        let spec = TensorSpec::of(self.config, role, layer);
        read(self.weights, &spec.name, &spec.shape)
    }

    fn vector(&self, role: TensorRole, layer: Option<usize>) -> Result<Vec<f32>, LmError> {
        with_numbers(&self.tensor(role, layer)?, <[f32]>::to_vec)
    }

    /// Matrices with rows of `inner` numbers, one below the other.
    fn panels(
        &self,
        roles: &[TensorRole],
        layer: Option<usize>,
        inner: usize,
    ) -> Result<Panels, LmError> {
        let tensors = roles.iter().map(|role| self.tensor(*role, layer));
        let tensors = tensors.collect::<Result<Vec<_>, _>>()?;
        let rows = tensors.iter().map(Tensor::elem_count).sum::<usize>() / inner;
        let mut panels = Panels::room(rows, inner);
        for tensor in &tensors {
            with_numbers(tensor, |numbers| panels.push(numbers))?;
        }
        Ok(panels.stored(self.storage))
    }

    fn layer(&self, index: usize) -> Result<PackedLayer, LmError> {
        let (config, at) = (self.config, Some(index));
        let (hidden, queries) = (config.hidden_size, config.attention().query_width());
        let family = config.description();
        let biases = [TensorRole::QueryBias, TensorRole::KeyBias, TensorRole::ValueBias];
        let qkv_bias = match family.qkv_bias {
            true => {
                let parts = biases.iter().map(|role| self.vector(*role, at));
                Some(parts.collect::<Result<Vec<_>, _>>()?.concat())
            }
            false => None,
        };
        let head_norms = match family.qk_norm {
            true => {
                let norm = |role| self.vector(role, at);
                Some((norm(TensorRole::QueryNorm)?, norm(TensorRole::KeyNorm)?))
            }
            false => None,
        };
        let qkv = [TensorRole::Query, TensorRole::Key, TensorRole::Value];
        Ok(PackedLayer {
            attention_norm: self.vector(TensorRole::AttentionNorm, at)?,
            qkv: self.panels(&qkv, at, hidden)?,
            qkv_bias,
            head_norms,
            out: self.panels(&[TensorRole::Output], at, queries)?,
            mlp_norm: self.vector(TensorRole::MlpNorm, at)?,
            gate_up: self.panels(&[TensorRole::Gate, TensorRole::Up], at, hidden)?,
            down: self.panels(&[TensorRole::Down], at, config.intermediate_size)?,
        })
    }
}

impl PackedNetwork {
    /// Arranges weights for reading.
    ///
    /// # Errors
    /// A tensor is missing or has the wrong shape.
    pub fn new(
        config: &ModelConfig,
        weights: Weights,
        storage: Storage,
    ) -> Result<PackedNetwork, LmError> {
        config.validate()?;
        let weights = &weights.into_var_builder();
        let loader = Loader { config, weights, storage };
        let (embedding, head) = match config.tie_word_embeddings {
            true => (None, TensorRole::Embedding),
            false => (Some(loader.vector(TensorRole::Embedding, None)?), TensorRole::Head),
        };
        let layers: Result<Vec<PackedLayer>, LmError> =
            (0..config.num_hidden_layers).map(|index| loader.layer(index)).collect();
        Ok(PackedNetwork {
            embedding,
            layers: layers?,
            norm: loader.vector(TensorRole::FinalNorm, None)?,
            head: loader.panels(&[head], None, config.hidden_size)?,
            frequencies: config.rotary_frequencies(),
            config: config.clone(),
        })
    }

    fn embed(&self, rows: &[InputToken], stream: &mut Vec<f32>) -> Result<(), LmError> {
        let hidden = self.config.hidden_size;
        stream.resize(rows.len() * hidden, 0.0);
        for (row, to) in rows.iter().zip(stream.chunks_exact_mut(hidden)) {
            let token = row.token as usize;
            if token >= self.config.vocab_size {
                return Err(LmError::Model(format!(
                    "token {token} is outside the vocabulary of {}",
                    self.config.vocab_size
                )));
            }
            match &self.embedding {
                Some(table) => to.copy_from_slice(&table[token * hidden..(token + 1) * hidden]),
                None => self.head.row(token, to),
            }
        }
        Ok(())
    }

    /// Reads `rows`, appends them to the cache, and leaves their last hidden states in the stream.
    /// Rows of one node come in the order of their positions.
    pub fn read(
        &self,
        rows: &[InputToken],
        cache: &mut KvCache,
        buffers: &mut ForwardBuffers,
    ) -> Result<(), LmError> {
        self.embed(rows, &mut buffers.stream)?;
        let places: Vec<usize> = rows.iter().map(|row| cache.extend(row.node)).collect();
        let positions = rows.iter().map(|row| row.position as u32);
        let table = RotaryTable::new(positions, &self.frequencies);
        let inner = self.config.intermediate_size;
        for (index, layer) in self.layers.iter().enumerate() {
            let ForwardBuffers { stream, normed, wide, narrow, space, .. } = &mut *buffers;
            self.rms_norm(stream, &layer.attention_norm, normed);
            layer.qkv.product(normed, space, wide);
            self.turn(layer, wide, &table);
            self.mix((index, rows, &places), wide, cache, narrow);
            layer.out.add_product(narrow, space, stream);
            self.rms_norm(stream, &layer.mlp_norm, normed);
            layer.gate_up.product(normed, space, wide);
            narrow.resize(rows.len() * inner, 0.0);
            by_rows((wide, 2 * inner), (narrow, inner), |both, to| {
                let (gate, up) = both.split_at(inner);
                silu_product(gate, up, to);
            });
            layer.down.add_product(narrow, space, stream);
        }
        Ok(())
    }

    /// Logits [rows, V] of hidden states [rows, H], into the buffer for them.
    pub fn logits(&self, hidden: &[f32], buffers: &mut ForwardBuffers) {
        let ForwardBuffers { normed, logits, space, .. } = buffers;
        self.rms_norm(hidden, &self.norm, normed);
        self.head.product(normed, space, logits);
    }

    /// Biases, norms of heads and rotary positions on the rows of queries, keys and values.
    fn turn(&self, layer: &PackedLayer, qkv: &mut [f32], table: &RotaryTable) {
        let heads = self.config.attention();
        let (queries, keys) = (heads.query_width(), heads.key_width());
        let eps = self.config.norm_eps();
        let (mut raw, mut factors) = (Vec::new(), Vec::new());
        for (at, row) in qkv.chunks_exact_mut(queries + 2 * keys).enumerate() {
            if let Some(bias) = &layer.qkv_bias {
                row.iter_mut().zip(bias).for_each(|(x, b)| *x += b);
            }
            if let Some((q_norm, k_norm)) = &layer.head_norms {
                let (q, kv) = row.split_at_mut(queries);
                for (part, norm) in [(q, q_norm), (&mut kv[..keys], k_norm)] {
                    raw.clear();
                    raw.extend_from_slice(part);
                    factors.resize(raw.len() / heads.dim, 0.0);
                    norm_some((&raw, norm), eps, part, &mut factors);
                }
            }
            turn_some(&mut row[..queries + keys], queries + keys, table, (at, 1.0));
        }
    }

    /// Appends keys and values, then attends: [rows, heads * D] in `mixed`.
    fn mix(
        &self,
        (layer, rows, places): (usize, &[InputToken], &[usize]),
        qkv: &[f32],
        cache: &mut KvCache,
        mixed: &mut Vec<f32>,
    ) {
        let heads = self.config.attention();
        let (queries, keys) = (heads.query_width(), heads.key_width());
        let width = queries + 2 * keys;
        for ((row, place), part) in rows.iter().zip(places).zip(qkv.chunks_exact(width)) {
            let (k, v) = part[queries..].split_at(keys);
            cache.write((row.node, *place), layer, k, v);
        }
        let cache = &*cache;
        mixed.resize(rows.len() * queries, 0.0);
        let one = |((rows, qkv), out): ((&[InputToken], &[f32]), &mut [f32])| {
            AttentionTask { heads, cache, layer, rows }.attend(qkv, width, out);
        };
        // Handing rows to the other cores costs some microseconds.
        let work = rows.iter().map(|r| r.position + 1).sum::<usize>() * queries;
        let (qkv_part, out_part) = (TASK_ROWS * width, TASK_ROWS * queries);
        if work < 50_000 {
            let parts = rows.chunks(TASK_ROWS).zip(qkv.chunks(qkv_part));
            parts.zip(mixed.chunks_mut(out_part)).for_each(one);
        } else {
            let parts = rows.par_chunks(TASK_ROWS).zip(qkv.par_chunks(qkv_part));
            parts.zip(mixed.par_chunks_mut(out_part)).for_each(one);
        }
    }

    fn rms_norm(&self, rows: &[f32], weight: &[f32], normed: &mut Vec<f32>) {
        let (eps, width) = (self.config.norm_eps(), weight.len());
        normed.resize(rows.len(), 0.0);
        by_rows((rows, width), (normed, width), |row, to| {
            norm_some((row, weight), eps, to, &mut [0.0]);
        });
    }
}
