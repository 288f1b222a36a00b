//! Every kind of network that frozen models may be of, tiny and random: what it says token after
//! token is what it says of the whole text, whoever asks; and kinds that candle-transformers has in
//! part are refused.

use super::oracle::write_texts;
use crate::dice::Dice;
use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use candle_transformers::models::{gemma, gemma2, gemma3, mixtral, phi3, qwen2_moe, qwen3_moe};
use gradus::domain::Seed;
use gradus::engine::candle::CandleEngine;
use gradus::lm::cancel::Cancel;
use gradus::lm::generate::{DrawRequest, Sampling};
use gradus::lm::policy::LanguageModel;
use serde_json::{Value, json};
use std::path::Path;

type Build = fn(&Value, VarBuilder<'_>) -> candle_core::Result<()>;

/// Builds a network for its tensors' names and shapes.
macro_rules! built {
    ($config:ty, $build:expr) => {
        |config, weights| {
            let config: $config = serde_json::from_value(config.clone()).unwrap();
            $build(&config, weights).map(drop)
        }
    };
}

fn with(more: Value) -> Value {
    let mut config = json!({
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 16,
        "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "eos_token_id": 0, "tie_word_embeddings": false, "hidden_act": "silu",
        "attention_bias": false, "use_sliding_window": false, "sliding_window": 64,
        "max_window_layers": 2, "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": 8, "rope_local_base_freq": 10000.0,
        "sliding_window_pattern": 2, "use_flash_attn": false, "num_experts_per_tok": 2,
        "num_local_experts": 4, "num_experts": 4, "decoder_sparse_step": 1,
        "moe_intermediate_size": 24, "shared_expert_intermediate_size": 24,
        "norm_topk_prob": true,
    });
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    config
}

/// The kinds that our own decoder does not know; those that it knows are held to it in `oracle`.
fn kinds() -> Vec<(Value, Build)> {
    let first_gemma: Build = |config, weights| {
        let mut config = config.clone();
        config.as_object_mut().unwrap().remove("hidden_act");
        let config: gemma::Config = serde_json::from_value(config).unwrap();
        gemma::Model::new(false, &config, weights).map(drop)
    };
    let phi: Build = |config, weights| {
        let config: phi3::Config = serde_json::from_value(config.clone()).unwrap();
        phi3::Model::new(&config, weights).map(drop)
    };
    vec![
        (with(json!({"model_type": "mixtral"})), built!(mixtral::Config, mixtral::Model::new)),
        (
            with(json!({"model_type": "qwen2_moe"})),
            built!(qwen2_moe::Config, qwen2_moe::Model::new),
        ),
        (
            with(json!({"model_type": "qwen3_moe"})),
            built!(qwen3_moe::Config, qwen3_moe::ModelForCausalLM::new),
        ),
        (with(json!({"model_type": "gemma"})), first_gemma),
        (
            with(json!({"model_type": "gemma2", "final_logit_softcapping": 30.0,
                "attn_logit_softcapping": 50.0})),
            built!(gemma2::Config, |config, weights| gemma2::Model::new(false, config, weights)),
        ),
        (
            with(json!({"model_type": "gemma3_text", "sliding_window": 32})),
            built!(gemma3::Config, |config, weights| gemma3::Model::new(false, config, weights)),
        ),
        (with(json!({"model_type": "phi3"})), phi),
    ]
}

/// A folder of that kind with random weights.
fn write(folder: &Path, config: &Value, build: Build, seed: u64) {
    write_texts(folder, config);
    let vars = VarMap::new();
    build(config, VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu)).unwrap();
    let (mut dice, made) = (Dice(seed), vars.data().lock().unwrap().clone());
    let mut names: Vec<&String> = made.keys().collect();
    names.sort();
    for name in names {
        let var = &made[name];
        let centre =
            if name.contains("norm") && !config["model_type"].as_str().unwrap().contains("gemma") {
                1.0
            } else {
                0.0
            };
        let number = |dice: &mut Dice| centre + 0.3 * (dice.below(2_000_001) as f32 / 1e6 - 1.0);
        let numbers: Vec<f32> = (0..var.elem_count()).map(|_| number(&mut dice)).collect();
        var.set(&Tensor::from_vec(numbers, var.shape(), &Device::Cpu).unwrap()).unwrap();
    }
    vars.save(folder.join("model.safetensors")).unwrap();
}

