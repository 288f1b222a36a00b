//! The parts whose speed decides a run's: a log commit, a rubric call, decoding, a DPO step. Each
//! stands beside something that bounds it, so that the figure is a ratio of one run.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a measurement that stops has failed"
)]

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use gradus::domain::{Event, Seed};
use gradus::lm::cancel::Cancel;
use gradus::lm::config::ModelConfig;
use gradus::lm::decoder::Decoder;
use gradus::lm::generate::{DrawRequest, Generator, Sampling};
use gradus::lm::logp::sequence_logps;
use gradus::lm::loss::Loss;
use gradus::lm::model_files::ModelFiles;
use gradus::lm::optimizer::{AdamW, OptimizerSettings, TrainedTensor};
use gradus::lm::train::{Belief, DpoExample, DpoSettings, Method, TrainSession, TrainSettings};
use gradus::lm::weights::Weights;
use gradus::log::{Batch, Clock, DurableLog, Log, MemoryLog};
use gradus::rubric::{Rubric, RubricEngine, RubricInput, bundled};
use std::hint::black_box;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

struct Still;

impl Clock for Still {
    fn now_ms(&self) -> u64 {
        0
    }
}

fn batch(events: usize) -> Batch {
    let reason = "x".repeat(300);
    let event = Event::PromptRejected { text: "a prompt".to_owned(), reason };
    Batch { key: None, events: vec![event; events], cursor: None }
}

/// A batch of 200 events of 350 bytes: our log, beside a plain file to which the same events are
/// written as JSON lines and synced, and one to which the bytes are ready-made.
fn log_commit(c: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let mut group = c.benchmark_group("log commit of 200 events");
    group.throughput(Throughput::Elements(200)).sample_size(20);
    let log = DurableLog::open(&dir.path().join("log"), Arc::new(Still)).unwrap();
    group.bench_function("durable", |b| {
        b.iter_batched(|| batch(200), |batch| log.append(batch).unwrap(), BatchSize::SmallInput);
    });
    let memory = MemoryLog::default();
    group.bench_function("memory", |b| {
        b.iter_batched(|| batch(200), |batch| memory.append(batch).unwrap(), BatchSize::SmallInput);
    });
    let mut file = std::fs::File::create(dir.path().join("plain")).unwrap();
    let lines = |batch: Batch| {
        let mut bytes = Vec::new();
        for event in &batch.events {
            serde_json::to_writer(&mut bytes, event).unwrap();
            bytes.push(b'\n');
        }
        bytes
    };
    group.bench_function("plain file of JSON lines", |b| {
        let mut write = |batch| {
            file.write_all(&lines(batch)).unwrap();
            file.sync_data().unwrap();
        };
        b.iter_batched(|| batch(200), &mut write, BatchSize::SmallInput);
    });
    let body = lines(batch(200));
    group.bench_function("plain file of ready-made bytes", |b| {
        b.iter(|| {
            file.write_all(&body).unwrap();
            file.sync_data().unwrap();
        });
    });
    group.finish();
}

fn rubric_call(c: &mut Criterion) {
    let engine = RubricEngine::without_cache().unwrap();
    let rubric = Rubric::load(&engine, bundled::ADDITIVE_FIVE).unwrap();
    let item = RubricInput {
        task: "Name three animals.".to_owned(),
        candidates: vec!["A cat, a dog and a cow.".to_owned()],
        ..RubricInput::default()
    };
    let reply = "The answer names three animals and is clear.\n\nScore: 4";
    let mut group = c.benchmark_group("rubric");
    group.bench_function("render", |b| b.iter(|| rubric.render(black_box(&item)).unwrap()));
    group.bench_function("parse", |b| b.iter(|| rubric.parse(&item, black_box(reply)).unwrap()));
    // What one judgment costs: two calls, each on a fresh instance.
    group.throughput(Throughput::Elements(1));
    group.bench_function("render and parse", |b| {
        b.iter(|| {
            rubric.render(black_box(&item)).unwrap();
            rubric.parse(&item, black_box(reply)).unwrap()
        });
    });
    group.sample_size(10).bench_function("load", |b| {
        b.iter(|| Rubric::load(&engine, bundled::ADDITIVE_FIVE).unwrap());
    });
    group.finish();
}

