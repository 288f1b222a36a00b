//! GGUF files of the Llama family: shape, weights and texts. Weights come out dequantised and in
//! Hugging Face's names and row order. Writes nothing.

use super::config::{Architecture, ModelConfig};
use super::error::LmError;
use super::weights::Weights;
use candle_core::quantized::gguf_file::{Content, Value};
use candle_core::{Device, Tensor};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

/// Reads a GGUF's header: its metadata, and where its tensors are.
///
/// # Errors
/// The file cannot be read, or is no GGUF.
pub fn read_header(path: &Path) -> Result<Content, LmError> {
    let file = File::open(path).map_err(|e| LmError::io(path, e))?;
    let bad = |why: String| LmError::Model(format!("{}: {why}", path.display()));
    // The reader divides by an alignment that the file states; a broken file must not end the
    // process.
    let mut reader = BufReader::new(file);
    let read = std::panic::AssertUnwindSafe(|| Content::read(&mut reader));
    std::panic::catch_unwind(read)
        .map_err(|_| bad("its header is broken".into()))?
        .map_err(|e| bad(format!("not a usable GGUF file: {e}")))
}

/// The type that most tensors are stored in: "Q4_1".
pub fn stored_as(content: &Content) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for info in content.tensor_infos.values() {
        *counts.entry(format!("{:?}", info.ggml_dtype)).or_default() += 1;
    }
    let most = counts.into_iter().max_by_key(|(_, count)| *count);
    most.map_or_else(String::new, |(name, _)| name)
}

/// An opened GGUF file: its metadata is read, its tensors are not.
pub struct GgufModel {
    path: PathBuf,
    content: Content,
    config: ModelConfig,
}

impl GgufModel {
    /// Reads the metadata.
    ///
    /// # Errors
    /// The file cannot be read, is no GGUF, or holds another family than Llama.
    pub fn open(path: &Path) -> Result<GgufModel, LmError> {
        let content = read_header(path)?;
        let bad = |why: String| LmError::Model(format!("{}: {why}", path.display()));
        let metadata = Metadata { content: &content };
        let config = metadata.config().map_err(|e| bad(e.to_string()))?;
        Ok(GgufModel { path: path.to_owned(), content, config })
    }

    /// Shape of the network.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The metadata, read by type.
    pub fn metadata(&self) -> Metadata<'_> {
        Metadata { content: &self.content }
    }

    /// The type that most tensors are stored in: "Q4_1".
    pub fn stored_as(&self) -> String {
        stored_as(&self.content)
    }

    /// Reads and dequantises all weights.
    ///
    /// # Errors
    /// A tensor is missing, broken, or has the wrong shape.
    pub fn weights(&self) -> Result<Weights, LmError> {
        let file = File::open(&self.path).map_err(|e| LmError::io(&self.path, e))?;
        let mut reader = BufReader::new(file);
        let mut tensors = BTreeMap::new();
        for (name, shape) in super::weights::expected_shapes(&self.config) {
            let stored = gguf_name(&name);
            let info = self.content.tensor_infos.get(&stored);
            // Checked before anything is allocated.
            if info.is_none_or(|i| i.shape.dims() != shape.as_slice()) {
                return Err(LmError::Model(format!(
                    "{}: tensor {stored} has shape {:?}, its metadata ask for {shape:?}",
                    self.path.display(),
                    info.map(|i| i.shape.dims())
                )));
            }
            let quantised = self.content.tensor(&mut reader, &stored, &Device::Cpu)?;
            let tensor = quantised.dequantize(&Device::Cpu)?;
            let heads = match name.rsplit('.').nth(1) {
                Some("q_proj") => Some(self.config.num_attention_heads),
                Some("k_proj") => Some(self.config.num_key_value_heads),
                _ => None,
            };
            let tensor = match heads {
                Some(heads) => halves_from_pairs(&tensor, heads)?,
                None => tensor,
            };
            tensors.insert(name, tensor);
        }
        Weights(tensors).checked(&self.config)
    }
}

/// Rows of queries and keys in the order of Hugging Face. GGUF stores the two numbers that rotate
/// together side by side (row 2j and 2j + 1 of a head); Hugging Face half a head apart (j and
/// j + D/2).
pub fn halves_from_pairs(tensor: &Tensor, heads: usize) -> Result<Tensor, LmError> {
    let (rows, inner) = tensor.dims2()?;
    let half = rows / heads / 2;
    let split = tensor.reshape((heads, half, 2, inner))?;
    Ok(split.transpose(1, 2)?.contiguous()?.reshape((rows, inner))?)
}

fn gguf_name(name: &str) -> String {
    match name {
        "model.embed_tokens.weight" => return "token_embd.weight".into(),
        "model.norm.weight" => return "output_norm.weight".into(),
        "lm_head.weight" => return "output.weight".into(),
        _ => {}
    }
    let mut text = name.replace("model.layers.", "blk.");
    for (ours, theirs) in [
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ] {
        text = text.replace(ours, theirs);
    }
    text
}

/// Metadata by key, with the type that is expected.
pub struct Metadata<'a> {
    content: &'a Content,
}