fn greedy(max_new_tokens: usize, temperature: f32) -> Sampling {
    Sampling {
        temperature,
        top_p: 1.0,
        top_k: None,
        min_p: None,
        repetition_penalty: 1.0,
        max_new_tokens,
        stop_ids: vec![0],
    }
}

#[test]
fn every_kind_says_token_after_token_what_it_says_of_the_whole() {
    let root = tempfile::tempdir().unwrap();
    let prompt = vec![1u32, 10, 4, 7, 3, 12, 5];
    for (seed, (config, build)) in (1u64..).zip(kinds()) {
        let name = config["model_type"].as_str().unwrap().to_owned();
        let folder = root.path().join(&name);
        write(&folder, &config, build, seed);
        let model = CandleEngine::open(&folder).unwrap().model().unwrap();
        let seeds: Vec<Seed> = (0..3).map(|n| Seed::root(4).index(n)).collect();
        let request = |seeds: &[Seed]| DrawRequest {
            prompt: prompt.clone(),
            seeds: seeds.to_vec(),
            sampling: greedy(8, 1.0),
        };
        let cancel = Cancel::default();
        let together = model.draw(&[request(&seeds)], &cancel).unwrap().remove(0);
        assert!(together.iter().any(|one| one.token_ids.len() > 3), "{name}: {together:?}");
        for (seed, one) in seeds.iter().zip(&together) {
            // Alone, the same.
            let alone = model.draw(&[request(&[*seed])], &cancel).unwrap().remove(0).remove(0);
            assert_eq!(&alone, one, "{name}");
            // What was drawn token after token is as likely as it is read in one go.
            let mut read = 0.0;
            for n in 0..one.token_ids.len() {
                let ids = [prompt.as_slice(), &one.token_ids[..n]].concat();
                let mut logits = model.logits(&ids).unwrap();
                logits.truncate(13);
                read += gradus::lm::generate::logp_of(&logits, one.token_ids[n]);
            }
            let drawn = one.logp.unwrap();
            assert!((drawn - read).abs() < 1e-3, "{name}: {drawn} drawn, {read} read");
        }
        // Two choices of more than one token, after each other and alone.
        let choices = vec![vec![5, 6], vec![7], vec![8, 9, 10]];
        let all =
            model.choice_logps(std::slice::from_ref(&prompt), &choices, &cancel).unwrap().remove(0);
        for (choice, logp) in choices.iter().zip(&all) {
            let alone = model
                .choice_logps(std::slice::from_ref(&prompt), std::slice::from_ref(choice), &cancel)
                .unwrap();
            assert!((alone[0][0] - logp).abs() < 1e-5, "{name}: {choice:?}");
        }
    }
}

#[test]
fn what_candle_transformers_has_in_part_is_refused_in_words() {
    let root = tempfile::tempdir().unwrap();
    let said = |config: Value| {
        let folder = root.path().join("m");
        write_texts(&folder, &config);
        CandleEngine::open(&folder).err().unwrap().to_string()
    };
    let unknown = said(with(json!({"model_type": "mamba"})));
    assert!(unknown.contains("\"mamba\"") && unknown.contains("qwen3_moe"), "{unknown}");
    let biased = said(with(json!({"model_type": "llama", "attention_bias": true})));
    assert!(biased.contains("attention_bias"), "{biased}");
    let wide = said(with(json!({"model_type": "llama", "head_dim": 16})));
    assert!(wide.contains("head_dim is 16"), "{wide}");
    let yarn = json!({"rope_type": "yarn", "factor": 4.0});
    let stretched = said(with(json!({"model_type": "qwen3", "rope_scaling": yarn})));
    assert!(stretched.contains("rope_scaling"), "{stretched}");
    // Its configuration fits, its weights are not there.
    let weightless = said(with(json!({"model_type": "qwen3"})));
    assert!(weightless.contains("model.safetensors"), "{weightless}");
}

#[test]
fn broken_weights_are_errors_and_end_no_process() {
    let root = tempfile::tempdir().unwrap();
    let (config, build) = kinds().remove(0);
    let folder = root.path().join("llama");
    write(&folder, &config, build, 1);
    // Weights of another kind: candle's llama unwraps what it does not find.
    write_texts(&folder, &with(json!({"model_type": "llama"})));
    let said = CandleEngine::open(&folder).unwrap().model().err().unwrap().to_string();
    assert!(said.contains("does not fit") || said.contains("cannot find tensor"), "{said}");
    std::fs::write(folder.join("model.safetensors"), b"short").unwrap();
    assert!(CandleEngine::open(&folder).unwrap().model().is_err());
}