fn demo_base() -> (ModelConfig, Weights) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/demo-base");
    let text = std::fs::read_to_string(dir.join("config.json")).unwrap();
    let weights = Weights::load_file(&dir.join("model.safetensors")).unwrap();
    (ModelConfig::from_hf_json(&text).unwrap(), weights)
}

fn sampling() -> Sampling {
    Sampling {
        temperature: 1.0,
        top_p: 1.0,
        top_k: None,
        min_p: None,
        repetition_penalty: 1.0,
        max_new_tokens: 32,
        stop_ids: Vec::new(),
    }
}

/// 64 prompts of 32 tokens: one completion each, and four, which share the prompt's prefill.
fn decode(c: &mut Criterion) {
    let (config, weights) = demo_base();
    let generator = Generator::new(&config, weights).unwrap();
    let request = |candidates: u64, n: u32| DrawRequest {
        prompt: (0..32).map(|i| 8 + (i * 7 + n) % 90).collect(),
        seeds: (0..candidates).map(|i| Seed::root(1).index(i)).collect(),
        sampling: sampling(),
    };
    let mut group = c.benchmark_group("decode 64 prompts by 32 tokens");
    group.sample_size(10);
    for candidates in [1, 4] {
        let requests: Vec<DrawRequest> = (0..64).map(|n| request(candidates, n)).collect();
        group.throughput(Throughput::Elements(64 * 32 * candidates));
        group.bench_function(format!("{candidates} each"), |b| {
            b.iter(|| generator.draw(&requests, &Cancel::default()).unwrap());
        });
    }
    group.finish();
}

/// What a prompt costs before its first token, and each token after it, for one sequence and for
/// many: 64 prompts of 96 tokens, which share nothing.
fn prefill_and_step(c: &mut Criterion) {
    let (config, weights) = demo_base();
    let generator = Generator::new(&config, weights).unwrap();
    let requests = |count: u32, max_new_tokens: usize| -> Vec<DrawRequest> {
        let request = |n: u32| DrawRequest {
            prompt: (0..96).map(|i| 8 + (i * 7 + n * 13) % 90).collect(),
            seeds: vec![Seed::root(1).index(u64::from(n))],
            sampling: Sampling { max_new_tokens, ..sampling() },
        };
        (0..count).map(request).collect()
    };
    let mut group = c.benchmark_group("one token, and 33, after 96");
    group.sample_size(10);
    for (count, tokens) in [(1, 1), (1, 33), (64, 1), (64, 33)] {
        let requests = requests(count, tokens);
        group.throughput(Throughput::Elements(u64::from(count) * tokens as u64));
        group.bench_function(format!("{count} prompts, {tokens} tokens"), |b| {
            b.iter(|| generator.draw(&requests, &Cancel::default()).unwrap());
        });
    }
    group.finish();
}

/// A supervised row of the demo's size, there and back.
fn tokenisation(c: &mut Criterion) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/demo-base");
    let files = ModelFiles::open(&dir).unwrap();
    let words = gradus::demo::words::all();
    let text = (8..108).map(|i| words[i].as_str()).collect::<Vec<&str>>().join(" ");
    let mut group = c.benchmark_group("tokenisation");
    let ids = files.tokenizer().encode_plain(&text).unwrap();
    group.throughput(Throughput::Elements(ids.len() as u64));
    group.bench_function("encode", |b| {
        b.iter(|| files.tokenizer().encode_plain(black_box(&text)).unwrap());
    });
    group.bench_function("decode", |b| {
        b.iter(|| files.tokenizer().decode(black_box(&ids)).unwrap());
    });
    group.finish();
}

