//! Whole training runs against code we did not write: torch, transformers, TRL's own trainer and
//! PEFT, through files that `tests/golden/scripts/make_lm_run_goldens.py` made. The model has heads
//! wider than hidden / heads, and its files are as transformers and PEFT save them. Also the
//! optimiser alone, every schedule, and the network that draws.

use gradus::domain::Seed;
use gradus::lm::cancel::Cancel;
use gradus::lm::config::ModelConfig;
use gradus::lm::decoder::Decoder;
use gradus::lm::generate::Generator;
use gradus::lm::logp::sequence_logps;
use gradus::lm::lora::{Lora, LoraSettings};
use gradus::lm::loss::{Belief, DpoSettings, Loss};
use gradus::lm::model_files::ModelFiles;
use gradus::lm::optimizer::{AdamW, OptimizerSettings, Schedule, TrainedTensor, global_norm};
use gradus::lm::packed::PackedRows;
use gradus::lm::train::{
    DpoExample, Method, StepMetrics, StepReport, TrainSession, TrainSettings, WeightedSequence,
};
use gradus::lm::weights::Weights;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

#[derive(Deserialize)]
struct Row {
    prompt: Vec<u32>,
    response: Vec<u32>,
    logp: f64,
    #[serde(default)]
    top_ids: Vec<u32>,
    #[serde(default)]
    top_logits: Vec<f64>,
}

#[derive(Deserialize)]
struct Pair {
    prompt_ids: Vec<u32>,
    chosen_ids: Vec<u32>,
    rejected_ids: Vec<u32>,
}

#[derive(Deserialize)]
struct Dpo {
    loss: f64,
    rewards_chosen: f64,
    rewards_rejected: f64,
    rewards_margin: f64,
    rewards_accuracy: f64,
    logps_chosen: f64,
    logps_rejected: f64,
}

#[derive(Deserialize)]
struct CurveStep {
    loss: f64,
    grad_norm: f64,
    learning_rate: f64,
    rewards_margin: Option<f64>,
}

#[derive(Deserialize)]
struct Curve {
    learning_rate: f64,
    warmup_steps: u32,
    steps: Vec<CurveStep>,
    after: Option<f64>,
}

#[derive(Deserialize)]
struct Golden {
    rows: Vec<Row>,
    sft_loss: f64,
    sft_curve: Curve,
    pairs: Vec<Pair>,
    beta: f64,
    dpo: BTreeMap<String, Dpo>,
    dpo_curve: Option<Curve>,
    #[serde(default)]
    reference_chosen: Vec<f64>,
    #[serde(default)]
    reference_rejected: Vec<f64>,
}

/// The worst error of a kind, with where it was; every message ends with it.
#[derive(Default)]
struct Worst {
    error: f64,
    at: String,
}

impl Worst {
    fn see(&mut self, error: f64, at: impl Fn() -> String) {
        // Not a number is the worst of all.
        if error.is_nan() || error >= self.error {
            (self.error, self.at) = (if error.is_nan() { f64::INFINITY } else { error }, at());
        }
    }

    fn within(&self, tolerance: f64, what: &str) {
        eprintln!("{what}: worst {:.2e} at {}", self.error, self.at);
        assert!(
            self.error <= tolerance && !self.at.is_empty(),
            "{what}: worst error {:e} at {:?}, {tolerance:e} is allowed",
            self.error,
            self.at
        );
    }
}

fn at(parts: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/lm_runs").join(parts)
}

fn text(parts: &str) -> String {
    std::fs::read_to_string(at(parts)).unwrap()
}

fn golden(case: &str) -> Golden {
    serde_json::from_str(&text(&format!("{case}/golden.json"))).unwrap()
}

/// The tensors of a case whose names begin with `group.`, by the rest of the name.
fn group(case: &str, group: &str) -> Weights {
    let all = Weights::load_file(&at(&format!("{case}/tensors.safetensors"))).unwrap();
    let prefix = format!("{group}.");
    let mine = |(name, t): (String, _)| Some((name.strip_prefix(&prefix)?.to_owned(), t));
    Weights(all.0.into_iter().filter_map(mine).collect())
}

