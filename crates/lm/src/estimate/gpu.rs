//! What a GPU holds: the network that trains, the one that draws, and the process.

use super::{SavedActivations, Widths};
use crate::config::ModelConfig;
use crate::device::Dtype;
use crate::tensors::tensors;

/// The driver's context, and cuBLAS with what it works in. To be measured on a GPU; until then a
/// round number on the safe side, for part of it is there already when what is free is asked for.
pub const PROCESS_BYTES: u64 = 600 << 20;

/// Logits that are alive at once, and their gradients.
pub const LOGIT_BYTES_MAX: u64 = 512 << 20;

/// What is set aside for the activations of a micro-batch. Where more is free, more may be taken;
/// one row of a batch always is.
pub const MICRO_BATCH_BYTES: u64 = 1 << 30;

/// Rows of prompts that are read in one go.
pub const READ_ROWS_MAX: u64 = 8192;

/// Rows whose logits are there at once where prompts end: enough that the head's weights are read for
/// many.
pub const ENDS_AT_ONCE: usize = 64;

/// Room for keys and values grows by one part in so many, for growing copies what is there.
pub const GROWN_BY: usize = 4;

/// Sequences that are drawn at the same time: enough that reading the weights for a step costs less
/// than what is computed with them.
pub const LIVE_MAX: usize = 256;

const F32_BYTES: u64 = 4;

/// Numbers in matrices, and in vectors.
fn numbers(model: &ModelConfig) -> (u64, u64) {
    let all = tensors(model);
    let of = |matrices: bool| {
        all.iter().filter(|spec| (spec.shape.len() > 1) == matrices).map(|spec| spec.count()).sum()
    };
    (of(true), of(false))
}

/// Bytes of weights that do not move: matrices W a number, vectors 4. A head that is the embedding
/// is there once.
pub fn frozen_bytes(model: &ModelConfig, dtype: Dtype) -> u64 {
    let (matrices, vectors) = numbers(model);
    matrices * dtype.bytes() + vectors * F32_BYTES
}

/// Bytes of `count` numbers that move: a master of 4, two moments of 4, a gradient of 4, and W for
/// the copy that is computed with.
pub fn moving_bytes(count: u64, dtype: Dtype) -> u64 {
    count * (4 * F32_BYTES + dtype.bytes())
}

/// Bytes of a micro-batch, per row: the streams between layers, (L+1) H 4; for every layer that is
/// kept its projections (q+2kv) W, twice where heads are normed, 4 for each head, the attended q W,
/// the stream in its middle H 4, two inverse norms 8, and both halves of the MLP 2 I W; and what
/// passes on the way back, 3 H W + 2 H 4 + I W + 2 (q+2kv) W + q W + 4 for each head.
pub fn activation_bytes_per_row(model: &ModelConfig, dtype: Dtype, saved: SavedActivations) -> u64 {
    let widths = Widths::of(model);
    let projected = widths.projected();
    let Widths { hidden, inner, queries, heads, layers, .. } = widths;
    let w = dtype.bytes();
    let streams = (layers + 1) * hidden * F32_BYTES;
    let projections = if model.description().qk_norm { 2 * projected * w } else { projected * w };
    let layer = projections
        + heads * F32_BYTES
        + queries * w
        + hidden * F32_BYTES
        + 2 * F32_BYTES
        + 2 * inner * w;
    let passing = 3 * hidden * w
        + 2 * hidden * F32_BYTES
        + inner * w
        + 2 * projected * w
        + queries * w
        + heads * F32_BYTES;
    let layers = if saved == SavedActivations::All { layers } else { 1 };
    streams + layers * layer + passing
}

/// Bytes of the logits of `rows` rows, V (4 + W) each, with at most [`LOGIT_BYTES_MAX`] alive.
pub fn logit_bytes(model: &ModelConfig, dtype: Dtype, rows: u64) -> u64 {
    (rows * model.vocab_size as u64 * (F32_BYTES + dtype.bytes())).min(LOGIT_BYTES_MAX)
}