fn settings(threads: usize) -> TrainSettings {
    TrainSettings {
        method: Method::Full,
        optimizer: OptimizerSettings::default(),
        threads,
        gradient_checkpointing: false,
    }
}

/// 16 pairs of 32 + 12 tokens.
fn pairs() -> Vec<DpoExample> {
    let ids = |from: u32, n: u32| (0..n).map(|i| 8 + (from + i * 5) % 90).collect::<Vec<u32>>();
    let pair = |n| DpoExample {
        prompt: ids(n, 32),
        chosen: ids(n + 3, 12),
        rejected: ids(n + 9, 12),
        reference_chosen: -20.0,
        reference_rejected: -20.0,
        belief: Belief::SURE,
    };
    (0..16).map(pair).collect()
}

const DPO: DpoSettings = DpoSettings {
    loss: Loss::Sigmoid { beta: 0.1, label_smoothing: 0.0 },
    nll_weight: 0.0,
    rehearsal_weight: 0.0,
};

/// The same pairs without gradients, with them, and the optimiser's pass alone, on one thread.
fn parts_of_a_step(c: &mut Criterion) {
    let (config, weights) = demo_base();
    let pairs = pairs();
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let mut group = c.benchmark_group("parts of a dpo step of 16 pairs");
    group.throughput(Throughput::Elements(16 * 2 * 44)).sample_size(10);
    let decoder = Decoder::new(&config, weights.clone(), None).unwrap();
    let both = |p: &DpoExample| [&p.chosen, &p.rejected].map(|r| (p.prompt.clone(), r.clone()));
    let sequences: Vec<_> = pairs.iter().flat_map(both).collect();
    group.bench_function("log-probabilities: forward", |b| {
        b.iter(|| {
            one.install(|| sequence_logps(&decoder, &sequences, &Cancel::default())).unwrap()
        });
    });
    let mut trainer =
        TrainSession::new(&config, weights, None, settings(1), Seed::root(1)).unwrap();
    group.bench_function("gradients: forward and backward", |b| {
        b.iter(|| trainer.dpo_gradient(&pairs, &DPO).unwrap());
    });
    let gradients: Vec<Vec<f32>> =
        trainer.dpo_gradient(&pairs, &DPO).unwrap().into_values().collect();
    let mut values = gradients.clone();
    let names: Vec<String> = (0..values.len()).map(|n| n.to_string()).collect();
    let mut adamw = AdamW::default();
    group.bench_function("optimiser", |b| {
        b.iter(|| {
            let tensors = names.iter().zip(&mut values).zip(&gradients);
            let moving = tensors.map(|((name, value), grad)| TrainedTensor { name, value, grad });
            let mut moving: Vec<TrainedTensor<'_>> = moving.collect();
            one.install(|| adamw.update(&OptimizerSettings::default(), &mut moving, 1.0)).unwrap()
        });
    });
    group.finish();
}

/// 16 pairs of 32 + 12 tokens on the demo's model.
fn dpo_step(c: &mut Criterion) {
    let (config, weights) = demo_base();
    let pairs = pairs();
    let mut group = c.benchmark_group("dpo step of 16 pairs");
    group.throughput(Throughput::Elements(16 * 2 * 44)).sample_size(10);
    for threads in [1, 2] {
        let mut trainer =
            TrainSession::new(&config, weights.clone(), None, settings(threads), Seed::root(1))
                .unwrap();
        group.bench_function(format!("{threads} threads"), |b| {
            b.iter(|| trainer.dpo_step(&pairs, &[], &DPO, &Cancel::default()).unwrap());
        });
    }
    group.finish();
}

criterion_group!(
    parts,
    log_commit,
    rubric_call,
    tokenisation,
    decode,
    prefill_and_step,
    parts_of_a_step,
    dpo_step
);
criterion_main!(parts);
