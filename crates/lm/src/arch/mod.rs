//! ARCHITECTURES: what a family of networks is like, said once. The decoder that trains, the one
//! that draws, the passes on a GPU, the readers of weight files, LoRA and the memory estimates all
//! read it here, so a new family is a file beside `llama` and a line in [`Architecture`], and
//! then its golden and its test. Numbers (widths, layers) are [`super::config`]'s.
//!
//! What all families here share: RMSNorm before attention and before the MLP and at the end,
//! rotary positions by half-rotation, grouped-query attention, a gated MLP.

mod llama;
mod mistral;
mod qwen2;
mod qwen3;

use candle_nn::Activation;
use serde::{Deserialize, Serialize};

/// A family of networks, by the `model_type` of its `config.json`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Architecture {
    /// Llama 2 and 3.x, SmolLM2.
    #[default]
    Llama,
    /// Mistral 7B; a sliding window bounds the context.
    Mistral,
    /// Qwen2 and Qwen2.5: queries, keys and values have biases.
    Qwen2,
    /// Qwen3: heads of queries and keys are normed.
    Qwen3,
}

impl Architecture {
    /// Every family there is.
    pub const ALL: [Architecture; 4] =
        [Architecture::Llama, Architecture::Mistral, Architecture::Qwen2, Architecture::Qwen3];

    /// What its networks are like.
    pub fn description(self) -> &'static Description {
        match self {
            Architecture::Llama => &llama::LLAMA,
            Architecture::Mistral => &mistral::MISTRAL,
            Architecture::Qwen2 => &qwen2::QWEN2,
            Architecture::Qwen3 => &qwen3::QWEN3,
        }
    }
}

/// What the networks of a family have in common, and what sets them apart from other families'.
#[derive(Debug)]
pub struct Description {
    /// `model_type` in `config.json`.
    pub model_type: &'static str,
    /// The class in transformers, first of `architectures` in `config.json`.
    pub class: &'static str,
    /// The projections to queries, keys and values have biases.
    pub qkv_bias: bool,
    /// Each head of queries and keys is RMS-normed before it is rotated.
    pub qk_norm: bool,
    /// Applied to the gate of the MLP. The passes compute [`Activation::Silu`].
    pub activation: Activation,
    /// `config.json` has the keys of a sliding window.
    pub has_window_keys: bool,
    /// What its tensors are called.
    pub name: fn(TensorRole) -> TensorName,
    /// How GGUF files store it; `None` where they cannot be read.
    pub gguf: Option<GgufFormat>,
}

/// How GGUF files store a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GgufFormat {
    /// `general.architecture`, which also begins the metadata's keys.
    pub architecture: &'static str,
    /// In which order the rows of queries and keys lie.
    pub query_key_rows: RowOrder,
}

/// In which order the rows of a head lie in a projection to queries or keys. Two rows of a head are
/// rotated together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowOrder {
    /// Those two are half a head apart (j and j + D/2), as in Hugging Face's files.
    HalfApart,
    /// Those two are side by side (2j and 2j + 1).
    SideBySide,
}

/// What a tensor is in the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TensorRole {
    /// A row for each token [V, H].
    Embedding,
    /// RMSNorm at the end `[H]`.
    FinalNorm,
    /// Hidden states to logits [V, H]; the embedding where both are tied.
    Head,
    /// RMSNorm before attention `[H]`.
    AttentionNorm,
    /// RMSNorm before the MLP `[H]`.
    MlpNorm,
    /// To queries [heads * D, H].
    Query,
    /// To keys [kv_heads * D, H].
    Key,
    /// To values [kv_heads * D, H].
    Value,
    /// From what attention gives back to the residual stream [H, heads * D].
    Output,
    /// The gate of the MLP [I, H].
    Gate,
    /// What the gate multiplies [I, H].
    Up,
    /// Back to the residual stream [H, I].
    Down,
    /// Added to queries [heads * D].
    QueryBias,
    /// Added to keys [kv_heads * D].
    KeyBias,
    /// Added to values [kv_heads * D].
    ValueBias,
    /// RMSNorm of each query head `[D]`.
    QueryNorm,
    /// RMSNorm of each key head `[D]`.
    KeyNorm,
}

impl TensorRole {
    /// Whether it adds to the residual stream.
    pub fn writes_residual(self) -> bool {
        matches!(self, TensorRole::Output | TensorRole::Down)
    }

    /// Whether it is a bias.
    pub fn is_bias(self) -> bool {
        matches!(self, TensorRole::QueryBias | TensorRole::KeyBias | TensorRole::ValueBias)
    }
}

/// Roles of tensors that are there once.
pub const OUTER: [TensorRole; 3] = [TensorRole::Embedding, TensorRole::FinalNorm, TensorRole::Head];

/// Roles of tensors that every layer may have.
pub const OF_A_LAYER: [TensorRole; 14] = [
    TensorRole::AttentionNorm,
    TensorRole::MlpNorm,
    TensorRole::Query,
    TensorRole::Key,
    TensorRole::Value,
    TensorRole::Output,
    TensorRole::Gate,
    TensorRole::Up,
    TensorRole::Down,
    TensorRole::QueryBias,
    TensorRole::KeyBias,
    TensorRole::ValueBias,
    TensorRole::QueryNorm,
    TensorRole::KeyNorm,
];

/// What a tensor is called: the whole name of one that is there once, else what follows the layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorName {
    /// In Hugging Face's files; after `model.layers.N.` for those of a layer.
    pub hf: &'static str,
    /// In GGUF files; after `blk.N.` for those of a layer.
    pub gguf: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// No two tensors of a family have the same name, and a name says whether it is a bias.
    #[test]
    fn every_tensor_of_every_family_has_a_name_of_its_own() {
        for architecture in Architecture::ALL {
            let (mut hf, mut gguf) = (BTreeSet::new(), BTreeSet::new());
            for role in OUTER.into_iter().chain(OF_A_LAYER) {
                let name = (architecture.description().name)(role);
                for text in [name.hf, name.gguf] {
                    let end = if role.is_bias() { ".bias" } else { ".weight" };
                    assert!(text.ends_with(end), "{text}");
                }
                assert!(hf.insert(name.hf) && gguf.insert(name.gguf), "{name:?}");
            }
        }
    }

    /// A description says what the passes compute, or its networks would be computed wrongly.
    #[test]
    fn every_family_is_one_that_the_passes_compute() {
        for architecture in Architecture::ALL {
            assert_eq!(architecture.description().activation, Activation::Silu);
            let same = |other: &Architecture| {
                other.description().model_type == architecture.description().model_type
            };
            assert_eq!(Architecture::ALL.iter().filter(|other| same(other)).count(), 1);
        }
    }
}
