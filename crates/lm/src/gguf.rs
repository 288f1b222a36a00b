//! GGUF files of the families whose description says how ([`super::arch`]): shape, weights and texts. Weights come out dequantised and in
//! Hugging Face's names and row order. Writes nothing.

use super::arch::{Architecture, GgufFormat, RowOrder, TensorRole};
use super::config::ModelConfig;
use super::error::LmError;
use super::tensors::tensors;
use super::weights::Weights;
use candle_core::quantized::gguf_file::{Content, Value};
use candle_core::{Device, Tensor};
use std::collections::{BTreeMap, BTreeSet};
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
    format: GgufFormat,
}

impl GgufModel {
    /// Reads the metadata.
    ///
    /// # Errors
    /// The file cannot be read, is no GGUF, or holds a family that is not read from GGUF.
    pub fn open(path: &Path) -> Result<GgufModel, LmError> {
        let content = read_header(path)?;
        let bad = |why: String| LmError::Model(format!("{}: {why}", path.display()));
        let metadata = Metadata { content: &content };
        let (architecture, format) = metadata.family().map_err(|e| bad(e.to_string()))?;
        let config = metadata.config(architecture, format).map_err(|e| bad(e.to_string()))?;
        Ok(GgufModel { path: path.to_owned(), content, config, format })
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
        let mut found = BTreeMap::new();
        for spec in tensors(&self.config) {
            let stored = spec.gguf_name(&self.config);
            let info = self.content.tensor_infos.get(&stored);
            // Checked before anything is allocated.
            if info.is_none_or(|i| i.shape.dims() != spec.shape.as_slice()) {
                return Err(LmError::Model(format!(
                    "{}: tensor {stored} has shape {:?}, its metadata ask for {:?}",
                    self.path.display(),
                    info.map(|i| i.shape.dims()),
                    spec.shape
                )));
            }
            let quantised = self.content.tensor(&mut reader, &stored, &Device::Cpu)?;
            let tensor = quantised.dequantize(&Device::Cpu)?;
            let tensor = match paired_heads(self.format, spec.role, &self.config) {
                Some(heads) => halves_from_pairs(&tensor, heads)?,
                None => tensor,
            };
            found.insert(spec.name, tensor);
        }
        Weights(found).checked(&self.config)
    }
}

/// Heads of a tensor whose rows GGUF files of this format have in another order than Hugging Face's;
/// `None` of one whose rows lie in the same order.
pub(crate) fn paired_heads(
    format: GgufFormat,
    role: TensorRole,
    config: &ModelConfig,
) -> Option<usize> {
    match (format.query_key_rows, role) {
        (RowOrder::SideBySide, TensorRole::Query) => Some(config.num_attention_heads),
        (RowOrder::SideBySide, TensorRole::Key) => Some(config.num_key_value_heads),
        _ => None,
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

/// Rows of queries and keys in the order of GGUF: [`halves_from_pairs`] the other way round.
pub fn pairs_from_halves(tensor: &Tensor, heads: usize) -> Result<Tensor, LmError> {
    let (rows, inner) = tensor.dims2()?;
    let half = rows / heads / 2;
    let split = tensor.reshape((heads, 2, half, inner))?;
    Ok(split.transpose(1, 2)?.contiguous()?.reshape((rows, inner))?)
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

    /// The family, and how its files are laid out.
    fn family(&self) -> Result<(Architecture, GgufFormat), LmError> {
        let named = self.text("general.architecture").unwrap_or("none");
        let readable =
            || Architecture::ALL.into_iter().filter_map(|a| Some((a, a.description().gguf?)));
        let found = readable().find(|(_, format)| format.architecture == named);
        found.ok_or_else(|| {
            let known: BTreeSet<&str> = readable().map(|(_, format)| format.architecture).collect();
            let known = known.into_iter().collect::<Vec<_>>().join(", ");
            LmError::Config(format!("general.architecture is {named}; {known} are supported"))
        })
    }

    fn config(
        &self,
        architecture: Architecture,
        format: GgufFormat,
    ) -> Result<ModelConfig, LmError> {
        let bad = |what: String| LmError::Config(what);
        let key = |rest: &str| format!("{}.{rest}", format.architecture);
        let scaling = self.text(&key("rope.scaling.type"));
        if scaling.is_some_and(|s| s != "none")
            || self.content.tensor_infos.contains_key("rope_freqs.weight")
        {
            return Err(bad("scaled rotary positions are not supported".into()));
        }
        const COUNT_MAX: u64 = 1 << 24;
        let count = |rest: &str| match (key(rest), self.whole(&key(rest))) {
            (_, Some(n)) if n <= COUNT_MAX => Ok(n as usize),
            (key, Some(n)) => Err(bad(format!("{key} is {n}; at most {COUNT_MAX} is expected"))),
            (key, None) => Err(bad(format!("the file has no {key}"))),
        };
        let heads = count("attention.head_count")?;
        let hidden_size = count("embedding_length")?;
        let vocab_size = match self.content.tensor_infos.get("token_embd.weight") {
            Some(info) => info.shape.dims().first().copied().unwrap_or(0),
            None => return Err(bad("the file has no token_embd.weight".into())),
        };
        let head_dim = match self.whole(&key("attention.key_length")) {
            Some(_) => count("attention.key_length")?,
            None => hidden_size.checked_div(heads).unwrap_or(0),
        };
        let kv_heads = count("attention.head_count_kv").unwrap_or(heads);
        let config = ModelConfig {
            architecture,
            rope_scaling: None,
            vocab_size,
            hidden_size,
            intermediate_size: count("feed_forward_length")?,
            num_hidden_layers: count("block_count")?,
            num_attention_heads: heads,
            num_key_value_heads: kv_heads,
            head_dim,
            rms_norm_eps: self.float(&key("attention.layer_norm_rms_epsilon")).unwrap_or(1e-5),
            rope_theta: self.float(&key("rope.freq_base")).unwrap_or(10_000.0),
            max_position_embeddings: count("context_length")?,
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
    use crate::tensors::TensorSpec;

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
        let config = ModelConfig::from_hf_json(
            r#"{"model_type":"llama","hidden_size":8,"intermediate_size":16,"vocab_size":10,
            "num_hidden_layers":8,"num_attention_heads":2}"#,
        )
        .unwrap();
        let named = |role, layer| TensorSpec::of(&config, role, layer).gguf_name(&config);
        assert_eq!(named(TensorRole::Output, Some(7)), "blk.7.attn_output.weight");
        assert_eq!(named(TensorRole::MlpNorm, Some(0)), "blk.0.ffn_norm.weight");
        assert_eq!(named(TensorRole::Head, None), "output.weight");
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