/// A step of training.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Training {
    /// Numbers of the adapter that moves, over the weights of an open policy; `None`: all weights
    /// move.
    pub adapter: Option<u64>,
    /// Pairs or supervised rows of a batch.
    pub items: u64,
    /// Tokens of each.
    pub rows: u64,
    /// What is saved of the forward pass.
    pub saved: SavedActivations,
    /// What is computed with.
    pub dtype: Dtype,
}

impl Training {
    /// Bytes at its worst moment. A batch is cut into micro-batches of [`MICRO_BATCH_BYTES`], one
    /// item at the least.
    pub fn bytes(&self, model: &ModelConfig) -> u64 {
        let Training { adapter, items, rows, saved, dtype } = *self;
        let weights = match adapter {
            Some(adapter) => moving_bytes(adapter, dtype),
            None => {
                let (matrices, vectors) = numbers(model);
                moving_bytes(matrices + vectors, dtype)
            }
        };
        let item = rows * activation_bytes_per_row(model, dtype, saved);
        let micro_batch = (items.max(1) * item).min(MICRO_BATCH_BYTES.max(item));
        weights + micro_batch + logit_bytes(model, dtype, items.max(1) * rows)
    }
}

/// Bytes of what is computed while `rows` rows are read, at most [`READ_ROWS_MAX`] at once:
/// H 4 + H W + (q+2kv) W + q W + 3 I W a row.
pub fn reading_bytes(model: &ModelConfig, dtype: Dtype, rows: u64) -> u64 {
    let widths = Widths::of(model);
    let (projected, w) = (widths.projected(), dtype.bytes());
    let Widths { hidden, inner, queries, .. } = widths;
    let row = hidden * F32_BYTES + hidden * w + projected * w + queries * w + 3 * inner * w;
    rows.min(READ_ROWS_MAX) * row
}

/// Sequences that are drawn together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drawing {
    /// Sequences that get a token at each step.
    pub live: u64,
    /// Tokens whose keys and values are held at the most.
    pub tokens: u64,
    /// What is computed with.
    pub dtype: Dtype,
}

impl Drawing {
    /// Bytes beside the policy's weights: keys and values, 2 kv W L a token, and one [`GROWN_BY`]th
    /// more; logits, V 4 for each live sequence, or for [`ENDS_AT_ONCE`]; and what is computed while
    /// prompts are read.
    pub fn bytes(&self, model: &ModelConfig) -> u64 {
        let Drawing { live, tokens, dtype } = *self;
        let Widths { keys, layers, .. } = Widths::of(model);
        let keys_and_values = 2 * keys * dtype.bytes() * layers * tokens;
        let logits = live.max(ENDS_AT_ONCE as u64) * model.vocab_size as u64 * F32_BYTES;
        keys_and_values
            + keys_and_values / GROWN_BY as u64
            + logits
            + reading_bytes(model, dtype, tokens)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SmolLM2-135M: H 576, I 1536, 9 heads of 64 and 3 of keys (q 576, kv 192), L 30, V 49152.
    /// 134,515,008 numbers, 61 * 576 = 35,136 of them in vectors.
    fn smollm2() -> ModelConfig {
        ModelConfig::from_hf_json(
            r#"{"model_type":"llama","hidden_size":576,"intermediate_size":1536,
            "num_hidden_layers":30,"num_attention_heads":9,"num_key_value_heads":3,
            "vocab_size":49152,"max_position_embeddings":8192,"rope_theta":100000.0,
            "rms_norm_eps":1e-5,"eos_token_id":2,"tie_word_embeddings":true}"#,
        )
        .unwrap()
    }

