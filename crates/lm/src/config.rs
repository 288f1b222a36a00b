//! Shape of a network, as `config.json` states it: the numbers of one model. What its family is like
//! is [`super::arch`].

pub use super::arch::Architecture;
use super::arch::Description;
use super::error::LmError;
use super::ops::AttentionShape;
use candle_nn::Activation;
use serde::{Deserialize, Serialize};

/// Llama 3's stretching of rotary positions (transformers' `rope_type: llama3`): long waves are
/// slowed down, short ones are not, and those between are blended.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RopeScaling {
    /// Long waves are this much slower.
    pub factor: f64,
    /// Waves longer than the old context over this are long.
    pub low_freq_factor: f64,
    /// Waves shorter than the old context over this are short.
    pub high_freq_factor: f64,
    /// The old context, in tokens.
    pub original_max_position_embeddings: usize,
}

/// Shape of the network. Names are those of Hugging Face's `config.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelConfig {
    /// What kind of network.
    #[serde(default)]
    pub architecture: Architecture,
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
    /// Stretched rotary positions.
    #[serde(default)]
    pub rope_scaling: Option<RopeScaling>,
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
        if let Some(scaling) = &self.rope_scaling {
            let (low, high) = (scaling.low_freq_factor, scaling.high_freq_factor);
            let finite = scaling.factor.is_finite() && high.is_finite();
            let fits = finite && scaling.factor >= 1.0 && low > 0.0 && high > low;
            if !fits || scaling.original_max_position_embeddings == 0 {
                return bad(format!("rope_scaling cannot be computed: {scaling:?}"));
            }
        }
        for (key, count) in [
            ("vocab_size", self.vocab_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("max_position_embeddings", self.max_position_embeddings),
        ] {
            if count == 0 {
                return bad(format!("{key} must not be 0"));
            }
        }
        let (eps, theta) = (self.rms_norm_eps, self.rope_theta);
        if !(eps > 0.0 && eps < 1.0) {
            return bad(format!("rms_norm_eps is {eps}; it must be above 0 and below 1"));
        }
        // Below 1 the waves of a head would be shorter the later they come. The last one is computed
        // in 32 bits, as all are.
        let computed = || self.rotary_frequencies().iter().all(|f| f.is_finite() && *f > 0.0);
        if !(theta >= 1.0 && theta.is_finite() && computed()) {
            return bad(format!(
                "rope_theta is {theta}; it must be 1 or more, and a number that 32 bits hold (10000 is \
                 the usual one)"
            ));
        }
        Ok(())
    }

    /// What its family is like.
    pub fn description(&self) -> &'static Description {
        self.architecture.description()
    }

    /// Heads of attention, and how wide they are.
    pub fn attention(&self) -> AttentionShape {
        AttentionShape {
            queries: self.num_attention_heads,
            keys: self.num_key_value_heads,
            dim: self.head_dim,
        }
    }

    /// What is added to the mean square in RMSNorm, as it is computed with.
    pub fn norm_eps(&self) -> f32 {
        self.rms_norm_eps as f32
    }

    /// Radians per position of each pair of a head's dimensions: D/2 of them.
    pub fn rotary_frequencies(&self) -> Vec<f32> {
        let plain = |i: usize| {
            let exponent = (2 * i) as f32 / self.head_dim as f32;
            1.0 / (self.rope_theta as f32).powf(exponent)
        };
        let stretched = |frequency: f32| match &self.rope_scaling {
            None => frequency,
            Some(scaling) => scaling.stretched(f64::from(frequency)) as f32,
        };
        (0..self.head_dim / 2).map(|i| stretched(plain(i))).collect()
    }
}

impl RopeScaling {
    fn stretched(&self, frequency: f64) -> f64 {
        let waves =
            self.original_max_position_embeddings as f64 * frequency / std::f64::consts::TAU;
        let (low, high) = (self.low_freq_factor, self.high_freq_factor);
        // 0 for long waves, 1 for short ones.
        let short = ((waves - low) / (high - low)).clamp(0.0, 1.0);
        frequency * (short + (1.0 - short) / self.factor)
    }
}

