//! What a device computes against the CPU: on a GPU where there is one, else on the emulator, which
//! runs the same kernels. Without either they are skipped, with a line that says so.

use super::context::Gpu;
use super::*;
use crate::cancel::Cancel;
use crate::completion::StopReason;
use crate::config::{Architecture, ModelConfig};
use crate::decoder::{Decoder, InitSettings, random_weights};
use crate::device::Dtype;
use crate::estimate::SavedActivations;
use crate::estimate::gpu::{Drawing, Training, frozen_bytes};
use crate::generate::{DrawRequest, Drawn, Generator, Sampling, plain};
use crate::logp::sequence_logps;
use crate::lora::{self, Lora, LoraSettings};
use crate::loss::Loss;
use crate::optimizer::{OptimizerSettings, Schedule};
use crate::seed::Seed;
use crate::train::{
    Belief, DpoExample, DpoSettings, Method, StepMetrics, StepReport, TrainSession, TrainSettings,
    WeightedSequence,
};
use crate::weights::Weights;
use candle_core::{Device, Tensor};
use std::collections::BTreeMap;

/// The device under test, or a line that says why there is none.
fn gpu(dtype: Dtype) -> Option<Gpu> {
    Gpu::to_test(dtype).inspect_err(|why| eprintln!("skipped: {why}")).ok()
}

/// Small and awkward: grouped queries, widths that are no multiple of 8 or 32.
fn config(architecture: Architecture) -> ModelConfig {
    ModelConfig {
        architecture,
        rope_scaling: None,
        vocab_size: 61,
        hidden_size: 36,
        intermediate_size: 52,
        num_hidden_layers: 2,
        num_attention_heads: 6,
        num_key_value_heads: 2,
        head_dim: 6,
        rms_norm_eps: 1e-5,
        rope_theta: 10000.0,
        max_position_embeddings: 160,
        tie_word_embeddings: architecture == Architecture::Qwen2,
        bos_token_id: Some(0),
        eos_token_ids: vec![1],
    }
}

/// Biases and norms of heads among them.
const ARCHITECTURES: [Architecture; 3] =
    [Architecture::Llama, Architecture::Qwen2, Architecture::Qwen3];

fn weights(config: &ModelConfig) -> Weights {
    let init = InitSettings { embedding_std: 0.5, residual_scale: 0.7 };
    let mut weights = random_weights(config, Seed::root(1), init).unwrap();
    // Norms and biases that are all alike would hide a wrong place.
    for (name, tensor) in &mut weights.0 {
        if tensor.dims().len() == 1 {
            let n = tensor.dims()[0];
            let off = if name.ends_with("bias") { 0.0 } else { 1.0 };
            let noise = lora::normal(Seed::root(3).derive(name), n, 0.2);
            let values: Vec<f32> = noise.into_iter().map(|v| v + off).collect();
            *tensor = candle_core::Tensor::from_vec(values, n, &Device::Cpu).unwrap();
        }
    }
    weights
}

fn tokens(seed: u32, n: usize) -> Vec<u32> {
    (0..n as u32).map(|i| (seed * 31 + i * i * 7 + i * 3) % 61).collect()
}

fn pairs() -> Vec<DpoExample> {
    let pair = |seed: u32, prompt: usize, chosen: usize, rejected: usize| DpoExample {
        prompt: tokens(seed, prompt),
        chosen: tokens(seed + 1, chosen),
        rejected: tokens(seed + 2, rejected),
        reference_chosen: -30.0,
        reference_rejected: -25.0,
        belief: Belief::SURE,
    };
    vec![pair(1, 9, 7, 4), pair(5, 70, 3, 41), pair(9, 1, 1, 2)]
}

fn dpo() -> DpoSettings {
    DpoSettings {
        loss: Loss::Sigmoid { beta: 0.1, label_smoothing: 0.0 },
        nll_weight: 0.0,
        rehearsal_weight: 0.0,
    }
}

