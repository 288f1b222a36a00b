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

impl ModelConfig {
    /// Reads the text of a `config.json`. Only networks that the decoder computes exactly are
    /// accepted: plain Llama, without biases or scaled rotary positions.
    ///
    /// # Errors
    /// [`LmError::Config`] with the field and what was expected.
    pub fn from_hf_json(text: &str) -> Result<ModelConfig, LmError> {
        let json: serde_json::Value = serde_json::from_str(text)
            .map_err(|e| LmError::Config(format!("config.json is not JSON: {e}")))?;
        refuse_other_networks(&json)?;
        let heads = required(&json, "num_attention_heads")?;
        let hidden_size = required(&json, "hidden_size")?;
        let rope = json.get("rope_parameters").unwrap_or(&json);
        let float = |from: &serde_json::Value, key: &str| from.get(key).and_then(|v| v.as_f64());
        let eos_token_ids = match json.get("eos_token_id") {
            Some(serde_json::Value::Array(ids)) => ids.iter().filter_map(token_id).collect(),
            Some(one) => token_id(one).into_iter().collect(),
            None => Vec::new(),
        };
        let head_dim = match optional(&json, "head_dim")? {
            Some(dim) => dim,
            None if heads > 0 => hidden_size / heads,
            None => 0,
        };
        let config = ModelConfig {
            vocab_size: required(&json, "vocab_size")?,
            hidden_size,
            intermediate_size: required(&json, "intermediate_size")?,
            num_hidden_layers: required(&json, "num_hidden_layers")?,
            num_attention_heads: heads,
            num_key_value_heads: optional(&json, "num_key_value_heads")?.unwrap_or(heads),
            head_dim,
            rms_norm_eps: float(&json, "rms_norm_eps").unwrap_or(1e-6),
            rope_theta: float(rope, "rope_theta")
                .or_else(|| float(&json, "rope_theta"))
                .unwrap_or(10_000.0),
            max_position_embeddings: optional(&json, "max_position_embeddings")?.unwrap_or(2048),
            tie_word_embeddings: json
                .get("tie_word_embeddings")
                .and_then(serde_json::Value::as_bool)
                .unwrap_or(false),
            bos_token_id: json.get("bos_token_id").and_then(token_id),
            eos_token_ids,
        };
        config.validate()?;
        Ok(config)
    }

    /// The text of a `config.json` that transformers reads as this network.
    pub fn to_hf_json(&self) -> String {
        let eos = match self.eos_token_ids.as_slice() {
            [] => serde_json::Value::Null,
            [one] => (*one).into(),
            several => several.into(),
        };
        let json = serde_json::json!({
            "architectures": ["LlamaForCausalLM"],
            "attention_bias": false,
            "attention_dropout": 0.0,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": eos,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "hidden_size": self.hidden_size,
            "initializer_range": 0.02,
            "intermediate_size": self.intermediate_size,
            "max_position_embeddings": self.max_position_embeddings,
            "mlp_bias": false,
            "model_type": "llama",
            "num_attention_heads": self.num_attention_heads,
            "num_hidden_layers": self.num_hidden_layers,
            "num_key_value_heads": self.num_key_value_heads,
            "rms_norm_eps": self.rms_norm_eps,
            "rope_scaling": null,
            "rope_theta": self.rope_theta,
            "tie_word_embeddings": self.tie_word_embeddings,
            "torch_dtype": "float32",
            "vocab_size": self.vocab_size,
        });
        format!("{json:#}\n")
    }
}

fn refuse_other_networks(json: &serde_json::Value) -> Result<(), LmError> {
    let text = |key: &str| json.get(key).and_then(|v| v.as_str());
    let bad = |what: String| Err(LmError::Config(what));
    match text("model_type") {
        Some("llama") => {}
        other => {
            let found = other.unwrap_or("nothing");
            return bad(format!("model_type is {found}; llama (SmolLM2, Llama) is supported"));
        }
    }
    if text("hidden_act").is_some_and(|act| act != "silu") {
        return bad(format!(
            "hidden_act is {}; silu is supported",
            text("hidden_act").unwrap_or("")
        ));
    }
    for key in ["attention_bias", "mlp_bias"] {
        if json.get(key).and_then(serde_json::Value::as_bool) == Some(true) {
            return bad(format!("{key} is true; only networks without biases are supported"));
        }
    }
    for key in ["rope_scaling", "rope_parameters"] {
        let kind = json.get(key).and_then(|r| r.get("rope_type").or_else(|| r.get("type")));
        if let Some(kind) = kind.and_then(|k| k.as_str()).filter(|k| *k != "default") {
            return bad(format!("{key} is of type {kind}; only unscaled rotary is supported"));
        }
    }
    Ok(())
}

fn required(json: &serde_json::Value, key: &str) -> Result<usize, LmError> {
    optional(json, key)?.ok_or_else(|| LmError::Config(format!("config.json has no {key}")))
}

/// A count. Bounded, so that products of counts cannot overflow.
fn optional(json: &serde_json::Value, key: &str) -> Result<Option<usize>, LmError> {
    const COUNT_MAX: u64 = 1 << 24;
    match json.get(key) {
        None | Some(serde_json::Value::Null) => Ok(None),
        Some(value) => match value.as_u64() {
            Some(count) if count <= COUNT_MAX => Ok(Some(count as usize)),
            _ => Err(LmError::Config(format!(
                "{key} is {value}; a whole number up to {COUNT_MAX} is expected"
            ))),
        },
    }
}

fn token_id(value: &serde_json::Value) -> Option<u32> {
    value.as_u64().and_then(|id| u32::try_from(id).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = r#"{"model_type":"llama","hidden_size":8,"intermediate_size":16,
        "num_hidden_layers":1,"num_attention_heads":2,"vocab_size":10,"eos_token_id":[1,2],
        "rope_parameters":{"rope_type":"default","rope_theta":5000.0}}"#;

    #[test]
    fn config_json_comes_back() {
        let config = ModelConfig::from_hf_json(SMALL).unwrap();
        assert_eq!((config.head_dim, config.num_key_value_heads), (4, 2));
        assert_eq!(config.rope_theta, 5000.0);
        assert_eq!(config.eos_token_ids, [1, 2]);
        assert_eq!(ModelConfig::from_hf_json(&config.to_hf_json()).unwrap(), config);
    }

    #[test]
    fn networks_that_would_be_computed_wrongly_are_refused() {
        for (from, to, word) in [
            (r#""llama""#, r#""gpt2""#, "gpt2"),
            (r#""rope_type":"default""#, r#""rope_type":"llama3""#, "llama3"),
            (r#""hidden_size":8"#, r#""hidden_size":-8"#, "hidden_size"),
            (r#""hidden_size":8,"#, "", "hidden_size"),
            (r#""num_attention_heads":2"#, r#""num_attention_heads":0"#, "num_attention_heads"),
            (r#""vocab_size":10"#, r#""vocab_size":10,"mlp_bias":true"#, "mlp_bias"),
        ] {
            let error = ModelConfig::from_hf_json(&SMALL.replace(from, to)).unwrap_err();
            assert!(error.to_string().contains(word), "{error}");
        }
    }
}