fn flat(weights: &Weights) -> BTreeMap<String, Vec<f32>> {
    let values = |t: &candle_core::Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    weights.0.iter().map(|(name, t)| (name.clone(), values(t))).collect()
}

fn config() -> ModelConfig {
    ModelConfig::from_hf_json(&text("wide-heads/config.json")).unwrap()
}

fn base() -> Weights {
    Weights::load_folder(&at("wide-heads"), &config()).unwrap()
}

fn adapter() -> Weights {
    Weights::load_file(&at("adapter/adapter_model.safetensors")).unwrap()
}

/// What PEFT wrote into `adapter_config.json`.
fn lora() -> LoraSettings {
    let json: serde_json::Value =
        serde_json::from_str(&text("adapter/adapter_config.json")).unwrap();
    LoraSettings {
        r: json["r"].as_u64().unwrap() as usize,
        alpha: json["lora_alpha"].as_f64().unwrap(),
        target_modules: serde_json::from_value(json["target_modules"].clone()).unwrap(),
    }
}

/// A case's network: its config, its base, its adapter where it has one.
struct Case {
    name: &'static str,
    golden: Golden,
    adapter: Option<Weights>,
}

fn cases() -> [Case; 2] {
    [("wide-heads", None), ("adapter", Some(adapter()))].map(|(name, adapter)| Case {
        name,
        golden: golden(name),
        adapter,
    })
}

impl Case {
    fn decoder(&self) -> Decoder {
        let lora = self.adapter.as_ref().map(|a| Lora::new(a, &lora()).unwrap());
        Decoder::new(&config(), base(), lora.as_ref()).unwrap()
    }

    /// A trainer of what moves, at `start` (default: as saved).
    fn trainer(
        &self,
        start: Option<Weights>,
        optimizer: OptimizerSettings,
        threads: usize,
    ) -> TrainSession {
        let new = |method, weights: &Weights, adapter: Option<&Weights>| {
            let settings =
                TrainSettings { method, optimizer, threads, gradient_checkpointing: false };
            TrainSession::new(&config(), weights.clone(), adapter, settings, Seed::root(1)).unwrap()
        };
        match &self.adapter {
            None => new(Method::Full, &start.unwrap_or_else(base), None),
            Some(saved) => {
                new(Method::Lora(lora()), &base(), Some(start.as_ref().unwrap_or(saved)))
            }
        }
    }

    fn sft_batch(&self) -> Vec<WeightedSequence> {
        let row = |row: &Row| WeightedSequence {
            ids: [row.prompt.clone(), row.response.clone()].concat(),
            weights: [vec![0.0; row.prompt.len()], vec![1.0; row.response.len()]].concat(),
        };
        self.golden.rows.iter().map(row).collect()
    }

    /// Pairs with log-probabilities that our own decoder reads from the reference.
    fn pairs(&self, reference: &Decoder) -> Vec<DpoExample> {
        let pair = |p: &Pair| {
            let both = [&p.chosen_ids, &p.rejected_ids].map(|r| (p.prompt_ids.clone(), r.clone()));
            let logps = sequence_logps(reference, &both, &Cancel::default()).unwrap();
            DpoExample {
                prompt: p.prompt_ids.clone(),
                chosen: p.chosen_ids.clone(),
                rejected: p.rejected_ids.clone(),
                reference_chosen: logps[0],
                reference_rejected: logps[1],
                belief: Belief::SURE,
            }
        };
        self.golden.pairs.iter().map(pair).collect()
    }

    fn dpo(&self, kind: &str) -> DpoSettings {
        let beta = self.golden.beta;
        let loss = match kind {
            "sigmoid" => Loss::Sigmoid { beta, label_smoothing: 0.0 },
            "hinge" => Loss::Hinge { beta },
            "ipo" => Loss::Ipo { beta },
            _ => panic!("{kind} is no loss"),
        };
        DpoSettings { loss, nll_weight: 0.0, rehearsal_weight: 0.0 }
    }
}