fn rows() -> Vec<WeightedSequence> {
    let row = |n: usize| WeightedSequence { ids: tokens(n as u32, n), weights: vec![1.0; n] };
    vec![row(12), row(5), row(33)]
}

fn lora_method() -> Method {
    let target_modules = ["q_proj", "v_proj", "o_proj", "up_proj", "down_proj"];
    let target_modules = target_modules.map(str::to_owned).to_vec();
    Method::Lora(LoraSettings { r: 4, alpha: 8.0, target_modules })
}

fn settings(method: &Method, gradient_checkpointing: bool) -> TrainSettings {
    let optimizer = OptimizerSettings {
        learning_rate: 3e-3,
        schedule: Schedule::Constant,
        weight_decay: 0.1,
        ..OptimizerSettings::default()
    };
    TrainSettings { method: method.clone(), optimizer, threads: 1, gradient_checkpointing }
}

/// An adapter whose B is not zero, so that A gets a gradient.
fn adapter(config: &ModelConfig, method: &Method) -> Option<Weights> {
    let Method::Lora(settings) = method else { return None };
    let mut adapter = lora::fresh(config, settings, Seed::root(2)).unwrap();
    for (name, tensor) in &mut adapter.0 {
        if name.contains("lora_B") {
            let values = lora::normal(Seed::root(4).derive(name), tensor.elem_count(), 0.2);
            *tensor = candle_core::Tensor::from_vec(values, tensor.dims(), &Device::Cpu).unwrap();
        }
    }
    Some(adapter)
}

fn on_cpu(config: &ModelConfig, method: &Method) -> TrainSession {
    let adapter = adapter(config, method);
    let settings = settings(method, false);
    TrainSession::new(config, weights(config), adapter.as_ref(), settings, Seed::root(2)).unwrap()
}

fn on_gpu(gpu: &Gpu, config: &ModelConfig, method: &Method, checkpointing: bool) -> TrainSession {
    let adapter = adapter(config, method);
    let settings = settings(method, checkpointing);
    let under = BaseWeights::Host(weights(config));
    TrainSession::on(gpu, config, under, adapter.as_ref(), settings, Seed::root(2)).unwrap()
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

fn gap(a: &[f32], b: &[f32]) -> f64 {
    let most = b.iter().fold(1e-6f32, |most, v| most.max(v.abs()));
    let gaps = a.iter().zip(b).map(|(a, b)| f64::from((a - b).abs() / most));
    gaps.fold(0.0, f64::max)
}

type Named = BTreeMap<String, Vec<f32>>;

fn assert_alike(ours: &Named, theirs: &Named, work: Dtype, what: &str) {
    assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>(), "{what}");
    for (name, theirs) in theirs {
        let ours = &ours[name];
        let (cosine, gap) = (cosine(ours, theirs), gap(ours, theirs));
        match work {
            Dtype::F32 => assert!(gap < 2e-4, "{what}, {name}: off by {gap:.2e} of the largest"),
            _ => assert!(cosine > 0.999, "{what}, {name}: cosine {cosine:.6}"),
        }
    }
}

#[test]
fn gradients_are_those_of_the_cpu() {
    for work in [Dtype::F32, Dtype::Bf16] {
        let Some(gpu) = gpu(work) else { return };
        for architecture in ARCHITECTURES {
            let config = config(architecture);
            for method in [Method::Full, lora_method()] {
                let what = format!("{architecture:?} {work:?} {method:?}");
                let (mut ours, mut theirs) =
                    (on_gpu(&gpu, &config, &method, false), on_cpu(&config, &method));
                let dpo = DpoSettings { nll_weight: 0.3, ..dpo() };
                let pair = (ours.dpo_gradient(&pairs(), &dpo), theirs.dpo_gradient(&pairs(), &dpo));
                assert_alike(&pair.0.unwrap(), &pair.1.unwrap(), work, &what);
                let pair = (ours.sft_gradient(&rows()), theirs.sft_gradient(&rows()));
                assert_alike(&pair.0.unwrap(), &pair.1.unwrap(), work, &what);
            }
        }
    }
}

