//! What the CPU holds: weights in panels, keys and values, activations of a micro-batch.

use super::{SavedActivations, Widths};
use crate::arch::TensorRole;
use crate::config::ModelConfig;
use crate::ops::{Line, Storage, WIDTH};
use crate::tensors::{TensorSpec, tensors};

/// What the activations of one micro-batch may take.
pub const MICRO_BATCH_BYTES: usize = 768 << 20;

/// Bytes of logits that are alive at once in training.
pub const LOGIT_BYTES_MAX: usize = 100 << 20;

/// Tokens of prompts that are read in one go; bounds the memory of their activations.
pub const READ_ROWS_MAX: usize = 512;

/// Parameters of a model, in bytes, below which threads share the batch and not the products.
const SMALL_MODEL_BYTES: usize = 16 << 20;

/// Threads that each compute a part of a batch with gradients of their own: all of them where the
/// model is small (its bytes are few), else one, and then all threads share its products.
pub fn data_parallel_workers(model_bytes: usize, threads: usize) -> usize {
    if model_bytes < SMALL_MODEL_BYTES { threads.max(1) } else { 1 }
}

/// Bytes of activations in training, per row of a micro-batch: norms, projections and both halves of
/// the MLP in every layer; or every layer's input, and one layer's rest; and what passes on the way
/// back.
pub fn activation_bytes_per_row(config: &ModelConfig, saved: SavedActivations) -> usize {
    let Widths { hidden, inner, queries, keys, heads, layers } = Widths::of(config);
    let normed = if config.description().qk_norm { queries + keys } else { 0 };
    let kept = hidden + normed + 2 * (queries + keys + inner) + heads;
    let passing = 6 * hidden + 4 * (queries + keys) + inner;
    let numbers = match saved {
        SavedActivations::All => layers * (hidden + kept),
        SavedActivations::LayerInputs => layers * hidden + kept,
    };
    (numbers + passing) as usize * size_of::<f32>()
}

/// Bytes that an open policy of this shape holds, its matrices kept so.
pub fn open_bytes(config: &ModelConfig, storage: Storage) -> u64 {
    let bytes = |spec: &TensorSpec| {
        let numbers = spec.count();
        // A table beside the head is looked up in and not multiplied with.
        let is_table = spec.role == TensorRole::Embedding && !config.tie_word_embeddings;
        match (storage, spec.shape.len()) {
            (Storage::EightBit, 2..) if !is_table => numbers + numbers / 8,
            _ => 4 * numbers,
        }
    };
    tensors(config).iter().map(bytes).sum()
}

/// How keys and values of a network lie in a cache on the CPU.
#[derive(Clone, Copy)]
pub(crate) struct KvShape {
    /// Layers.
    pub layers: usize,
    /// Key and value heads.
    pub heads: usize,
    /// Width of a head.
    pub dim: usize,
}

impl KvShape {
    /// What a network of this shape keeps.
    pub fn of(config: &ModelConfig) -> KvShape {
        KvShape {
            layers: config.num_hidden_layers,
            heads: config.num_key_value_heads,
            dim: config.head_dim,
        }
    }

    /// Lines that [`WIDTH`] positions of a layer's head take: D of keys, a column for every
    /// position, and of values a line for every position, as often as [`WIDTH`] goes into D.
    pub fn head_lines(self) -> usize {
        self.dim + self.dim.div_ceil(WIDTH) * WIDTH
    }

    /// Lines that [`WIDTH`] positions take.
    pub fn block_lines(self) -> usize {
        self.layers * self.heads * self.head_lines()
    }
}

/// Bytes of keys and values that `tokens` read tokens take, in whole blocks.
pub fn cache_bytes(config: &ModelConfig, tokens: usize) -> u64 {
    let block = KvShape::of(config).block_lines() * size_of::<Line>();
    tokens.div_ceil(WIDTH) as u64 * block as u64
}

/// Bytes of what is computed beside keys and values while `live` sequences take a step, or the
/// most rows that are read in one go: activations, logits, and logits that wait at prompts' ends.
pub fn drawing_bytes(config: &ModelConfig, live: usize) -> u64 {
    let widths = Widths::of(config);
    let wide = (2 * widths.inner).max(widths.projected());
    let row = wide + widths.inner.max(widths.queries);
    let rows = READ_ROWS_MAX as u64 * (2 * row + 2 * widths.hidden);
    (rows + 2 * live as u64 * config.vocab_size as u64) * size_of::<f32>() as u64
}