impl ModelConfig {
    /// Reads the text of a `config.json`. Only networks that the decoder computes exactly are
    /// accepted; where attention has a sliding window, the context ends with it.
    ///
    /// # Errors
    /// [`LmError::Config`] with the field and what was expected.
    pub fn from_hf_json(text: &str) -> Result<ModelConfig, LmError> {
        let json: serde_json::Value = serde_json::from_str(text)
            .map_err(|e| LmError::Config(format!("config.json is not JSON: {e}")))?;
        let architecture = known_network(&json)?;
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
            None if heads == 0 => 0,
            None if hidden_size.is_multiple_of(heads) => hidden_size / heads,
            None => {
                return Err(LmError::Config(format!(
                    "hidden_size ({hidden_size}) is not a multiple of num_attention_heads ({heads}), \
                     and there is no head_dim"
                )));
            }
        };
        let context = optional(&json, "max_position_embeddings")?.unwrap_or(2048);
        let windowed = json.get("use_sliding_window").and_then(serde_json::Value::as_bool);
        let window = match windowed {
            Some(false) => None,
            _ => optional(&json, "sliding_window")?,
        };
        let config = ModelConfig {
            architecture,
            rope_scaling: rope_scaling(&json)?,
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
            max_position_embeddings: window.map_or(context, |window| window.min(context)),
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
        let Description { model_type, class, activation, has_window_keys, .. } = self.description();
        let rope = self.rope_scaling.map(|scaling| {
            serde_json::json!({
                "factor": scaling.factor,
                "high_freq_factor": scaling.high_freq_factor,
                "low_freq_factor": scaling.low_freq_factor,
                "original_max_position_embeddings": scaling.original_max_position_embeddings,
                "rope_type": "llama3",
            })
        });
        let mut json = serde_json::json!({
            "architectures": [class],
            "attention_bias": false,
            "attention_dropout": 0.0,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": eos,
            "head_dim": self.head_dim,
            "hidden_act": activation,
            "hidden_size": self.hidden_size,
            "initializer_range": 0.02,
            "intermediate_size": self.intermediate_size,
            "max_position_embeddings": self.max_position_embeddings,
            "mlp_bias": false,
            "model_type": model_type,
            "num_attention_heads": self.num_attention_heads,
            "num_hidden_layers": self.num_hidden_layers,
            "num_key_value_heads": self.num_key_value_heads,
            "rms_norm_eps": self.rms_norm_eps,
            "rope_scaling": rope,
            "rope_theta": self.rope_theta,
            "tie_word_embeddings": self.tie_word_embeddings,
            "torch_dtype": "float32",
            "vocab_size": self.vocab_size,
        });
        if *has_window_keys {
            json["sliding_window"] = serde_json::Value::Null;
            json["use_sliding_window"] = false.into();
        }
        format!("{json:#}\n")
    }
}

/// The family, where it is one that the decoder computes exactly.
fn known_network(json: &serde_json::Value) -> Result<Architecture, LmError> {
    let text = |key: &str| json.get(key).and_then(|v| v.as_str());
    let bad = |what: String| Err(LmError::Config(what));
    let named = text("model_type").unwrap_or("nothing");
    let is_named = |a: &Architecture| a.description().model_type == named;
    let Some(architecture) = Architecture::ALL.into_iter().find(is_named) else {
        let known = Architecture::ALL.map(|a| a.description().model_type).join(", ");
        return bad(format!("model_type is {named}; known are {known}"));
    };
    let computed = architecture.description().activation;
    if let Some(act) = json.get("hidden_act").filter(|act| !act.is_null())
        && serde_json::from_value::<Activation>(act.clone()).ok() != Some(computed)
    {
        let act = act.as_str().map_or_else(|| act.to_string(), str::to_owned);
        return bad(format!("hidden_act is {act}; {} is supported", named_activation(computed)));
    }
    for key in ["attention_bias", "mlp_bias"] {
        if json.get(key).and_then(serde_json::Value::as_bool) == Some(true) {
            return bad(format!("{key} is true; biases are supported in Qwen2's places alone"));
        }
    }
    Ok(architecture)
}

/// As `config.json` writes it.
fn named_activation(activation: Activation) -> String {
    let text = serde_json::to_value(activation).ok();
    text.and_then(|text| text.as_str().map(str::to_owned))
        .unwrap_or_else(|| format!("{activation:?}"))
}