/// Wide heads want more shared memory than a kernel has unasked, and another kernel for each width.
#[test]
fn heads_of_every_width_are_those_of_the_cpu() {
    for work in [Dtype::F32, Dtype::Bf16] {
        let Some(gpu) = gpu(work) else { return };
        for head_dim in [64, 80, 128] {
            let config = ModelConfig { head_dim, ..config(Architecture::Llama) };
            let (mut ours, mut theirs) =
                (on_gpu(&gpu, &config, &Method::Full, false), on_cpu(&config, &Method::Full));
            let pair = (ours.dpo_gradient(&pairs(), &dpo()), theirs.dpo_gradient(&pairs(), &dpo()));
            let what = format!("{work:?}, heads of {head_dim}");
            assert_alike(&pair.0.unwrap(), &pair.1.unwrap(), work, &what);
        }
    }
}

fn taken(report: StepReport) -> StepMetrics {
    match report {
        StepReport::Taken(figures) => figures,
        StepReport::Skipped { reason } => panic!("skipped: {reason}"),
    }
}

#[test]
fn losses_and_steps_are_those_of_the_cpu() {
    for (work, of_loss, of_norm) in [(Dtype::F32, 1e-6, 1e-6), (Dtype::Bf16, 1e-3, 3e-3)] {
        let Some(gpu) = gpu(work) else { return };
        for method in [Method::Full, lora_method()] {
            let config = config(Architecture::Llama);
            let (mut ours, mut theirs) =
                (on_gpu(&gpu, &config, &method, false), on_cpu(&config, &method));
            let dpo = DpoSettings { rehearsal_weight: 0.5, ..dpo() };
            for step in 0..4 {
                let cancel = Cancel::default();
                let a = taken(ours.dpo_step(&pairs(), &rows(), &dpo, &cancel).unwrap());
                let b = taken(theirs.dpo_step(&pairs(), &rows(), &dpo, &cancel).unwrap());
                let pairs = [(a.loss, b.loss, of_loss), (a.grad_norm, b.grad_norm, of_norm)];
                for (a, b, tolerance) in pairs {
                    assert!((a - b).abs() < tolerance * b.abs(), "{work:?} step {step}: {a}, {b}");
                }
                assert_eq!(a.num_tokens, b.num_tokens);
                assert_eq!(a.learning_rate, b.learning_rate);
            }
            assert_eq!(ours.step(), 4);
        }
    }
}

/// What is computed again on the way back is what was there, bit for bit.
#[test]
fn recomputing_changes_nothing() {
    for work in [Dtype::F32, Dtype::Bf16] {
        let Some(gpu) = gpu(work) else { return };
        let config = config(Architecture::Qwen3);
        let gradient = |checkpointing| {
            let mut trainer = on_gpu(&gpu, &config, &Method::Full, checkpointing);
            trainer.dpo_gradient(&pairs(), &dpo()).unwrap()
        };
        assert_eq!(gradient(false), gradient(true));
    }
}

