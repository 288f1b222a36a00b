//! A model as one GGUF file, for llama.cpp and what is built on it: weights, shape, tokenizer and chat
//! template. What [`super::gguf`] reads, the other way round.

use super::error::LmError;
use super::gguf::{paired_heads, pairs_from_halves};
use super::gguf_vocabulary::tokenizer_metadata;
use super::model_files::ModelFiles;
use super::tensors::tensors;
use super::weights::{WeightDtype, Weights};
use candle_core::quantized::gguf_file::{Value, write};
use candle_core::quantized::{GgmlDType, QTensor};
use rayon::prelude::*;
use std::io::{Seek, Write};

/// How the matrices of a GGUF file are stored. Its vectors (norms, biases) are always F32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GgufDtype {
    /// 4 bytes, exact.
    F32,
    /// 2 bytes.
    F16,
    /// 2 bytes, of any size that F32 has.
    Bf16,
    /// 34 bytes for 32 numbers: 8 bits each, and a scale.
    Q8_0,
}

impl GgufDtype {
    fn of_candle(self) -> GgmlDType {
        match self {
            GgufDtype::F32 => GgmlDType::F32,
            GgufDtype::F16 => GgmlDType::F16,
            GgufDtype::Bf16 => GgmlDType::BF16,
            GgufDtype::Q8_0 => GgmlDType::Q8_0,
        }
    }

    /// What it is called: `F16`.
    pub fn name(self) -> &'static str {
        match self {
            GgufDtype::F32 => "F32",
            GgufDtype::F16 => "F16",
            GgufDtype::Bf16 => "BF16",
            GgufDtype::Q8_0 => "Q8_0",
        }
    }

    /// How it rounds a number by itself; `None` where it keeps all of it, or rounds numbers together.
    pub fn rounding(self) -> Option<WeightDtype> {
        match self {
            GgufDtype::F16 => Some(WeightDtype::F16),
            GgufDtype::Bf16 => Some(WeightDtype::Bf16),
            GgufDtype::F32 | GgufDtype::Q8_0 => None,
        }
    }

    /// `general.file_type` (llama.cpp's `llama_ftype`).
    fn file_type(self) -> u32 {
        match self {
            GgufDtype::F32 => 0,
            GgufDtype::F16 => 1,
            GgufDtype::Q8_0 => 7,
            GgufDtype::Bf16 => 32,
        }
    }

    /// How a tensor of this shape is stored: blocks of 32 numbers want rows of whole blocks.
    fn of_tensor(self, shape: &[usize]) -> GgmlDType {
        let whole = shape.last().is_some_and(|n| n.is_multiple_of(GgmlDType::Q8_0.block_size()));
        match self {
            _ if shape.len() < 2 => GgmlDType::F32,
            GgufDtype::Q8_0 if !whole => GgmlDType::F16,
            other => other.of_candle(),
        }
    }
}

/// Writes a model with these weights.
///
/// # Errors
/// GGUF does not know such a network or its tokenizer, a tensor is missing, or what the writer says.
pub fn write_gguf(
    to: &mut (impl Write + Seek),
    files: &ModelFiles,
    weights: &Weights,
    dtype: GgufDtype,
    name: &str,
) -> Result<(), LmError> {
    let mut metadata = network_metadata(files, dtype, name)?;
    metadata.extend(tokenizer_metadata(files)?);
    let stored = stored(files, weights, dtype)?;
    let metadata: Vec<(&str, &Value)> = metadata.iter().map(|(key, v)| (key.as_str(), v)).collect();
    let tensors: Vec<(&str, &QTensor)> =
        stored.iter().map(|(name, t)| (name.as_str(), t)).collect();
    Ok(write(to, &metadata, &tensors)?)
}

/// The tensors under the names and in the row order of GGUF.
fn stored(
    files: &ModelFiles,
    weights: &Weights,
    dtype: GgufDtype,
) -> Result<Vec<(String, QTensor)>, LmError> {
    let config = files.config();
    let format = format(files)?;
    let stored = |spec: super::tensors::TensorSpec| {
        let tensor = weights.get(&spec.name)?;
        let tensor = match paired_heads(format, spec.role, config) {
            Some(heads) => pairs_from_halves(tensor, heads)?,
            None => tensor.contiguous()?,
        };
        let quantised = QTensor::quantize(&tensor, dtype.of_tensor(&spec.shape))?;
        Ok((spec.gguf_name(config), quantised))
    };
    tensors(config).into_par_iter().map(stored).collect()
}

fn format(files: &ModelFiles) -> Result<super::arch::GgufFormat, LmError> {
    let description = files.config().description();
    description.gguf.ok_or_else(|| {
        LmError::Config(format!("GGUF files of {} models are not written", description.model_type))
    })
}