fn optimizer(curve: &Curve, schedule: Schedule) -> OptimizerSettings {
    OptimizerSettings {
        learning_rate: curve.learning_rate,
        schedule,
        warmup_steps: curve.warmup_steps,
        steps_total: curve.steps.len() as u32,
        final_ratio: 0.0,
        weight_decay: 0.01,
        max_grad_norm: 1.0,
        ..OptimizerSettings::default()
    }
}

fn taken(report: StepReport) -> StepMetrics {
    match report {
        StepReport::Taken(figures) => figures,
        StepReport::Skipped { reason } => panic!("skipped: {reason}"),
    }
}

/// Relative L2 error and cosine of every tensor, and that the same tensors are there.
fn same_gradients(case: &str, ours: &BTreeMap<String, Vec<f32>>, kind: &str) {
    let theirs = flat(&group(case, kind));
    assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>(), "{case} {kind}");
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
    };
    let (mut relative, mut turned) = (Worst::default(), Worst::default());
    for (name, ours) in ours {
        let theirs = &theirs[name];
        assert_eq!(ours.len(), theirs.len(), "{case} {kind} {name}");
        let gap: Vec<f32> = ours.iter().zip(theirs).map(|(a, b)| a - b).collect();
        let size = dot(theirs, theirs).sqrt();
        relative.see(dot(&gap, &gap).sqrt() / size, || name.clone());
        let cosine = dot(ours, theirs) / (dot(ours, ours).sqrt() * size);
        turned.see((1.0 - cosine).abs(), || name.clone());
    }
    relative.within(1e-4, &format!("{case} {kind}: relative error of a tensor"));
    turned.within(1e-8, &format!("{case} {kind}: 1 - cosine of a tensor"));
}

/// Adam divides by the gradient's own size, so a gradient near 0 turns rounding into a visible part
/// of a step: the tolerance depends on the smallest gradient of the case.
fn same_weights(case: &str, ours: &Weights, kind: &str, tolerance: f64) {
    let (ours, theirs) = (flat(ours), flat(&group(case, kind)));
    assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>(), "{case} {kind}");
    let mut worst = Worst::default();
    for (name, ours) in &ours {
        for (a, b) in ours.iter().zip(&theirs[name]) {
            worst.see(f64::from((a - b).abs()), || name.clone());
        }
    }
    worst.within(tolerance, &format!("{case} {kind}: weights"));
}

#[test]
fn logits_and_log_probabilities_are_transformers() {
    for case in cases() {
        let (decoder, theirs) = (case.decoder(), group(case.name, "logits"));
        let mut packed = PackedRows::default();
        let places: Vec<_> = case
            .golden
            .rows
            .iter()
            .map(|row| packed.push(&[row.prompt.clone(), row.response.clone()].concat()))
            .collect();
        let hidden = decoder.hidden(&packed).unwrap();
        let mut worst = Worst::default();
        for (n, place) in places.into_iter().enumerate() {
            let rows: Vec<u32> = place.map(|at| at as u32).collect();
            let ours = decoder.logits(&hidden, &rows);
            let theirs = theirs.get(&n.to_string()).unwrap().flatten_all().unwrap();
            let theirs = theirs.to_vec1::<f32>().unwrap();
            assert_eq!(ours.len(), theirs.len(), "{} row {n}", case.name);
            let gaps = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs());
            worst.see(f64::from(gaps.fold(0.0, f32::max)), || format!("row {n}"));
        }
        worst.within(2e-5, &format!("{}: logits", case.name));
        let sequences: Vec<(Vec<u32>, Vec<u32>)> =
            case.golden.rows.iter().map(|r| (r.prompt.clone(), r.response.clone())).collect();
        let ours = sequence_logps(&decoder, &sequences, &Cancel::default()).unwrap();
        let mut worst = Worst::default();
        for (n, (ours, row)) in ours.iter().zip(&case.golden.rows).enumerate() {
            worst.see((ours - row.logp).abs(), || format!("row {n}"));
        }
        worst.within(1e-4, &format!("{}: summed log-probabilities", case.name));
    }
}