/// 2 steps, saved, 2 more equal 4 steps; and a state of the CPU goes on here.
#[test]
fn a_saved_state_goes_on() {
    let Some(gpu) = gpu(Dtype::Bf16) else { return };
    let config = config(Architecture::Llama);
    let step = |trainer: &mut TrainSession| {
        taken(trainer.sft_step(&rows(), &Cancel::default()).unwrap());
    };
    let mut whole = on_gpu(&gpu, &config, &Method::Full, false);
    (0..2).for_each(|_| step(&mut whole));
    let (weights, state) = (whole.weights().unwrap(), whole.optimizer_state().unwrap());
    (0..2).for_each(|_| step(&mut whole));
    let settings = settings(&Method::Full, false);
    let under = BaseWeights::Host(weights.clone());
    let mut rest =
        TrainSession::on(&gpu, &config, under, None, settings.clone(), Seed::root(2)).unwrap();
    rest.restore_optimizer(&state).unwrap();
    (0..2).for_each(|_| step(&mut rest));
    let bytes = |t: &TrainSession| {
        let all = [t.weights().unwrap(), t.optimizer_state().unwrap()];
        all.map(|weights| weights.to_bytes(crate::weights::WeightDtype::F32).unwrap())
    };
    assert_eq!(bytes(&whole), bytes(&rest));
    let mut cpu = TrainSession::new(&config, weights, None, settings, Seed::root(2)).unwrap();
    cpu.restore_optimizer(&state).unwrap();
    step(&mut cpu);
    assert_eq!(cpu.step(), 3);
    let mut damaged = state;
    damaged.0.remove("second.model.norm.weight");
    let error = rest.restore_optimizer(&damaged).unwrap_err().to_string();
    assert!(error.contains("model.norm.weight"), "{error}");
}

/// A batch that does not fit is taken in smaller parts, says so, and comes to the same gradients.
#[test]
fn what_does_not_fit_is_taken_in_parts() {
    let Some(gpu) = gpu(Dtype::F32) else { return };
    let config = config(Architecture::Llama);
    let mut trainer = on_gpu(&gpu, &config, &Method::Full, false);
    let gradient = |trainer: &mut TrainSession| trainer.dpo_gradient(&pairs(), &dpo()).unwrap();
    let roomy = gradient(&mut trainer);
    assert!(trainer.short_of_memory().is_empty());
    let most = gpu.take_most_held();
    drop(trainer);
    let mut trainer = on_gpu(&gpu, &config, &Method::Full, false);
    let before = gpu.held();
    gpu.set_limit(before + (most - before) * 9 / 10);
    let tight = gradient(&mut trainer);
    let short = trainer.short_of_memory();
    assert!(!short.is_empty() && short[0].reason.contains("bytes are wanted"), "{short:?}");
    assert!(short.iter().all(|s| s.rows >= 60), "no smaller than needed: {short:?}");
    assert_alike(&tight, &roomy, Dtype::F32, "in parts");
    assert!(trainer.short_of_memory().is_empty(), "said once");
    let again = gradient(&mut trainer);
    assert_eq!(again, tight, "and known from then on");
    assert!(trainer.short_of_memory().is_empty());
    gpu.set_limit(gpu.held() - 1);
    drop(trainer);
    let mut trainer = on_gpu(&gpu, &config, &Method::Full, false);
    gpu.set_limit(gpu.held() + 50_000);
    let error = trainer.dpo_gradient(&pairs(), &dpo()).unwrap_err().to_string();
    assert!(
        error.contains("does not fit by itself") && error.contains("train.use_peft"),
        "{error}"
    );
}

/// What a run is planned with (`lm/device/estimate`) is what a step holds.
#[test]
fn a_step_holds_what_is_planned() {
    for work in [Dtype::F32, Dtype::Bf16] {
        let Some(gpu) = gpu(work) else { return };
        // Wide enough that lists of keys and sums are little beside activations.
        let config = ModelConfig {
            hidden_size: 120,
            intermediate_size: 200,
            head_dim: 20,
            ..config(Architecture::Qwen3)
        };
        let pairs: Vec<DpoExample> = (0..3)
            .map(|seed| DpoExample {
                prompt: tokens(seed, 50),
                chosen: tokens(seed + 1, 40),
                rejected: tokens(seed + 2, 40),
                reference_chosen: -30.0,
                reference_rejected: -25.0,
                belief: Belief::SURE,
            })
            .collect();
        for (method, checkpointing) in
            [(Method::Full, false), (Method::Full, true), (lora_method(), false)]
        {
            gpu.take_most_held();
            let mut trainer = on_gpu(&gpu, &config, &method, checkpointing);
            taken(trainer.dpo_step(&pairs, &[], &dpo(), &Cancel::default()).unwrap());
            let held = gpu.take_most_held();
            let moving = adapter(&config, &method)
                .map(|adapter| adapter.0.values().map(Tensor::elem_count).sum::<usize>() as u64);
            let saved =
                if checkpointing { SavedActivations::LayerInputs } else { SavedActivations::All };
            let training = Training { adapter: moving, items: 3, rows: 130, saved, dtype: work };
            let base = if moving.is_some() { frozen_bytes(&config, work) } else { 0 };
            let planned = base + training.bytes(&config);
            let share = held as f64 / planned as f64;
            let what = format!("{work:?} {method:?} {checkpointing}");
            assert!((0.9..1.1).contains(&share), "{what}: planned {planned}, held {held}");
        }
    }
}

