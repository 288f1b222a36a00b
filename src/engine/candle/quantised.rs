//! Networks from GGUF files, by their `general.architecture`, kept quantised as they are. What
//! candle-transformers would compute differently from the file's model is refused.

use super::network::{Frozen, Network, Prompts, built, keeps_in_itself};
use crate::lm::error::LmError;
use crate::lm::gguf::{Metadata, read_header, stored_as};
use candle_core::quantized::gguf_file::{Content, Value};
use candle_core::{Device, Result, Tensor};
use candle_transformers::models::{
    quantized_gemma3, quantized_llama, quantized_phi3, quantized_qwen2, quantized_qwen3,
};
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

keeps_in_itself! {
    quantized_gemma3::ModelWeights,
    quantized_llama::ModelWeights,
    quantized_phi3::ModelWeights,
    quantized_qwen3::ModelWeights,
}

/// Candle's quantised Qwen2 cannot be copied: there is one, which forgets when a conversation
/// begins. A model answers one conversation at a time, so that no other one notices.
struct Qwen2(Arc<Mutex<quantized_qwen2::ModelWeights>>);

impl Network for Qwen2 {
    fn forward(&mut self, ids: &Tensor, at: usize) -> Result<Tensor> {
        let mut network = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if at == 0 {
            network.clear_kv_cache();
        }
        network.forward(ids, at)
    }

    fn fork(&self) -> Box<dyn Network> {
        Box::new(Qwen2(self.0.clone()))
    }
}

/// A kind of network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum QuantisedKind {
    /// Mixtral too, where its experts are tensors of their own.
    Llama,
    Qwen2,
    Qwen3,
    Gemma3,
    Phi3,
}

const KINDS: [(&str, QuantisedKind); 5] = [
    ("llama", QuantisedKind::Llama),
    ("qwen2", QuantisedKind::Qwen2),
    ("qwen3", QuantisedKind::Qwen3),
    ("gemma3", QuantisedKind::Gemma3),
    ("phi3", QuantisedKind::Phi3),
];

/// Candle's Phi 3 sets memory aside for its whole context: as much as this takes.
const PHI3_CONTEXT_MAX: usize = 4096;

/// A GGUF file whose header was read.
pub(super) struct Quantised {
    path: PathBuf,
    kind: QuantisedKind,
    /// `llama, Q4_1`.
    pub what: String,
    pub vocab_size: usize,
    /// How far it can read and is exact.
    pub context_tokens_max: usize,
    pub eos_token_ids: Vec<u32>,
}

impl Quantised {
    /// Reads the header.
    ///
    /// # Errors
    /// It is no GGUF, or one that candle-transformers does not have or has in part.
    pub fn open(path: &Path) -> std::result::Result<(Quantised, Content), LmError> {
        let content = read_header(path)?;
        let metadata = Metadata::of(&content);
        let bad = |why: String| LmError::Model(format!("{}: {why}", path.display()));
        let named = metadata.text("general.architecture").unwrap_or("none").to_owned();
        let Some((_, kind)) = KINDS.into_iter().find(|(name, _)| *name == named) else {
            let known: Vec<&str> = KINDS.iter().map(|(name, _)| *name).collect();
            return Err(bad(format!(
                "general.architecture is {named:?}; engines of kind candle know {} as GGUF. Give the \
                 model's folder with safetensors, of which more kinds are known",
                known.join(", ")
            )));
        };
        if let Some(left_out) = left_out(kind, &named, &content) {
            return Err(bad(left_out));
        }
        let longest = metadata.whole(&format!("{named}.context_length")).unwrap_or(2048) as usize;
        let context_tokens_max = match kind {
            QuantisedKind::Llama => longest.min(quantized_llama::MAX_SEQ_LEN),
            QuantisedKind::Phi3 => longest.min(PHI3_CONTEXT_MAX),
            QuantisedKind::Gemma3 => {
                let window = metadata.whole("gemma3.attention.sliding_window");
                longest.min(window.map_or(longest, |window| window as usize))
            }
            QuantisedKind::Qwen2 | QuantisedKind::Qwen3 => longest,
        };
        let ends = ["eos_token_id", "eot_token_id"].into_iter();
        let eos_token_ids = ends.filter_map(|key| metadata.id(&format!("tokenizer.ggml.{key}")));
        let table = content.tensor_infos.get("token_embd.weight");
        let Some(vocab_size) = table.and_then(|info| info.shape.dims().first().copied()) else {
            return Err(bad("it has no token_embd.weight".to_owned()));
        };
        let quantised = Quantised {
            path: path.to_owned(),
            kind,
            what: format!("{named}, {}", stored_as(&content)),
            vocab_size,
            context_tokens_max,
            eos_token_ids: eos_token_ids.collect(),
        };
        Ok((quantised, content))
    }

