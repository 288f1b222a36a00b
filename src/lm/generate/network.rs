//! The Llama-family network for reading only: f32 on the CPU, no gradients. Matrices are stored
//! transposed, [in × out], because that is the layout in which a product with few rows is fast.
//!
//! GUARANTEE: a row's result does not depend on which other rows are computed with it, bit for bit
//! on one machine with one binary. Every operation here is row by row; the matrix product splits
//! its sums by the inner length alone, except for a single row, which is therefore never computed
//! alone.

use super::attention::{Heads, attend};
use super::cache::{Cache, NodeId};
use crate::lm::config::ModelConfig;
use crate::lm::error::LmError;
use crate::lm::weights::Weights;
use candle_core::{Device, Tensor};
use rayon::prelude::*;

/// One token to be read.
#[derive(Clone, Copy)]
pub(super) struct Row {
    /// The node it is appended to.
    pub node: NodeId,
    /// Its position in the context.
    pub position: usize,
    /// Its id.
    pub token: u32,
}

struct Layer {
    attention_norm: Vec<f32>,
    /// [H × (Q + 2·KV)]: queries, keys and values in one product.
    qkv: Tensor,
    out: Tensor,
    mlp_norm: Vec<f32>,
    /// [H × 2·I]: gate, then up.
    gate_up: Tensor,
    down: Tensor,
}

/// The network.
pub(super) struct Network {
    /// Its shape.
    pub config: ModelConfig,
    embedding: Vec<f32>,
    layers: Vec<Layer>,
    norm: Vec<f32>,
    head: Tensor,
    frequencies: Vec<f32>,
}

impl Network {
    /// Arranges checked weights for reading.
    pub fn new(config: &ModelConfig, weights: &Weights) -> Result<Network, LmError> {
        config.validate()?;
        let vector = |name: &str| -> Result<Vec<f32>, LmError> {
            Ok(weights.get(name)?.flatten_all()?.to_vec1::<f32>()?)
        };
        let turned = |names: &[String]| -> Result<Tensor, LmError> {
            let parts: Result<Vec<&Tensor>, LmError> =
                names.iter().map(|n| weights.get(n)).collect();
            Ok(Tensor::cat(&parts?, 0)?.t()?.contiguous()?)
        };
        let layers: Result<Vec<Layer>, LmError> = (0..config.num_hidden_layers)
            .into_par_iter()
            .map(|index| {
                let name = |part: &str| format!("model.layers.{index}.{part}.weight");
                let attention = |p: &str| name(&format!("self_attn.{p}_proj"));
                let mlp = |p: &str| name(&format!("mlp.{p}_proj"));
                Ok(Layer {
                    attention_norm: vector(&name("input_layernorm"))?,
                    qkv: turned(&[attention("q"), attention("k"), attention("v")])?,
                    out: turned(&[attention("o")])?,
                    mlp_norm: vector(&name("post_attention_layernorm"))?,
                    gate_up: turned(&[mlp("gate"), mlp("up")])?,
                    down: turned(&[mlp("down")])?,
                })
            })
            .collect();
        let head = if config.tie_word_embeddings { "model.embed_tokens" } else { "lm_head" };
        let half = config.head_dim / 2;
        let frequency = |i: usize| {
            let exponent = (2 * i) as f32 / config.head_dim as f32;
            1.0 / (config.rope_theta as f32).powf(exponent)
        };
        Ok(Network {
            config: config.clone(),
            embedding: vector("model.embed_tokens.weight")?,
            layers: layers?,
            norm: vector("model.norm.weight")?,
            head: turned(&[format!("{head}.weight")])?,
            frequencies: (0..half).map(frequency).collect(),
        })
    }

    /// Numbers per position in the keys, and in the values.
    pub fn cache_width(&self) -> usize {
        self.config.num_key_value_heads * self.config.head_dim
    }

    /// Reads `rows`, appends them to the cache, and returns their last hidden states [rows × H].
    /// Rows of one node come in the order of their positions.
    pub fn read(&self, rows: &[Row], cache: &mut Cache) -> Result<Vec<f32>, LmError> {
        let hidden = self.config.hidden_size;
        let mut stream = Vec::with_capacity(rows.len() * hidden);
        for row in rows {
            let token = row.token as usize;
            if token >= self.config.vocab_size {
                return Err(LmError::Model(format!(
                    "token {token} is outside the vocabulary of {}",
                    self.config.vocab_size
                )));
            }
            stream.extend_from_slice(&self.embedding[token * hidden..(token + 1) * hidden]);
        }
        let turns = self.turns(rows);
        for (index, layer) in self.layers.iter().enumerate() {
            let normed = self.rms_norm(&stream, &layer.attention_norm);
            let mut qkv = product(normed, rows.len(), &layer.qkv)?;
            self.rotate(&mut qkv, &turns);
            let mixed = self.mix(index, rows, &qkv, cache);
            add(&mut stream, &product(mixed, rows.len(), &layer.out)?);
            let normed = self.rms_norm(&stream, &layer.mlp_norm);
            let gated = gate(&product(normed, rows.len(), &layer.gate_up)?, rows.len());
            add(&mut stream, &product(gated, rows.len(), &layer.down)?);
        }
        Ok(stream)
    }