#[test]
fn memory_is_given_back() {
    let Some(gpu) = gpu(Dtype::Bf16) else { return };
    let config = config(Architecture::Qwen2);
    let mut trainer = on_gpu(&gpu, &config, &lora_method(), false);
    taken(trainer.sft_step(&rows(), &Cancel::default()).unwrap());
    assert!(gpu.held() > 0);
    drop(trainer);
    assert_eq!(gpu.held(), 0);
}

fn sampling(temperature: f32) -> Sampling {
    Sampling { max_new_tokens: 12, stop_ids: vec![1], ..plain(temperature) }
}

fn requests(sampling: &Sampling) -> Vec<DrawRequest> {
    let common = tokens(1, 40);
    let prompts = [
        common.clone(),
        [common.as_slice(), &tokens(2, 5)].concat(),
        [&common[..30], &tokens(3, 20)].concat(),
        vec![7],
    ];
    let request = |(index, prompt): (usize, Vec<u32>)| DrawRequest {
        prompt,
        seeds: (0..3).map(|c| Seed::root((index * 10 + c) as u64)).collect(),
        sampling: sampling.clone(),
    };
    prompts.into_iter().enumerate().map(request).collect()
}

fn generator(gpu: &Gpu, config: &ModelConfig) -> Generator {
    let base = Base::new(gpu, config, weights(config)).unwrap();
    let store = WeightStore::over(gpu, config, base, None).unwrap();
    Generator::on(config, GpuDecoder::new(store))
}

fn drawn(generator: &Generator, sampling: &Sampling) -> Vec<Vec<Drawn>> {
    generator.draw(&requests(sampling), &Cancel::default()).unwrap()
}

/// Greedy tokens and drawn ones are the CPU's in f32, whatever is cut and penalised.
#[test]
fn tokens_are_those_of_the_cpu() {
    let Some(gpu) = gpu(Dtype::F32) else { return };
    for architecture in ARCHITECTURES {
        let config = config(architecture);
        let ours = generator(&gpu, &config);
        let theirs = Generator::new(&config, weights(&config)).unwrap();
        let cut = Sampling { top_p: 0.8, top_k: Some(20), min_p: Some(0.01), ..sampling(0.9) };
        let penalised = Sampling { repetition_penalty: 1.3, ..sampling(0.7) };
        for sampling in [sampling(0.0), sampling(1.0), cut, penalised] {
            let (ours, theirs) = (drawn(&ours, &sampling), drawn(&theirs, &sampling));
            for (ours, theirs) in ours.iter().flatten().zip(theirs.iter().flatten()) {
                assert_eq!(ours.token_ids, theirs.token_ids, "{architecture:?} {sampling:?}");
                assert_eq!(ours.stop, theirs.stop);
                assert!((ours.logp - theirs.logp).abs() < 1e-3, "{} {}", ours.logp, theirs.logp);
            }
        }
    }
}