    /// Heads are normed: H 8, I 12, 2 heads of 6 and 1 of keys (q 12, kv 6), L 2, V 10, untied.
    fn normed() -> ModelConfig {
        ModelConfig::from_hf_json(
            r#"{"model_type":"qwen3","hidden_size":8,"intermediate_size":12,"head_dim":6,
            "num_hidden_layers":2,"num_attention_heads":2,"num_key_value_heads":1,
            "vocab_size":10,"max_position_embeddings":64,"rope_theta":10000.0,
            "rms_norm_eps":1e-6,"eos_token_id":2,"tie_word_embeddings":false}"#,
        )
        .unwrap()
    }

    #[test]
    fn weights_by_hand() {
        let model = smollm2();
        assert_eq!(frozen_bytes(&model, Dtype::Bf16), 134_479_872 * 2 + 35_136 * 4);
        assert_eq!(frozen_bytes(&model, Dtype::F32), 134_515_008 * 4);
        assert_eq!(moving_bytes(1000, Dtype::Bf16), 18_000);
        assert_eq!(moving_bytes(1000, Dtype::F32), 20_000);
        // Embedding and head 2 * 80; norms 8 + 2 * (8 + 8 + 6 + 6); a layer's matrices 96 + 48 +
        // 48 + 96 + 3 * 96.
        assert_eq!(frozen_bytes(&normed(), Dtype::F32), (160 + 64 + 2 * 576) * 4);
    }

    #[test]
    fn activations_by_hand() {
        let model = smollm2();
        let row = |saved| activation_bytes_per_row(&model, Dtype::Bf16, saved);
        // Streams 31 * 2304. A layer: projections 1920, heads 36, attended 1152, stream 2304,
        // norms 8, MLP 6144. Passing: 3456 + 4608 + 3072 + 3840 + 1152 + 36.
        assert_eq!(row(SavedActivations::All), 71_424 + 30 * 11_564 + 16_164);
        assert_eq!(row(SavedActivations::LayerInputs), 71_424 + 11_564 + 16_164);
        // Streams 3 * 32. A layer: projections 24 * 4 twice, heads 8, attended 48, stream 32,
        // norms 8, MLP 96. Passing: 96 + 64 + 48 + 192 + 48 + 8.
        let row = activation_bytes_per_row(&normed(), Dtype::F32, SavedActivations::All);
        assert_eq!(row, 96 + 2 * 384 + 456);
    }

    #[test]
    fn training_by_hand() {
        let model = smollm2();
        let saved = SavedActivations::All;
        let one = Training { adapter: None, items: 1, rows: 100, saved, dtype: Dtype::Bf16 };
        let logits = 100 * 49_152 * 6;
        assert_eq!(one.bytes(&model), 134_515_008 * 18 + 100 * 434_508 + logits);
        let adapter = Training { adapter: Some(1000), ..one };
        assert_eq!(adapter.bytes(&model), 18_000 + 100 * 434_508 + logits);
        // A batch is cut into parts; an item is not.
        let most = 134_515_008 * 18 + LOGIT_BYTES_MAX;
        let many = Training { items: 500, rows: 1000, ..one };
        assert_eq!(many.bytes(&model), most + MICRO_BATCH_BYTES);
        let long = Training { items: 4, rows: 8000, ..one };
        assert_eq!(long.bytes(&model), most + 8000 * 434_508);
    }

    #[test]
    fn drawing_by_hand() {
        let model = smollm2();
        let drawing = Drawing { live: 16, tokens: 1000, dtype: Dtype::Bf16 };
        // A row: stream 2304, normed 1152, projections 1920, attended 1152, MLP 3 * 3072.
        let row = 2304 + 1152 + 1920 + 1152 + 9216;
        let expected = 1250 * 384 * 2 * 30 + 64 * 49_152 * 4 + 1000 * row;
        assert_eq!(drawing.bytes(&model), expected);
        assert_eq!(reading_bytes(&model, Dtype::Bf16, 100_000), 8192 * row);
    }
}