/// The network that draws is other code than the one that trains; an adapter is merged into it.
#[test]
fn the_drawing_network_reads_the_same_log_probabilities() {
    for case in cases() {
        let weights = match &case.adapter {
            None => base(),
            Some(adapter) => base().merged(adapter, lora().scale()).unwrap(),
        };
        let generator = Generator::new(&config(), weights).unwrap();
        let mut worst = Worst::default();
        for (n, row) in case.golden.rows.iter().enumerate() {
            let (prompt, response) = ([row.prompt.clone()], [row.response.clone()]);
            let ours = generator.choice_logps(&prompt, &response, &Cancel::default()).unwrap();
            worst.see((ours[0][0] - row.logp).abs(), || format!("row {n}"));
        }
        worst.within(1e-4, &format!("{}: summed log-probabilities, drawing", case.name));
    }
}

#[test]
fn supervised_gradients_and_the_run_are_torchs() {
    for case in cases() {
        let (batch, curve) = (case.sft_batch(), &case.golden.sft_curve);
        let settings = optimizer(curve, Schedule::Cosine);
        for threads in [1, 3] {
            let mut trainer = case.trainer(None, settings.clone(), threads);
            same_gradients(case.name, &trainer.sft_gradient(&batch).unwrap(), "sft_grad");
        }
        let mut trainer = case.trainer(None, settings, 2);
        let mut worst = Worst::default();
        for (n, theirs) in curve.steps.iter().enumerate() {
            let ours = taken(trainer.sft_step(&batch, &Cancel::default()).unwrap());
            assert!((ours.learning_rate - theirs.learning_rate).abs() < 1e-12, "step {n}");
            worst.see((ours.loss / theirs.loss - 1.0).abs(), || format!("loss of step {n}"));
            worst.see((ours.grad_norm / theirs.grad_norm - 1.0).abs(), || format!("norm, {n}"));
            if n == 0 {
                assert!((ours.loss / case.golden.sft_loss - 1.0).abs() < 1e-6, "{}", case.name);
            }
        }
        worst.within(1e-5, &format!("{}: the supervised run, relative", case.name));
        let now = trainer.adapter().unwrap().unwrap_or_else(|| trainer.weights().unwrap());
        // One gradient of the adapter is 4e-7 where the norm is 7.
        let tolerance = if case.adapter.is_some() { 1e-4 } else { 1e-5 };
        same_weights(case.name, &now, "sft_final", tolerance);
        let after = taken(trainer.sft_step(&batch, &Cancel::default()).unwrap()).loss;
        assert!((after / curve.after.unwrap() - 1.0).abs() < 1e-5, "{}: {after}", case.name);
    }
}

/// The reference is the model as it came, the policy what the supervised run made of it.
#[test]
fn preference_losses_figures_and_gradients_are_trls() {
    for case in cases() {
        let reference = Decoder::new(&config(), base(), None).unwrap();
        let pairs = case.pairs(&reference);
        let mut worst = Worst::default();
        let told = case.golden.reference_chosen.iter().zip(&case.golden.reference_rejected);
        for (n, (pair, (chosen, rejected))) in pairs.iter().zip(told).enumerate() {
            worst.see((pair.reference_chosen - chosen).abs(), || format!("chosen {n}"));
            worst.see((pair.reference_rejected - rejected).abs(), || format!("rejected {n}"));
        }
        if case.adapter.is_none() {
            worst.within(1e-4, "references");
        }
        for name in ["sigmoid", "hinge", "ipo"] {
            let Some(theirs) = case.golden.dpo.get(name) else { continue };
            let start = group(case.name, "sft_final");
            let mut trainer = case.trainer(Some(start), OptimizerSettings::default(), 2);
            let stored = match name {
                "sigmoid" => Some("dpo_grad"),
                "ipo" if case.adapter.is_some() => Some("ipo_grad"),
                _ => None,
            };
            if let Some(stored) = stored {
                let ours = trainer.dpo_gradient(&pairs, &case.dpo(name)).unwrap();
                same_gradients(case.name, &ours, stored);
            }
            let report = trainer.dpo_step(&pairs, &[], &case.dpo(name), &Cancel::default());
            same_figures(&taken(report.unwrap()), theirs, &format!("{} {name}", case.name));
        }
    }
}

