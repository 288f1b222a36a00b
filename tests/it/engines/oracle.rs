//! Our own decoder held to candle-transformers': tiny random models of every kind that ours knows,
//! written as a Hugging Face folder, and the logits of both after every prefix of a text. A llama
//! also as a GGUF file, which both read in their own way.

use crate::dice::Dice;
use candle_core::quantized::gguf_file::{self, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use gradus::domain::Seed;
use gradus::engine::candle::CandleEngine;
use gradus::lm::cancel::Cancel;
use gradus::lm::config::ModelConfig;
use gradus::lm::decoder::Decoder;
use gradus::lm::generate::{DrawRequest, Sampling};
use gradus::lm::gguf_write::{self, GgufDtype};
use gradus::lm::model_files::ModelFiles;
use gradus::lm::packed::PackedRows;
use gradus::lm::policy::{LanguageModel, Policy, Vocabulary};
use gradus::lm::template::CHATML;
use gradus::lm::tensors::tensors;
use gradus::lm::weights::{WeightDtype, Weights};
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// A text that uses the vocabulary.
const IDS: [u32; 12] = [1, 10, 4, 7, 3, 12, 5, 2, 9, 9, 8, 6];

/// The kinds that our decoder knows, each with what is peculiar to it.
fn kinds() -> Vec<(&'static str, Json)> {
    let base = |model_type: &str, more: Json| {
        let mut config = json!({
            "model_type": model_type, "hidden_size": 32, "intermediate_size": 48,
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
            "vocab_size": 13, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0, "eos_token_id": 0, "tie_word_embeddings": false,
            "hidden_act": "silu",
        });
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        config
    };
    let llama3 = json!({"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16, "rope_type": "llama3"});
    vec![
        ("llama", base("llama", json!({}))),
        ("llama, tied", base("llama", json!({"tie_word_embeddings": true}))),
        ("llama, stretched", base("llama", json!({"rope_scaling": llama3}))),
        ("mistral", base("mistral", json!({"sliding_window": null, "head_dim": 16}))),
        ("qwen2", base("qwen2", json!({"tie_word_embeddings": true}))),
        ("qwen3", base("qwen3", json!({"head_dim": 16}))),
    ]
}

/// Names and shapes of the tensors that a network has.
pub fn shapes(config: &ModelConfig) -> Vec<(String, Vec<usize>)> {
    tensors(config).into_iter().map(|tensor| (tensor.name, tensor.shape)).collect()
}

/// Numbers that differ: norms about 1, everything else about 0.
pub fn random(shapes: Vec<(String, Vec<usize>)>, seed: u64) -> BTreeMap<String, Tensor> {
    let mut dice = Dice(seed);
    let mut number = || dice.below(2_000_001) as f32 / 1e6 - 1.0;
    let mut tensors = BTreeMap::new();
    for (name, shape) in shapes {
        let centre = if name.contains("norm") { 1.0 } else { 0.0 };
        let numbers: Vec<f32> =
            (0..shape.iter().product()).map(|_| centre + 0.4 * number()).collect();
        tensors.insert(name, Tensor::from_vec(numbers, shape, &Device::Cpu).unwrap());
    }
    tensors
}

/// A folder with a configuration, a small tokenizer and a chat template.
pub fn write_texts(folder: &Path, config: &Json) {
    std::fs::create_dir_all(folder).unwrap();
    let texts = [
        ("config.json", config.to_string()),
        ("tokenizer.json", include_str!("../../golden/text/words-tokenizer.json").to_owned()),
        ("tokenizer_config.json", json!({"chat_template": CHATML}).to_string()),
    ];
    for (name, text) in texts {
        std::fs::write(folder.join(name), text).unwrap();
    }
}

/// Logits after every prefix, of our decoder.
fn ours(config: &ModelConfig, weights: Weights) -> Vec<Vec<f32>> {
    let decoder = Decoder::new(config, weights, None).unwrap();
    let mut rows = PackedRows::default();
    rows.push(&IDS);
    let hidden = decoder.hidden(&rows).unwrap();
    (0..IDS.len() as u32).map(|row| decoder.logits(&hidden, &[row])).collect()
}

fn farthest(ours: &[Vec<f32>], theirs: &dyn Fn(&[u32]) -> Vec<f32>) -> f32 {
    let mut worst = 0f32;
    for (n, ours) in ours.iter().enumerate() {
        let theirs = theirs(&IDS[..=n]);
        assert_eq!(ours.len(), theirs.len());
        for (a, b) in ours.iter().zip(&theirs) {
            assert!(a.is_finite() && b.is_finite());
            worst = worst.max((a - b).abs());
        }
    }
    worst
}

#[test]
fn our_decoder_has_the_logits_of_candle_transformers() {
    let root = tempfile::tempdir().unwrap();
    for (seed, (name, json)) in (1u64..).zip(kinds()) {
        let folder = root.path().join(seed.to_string());
        write_texts(&folder, &json);
        let files = ModelFiles::open(&folder).unwrap();
        let weights = Weights(random(shapes(files.config()), seed));
        weights.save(&folder.join("model.safetensors"), WeightDtype::F32).unwrap();
        let model = CandleEngine::open(&folder).unwrap().model().unwrap();
        let ours = ours(files.config(), weights.clone());
        let spread = ours.iter().flatten().fold(0f32, |most, logit| most.max(logit.abs()));
        assert!(spread > 1.0, "{name}: logits that say something, and not {spread}");
        let worst = farthest(&ours, &|ids| model.logits(ids).unwrap());
        eprintln!("{name}: logits up to {spread:.2}, worst difference {worst:.2e}");
        assert!(worst < 2e-4, "{name}: logits differ by {worst}");
        draws_alike(name, files, weights, model.as_ref());
    }
}

/// The same seeds give the same answers, and choices are as likely.
fn draws_alike(name: &str, files: ModelFiles, weights: Weights, theirs: &dyn LanguageModel) {
    let ours = Policy::new(Arc::new(files), weights, None).unwrap();
    let sampling = Sampling {
        temperature: 1.0,
        top_p: 0.9,
        top_k: None,
        min_p: None,
        repetition_penalty: 1.0,
        max_new_tokens: 10,
        stop_ids: vec![0, 2],
    };
    let seeds = (0..4).map(|n| Seed::root(9).index(n)).collect();
    let request = DrawRequest { prompt: IDS[..5].to_vec(), seeds, sampling };
    let cancel = Cancel::default();
    let (a, b) =
        (ours.draw(std::slice::from_ref(&request), &cancel), theirs.draw(&[request], &cancel));
    let ids = |drawn: Result<Vec<Vec<gradus::domain::Completion>>, _>| -> Vec<Vec<u32>> {
        drawn.unwrap().remove(0).into_iter().map(|one| one.token_ids).collect()
    };
    assert_eq!(ids(a), ids(b), "{name}");
    let (contexts, choices) =
        (vec![IDS[..4].to_vec(), IDS[..7].to_vec()], vec![vec![5], vec![4, 6, 8]]);
    let a = ours.choice_logps(&contexts, &choices, &cancel).unwrap();
    let b = theirs.choice_logps(&contexts, &choices, &cancel).unwrap();
    for (a, b) in a.iter().flatten().zip(b.iter().flatten()) {
        assert!((a - b).abs() < 2e-4, "{name}: {a} and {b}");
    }
}

/// A GGUF file of a llama's weights, each stored as `dtype` where its width allows; llama.cpp's
/// order of queries and keys.
fn write_gguf(path: &Path, config: &ModelConfig, weights: &Weights, dtype: GgmlDType) {
    let tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "a", "b", "c", "d", "ab"];
    let text = |text: &str| Value::String(text.to_owned());
    let count = |n: usize| Value::U32(n as u32);
    let list = |all: &[&str]| Value::Array(all.iter().map(|one| text(one)).collect());
    let types =
        Value::Array((0..tokens.len()).map(|at| Value::I32(if at < 3 { 3 } else { 1 })).collect());
    let metadata = [
        ("general.architecture", text("llama")),
        ("llama.attention.head_count", count(config.num_attention_heads)),
        ("llama.attention.head_count_kv", count(config.num_key_value_heads)),
        ("llama.block_count", count(config.num_hidden_layers)),
        ("llama.embedding_length", count(config.hidden_size)),
        ("llama.feed_forward_length", count(config.intermediate_size)),
        ("llama.context_length", count(config.max_position_embeddings)),
        ("llama.rope.dimension_count", count(config.head_dim)),
        ("llama.rope.freq_base", Value::F32(config.rope_theta as f32)),
        ("llama.attention.layer_norm_rms_epsilon", Value::F32(config.rms_norm_eps as f32)),
        ("tokenizer.ggml.model", text("gpt2")),
        ("tokenizer.ggml.pre", text("gpt-2")),
        ("tokenizer.ggml.tokens", list(&tokens)),
        ("tokenizer.ggml.merges", list(&["a b"])),
        ("tokenizer.ggml.token_type", types),
        ("tokenizer.ggml.eos_token_id", count(2)),
        ("tokenizer.chat_template", text(CHATML)),
    ];
    let stored: Vec<(String, QTensor)> =
        weights.0.iter().map(|(name, tensor)| stored(name, tensor, config, dtype)).collect();
    let metadata: Vec<(&str, &Value)> = metadata.iter().map(|(key, value)| (*key, value)).collect();
    let tensors: Vec<(&str, &QTensor)> =
        stored.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    let mut file = std::fs::File::create(path).unwrap();
    gguf_file::write(&mut file, &metadata, &tensors).unwrap();
}

fn stored(
    name: &str,
    tensor: &Tensor,
    config: &ModelConfig,
    dtype: GgmlDType,
) -> (String, QTensor) {
    let heads = match name {
        name if name.contains("q_proj") => Some(config.num_attention_heads),
        name if name.contains("k_proj") => Some(config.num_key_value_heads),
        _ => None,
    };
    let tensor = match heads {
        None => tensor.clone(),
        // `LlamaModel.permute` of llama.cpp's convert_hf_to_gguf.py.
        Some(heads) => {
            let (rows, inner) = tensor.dims2().unwrap();
            let parts = tensor.reshape((heads, 2, rows / heads / 2, inner)).unwrap();
            let parts = parts.transpose(1, 2).unwrap().contiguous().unwrap();
            parts.reshape((rows, inner)).unwrap()
        }
    };
    let mut gguf = name.replace("model.layers.", "blk.");
    for (ours, theirs) in [
        ("model.embed_tokens", "token_embd"),
        ("model.norm", "output_norm"),
        ("lm_head", "output"),
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
        gguf = gguf.replace(ours, theirs);
    }
    let dtype = if tensor.rank() == 1 { GgmlDType::F32 } else { dtype };
    (gguf, QTensor::quantize(&tensor, dtype).unwrap())
}

/// Both read the same file: ours takes the weights out of their form, candle computes in it. Kept
/// whole they agree as folders do; kept in 8 bits, as far as 8 bits of what is multiplied do.
#[test]
fn a_gguf_is_computed_as_it_is_stored() {
    let root = tempfile::tempdir().unwrap();
    let (_, mut json) = kinds().remove(0);
    (json["hidden_size"], json["intermediate_size"]) = (64.into(), 64.into());
    let config = ModelConfig::from_hf_json(&json.to_string()).unwrap();
    let weights = Weights(random(shapes(&config), 7));
    for (dtype, allowed) in [(GgmlDType::F32, 5e-4), (GgmlDType::Q8_0, 0.4)] {
        let path = root.path().join(format!("{dtype:?}.gguf"));
        write_gguf(&path, &config, &weights, dtype);
        let files = ModelFiles::open(&path).unwrap();
        let dequantised = files.weights().unwrap();
        let engine = CandleEngine::open(&path).unwrap();
        let what = gradus::engine::Engine::identity(&engine).what;
        assert_eq!(what, format!("candle llama, {dtype:?}"));
        let model = engine.model().unwrap();
        let ours = ours(files.config(), dequantised);
        let worst = farthest(&ours, &|ids| model.logits(ids).unwrap());
        eprintln!("{dtype:?}: worst difference {worst:.2e}");
        assert!(worst < allowed, "{dtype:?}: logits differ by {worst}");
    }
}

/// SmolLM2-135M, quantised, says what it is known to say, and judges as our decoder with the same
/// weights does. It comes by scripts/fetch-smollm2.
#[test]
fn a_real_quantised_model_answers() {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join(".models/SmolLM2-135M-Instruct.Q4_1.gguf");
    if !path.exists() {
        eprintln!("not run: {} is not there (scripts/fetch-smollm2)", path.display());
        return;
    }
    let files = Arc::new(ModelFiles::open(&path).unwrap());
    let weights = files.weights().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let exact = dir.path().join("model.gguf");
    let mut file = std::io::BufWriter::new(std::fs::File::create(&exact).unwrap());
    gguf_write::write_gguf(&mut file, &files, &weights, GgufDtype::F32, "exact").unwrap();
    drop(file);
    let ours = Policy::new(files, weights, None).unwrap();
    let asked = [gradus::domain::Message::user("What is the capital of France?")];
    let prompt = ours.encode_chat(&asked).unwrap();
    let choices: Vec<Vec<u32>> =
        ["The", "Paris", "I"].map(|w| ours.encode_text(w).unwrap()).to_vec();
    let known = std::slice::from_ref(&prompt);
    let wanted = ours.choice_logps(known, &choices, &Cancel::default()).unwrap();
    // Candle rounds what is multiplied with quantised numbers to 8 bits, too: what it says then is near,
    // and need not be the same answer.
    for (path, error) in [(&path, 0.5), (&exact, 1e-3)] {
        let engine = CandleEngine::open(path).unwrap();
        let model = engine.model().unwrap();
        let chat: &dyn LanguageModel = model.as_ref();
        assert_eq!(chat.encode_chat(&asked).unwrap(), prompt);
        let said = chat.choice_logps(known, &choices, &Cancel::default()).unwrap();
        for (a, b) in wanted[0].iter().zip(&said[0]) {
            assert!((a - b).abs() < error, "{}: {a} and {b}", path.display());
        }
        let sampling = Sampling {
            temperature: 0.0,
            top_p: 1.0,
            top_k: None,
            min_p: None,
            repetition_penalty: 1.0,
            max_new_tokens: 24,
            stop_ids: chat.stop_ids().to_vec(),
        };
        let request = DrawRequest { prompt: prompt.clone(), seeds: vec![Seed::root(1)], sampling };
        let said = chat.draw(&[request], &Cancel::default()).unwrap().remove(0).remove(0);
        assert!(!said.text.is_empty() && (error > 0.1 || said.text.contains("Paris")), "{said:?}");
    }
}
