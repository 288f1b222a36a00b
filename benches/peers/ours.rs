//! Our side of `just bench-peers`: a task on given weights and token ids, figures as one line of
//! JSON. `run.py` beside it runs this and the peers in turn.
//!
//! usage: peers-ours TASK MODEL_FOLDER DATA.json [key=value ...]

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a measurement that stops has failed"
)]

use gradus::domain::Seed;
use gradus::lm::cancel::Cancel;
use gradus::lm::decoder::Decoder;
use gradus::lm::generate::{DrawRequest, Generator, Sampling};
use gradus::lm::logp::sequence_logps;
use gradus::lm::lora::LoraSettings;
use gradus::lm::loss::Loss;
use gradus::lm::model_files::ModelFiles;
use gradus::lm::ops::{Mat, MatMut, Storage, matmul};
use gradus::lm::optimizer::{OptimizerSettings, Schedule};
use gradus::lm::train::{
    Belief, DpoExample, DpoSettings, Method, StepReport, TrainSession, TrainSettings,
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

type Failure = Box<dyn std::error::Error>;

/// The ids that every peer gets.
#[derive(Deserialize)]
struct Data {
    prompt: Vec<Vec<u32>>,
    chosen: Vec<Vec<u32>>,
    rejected: Vec<Vec<u32>>,
    gen_prompts: Vec<Vec<u32>>,
    judge_prefix: Vec<u32>,
    judge_tails: Vec<Vec<u32>>,
}

struct Options(BTreeMap<String, String>);

impl Options {
    fn number(&self, key: &str, otherwise: usize) -> usize {
        self.0.get(key).and_then(|v| v.parse().ok()).unwrap_or(otherwise)
    }
}

/// The most memory that was resident, in MB.
fn peak_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|l| l.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or(f64::NAN) / 1024.0
}

/// GFLOP/s of an f32 product of 1536 cubed on the threads of this pool: the best of five.
fn ceiling() -> f64 {
    const N: usize = 1536;
    let (a, b, mut c) = (vec![1f32; N * N], vec![1f32; N * N], vec![0f32; N * N]);
    let mut best = f64::INFINITY;
    for _ in 0..5 {
        let began = Instant::now();
        matmul(MatMut::new(&mut c, N, N), Mat::new(&a, N, N), Mat::new(&b, N, N), false, 1.0);
        best = best.min(began.elapsed().as_secs_f64());
    }
    2.0 * (N * N * N) as f64 / best / 1e9
}

/// Multiplications and additions, times two, that a step cannot do without: two products forward,
/// four backward (two where the weights stay), for each weight and row that needs it.
fn step_flops(files: &ModelFiles, data: &Data, lora: bool) -> f64 {
    let c = files.config();
    let head = (c.vocab_size * c.hidden_size) as f64;
    let (q, kv) = (c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim);
    let layer = c.hidden_size * (2 * q + 2 * kv + 3 * c.intermediate_size);
    let body = (layer * c.num_hidden_layers) as f64;
    let responses: usize = data.chosen.iter().chain(&data.rejected).map(Vec::len).sum();
    let rows = responses + data.prompt.iter().map(Vec::len).sum::<usize>();
    let products = if lora { 4.0 } else { 6.0 };
    products * (body * rows as f64 + head * responses as f64)
}

fn dpo(files: &ModelFiles, data: &Data, options: &Options) -> Result<Value, Failure> {
    let (threads, lora) = (options.number("threads", 2), options.number("lora", 0) == 1);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
    let both = |i: usize| {
        [&data.chosen[i], &data.rejected[i]].map(|r| (data.prompt[i].clone(), r.clone()))
    };
    let sequences: Vec<_> = (0..data.prompt.len()).flat_map(both).collect();
    let reference = {
        let decoder = Decoder::new(files.config(), files.weights()?, None)?;
        pool.install(|| sequence_logps(&decoder, &sequences, &Cancel::default()))?
    };
    let pairs: Vec<DpoExample> = (0..data.prompt.len())
        .map(|i| DpoExample {
            prompt: data.prompt[i].clone(),
            chosen: data.chosen[i].clone(),
            rejected: data.rejected[i].clone(),
            reference_chosen: reference[2 * i],
            reference_rejected: reference[2 * i + 1],
            belief: Belief::SURE,
        })
        .collect();
    let modules = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];
    let target_modules = modules.map(str::to_owned).to_vec();
    let adapter = LoraSettings { r: 16, alpha: 32.0, target_modules };
    let settings = TrainSettings {
        method: if lora { Method::Lora(adapter) } else { Method::Full },
        optimizer: OptimizerSettings {
            learning_rate: 1e-5,
            schedule: Schedule::Constant,
            weight_decay: 0.01,
            max_grad_norm: 0.0,
            ..OptimizerSettings::default()
        },
        threads,
        gradient_checkpointing: options.number("checkpointing", 0) == 1,
    };
    let loss = DpoSettings {
        loss: Loss::Sigmoid { beta: 0.1, label_smoothing: 0.0 },
        nll_weight: 0.0,
        rehearsal_weight: 0.0,
    };
    let mut trainer =
        TrainSession::new(files.config(), files.weights()?, None, settings, Seed::root(1))?;
    let (mut seconds, mut losses, mut norms) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..options.number("steps", 4) {
        let began = Instant::now();
        match trainer.dpo_step(&pairs, &[], &loss, &Cancel::default())? {
            StepReport::Taken(figures) => {
                losses.push(figures.loss);
                norms.push(figures.grad_norm);
            }
            StepReport::Skipped { reason } => return Err(reason.into()),
        }
        seconds.push(began.elapsed().as_secs_f64());
    }
    drop(trainer);
    let peak = peak_mb();
    let ceiling = pool.install(ceiling);
    let flops = step_flops(files, data, lora);
    Ok(json!({"step_s": seconds, "loss": losses, "grad_norm": norms, "rss_mb": peak,
        "ceiling_gflops": ceiling, "step_gflop": flops / 1e9}))
}

