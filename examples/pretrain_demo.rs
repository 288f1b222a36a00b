//! Pretrains the demo's base from nothing, with this project's own trainer.
//!
//! ```text
//! cargo run --release --example pretrain_demo -- --out DIR [--steps 16700] [--seed 1] [--threads 1]
//! ```
//!
//! It saves every 250 steps and goes on from there when it is started again with the same
//! arguments. `DIR` is then a Hugging Face folder, with `optimizer.safetensors` beside it while
//! there are steps left.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a recipe that stops has failed"
)]

use gradus::demo::corpus::{Document, document};
use gradus::demo::{tokenizer, words};
use gradus::domain::Seed;
use gradus::lm::cancel::Cancel;
use gradus::lm::decoder::{InitSettings, random_weights};
use gradus::lm::optimizer::{OptimizerSettings, Schedule};
use gradus::lm::train::{Method, StepReport, TrainSession, TrainSettings, WeightedSequence};
use gradus::lm::weights::{WeightDtype, Weights};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

type Failure = Box<dyn std::error::Error>;

struct Arguments {
    out: PathBuf,
    steps: u32,
    seed: u64,
    threads: usize,
    documents: u64,
}

fn arguments() -> Result<Arguments, Failure> {
    let mut parsed = Arguments {
        out: PathBuf::from("assets/demo-base"),
        steps: 16700,
        seed: 1,
        threads: 1,
        documents: 96,
    };
    let mut given = std::env::args().skip(1);
    while let Some(flag) = given.next() {
        let value = given.next().ok_or_else(|| format!("{flag} needs a value"))?;
        match flag.as_str() {
            "--out" => parsed.out = PathBuf::from(value),
            "--steps" => parsed.steps = value.parse()?,
            "--seed" => parsed.seed = value.parse()?,
            "--threads" => parsed.threads = value.parse()?,
            "--documents" => parsed.documents = value.parse()?,
            _ => return Err(format!("unknown argument {flag}").into()),
        }
    }
    Ok(parsed)
}

fn sequence(document: &Document, ids: &HashMap<String, u32>) -> WeightedSequence {
    WeightedSequence {
        ids: document.tokens.iter().map(|t| ids.get(t).copied().unwrap_or(3)).collect(),
        weights: document.weights.clone(),
    }
}

fn batch(
    seed: Seed,
    step: u32,
    a: &Arguments,
    ids: &HashMap<String, u32>,
) -> Vec<WeightedSequence> {
    let first = u64::from(step) * a.documents;
    let progress = f64::from(step) / f64::from(a.steps);
    let mut rows: Vec<WeightedSequence> =
        (first..first + a.documents).map(|n| sequence(&document(seed, n, progress), ids)).collect();
    // Dealt out by length, so that both threads get as many tokens.
    rows.sort_by_key(|row| row.ids.len());
    let dealt = |start: usize| rows.iter().skip(start).step_by(a.threads).cloned();
    (0..a.threads).flat_map(dealt).collect()
}

fn replace(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let fresh = path.with_extension("new");
    std::fs::write(&fresh, bytes)?;
    Ok(std::fs::rename(fresh, path)?)
}

fn save(trainer: &TrainSession, out: &Path) -> Result<(), Failure> {
    replace(&out.join("state.safetensors"), &trainer.weights()?.to_bytes(WeightDtype::F32)?)?;
    let moments = trainer.optimizer_state()?.to_bytes(WeightDtype::F32)?;
    replace(&out.join("optimizer.safetensors"), &moments)?;
    replace(&out.join("model.safetensors"), &trainer.weights()?.to_bytes(WeightDtype::F16)?)?;
    let config = tokenizer::model_config();
    replace(&out.join("config.json"), config.to_hf_json().as_bytes())?;
    let pretty = |value: &serde_json::Value| serde_json::to_vec_pretty(value);
    replace(&out.join("tokenizer.json"), &pretty(&tokenizer::tokenizer_json())?)?;
    let settings = tokenizer::tokenizer_config_json();
    replace(&out.join("tokenizer_config.json"), &pretty(&settings)?)
}

fn start(a: &Arguments) -> Result<TrainSession, Failure> {
    let config = tokenizer::model_config();
    let settings = TrainSettings {
        method: Method::Full,
        optimizer: OptimizerSettings {
            learning_rate: 3e-3,
            schedule: Schedule::WarmupStableDecay,
            warmup_steps: 100,
            steps_total: a.steps,
            final_ratio: 0.03,
            beta2: 0.98,
            weight_decay: 0.01,
            ..OptimizerSettings::default()
        },
        threads: a.threads,
        gradient_checkpointing: false,
    };
    let seed = Seed::root(a.seed);
    let state = a.out.join("state.safetensors");
    if state.is_file() {
        let weights = Weights::load_file(&state)?;
        let mut trainer = TrainSession::new(&config, weights, None, settings, seed)?;
        let moments = Weights::load_file(&a.out.join("optimizer.safetensors"))?;
        trainer.restore_optimizer(&moments)?;
        return Ok(trainer);
    }
    let residual_scale = 0.5 / (2.0 * config.num_hidden_layers as f64).sqrt();
    let weights =
        random_weights(&config, seed, InitSettings { embedding_std: 0.3, residual_scale })?;
    Ok(TrainSession::new(&config, weights, None, settings, seed)?)
}

fn main() -> Result<(), Failure> {
    let a = arguments()?;
    std::fs::create_dir_all(&a.out)?;
    let ids: HashMap<String, u32> = words::all().into_iter().zip(0..).collect();
    let seed = Seed::root(a.seed).derive("pretraining");
    let mut trainer = start(&a)?;
    let (began, mut tokens, mut losses) = (Instant::now(), 0u64, Vec::new());
    while trainer.step() < a.steps {
        let step = trainer.step();
        match trainer.sft_step(&batch(seed, step, &a, &ids), &Cancel::default())? {
            StepReport::Taken(figures) => {
                tokens += figures.num_tokens;
                losses.push(figures.loss);
            }
            StepReport::Skipped { reason } => return Err(reason.into()),
        }
        if (step + 1).is_multiple_of(50) {
            let mean = losses.drain(..).sum::<f64>() / 50.0;
            let rate = tokens as f64 / began.elapsed().as_secs_f64();
            eprintln!("step {} loss {mean:.4} tokens {tokens} {rate:.0}/s", step + 1);
        }
        if (step + 1).is_multiple_of(250) || step + 1 == a.steps {
            save(&trainer, &a.out)?;
        }
    }
    eprintln!("{} holds a base of {} steps", a.out.display(), a.steps);
    Ok(())
}
