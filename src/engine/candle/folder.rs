//! Networks from safetensors, by the `model_type` of their `config.json`. Weights are computed with
//! as 32-bit numbers, which is what candle's CPU kernels know. What a network of
//! candle-transformers would compute differently from its model is refused.

use super::network::{Frozen, Network, Prompts, built, keeps_in_itself};
use crate::lm::error::LmError;
use crate::lm::weights::Weights;
use candle_core::{DType, Device, Result, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::{
    gemma, gemma2, gemma3, llama, mistral, mixtral, phi3, qwen2, qwen2_moe, qwen3, qwen3_moe,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

keeps_in_itself! {
    gemma::Model,
    gemma2::Model,
    gemma3::Model,
    mistral::Model,
    mixtral::Model,
    phi3::Model,
    qwen2::ModelForCausalLM,
    qwen2_moe::Model,
    qwen3::ModelForCausalLM,
    qwen3_moe::ModelForCausalLM,
}

/// Llama keeps what it has read beside itself.
#[derive(Clone)]
struct Llama {
    network: llama::Llama,
    read: llama::Cache,
}

impl Network for Llama {
    fn forward(&mut self, ids: &Tensor, at: usize) -> Result<Tensor> {
        self.network.forward(ids, at, &mut self.read)
    }

    fn fork(&self) -> Box<dyn Network> {
        Box::new(self.clone())
    }
}

/// A kind of network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NetworkKind {
    Llama,
    Mistral,
    Mixtral,
    Qwen2,
    Qwen2Moe,
    Qwen3,
    Qwen3Moe,
    Gemma,
    Gemma2,
    Gemma3,
    Phi3,
}

/// Kinds by the `model_type` of `config.json`.
const KINDS: [(&str, NetworkKind); 11] = [
    ("llama", NetworkKind::Llama),
    ("mistral", NetworkKind::Mistral),
    ("mixtral", NetworkKind::Mixtral),
    ("qwen2", NetworkKind::Qwen2),
    ("qwen2_moe", NetworkKind::Qwen2Moe),
    ("qwen3", NetworkKind::Qwen3),
    ("qwen3_moe", NetworkKind::Qwen3Moe),
    ("gemma", NetworkKind::Gemma),
    ("gemma2", NetworkKind::Gemma2),
    ("gemma3_text", NetworkKind::Gemma3),
    ("phi3", NetworkKind::Phi3),
];

/// A network's configuration, made fit for candle-transformers.
pub(super) struct NetworkShape {
    pub kind: NetworkKind,
    pub model_type: &'static str,
    pub vocab_size: usize,
    /// How far it can read and is exact.
    pub context_tokens_max: usize,
    pub eos_token_ids: Vec<u32>,
    config: Value,
}

fn wrong(why: impl Into<String>) -> LmError {
    LmError::Config(why.into())
}

fn count(config: &Value, key: &str) -> std::result::Result<usize, LmError> {
    let n = config.get(key).and_then(Value::as_u64).filter(|n| (1..1 << 32).contains(n));
    n.map(|n| n as usize).ok_or_else(|| wrong(format!("config.json has no usable {key}")))
}

impl NetworkShape {
    /// Reads the text of a `config.json`.
    ///
    /// # Errors
    /// A kind that candle-transformers does not have, or has in part.
    pub fn of(text: &str) -> std::result::Result<NetworkShape, LmError> {
        let given: Value = serde_json::from_str(text)
            .map_err(|error| wrong(format!("config.json is not JSON: {error}")))?;
        let named = given.get("model_type").and_then(Value::as_str).unwrap_or("none");
        let Some((model_type, kind)) = KINDS.into_iter().find(|(name, _)| *name == named) else {
            let known: Vec<&str> = KINDS.iter().map(|(name, _)| *name).collect();
            return Err(wrong(format!(
                "config.json says model_type {named:?}; engines of kind candle know {}",
                known.join(", ")
            )));
        };
        refuse_what_is_left_out(kind, &given)?;
        let ids = match given.get("eos_token_id") {
            Some(Value::Array(ids)) => ids.iter().filter_map(Value::as_u64).collect(),
            Some(one) => one.as_u64().into_iter().collect(),
            None => Vec::new(),
        };
        let eos_token_ids = ids.into_iter().filter_map(|id| u32::try_from(id).ok()).collect();
        let context_tokens_max = exact_up_to(kind, &given)?;
        let vocab_size = count(&given, "vocab_size")?;
        let config = completed(kind, given)?;
        Ok(NetworkShape { kind, model_type, vocab_size, context_tokens_max, eos_token_ids, config })
    }

    fn read<T: DeserializeOwned>(&self) -> std::result::Result<T, LmError> {
        let read = serde_json::from_value(self.config.clone());
        read.map_err(|error| wrong(format!("config.json of kind {}: {error}", self.model_type)))
    }

    /// The network with the weights of a folder.
    ///
    /// # Errors
    /// A tensor is missing, broken or of the wrong shape.
    pub fn load(&self, folder: &Path) -> std::result::Result<Frozen, LmError> {
        let mut tensors = HashMap::new();
        for file in weight_files(folder)? {
            tensors.extend(candle_core::safetensors::load(file, &Device::Cpu)?);
        }
        self.with(tensors, &folder.display().to_string())
    }

    /// The network with these weights.
    ///
    /// # Errors
    /// As [`NetworkShape::load`].
    fn with(
        &self,
        mut tensors: HashMap<String, Tensor>,
        what: &str,
    ) -> std::result::Result<Frozen, LmError> {
        let tied = self.config.get("tie_word_embeddings").and_then(Value::as_bool) == Some(true);
        if let Some(table) = tensors.get("model.embed_tokens.weight").filter(|_| tied).cloned() {
            // Not every network looks for the head where it is.
            tensors.entry("lm_head.weight".to_owned()).or_insert(table);
        }
        let weights = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
        let network = built(what, || self.network(weights))?;
        let frozen = Frozen::new(network, Prompts::Shared);
        Ok(match self.kind {
            // Its memory takes several tokens at once of one head of keys alone.
            NetworkKind::Gemma3 => frozen.token_by_token(),
            _ => frozen,
        })
    }

    fn network(&self, weights: VarBuilder<'_>) -> std::result::Result<Box<dyn Network>, LmError> {
        Ok(match self.kind {
            NetworkKind::Llama => {
                let config = self.read::<llama::LlamaConfig>()?.into_config(false);
                let read = llama::Cache::new(true, DType::F32, &config, &Device::Cpu)?;
                Box::new(Llama { network: llama::Llama::load(weights, &config)?, read })
            }
            NetworkKind::Mistral => Box::new(mistral::Model::new(&self.read()?, weights)?),
            NetworkKind::Mixtral => Box::new(mixtral::Model::new(&self.read()?, weights)?),
            NetworkKind::Qwen2 => Box::new(qwen2::ModelForCausalLM::new(&self.read()?, weights)?),
            NetworkKind::Qwen2Moe => Box::new(qwen2_moe::Model::new(&self.read()?, weights)?),
            NetworkKind::Qwen3 => Box::new(qwen3::ModelForCausalLM::new(&self.read()?, weights)?),
            NetworkKind::Qwen3Moe => {
                Box::new(qwen3_moe::ModelForCausalLM::new(&self.read()?, weights)?)
            }
            NetworkKind::Gemma => Box::new(gemma::Model::new(false, &self.read()?, weights)?),
            NetworkKind::Gemma2 => Box::new(gemma2::Model::new(false, &self.read()?, weights)?),
            NetworkKind::Gemma3 => Box::new(gemma3::Model::new(false, &self.read()?, weights)?),
            NetworkKind::Phi3 => Box::new(phi3::Model::new(&self.read()?, weights)?),
        })
    }
}

/// Refuses what candle-transformers leaves out of a kind, and would compute without a word.
fn refuse_what_is_left_out(kind: NetworkKind, given: &Value) -> std::result::Result<(), LmError> {
    let is_set = |key: &str| given.get(key).and_then(Value::as_bool) == Some(true);
    if kind == NetworkKind::Llama && (is_set("attention_bias") || is_set("mlp_bias")) {
        return Err(wrong(
            "candle-transformers has no Llama with biases (attention_bias, mlp_bias)",
        ));
    }
    if matches!(kind, NetworkKind::Llama | NetworkKind::Mixtral | NetworkKind::Phi3)
        && let Some(dim) = given.get("head_dim").and_then(Value::as_u64)
        && dim * count(given, "num_attention_heads")? as u64 != count(given, "hidden_size")? as u64
    {
        return Err(wrong(format!(
            "head_dim is {dim}; candle-transformers has this kind with hidden_size / \
             num_attention_heads alone"
        )));
    }
    let scaled = [("rope_scaling", given.get("rope_scaling")), ("rope_parameters", None)];
    let scaled = scaled.into_iter().find_map(|(_, value)| value.filter(|v| !v.is_null()));
    let by_parameters = given.get("rope_parameters").filter(|rope| {
        let kind = rope.get("rope_type").and_then(Value::as_str).unwrap_or("default");
        kind != "default"
    });
    if scaled.or(by_parameters).is_some() && !matches!(kind, NetworkKind::Llama | NetworkKind::Phi3)
    {
        return Err(wrong(
            "candle-transformers has this kind without stretched rotary positions (rope_scaling)",
        ));
    }
    Ok(())
}

/// How far candle-transformers reads a kind as its model would: where attention has a window that
/// it does not compute in every step, as far as the window.
fn exact_up_to(kind: NetworkKind, given: &Value) -> std::result::Result<usize, LmError> {
    let longest = count(given, "max_position_embeddings").unwrap_or(8192);
    let unused = given.get("use_sliding_window").and_then(Value::as_bool) == Some(false);
    let qwen = matches!(
        kind,
        NetworkKind::Qwen2 | NetworkKind::Qwen2Moe | NetworkKind::Qwen3 | NetworkKind::Qwen3Moe
    );
    let window = given.get("sliding_window").and_then(Value::as_u64);
    let absent = unused || (qwen && given.get("use_sliding_window").is_none());
    let window = window.filter(|_| !absent);
    Ok(window.map_or(longest, |window| longest.min(window as usize)))
}

/// The configuration with everything that candle-transformers wants said.
fn completed(kind: NetworkKind, mut given: Value) -> std::result::Result<Value, LmError> {
    let rope = given.get("rope_parameters").cloned().unwrap_or(Value::Null);
    let heads = count(&given, "num_attention_heads")?;
    let hidden = count(&given, "hidden_size")?;
    let layers = count(&given, "num_hidden_layers")?;
    let longest = count(&given, "max_position_embeddings").unwrap_or(8192);
    let theta = |of: &Value| of.get("rope_theta").and_then(Value::as_f64);
    let full = rope.get("full_attention").unwrap_or(&rope);
    let local = rope.get("sliding_attention").and_then(theta);
    let pattern = given.get("layer_types").and_then(Value::as_array).and_then(|types| {
        types.iter().position(|kind| kind.as_str() == Some("full_attention")).map(|at| at + 1)
    });
    let gelu = matches!(kind, NetworkKind::Gemma | NetworkKind::Gemma2 | NetworkKind::Gemma3);
    let defaults = json!({
        "rope_theta": theta(full).unwrap_or(10_000.0),
        "rope_local_base_freq": local.unwrap_or(10_000.0),
        "rms_norm_eps": 1e-6,
        "num_key_value_heads": heads,
        "head_dim": hidden / heads,
        "max_position_embeddings": longest,
        "sliding_window": longest,
        "sliding_window_pattern": pattern.unwrap_or(6),
        "max_window_layers": layers,
        "use_sliding_window": false,
        "attention_bias": false,
        "tie_word_embeddings": gelu,
        "hidden_act": "silu",
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": hidden / heads,
        "use_flash_attn": false,
        "decoder_sparse_step": 1,
        "norm_topk_prob": false,
    });
    let scaling = match rope.get("rope_type").and_then(Value::as_str) {
        None | Some("default") => None,
        Some(_) => Some(rope.clone()),
    };
    let (Some(map), Value::Object(defaults)) = (given.as_object_mut(), defaults) else {
        return Err(wrong("config.json holds no object"));
    };
    for (key, value) in defaults {
        if map.get(&key).is_none_or(Value::is_null) {
            map.insert(key, value);
        }
    }
    if map.get("rope_scaling").is_none_or(Value::is_null)
        && let Some(scaling) = scaling
    {
        map.insert("rope_scaling".to_owned(), scaling);
    }
    if gelu {
        // The first Gemma takes one of the two.
        map.remove("hidden_act");
    }
    if kind == NetworkKind::Phi3 {
        map.remove("eos_token_id");
        if let Some(Value::Object(scaling)) = map.get_mut("rope_scaling")
            && let Some(kind) = scaling.get("rope_type").cloned()
        {
            scaling.entry("type").or_insert(kind);
        }
    }
    Ok(given)
}

/// Bytes of a folder's weights once they are read; 0 where they cannot be.
pub(super) fn memory_bytes(folder: &Path) -> u64 {
    let files = weight_files(folder).unwrap_or_default();
    let numbers = files.iter().filter_map(|file| numbers_in(file).ok());
    numbers.sum::<u64>() * DType::F32.size_in_bytes() as u64
}

/// The numbers of a file's tensors.
fn numbers_in(file: &Path) -> std::result::Result<u64, LmError> {
    Ok(Weights::shapes_in(file)?.iter().map(|shape| shape.iter().product::<usize>() as u64).sum())
}

/// The safetensors files of a folder.
pub(super) fn weight_files(folder: &Path) -> std::result::Result<Vec<PathBuf>, LmError> {
    let one = folder.join("model.safetensors");
    if one.is_file() {
        return Ok(vec![one]);
    }
    let index = folder.join("model.safetensors.index.json");
    let text = std::fs::read_to_string(&index).map_err(|error| LmError::io(&index, error))?;
    let index: Value = serde_json::from_str(&text)
        .map_err(|error| wrong(format!("{}: {error}", index.display())))?;
    let map = index.get("weight_map").and_then(Value::as_object);
    let mut names: Vec<&str> =
        map.into_iter().flat_map(|map| map.values()).filter_map(Value::as_str).collect();
    names.sort_unstable();
    names.dedup();
    let strange = |name: &&str| Path::new(name).components().count() != 1 || name.starts_with('.');
    if let Some(name) = names.iter().find(|name| strange(name)) {
        return Err(wrong(format!(
            "model.safetensors.index.json names {name:?}, which is no file beside it"
        )));
    }
    match names.is_empty() {
        true => Err(wrong("model.safetensors.index.json names no file")),
        false => Ok(names.into_iter().map(|name| folder.join(name)).collect()),
    }
}