fn same_figures(ours: &StepMetrics, theirs: &Dpo, what: &str) {
    assert_eq!(ours.rewards_accuracy, theirs.rewards_accuracy, "{what}");
    let mut worst = Worst::default();
    worst.see((ours.loss / theirs.loss - 1.0).abs(), || "loss, relative".to_owned());
    for (name, ours, theirs) in [
        ("rewards_chosen", ours.rewards_chosen, theirs.rewards_chosen),
        ("rewards_rejected", ours.rewards_rejected, theirs.rewards_rejected),
        ("rewards_margin", ours.rewards_margin, theirs.rewards_margin),
        // Ten nats and more, summed in f32 over there.
        ("logps_chosen", ours.logps_chosen / 10.0, theirs.logps_chosen / 10.0),
        ("logps_rejected", ours.logps_rejected / 10.0, theirs.logps_rejected / 10.0),
    ] {
        worst.see((ours - theirs).abs(), || name.to_owned());
    }
    worst.within(1e-5, &format!("{what}: loss and figures"));
}

/// Five steps of `DPOTrainer.train()`, from weights that are also the reference.
#[test]
fn the_preference_run_is_that_of_trls_trainer() {
    let [case, _] = cases();
    let start = group(case.name, "sft_final");
    let reference = Decoder::new(&config(), start.clone(), None).unwrap();
    let pairs = case.pairs(&reference);
    let curve = case.golden.dpo_curve.as_ref().unwrap();
    let mut trainer = case.trainer(Some(start), optimizer(curve, Schedule::Linear), 2);
    trainer.check_initial_dpo_loss(&pairs, &case.dpo("sigmoid")).unwrap();
    let mut worst = Worst::default();
    for (n, theirs) in curve.steps.iter().enumerate() {
        let settings = case.dpo("sigmoid");
        let report = trainer.dpo_step(&pairs, &[], &settings, &Cancel::default());
        let ours = taken(report.unwrap());
        assert!((ours.learning_rate - theirs.learning_rate).abs() < 1e-12, "step {n}");
        worst.see((ours.loss - theirs.loss).abs(), || format!("loss of step {n}"));
        worst.see((ours.grad_norm / theirs.grad_norm - 1.0).abs(), || format!("norm, {n}"));
        let margin = theirs.rewards_margin.unwrap();
        worst.see((ours.rewards_margin - margin).abs(), || format!("margin of step {n}"));
    }
    worst.within(1e-5, "the preference run");
    same_weights(case.name, &trainer.weights().unwrap(), "dpo_final", 2e-6);
}

#[derive(Deserialize)]
struct AdamWStep {
    grad: Vec<f32>,
    norm: f64,
    values: Vec<f32>,
}

#[derive(Deserialize)]
struct AdamWCase {
    learning_rate: f64,
    beta1: f64,
    beta2: f64,
    eps: f64,
    weight_decay: f64,
    max_grad_norm: f64,
    start: Vec<f32>,
    steps: Vec<AdamWStep>,
}

#[derive(Deserialize)]
struct ScheduleCase {
    schedule: Schedule,
    warmup_steps: u32,
    steps_total: u32,
    final_ratio: f64,
    rates: Vec<f64>,
}

#[derive(Deserialize)]
struct ScheduleCases {
    learning_rate: f64,
    cases: Vec<ScheduleCase>,
}

#[derive(Deserialize)]
struct OptimizerGolden {
    adamw: AdamWCase,
    schedules: ScheduleCases,
}