/// With bf16, what is drawn is likely where the CPU finds it likely.
#[test]
fn log_probabilities_of_what_was_drawn_are_those_of_the_cpu() {
    let Some(gpu) = gpu(Dtype::Bf16) else { return };
    let config = config(Architecture::Llama);
    let generator = generator(&gpu, &config);
    let all = drawn(&generator, &sampling(1.0));
    let decoder = Decoder::new(&config, weights(&config), None).unwrap();
    let sequences: Vec<(Vec<u32>, Vec<u32>)> = requests(&sampling(1.0))
        .iter()
        .zip(&all)
        .flat_map(|(r, drawn)| drawn.iter().map(|d| (r.prompt.clone(), d.token_ids.clone())))
        .collect();
    let theirs = sequence_logps(&decoder, &sequences, &Cancel::default()).unwrap();
    let base = Base::new(&gpu, &config, weights(&config)).unwrap();
    let scores = GpuDecoder::new(WeightStore::over(&gpu, &config, base, None).unwrap());
    let ours = sequence_logps(&scores, &sequences, &Cancel::default()).unwrap();
    for ((drawn, theirs), ours) in all.iter().flatten().zip(theirs).zip(ours) {
        let per_token = drawn.token_ids.len() as f64;
        assert!((drawn.logp - theirs).abs() < 0.03 * per_token, "{} {theirs}", drawn.logp);
        assert!((ours - theirs).abs() < 0.03 * per_token, "{ours} {theirs}");
        assert!(matches!(drawn.stop, StopReason::TurnEnd | StopReason::Length));
    }
}

#[test]
fn choices_are_scored_as_on_the_cpu() {
    let Some(gpu) = gpu(Dtype::F32) else { return };
    let config = config(Architecture::Qwen2);
    let contexts: Vec<Vec<u32>> =
        requests(&sampling(0.0)).into_iter().map(|request| request.prompt).collect();
    let choices = [vec![3], vec![4, 5, 6], vec![9, 9]];
    let theirs = Generator::new(&config, weights(&config)).unwrap();
    let theirs = theirs.choice_logps(&contexts, &choices, &Cancel::default()).unwrap();
    let ours = generator(&gpu, &config);
    let ours = ours.choice_logps(&contexts, &choices, &Cancel::default()).unwrap();
    for (ours, theirs) in ours.iter().flatten().zip(theirs.iter().flatten()) {
        assert!((ours - theirs).abs() < 1e-4, "{ours} {theirs}");
    }
}

/// Weights that a trainer, a policy and a reference have in common are held once.
#[test]
fn what_is_common_is_held_once() {
    let Some(gpu) = gpu(Dtype::Bf16) else { return };
    let config = config(Architecture::Llama);
    let method = lora_method();
    let Method::Lora(lora_settings) = &method else { return };
    let base = Base::new(&gpu, &config, weights(&config)).unwrap();
    let held = gpu.held();
    let adapter = adapter(&config, &method).unwrap();
    let lora = Lora::new(&adapter, lora_settings).unwrap();
    let adapters = AdapterUse { lora: &lora, moves: Trainable::Nothing };
    let policy = WeightStore::over(&gpu, &config, base.clone(), Some(&adapters)).unwrap();
    let reference = WeightStore::over(&gpu, &config, base.clone(), None).unwrap();
    let under = BaseWeights::Shared(base);
    let settings = settings(&method, false);
    let mut trainer =
        TrainSession::on(&gpu, &config, under, Some(&adapter), settings, Seed::root(2)).unwrap();
    // Adapters are large beside so small a network; three copies would be three times as much.
    assert!(gpu.held() < 2 * held, "{held} with one, {} with three", gpu.held());
    // The adapter is not merged, and counts.
    let sequences = [(tokens(1, 9), tokens(2, 6))];
    let logps = |store: WeightStore| {
        sequence_logps(&GpuDecoder::new(store), &sequences, &Cancel::default()).unwrap()[0]
    };
    let merged = weights(&config).merged(&adapter, lora_settings.scale()).unwrap();
    let cpu = Decoder::new(&config, merged, None).unwrap();
    let theirs = sequence_logps(&cpu, &sequences, &Cancel::default()).unwrap()[0];
    let (with, without) = (logps(policy), logps(reference));
    assert!((with - theirs).abs() < 0.1, "{with} {theirs}");
    assert!((with - without).abs() > 0.2, "{with} {without}");
    taken(trainer.sft_step(&rows(), &Cancel::default()).unwrap());
}