/// Scaled rotary positions: `rope_scaling`, or `rope_parameters` in newer files.
fn rope_scaling(json: &serde_json::Value) -> Result<Option<RopeScaling>, LmError> {
    for key in ["rope_scaling", "rope_parameters"] {
        let Some(rope) = json.get(key) else { continue };
        let kind = rope.get("rope_type").or_else(|| rope.get("type")).and_then(|k| k.as_str());
        match kind {
            None | Some("default") => {}
            Some("llama3") => {
                let read = serde_json::from_value(rope.clone());
                return read
                    .map(Some)
                    .map_err(|e| LmError::Config(format!("{key} of type llama3: {e}")));
            }
            Some(kind) => {
                return Err(LmError::Config(format!(
                    "{key} is of type {kind}; default and llama3 are supported"
                )));
            }
        }
    }
    Ok(None)
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
    fn other_kinds_come_back() {
        let llama3 = r#""rope_type":"llama3","factor":8.0,"low_freq_factor":1.0,
            "high_freq_factor":4.0,"original_max_position_embeddings":64"#;
        let text = SMALL.replace(r#""rope_type":"default""#, llama3);
        let config = ModelConfig::from_hf_json(&text).unwrap();
        assert_eq!(config.rope_scaling.unwrap().factor, 8.0);
        assert_eq!(ModelConfig::from_hf_json(&config.to_hf_json()).unwrap(), config);
        for kind in ["mistral", "qwen2", "qwen3"] {
            let text = SMALL.replace("llama", kind);
            let config = ModelConfig::from_hf_json(&text).unwrap();
            assert_eq!(config.description().qkv_bias, kind == "qwen2");
            assert_eq!(config.description().qk_norm, kind == "qwen3");
            assert_eq!(ModelConfig::from_hf_json(&config.to_hf_json()).unwrap(), config);
        }
    }

    #[test]
    fn the_context_ends_with_the_sliding_window() {
        let with = |extra: &str| {
            let text = SMALL.replace(r#""llama","#, &format!(r#""mistral",{extra}"#));
            ModelConfig::from_hf_json(&text).unwrap().max_position_embeddings
        };
        assert_eq!(with(r#""sliding_window":64,"#), 64);
        assert_eq!(with(r#""sliding_window":64,"use_sliding_window":false,"#), 2048);
        assert_eq!(with(r#""sliding_window":null,"#), 2048);
    }

    #[test]
    fn networks_that_would_be_computed_wrongly_are_refused() {
        for (from, to, word) in [
            (r#""llama""#, r#""gpt2""#, "gpt2"),
            (r#""rope_type":"default""#, r#""rope_type":"llama3""#, "factor"),
            (r#""rope_type":"default""#, r#""rope_type":"yarn""#, "yarn"),
            (r#""hidden_size":8"#, r#""hidden_size":-8"#, "hidden_size"),
            (r#""hidden_size":8,"#, "", "hidden_size"),
            (r#""num_attention_heads":2"#, r#""num_attention_heads":0"#, "num_attention_heads"),
            (r#""vocab_size":10"#, r#""vocab_size":10,"mlp_bias":true"#, "mlp_bias"),
            (r#""rope_theta":5000.0"#, r#""rope_theta":0"#, "rope_theta is 0"),
            (r#""rope_theta":5000.0"#, r#""rope_theta":-1e4"#, "rope_theta"),
            (r#""rope_theta":5000.0"#, r#""rope_theta":1e300"#, "rope_theta"),
            (r#""vocab_size":10"#, r#""vocab_size":10,"rms_norm_eps":0"#, "rms_norm_eps is 0"),
            (r#""vocab_size":10"#, r#""vocab_size":10,"rms_norm_eps":-1e-5"#, "rms_norm_eps"),
            (r#""intermediate_size":16"#, r#""intermediate_size":0"#, "intermediate_size"),
            (
                r#""vocab_size":10"#,
                r#""vocab_size":10,"max_position_embeddings":0"#,
                "max_position",
            ),
            (r#""num_attention_heads":2"#, r#""num_attention_heads":3"#, "no head_dim"),
        ] {
            let error = ModelConfig::from_hf_json(&SMALL.replace(from, to)).unwrap_err();
            assert!(error.to_string().contains(word), "{error}");
        }
        // A GGUF has numbers that JSON does not.
        let good = ModelConfig::from_hf_json(SMALL).unwrap();
        for config in [
            ModelConfig { rms_norm_eps: f64::NAN, ..good.clone() },
            ModelConfig { rope_theta: f64::NAN, ..good.clone() },
            ModelConfig { rope_theta: f64::INFINITY, ..good.clone() },
        ] {
            assert!(config.validate().is_err(), "{config:?}");
        }
    }
}
