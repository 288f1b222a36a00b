//! Shape of a Llama-family network, as `config.json` states it.

use super::error::LmError;
use serde::{Deserialize, Serialize};

/// Shape of the network. Names are those of Hugging Face's `config.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelConfig {
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Width of the residual stream (H).
    pub hidden_size: usize,
    /// Width of the gated MLP.
    pub intermediate_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads (grouped-query attention).
    pub num_key_value_heads: usize,
    /// Width of a head (D); hidden_size / num_attention_heads unless stated.
    pub head_dim: usize,
    /// Added to the mean square in RMSNorm.
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Longest sequence.
    pub max_position_embeddings: usize,
    /// The head is the embedding.
    pub tie_word_embeddings: bool,
    /// Begins a sequence, where the model has such a token.
    pub bos_token_id: Option<u32>,
    /// Ends a turn or a text.
    pub eos_token_ids: Vec<u32>,
}

impl ModelConfig {
    /// Checks that the numbers fit together.
    ///
    /// # Errors
    /// [`LmError::Config`] with the field and the reason.
    pub fn validate(&self) -> Result<(), LmError> {
        let bad = |what: String| Err(LmError::Config(what));
        if self.num_key_value_heads == 0 || self.num_attention_heads == 0 {
            return bad("num_attention_heads and num_key_value_heads must not be 0".into());
        }
        if !self.num_attention_heads.is_multiple_of(self.num_key_value_heads) {
            return bad(format!(
                "num_attention_heads ({}) is not a multiple of num_key_value_heads ({})",
                self.num_attention_heads, self.num_key_value_heads
            ));
        }
        if self.head_dim == 0 || !self.head_dim.is_multiple_of(2) {
            return bad(format!("head_dim ({}) must be even and not 0", self.head_dim));
        }
        if self.vocab_size == 0 || self.num_hidden_layers == 0 || self.hidden_size == 0 {
            return bad("vocab_size, num_hidden_layers and hidden_size must not be 0".into());
        }
        Ok(())
    }
}