fn sampling(max_new_tokens: usize) -> Sampling {
    Sampling {
        temperature: 0.7,
        top_p: 0.9,
        top_k: None,
        min_p: None,
        repetition_penalty: 1.0,
        max_new_tokens,
        stop_ids: Vec::new(),
    }
}

fn requests(prompts: &[Vec<u32>], each: u64, tokens: usize) -> Vec<DrawRequest> {
    let request = |(n, prompt): (u64, &Vec<u32>)| DrawRequest {
        prompt: prompt.clone(),
        seeds: (0..each).map(|i| Seed::root(7).index(n * each + i)).collect(),
        sampling: sampling(tokens),
    };
    (0..).zip(prompts).map(request).collect()
}

/// Draws; tokens per second, prefill included.
fn draw(generator: &Generator, requests: &[DrawRequest], rounds: usize) -> Result<Value, Failure> {
    let (mut seconds, mut tokens) = (Vec::new(), 0);
    for _ in 0..rounds {
        let began = Instant::now();
        let drawn = generator.draw(requests, &Cancel::default())?;
        seconds.push(began.elapsed().as_secs_f64());
        tokens = drawn.iter().flatten().map(|d| d.token_ids.len()).sum();
    }
    Ok(json!({"seconds": seconds, "tokens": tokens, "rss_mb": peak_mb()}))
}

/// So many prompts of 32 tokens, no two of which begin alike.
fn different(data: &Data, count: usize) -> Vec<Vec<u32>> {
    let one = |n: usize| {
        let ids = data.gen_prompts[n % data.gen_prompts.len()].iter().take(32);
        ids.map(|id| 100 + (id + n as u32) % 48_900).collect()
    };
    (0..count).map(one).collect()
}

fn main() -> Result<(), Failure> {
    let began = Instant::now();
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: peers-ours TASK MODEL_FOLDER DATA.json [key=value ...]";
    let (Some(task), Some(folder), Some(data)) =
        (arguments.next(), arguments.next(), arguments.next())
    else {
        return Err(usage.into());
    };
    let pairs = arguments.filter_map(|a| a.split_once('=').map(|(k, v)| (k.into(), v.into())));
    let options = Options(pairs.collect());
    let data: Data = serde_json::from_slice(&std::fs::read(data)?)?;
    let files = ModelFiles::open(Path::new(&folder))?;
    rayon::ThreadPoolBuilder::new().num_threads(options.number("threads", 2)).build_global()?;
    if task == "dpo" {
        println!("{}", dpo(&files, &data, &options)?);
        return Ok(());
    }
    let storage = match options.number("bits", 32) {
        8 => Storage::EightBit,
        _ => Storage::Exact,
    };
    let generator = Generator::stored(files.config(), files.weights()?, storage)?;
    let rounds = options.number("rounds", 3);
    let figures = match task.as_str() {
        "first" => {
            let one = requests(&[data.gen_prompts[0][..8].to_vec()], 1, 1);
            generator.draw(&one, &Cancel::default())?;
            json!({"first_token_s": began.elapsed().as_secs_f64(), "rss_mb": peak_mb()})
        }
        "many" => {
            let prompts = different(&data, options.number("prompts", 100));
            draw(&generator, &requests(&prompts, 1, 32), rounds)?
        }
        "draw" => draw(&generator, &requests(&data.gen_prompts, 4, 64), rounds)?,
        "judge" => {
            let whole = |tail: &Vec<u32>| [data.judge_prefix.as_slice(), tail].concat();
            let prompts: Vec<Vec<u32>> = data.judge_tails.iter().map(whole).collect();
            draw(&generator, &requests(&prompts, 3, 48), rounds)?
        }
        _ => return Err(usage.into()),
    };
    println!("{figures}");
    Ok(())
}