fn network_metadata(
    files: &ModelFiles,
    dtype: GgufDtype,
    name: &str,
) -> Result<Vec<(String, Value)>, LmError> {
    let config = files.config();
    if config.rope_scaling.is_some() {
        return Err(LmError::Config(
            "the model stretches rotary positions (rope_scaling), which is not written into GGUF \
             files here. Convert its Hugging Face folder with llama.cpp's convert_hf_to_gguf.py"
                .into(),
        ));
    }
    let family = format(files)?.architecture;
    let key = |rest: &str| format!("{family}.{rest}");
    let count = |n: usize| Value::U32(u32::try_from(n).unwrap_or(u32::MAX));
    let head = config.head_dim;
    Ok(vec![
        ("general.architecture".to_owned(), Value::String(family.to_owned())),
        ("general.name".to_owned(), Value::String(name.to_owned())),
        ("general.file_type".to_owned(), Value::U32(dtype.file_type())),
        ("general.quantization_version".to_owned(), Value::U32(2)),
        (key("vocab_size"), count(config.vocab_size)),
        (key("context_length"), count(config.max_position_embeddings)),
        (key("embedding_length"), count(config.hidden_size)),
        (key("block_count"), count(config.num_hidden_layers)),
        (key("feed_forward_length"), count(config.intermediate_size)),
        (key("rope.dimension_count"), count(head)),
        (key("attention.head_count"), count(config.num_attention_heads)),
        (key("attention.head_count_kv"), count(config.num_key_value_heads)),
        (key("attention.key_length"), count(head)),
        (key("attention.value_length"), count(head)),
        (key("attention.layer_norm_rms_epsilon"), Value::F32(config.norm_eps())),
        (key("rope.freq_base"), Value::F32(config.rope_theta as f32)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::Architecture;
    use crate::config::ModelConfig;
    use crate::generate::random_weights;
    use crate::gguf_tokenizer::splitter;
    use crate::vocabulary::Vocabulary;
    use crate::weights::WeightDtype;
    use std::collections::BTreeMap;
    use std::io::BufWriter;

    /// A tiny model of a family, with a byte-level tokenizer of eight letters and two specials.
    fn files(family: Architecture) -> ModelFiles {
        let config = serde_json::json!({
            "model_type": family.description().model_type, "hidden_size": 64, "head_dim": 16,
            "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
            "num_key_value_heads": 2, "vocab_size": 16, "max_position_embeddings": 64,
            "rope_theta": 20000.0, "rms_norm_eps": 1e-5, "eos_token_id": 11, "bos_token_id": 10,
            "tie_word_embeddings": family == Architecture::Llama,
        });
        let letters = ["a", "b", "c", "d", "e", "f", "g", "h", "ab", "\u{120}"];
        let vocab: serde_json::Map<String, serde_json::Value> = letters
            .iter()
            .enumerate()
            .map(|(id, letter)| ((*letter).to_owned(), id.into()))
            .collect();
        let special = |id: u32, content: &str| {
            serde_json::json!({"id": id, "content": content, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": true})
        };
        let tokenizer = serde_json::json!({
            "version": "1.0", "truncation": null, "padding": null, "normalizer": null,
            "added_tokens": [special(10, "<|s|>"), special(11, "<|im_end|>")],
            "pre_tokenizer": splitter("qwen2").unwrap(), "post_processor": null,
            "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
                "use_regex": true},
            "model": {"type": "BPE", "dropout": null, "unk_token": null, "fuse_unk": false,
                "continuing_subword_prefix": null, "end_of_word_suffix": null,
                "byte_fallback": false, "vocab": vocab, "merges": [["a", "b"]]},
        });
        let template = "{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}";
        let texts = [
            ("config.json", config.to_string()),
            ("tokenizer.json", tokenizer.to_string()),
            (
                "tokenizer_config.json",
                serde_json::json!({
                    "bos_token": "<|s|>", "eos_token": "<|im_end|>", "chat_template": template,
                })
                .to_string(),
            ),
        ];
        let texts: BTreeMap<String, String> =
            texts.into_iter().map(|(name, text)| (name.to_owned(), text)).collect();
        ModelFiles::from_texts(texts).unwrap()
    }

    fn written(files: &ModelFiles, weights: &Weights, dtype: GgufDtype) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.gguf");
        let mut file = BufWriter::new(std::fs::File::create(&path).unwrap());
        write_gguf(&mut file, files, weights, dtype, "tiny").unwrap();
        drop(file);
        dir
    }

    #[test]
    fn what_is_written_is_read_back_the_same() {
        for family in Architecture::ALL {
            let files = files(family);
            let weights = random_weights(files.config(), 5);
            let dir = written(&files, &weights, GgufDtype::F32);
            let read = ModelFiles::open(&dir.path().join("model.gguf")).unwrap();
            // GGUF files have Mistral's as Llama's.
            let architecture = match family {
                Architecture::Mistral => Architecture::Llama,
                other => other,
            };
            let wanted = ModelConfig { architecture, ..files.config().clone() };
            assert_eq!(read.config(), &wanted);
            let bytes = |weights: &Weights| weights.to_bytes(WeightDtype::F32).unwrap();
            assert_eq!(bytes(&read.weights().unwrap()), bytes(&weights), "{family:?}");
            assert_eq!(read.template().source(), files.template().source());
            assert_eq!((read.turn_end(), read.stop_ids()), (files.turn_end(), files.stop_ids()));
            for text in ["abba", "h ab", "<|im_end|> cab"] {
                let ids = |files: &ModelFiles| files.tokenizer().encode_trusted(text).unwrap();
                assert_eq!(ids(&read), ids(&files), "{text}");
                let plain = |files: &ModelFiles| files.chat().encode_text(text);
                assert_eq!(plain(&read).ok(), plain(&files).ok(), "{text}");
            }
        }
    }

    #[test]
    fn rows_of_whole_blocks_have_eight_bits() {
        let files = files(Architecture::Qwen3);
        let weights = random_weights(files.config(), 6);
        for (dtype, error) in
            [(GgufDtype::F16, 1e-3), (GgufDtype::Bf16, 1e-2), (GgufDtype::Q8_0, 1e-2)]
        {
            let dir = written(&files, &weights, dtype);
            let read = ModelFiles::open(&dir.path().join("model.gguf")).unwrap().weights().unwrap();
            for (name, tensor) in &weights.0 {
                let flat =
                    |t: &candle_core::Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                let pairs = flat(tensor).into_iter().zip(flat(&read.0[name]));
                let worst = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(worst < error, "{dtype:?} {name}: {worst}");
                assert!(tensor.dims().len() > 1 || worst == 0.0, "vectors are exact");
            }
        }
    }
}
