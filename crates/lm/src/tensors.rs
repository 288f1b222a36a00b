//! The tensors of one network: which there are, their names and shapes. What a family calls them is
//! in [`super::arch`], the numbers are [`super::config`]'s.

use super::arch::{OF_A_LAYER, OUTER, TensorRole};
use super::config::ModelConfig;

/// Whether networks of this shape have a tensor of this role.
fn is_in(role: TensorRole, config: &ModelConfig) -> bool {
    match role {
        TensorRole::Head => !config.tie_word_embeddings,
        TensorRole::QueryBias | TensorRole::KeyBias | TensorRole::ValueBias => {
            config.description().qkv_bias
        }
        TensorRole::QueryNorm | TensorRole::KeyNorm => config.description().qk_norm,
        _ => true,
    }
}

/// Its shape in networks of this shape; letters as at [`TensorRole`].
fn shape(role: TensorRole, config: &ModelConfig) -> Vec<usize> {
    let (hidden, inner, vocab) = (config.hidden_size, config.intermediate_size, config.vocab_size);
    let heads = config.attention();
    let (queries, keys) = (heads.query_width(), heads.key_width());
    match role {
        TensorRole::Embedding | TensorRole::Head => vec![vocab, hidden],
        TensorRole::FinalNorm | TensorRole::AttentionNorm | TensorRole::MlpNorm => vec![hidden],
        TensorRole::Query => vec![queries, hidden],
        TensorRole::Key | TensorRole::Value => vec![keys, hidden],
        TensorRole::Output => vec![hidden, queries],
        TensorRole::Gate | TensorRole::Up => vec![inner, hidden],
        TensorRole::Down => vec![hidden, inner],
        TensorRole::QueryBias => vec![queries],
        TensorRole::KeyBias | TensorRole::ValueBias => vec![keys],
        TensorRole::QueryNorm | TensorRole::KeyNorm => vec![heads.dim],
    }
}

/// A tensor that a network has.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorSpec {
    /// What it is.
    pub role: TensorRole,
    /// Of which layer; `None` for those that are there once.
    pub layer: Option<usize>,
    /// Its name in Hugging Face's files.
    pub name: String,
    /// Its shape, outer dimension first.
    pub shape: Vec<usize>,
}

impl TensorSpec {
    /// The tensor of this role in networks of this shape.
    pub fn of(config: &ModelConfig, role: TensorRole, layer: Option<usize>) -> TensorSpec {
        let found = (config.description().name)(role).hf;
        let name = match layer {
            Some(layer) => format!("model.layers.{layer}.{found}"),
            None => found.to_owned(),
        };
        TensorSpec { role, layer, name, shape: shape(role, config) }
    }

    /// How many numbers it has.
    pub fn count(&self) -> u64 {
        self.shape.iter().map(|n| *n as u64).product()
    }

    /// Whether it is a matrix that hidden states are multiplied with inside a layer: what a LoRA
    /// adapter may lie on.
    pub fn is_projection(&self) -> bool {
        self.layer.is_some() && self.shape.len() == 2
    }

    /// The name of the linear layer whose weight or bias it is: `model.layers.0.self_attn.q_proj`.
    pub fn linear_name(&self) -> &str {
        self.name.rsplit_once('.').map_or(self.name.as_str(), |(linear, _)| linear)
    }

    /// Its name in GGUF files.
    pub fn gguf_name(&self, config: &ModelConfig) -> String {
        let found = (config.description().name)(self.role).gguf;
        match self.layer {
            Some(layer) => format!("blk.{layer}.{found}"),
            None => found.to_owned(),
        }
    }
}

/// Every tensor that a network of this shape has.
pub fn tensors(config: &ModelConfig) -> Vec<TensorSpec> {
    let outer = OUTER.into_iter().map(|role| (role, None));
    let layers = (0..config.num_hidden_layers).map(Some);
    let of_layers = layers.flat_map(|layer| OF_A_LAYER.into_iter().map(move |role| (role, layer)));
    let present = outer.chain(of_layers).filter(|(role, _)| is_in(*role, config));
    present.map(|(role, layer)| TensorSpec::of(config, role, layer)).collect()
}

/// How many numbers a network of this shape has.
pub fn parameters(config: &ModelConfig) -> u64 {
    tensors(config).iter().map(TensorSpec::count).sum()
}