impl<'a> Metadata<'a> {
    /// Of a file whose header was read.
    pub fn of(content: &'a Content) -> Metadata<'a> {
        Metadata { content }
    }
}

impl Metadata<'_> {
    /// A text.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.content.metadata.get(key).and_then(|v| v.to_string().ok()).map(String::as_str)
    }

    /// A whole number of any width.
    pub fn whole(&self, key: &str) -> Option<u64> {
        match self.content.metadata.get(key)? {
            Value::U8(v) => Some(u64::from(*v)),
            Value::U16(v) => Some(u64::from(*v)),
            Value::U32(v) => Some(u64::from(*v)),
            Value::U64(v) => Some(*v),
            Value::I32(v) => u64::try_from(*v).ok(),
            Value::I64(v) => u64::try_from(*v).ok(),
            _ => None,
        }
    }

    /// A token id.
    pub fn id(&self, key: &str) -> Option<u32> {
        self.whole(key).and_then(|v| u32::try_from(v).ok())
    }

    /// A list of texts.
    pub fn texts(&self, key: &str) -> Option<Vec<&str>> {
        let values = self.content.metadata.get(key)?.to_vec().ok()?;
        values.iter().map(|v| v.to_string().ok().map(String::as_str)).collect()
    }

    /// A list of small numbers.
    pub fn numbers(&self, key: &str) -> Option<Vec<i64>> {
        let values = self.content.metadata.get(key)?.to_vec().ok()?;
        values
            .iter()
            .map(|v| match v {
                Value::I32(n) => Some(i64::from(*n)),
                Value::U32(n) => Some(i64::from(*n)),
                _ => None,
            })
            .collect()
    }

    fn float(&self, key: &str) -> Option<f64> {
        match self.content.metadata.get(key)? {
            // The shortest decimal that is this f32 (1e-5, not 0.00000999999974...).
            Value::F32(v) => v.to_string().parse().ok(),
            Value::F64(v) => Some(*v),
            _ => None,
        }
    }

    fn config(&self) -> Result<ModelConfig, LmError> {
        let bad = |what: String| LmError::Config(what);
        let family = self.text("general.architecture").unwrap_or("none");
        if family != "llama" {
            return Err(bad(format!("general.architecture is {family}; llama is supported")));
        }
        let scaling = self.text("llama.rope.scaling.type");
        if scaling.is_some_and(|s| s != "none")
            || self.content.tensor_infos.contains_key("rope_freqs.weight")
        {
            return Err(bad("scaled rotary positions are not supported".into()));
        }
        const COUNT_MAX: u64 = 1 << 24;
        let count = |key: &str| match self.whole(key) {
            Some(n) if n <= COUNT_MAX => Ok(n as usize),
            Some(n) => Err(bad(format!("{key} is {n}; at most {COUNT_MAX} is expected"))),
            None => Err(bad(format!("the file has no {key}"))),
        };
        let heads = count("llama.attention.head_count")?;
        let hidden_size = count("llama.embedding_length")?;
        let vocab_size = match self.content.tensor_infos.get("token_embd.weight") {
            Some(info) => info.shape.dims().first().copied().unwrap_or(0),
            None => return Err(bad("the file has no token_embd.weight".into())),
        };
        let head_dim = match self.whole("llama.attention.key_length") {
            Some(_) => count("llama.attention.key_length")?,
            None => hidden_size.checked_div(heads).unwrap_or(0),
        };
        let kv_heads = count("llama.attention.head_count_kv").unwrap_or(heads);
        let config = ModelConfig {
            architecture: Architecture::default(),
            rope_scaling: None,
            vocab_size,
            hidden_size,
            intermediate_size: count("llama.feed_forward_length")?,
            num_hidden_layers: count("llama.block_count")?,
            num_attention_heads: heads,
            num_key_value_heads: kv_heads,
            head_dim,
            rms_norm_eps: self.float("llama.attention.layer_norm_rms_epsilon").unwrap_or(1e-5),
            rope_theta: self.float("llama.rope.freq_base").unwrap_or(10_000.0),
            max_position_embeddings: count("llama.context_length")?,
            tie_word_embeddings: !self.content.tensor_infos.contains_key("output.weight"),
            bos_token_id: self.id("tokenizer.ggml.bos_token_id"),
            eos_token_ids: self.id("tokenizer.ggml.eos_token_id").into_iter().collect(),
        };
        config.validate()?;
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `LlamaModel.permute` of llama.cpp's convert_hf_to_gguf.py, by index arithmetic:
    /// `w.reshape(heads, 2, D/2, in).swapaxes(1, 2)`.
    fn permuted(rows: usize, heads: usize) -> Vec<f32> {
        let dim = rows / heads;
        (0..rows)
            .map(|row| {
                let (head, inside) = (row / dim, row % dim);
                (head * dim + (inside % 2) * (dim / 2) + inside / 2) as f32
            })
            .collect()
    }

    #[test]
    fn rows_return_to_their_order() {
        let stored = Tensor::from_vec(permuted(12, 2), (12, 1), &Device::Cpu).unwrap();
        assert_eq!(&permuted(12, 2)[..6], &[0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
        let restored = halves_from_pairs(&stored, 2).unwrap().flatten_all().unwrap();
        let order: Vec<f32> = (0..12).map(|i| i as f32).collect();
        assert_eq!(restored.to_vec1::<f32>().unwrap(), order);
    }

    #[test]
    fn names_map() {
        assert_eq!(gguf_name("model.layers.7.self_attn.o_proj.weight"), "blk.7.attn_output.weight");
        assert_eq!(
            gguf_name("model.layers.0.post_attention_layernorm.weight"),
            "blk.0.ffn_norm.weight"
        );
    }

    #[test]
    fn broken_files_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.gguf");
        for bytes in
            [&b""[..], b"GGUF", b"GGUF\x03\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff", &[0; 99]]
        {
            std::fs::write(&path, bytes).unwrap();
            assert!(GgufModel::open(&path).is_err());
        }
    }
}