    /// The network with its weights.
    ///
    /// # Errors
    /// A tensor is missing, broken or of the wrong shape.
    pub fn load(&self) -> std::result::Result<Frozen, LmError> {
        let mut content = read_header(&self.path)?;
        let file = File::open(&self.path).map_err(|error| LmError::io(&self.path, error))?;
        let mut reader = BufReader::new(file);
        let (device, what) = (Device::Cpu, self.path.display().to_string());
        if self.kind == QuantisedKind::Phi3 {
            let bound = Value::U32(self.context_tokens_max as u32);
            content.metadata.insert("phi3.context_length".to_owned(), bound);
        }
        let network: Box<dyn Network> = built(&what, || {
            let (reader, device) = (&mut reader, &device);
            Ok(match self.kind {
                QuantisedKind::Llama => {
                    Box::new(quantized_llama::ModelWeights::from_gguf(content, reader, device)?)
                        as Box<dyn Network>
                }
                QuantisedKind::Qwen2 => {
                    let read = quantized_qwen2::ModelWeights::from_gguf(content, reader, device);
                    Box::new(Qwen2(Arc::new(Mutex::new(read?))))
                }
                QuantisedKind::Qwen3 => {
                    Box::new(quantized_qwen3::ModelWeights::from_gguf(content, reader, device)?)
                }
                QuantisedKind::Gemma3 => {
                    Box::new(quantized_gemma3::ModelWeights::from_gguf(content, reader, device)?)
                }
                QuantisedKind::Phi3 => Box::new(quantized_phi3::ModelWeights::from_gguf(
                    false, content, reader, device,
                )?),
            })
        })?;
        let prompts = match self.kind {
            QuantisedKind::Qwen2 => Prompts::ReadAnew,
            QuantisedKind::Llama
            | QuantisedKind::Qwen3
            | QuantisedKind::Gemma3
            | QuantisedKind::Phi3 => Prompts::Shared,
        };
        Ok(Frozen::new(network, prompts))
    }
}

/// What candle-transformers leaves out of a kind, and would compute without a word.
fn left_out(kind: QuantisedKind, named: &str, content: &Content) -> Option<String> {
    let metadata = Metadata::of(content);
    let has = |tensor: &str| content.tensor_infos.contains_key(tensor);
    let scaling = metadata.text(&format!("{named}.rope.scaling.type"));
    let stretched = scaling.is_some_and(|kind| kind != "none")
        || has("rope_freqs.weight")
        || has("rope_factors_long.weight");
    if stretched {
        return Some(
            "its rotary positions are stretched, which candle-transformers does not know in GGUF \
             files. Give the model's folder with safetensors"
                .to_owned(),
        );
    }
    let heads = metadata.whole(&format!("{named}.attention.head_count"));
    let width = metadata.whole(&format!("{named}.embedding_length"));
    let dim = metadata.whole(&format!("{named}.attention.key_length"));
    let of_its_own = matches!(kind, QuantisedKind::Qwen3 | QuantisedKind::Gemma3);
    match (heads, width, dim) {
        (Some(heads), Some(width), Some(dim)) if !of_its_own && heads * dim != width => {
            Some(format!(
                "its heads have {dim} dimensions and not {width} / {heads}, which candle-transformers \
                 does not know for {named} in GGUF files"
            ))
        }
        _ => None,
    }
}