/// Gradients from 30 down to below eps, and one that is zero: its weight only decays.
#[test]
fn adamw_moves_weights_as_torch_does() {
    let golden: OptimizerGolden = serde_json::from_str(&text("optimizer.json")).unwrap();
    let case = golden.adamw;
    let settings = OptimizerSettings {
        learning_rate: case.learning_rate,
        schedule: Schedule::Constant,
        beta1: case.beta1,
        beta2: case.beta2,
        eps: case.eps,
        weight_decay: case.weight_decay,
        max_grad_norm: case.max_grad_norm,
        ..OptimizerSettings::default()
    };
    let mut values = case.start;
    let (mut adamw, mut worst, mut clipped) = (AdamW::default(), Worst::default(), 0);
    for (n, step) in case.steps.into_iter().enumerate() {
        let norm = global_norm(std::iter::once(step.grad.as_slice()));
        assert!((norm / step.norm - 1.0).abs() < 1e-6, "step {n}: norm {norm}, {}", step.norm);
        clipped += usize::from(norm > case.max_grad_norm);
        let moving = TrainedTensor { name: "p", value: &mut values, grad: &step.grad };
        adamw.update(&settings, &mut [moving], norm).unwrap();
        for (i, (a, b)) in values.iter().zip(&step.values).enumerate() {
            worst.see(f64::from((a - b).abs()), || format!("step {n}, value {i}"));
        }
    }
    assert!((1..20).contains(&clipped), "{clipped} of 20 steps are clipped");
    worst.within(5e-7, "AdamW");
}

#[test]
fn every_schedule_is_transformers_from_the_first_step_to_the_last() {
    let golden: OptimizerGolden = serde_json::from_str(&text("optimizer.json")).unwrap();
    let mut worst = Worst::default();
    for case in golden.schedules.cases {
        let settings = OptimizerSettings {
            learning_rate: golden.schedules.learning_rate,
            schedule: case.schedule,
            warmup_steps: case.warmup_steps,
            steps_total: case.steps_total,
            final_ratio: case.final_ratio,
            ..OptimizerSettings::default()
        };
        assert_eq!(case.rates.len() as u32, case.steps_total + 1);
        // Nothing falls where warm-up takes every step; the rate after the last is no one's then.
        let steps = case.rates.len() - usize::from(case.warmup_steps == case.steps_total);
        for (step, theirs) in (0..).zip(&case.rates).take(steps) {
            let gap = (settings.learning_rate_at(step) - theirs).abs() / settings.learning_rate;
            let (kind, from, to) = (case.schedule, case.warmup_steps, case.steps_total);
            worst.see(gap, || format!("{kind:?}, warm-up {from} of {to}, step {step}"));
        }
    }
    worst.within(1e-12, "schedules, share of the peak");
}

/// The training network on real weights; the drawing one is held to them in `lm::policy`.
#[test]
fn smollm2_gives_transformers_logits_and_log_probabilities() {
    let given = std::env::var_os("GRADUS_SMOLLM2").map(PathBuf::from);
    let path = given.unwrap_or_else(|| {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(".models/SmolLM2-135M-Instruct.Q4_1.gguf")
    });
    if !path.exists() {
        eprintln!("SKIPPED: {} is absent; scripts/fetch-smollm2 fetches it", path.display());
        return;
    }
    let files = ModelFiles::open(&path).unwrap();
    let decoder = Decoder::new(files.config(), files.weights().unwrap(), None).unwrap();
    let mut rows: BTreeMap<String, Vec<Row>> = serde_json::from_str(&text("smollm2.json")).unwrap();
    let mut worst = Worst::default();
    for (n, row) in rows.remove("rows").unwrap().into_iter().enumerate() {
        let mut packed = PackedRows::default();
        let place = packed.push(&[row.prompt.clone(), row.response.clone()].concat());
        let hidden = decoder.hidden(&packed).unwrap();
        let logits = decoder.logits(&hidden, &[place.end as u32 - 1]);
        let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
        ids.sort_by(|a, b| logits[*b as usize].total_cmp(&logits[*a as usize]));
        assert_eq!(ids[..row.top_ids.len()], row.top_ids, "text {n}");
        for (id, theirs) in row.top_ids.iter().zip(&row.top_logits) {
            let gap = (f64::from(logits[*id as usize]) - theirs).abs();
            worst.see(gap, || format!("text {n}, logit of {id}"));
        }
        let logps = sequence_logps(&decoder, &[(row.prompt, row.response)], &Cancel::default());
        worst.see((logps.unwrap()[0] - row.logp).abs(), || format!("text {n}, log-probability"));
    }
    worst.within(2e-3, "SmolLM2");
}