/// 24 prompts of 60 tokens with nothing in common.
fn many_requests() -> Vec<DrawRequest> {
    let request = |n: u32| DrawRequest {
        prompt: tokens(n, 60),
        seeds: vec![Seed::root(7)],
        sampling: Sampling { stop_ids: vec![], ..sampling(1.0) },
    };
    (1..25).map(request).collect()
}

/// What drawing is planned with is enough, and no more than twice what it takes.
#[test]
fn drawing_holds_no_more_than_is_planned() {
    for work in [Dtype::F32, Dtype::Bf16] {
        let Some(gpu) = gpu(work) else { return };
        let config = ModelConfig { num_hidden_layers: 6, ..config(Architecture::Llama) };
        let requests = many_requests();
        let generator = generator(&gpu, &config);
        gpu.take_most_held();
        generator.draw(&requests, &Cancel::default()).unwrap();
        let held = gpu.take_most_held();
        // Prompts and answers lie in blocks of 32.
        let drawing = Drawing { live: 24, tokens: 24 * (64 + 32), dtype: work };
        let planned = frozen_bytes(&config, work) + drawing.bytes(&config);
        let share = held as f64 / planned as f64;
        assert!((0.5..1.0).contains(&share), "{work:?}: planned {planned}, held {held}");
    }
}

/// Reading, drawing and scoring with too little room go on in smaller parts, and come to the same.
#[test]
fn what_is_read_and_does_not_fit_is_read_in_parts() {
    let Some(gpu) = gpu(Dtype::F32) else { return };
    let config = config(Architecture::Llama);
    let cancel = Cancel::default();
    let requests = many_requests();
    let contexts: Vec<Vec<u32>> = requests.iter().map(|request| request.prompt.clone()).collect();
    let sequences: Vec<_> = (2..9).map(|n| (tokens(n % 3, 30), tokens(n, 20))).collect();
    let base = Base::new(&gpu, &config, weights(&config)).unwrap();
    let store = || WeightStore::over(&gpu, &config, base.clone(), None).unwrap();
    let tasks: [&dyn Fn() -> Vec<f64>; 3] = [
        &|| {
            let generator = Generator::on(&config, GpuDecoder::new(store()));
            let drawn = generator.draw(&requests, &cancel).unwrap();
            drawn.into_iter().flatten().map(|drawn| drawn.logp).collect()
        },
        &|| {
            let generator = Generator::on(&config, GpuDecoder::new(store()));
            generator.choice_logps(&contexts, &[vec![4, 5, 6]], &cancel).unwrap().concat()
        },
        &|| sequence_logps(&GpuDecoder::new(store()), &sequences, &cancel).unwrap(),
    ];
    for (which, task) in tasks.iter().enumerate() {
        let before = gpu.held();
        gpu.take_most_held();
        let roomy = task();
        let most = gpu.take_most_held();
        gpu.set_limit(before + (most - before) * 7 / 10);
        let tight = task();
        assert!(gpu.take_most_held() < most, "task {which} kept to what is allowed");
        gpu.set_limit(u64::MAX);
        let gap = |(a, b): (&f64, &f64)| (a - b).abs();
        assert!(roomy.iter().zip(&tight).map(gap).all(|gap| gap < 1e-4), "{roomy:?} {tight:?}");
        assert_eq!(roomy.len(), tight.len());
    }
}