    /// Logits [rows × V] of hidden states [rows × H].
    pub fn logits(&self, hidden: &[f32]) -> Result<Vec<f32>, LmError> {
        let rows = hidden.len() / self.config.hidden_size;
        product(self.rms_norm(hidden, &self.norm), rows, &self.head)
    }

    /// Cosines and sines per row: [rows × D], the first half cosines.
    fn turns(&self, rows: &[Row]) -> Vec<f32> {
        let mut turns = Vec::with_capacity(rows.len() * self.config.head_dim);
        for row in rows {
            let angle = |f: &f32| row.position as f32 * f;
            turns.extend(self.frequencies.iter().map(|f| angle(f).cos()));
            turns.extend(self.frequencies.iter().map(|f| angle(f).sin()));
        }
        turns
    }

    /// Rotary positions on queries and keys, which are the first part of every row.
    fn rotate(&self, qkv: &mut [f32], turns: &[f32]) {
        let config = &self.config;
        let (dim, half) = (config.head_dim, config.head_dim / 2);
        let heads = config.num_attention_heads + config.num_key_value_heads;
        let width = (heads + config.num_key_value_heads) * dim;
        for (row, turn) in qkv.chunks_exact_mut(width).zip(turns.chunks_exact(dim)) {
            let (cosines, sines) = turn.split_at(half);
            for head in row[..heads * dim].chunks_exact_mut(dim) {
                let (low, high) = head.split_at_mut(half);
                for i in 0..half {
                    let (a, b) = (low[i], high[i]);
                    low[i] = a * cosines[i] - b * sines[i];
                    high[i] = b * cosines[i] + a * sines[i];
                }
            }
        }
    }

    /// Appends keys and values, then attends: [rows × Q].
    fn mix(&self, layer: usize, rows: &[Row], qkv: &[f32], cache: &mut Cache) -> Vec<f32> {
        let config = &self.config;
        let heads = Heads {
            queries: config.num_attention_heads,
            keys: config.num_key_value_heads,
            dim: config.head_dim,
        };
        let (queries, keys) = (heads.queries * heads.dim, heads.keys * heads.dim);
        let width = queries + 2 * keys;
        for (row, part) in rows.iter().zip(qkv.chunks_exact(width)) {
            cache.push(row.node, layer, &part[queries..queries + keys], &part[queries + keys..]);
        }
        let cache = &*cache;
        let mut mixed = vec![0.0; rows.len() * queries];
        let work = rows.iter().map(|r| r.position + 1).sum::<usize>() * queries;
        let one = |(row, (out, part)): (&Row, (&mut [f32], &[f32]))| {
            attend(heads, cache, layer, row, &part[..queries], out);
        };
        // Handing rows to the other cores costs some microseconds.
        if work < 50_000 {
            let parts = mixed.chunks_exact_mut(queries).zip(qkv.chunks_exact(width));
            rows.iter().zip(parts).for_each(one);
        } else {
            let parts = mixed.par_chunks_exact_mut(queries).zip(qkv.par_chunks_exact(width));
            rows.par_iter().zip(parts).for_each(one);
        }
        mixed
    }

    fn rms_norm(&self, rows: &[f32], weight: &[f32]) -> Vec<f32> {
        let eps = self.config.rms_norm_eps as f32;
        let mut normed = Vec::with_capacity(rows.len());
        for row in rows.chunks_exact(weight.len()) {
            let squares = super::attention::dot(row, row);
            let scale = 1.0 / (squares / row.len() as f32 + eps).sqrt();
            normed.extend(row.iter().zip(weight).map(|(x, w)| x * scale * w));
        }
        normed
    }
}

/// [rows × in] · [in × out].
pub(super) fn product(left: Vec<f32>, rows: usize, right: &Tensor) -> Result<Vec<f32>, LmError> {
    let (inner, outer) = right.dims2()?;
    let mut left = left;
    // The product of one row goes another way through the library, with other rounding.
    let padded = rows.max(2);
    left.resize(padded * inner, 0.0);
    let left = Tensor::from_vec(left, (padded, inner), &Device::Cpu)?;
    let mut result = left.matmul(right)?.flatten_all()?.to_vec1::<f32>()?;
    result.truncate(rows * outer);
    Ok(result)
}

fn add(stream: &mut [f32], more: &[f32]) {
    for (a, b) in stream.iter_mut().zip(more) {
        *a += b;
    }
}

/// SwiGLU of [rows × 2·I], gate first: [rows × I].
fn gate(gate_up: &[f32], rows: usize) -> Vec<f32> {
    let inner = gate_up.len() / rows / 2;
    let mut gated = vec![0.0; rows * inner];
    let one = |(out, both): (&mut [f32], &[f32])| {
        let (gate, up) = both.split_at(inner);
        for i in 0..inner {
            out[i] = gate[i] / (1.0 + (-gate[i]).exp()) * up[i];
        }
    };
    if gated.len() < 10_000 {
        gated.chunks_exact_mut(inner).zip(gate_up.chunks_exact(2 * inner)).for_each(one);
    } else {
        gated.par_chunks_exact_mut(inner).zip(gate_up.par_chunks_exact(2 * inner)).for_each(one);
    }
    gated
}
