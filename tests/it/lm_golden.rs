//! The model room against code we did not write: transformers, torch, TRL and PEFT, through files
//! that `tests/golden/scripts/make_lm_goldens.py` made. Tiny random networks: Llamas with tied
//! embeddings and grouped queries, untied ones without, one key-value head with another rotary
//! base, Llama 3's stretched positions; Qwen2 (biases), Qwen3 (normed heads), Mistral.

use gradus::domain::Seed;
use gradus::lm::cancel::Cancel;
use gradus::lm::config::ModelConfig;
use gradus::lm::decoder::Decoder;
use gradus::lm::generate::Generator;
use gradus::lm::logp::sequence_logps;
use gradus::lm::lora::{Lora, LoraSettings};
use gradus::lm::loss::{Belief, DpoSettings, Loss};
use gradus::lm::optimizer::{OptimizerSettings, Schedule};
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
    logits: Vec<Vec<f32>>,
    logp: f64,
}

#[derive(Deserialize)]
struct Pair {
    prompt: Vec<u32>,
    chosen: Vec<u32>,
    rejected: Vec<u32>,
    reference_chosen: f64,
    reference_rejected: f64,
}

#[derive(Deserialize)]
struct Dpo {
    loss: f64,
    #[serde(rename = "rewards/chosen")]
    rewards_chosen: f64,
    #[serde(rename = "rewards/rejected")]
    rewards_rejected: f64,
    #[serde(rename = "rewards/accuracies")]
    rewards_accuracy: f64,
    #[serde(rename = "rewards/margins")]
    rewards_margin: f64,
    #[serde(rename = "logps/chosen")]
    logps_chosen: f64,
    #[serde(rename = "logps/rejected")]
    logps_rejected: f64,
}

#[derive(Deserialize)]
struct LoraGolden {
    r: usize,
    alpha: f64,
    last_logits: Vec<f32>,
    sft_loss: f64,
}

#[derive(Deserialize)]
struct Curve {
    losses: Vec<f64>,
    norms: Vec<f64>,
    learning_rates: Vec<f64>,
}

#[derive(Deserialize)]
struct Golden {
    rows: Vec<Row>,
    pairs: Vec<Pair>,
    sft_loss: f64,
    dpo: BTreeMap<String, Dpo>,
    lora: LoraGolden,
    curve: Curve,
}

struct Case {
    name: &'static str,
    config: ModelConfig,
    weights: Weights,
    golden: Golden,
}

fn at(parts: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/lm").join(parts)
}

fn text(parts: &str) -> String {
    std::fs::read_to_string(at(parts)).unwrap()
}

fn cases() -> Vec<Case> {
    let names = ["tied_gqa", "untied_mha", "untied_gqa_theta"];
    let others = ["llama3_scaled", "qwen2_bias", "qwen3_norms", "mistral"];
    names
        .into_iter()
        .chain(others)
        .map(|name| Case {
            name,
            config: ModelConfig::from_hf_json(&text(&format!("{name}/config.json"))).unwrap(),
            weights: Weights::load_file(&at(&format!("{name}/model.safetensors"))).unwrap(),
            golden: serde_json::from_str(&text(&format!("{name}/golden.json"))).unwrap(),
        })
        .collect()
}

impl Case {
    fn tensors(&self, file: &str) -> BTreeMap<String, Vec<f32>> {
        let loaded = Weights::load_file(&at(&format!("{}/{file}", self.name))).unwrap();
        let flat = |t: &candle_core::Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        loaded.0.iter().map(|(name, tensor)| (name.clone(), flat(tensor))).collect()
    }

    fn trainer(
        &self,
        method: Method,
        optimizer: OptimizerSettings,
        threads: usize,
    ) -> TrainSession {
        let adapter = matches!(method, Method::Lora(_))
            .then(|| Weights::load_file(&at(&format!("{}/lora.safetensors", self.name))).unwrap());
        let settings = TrainSettings { method, optimizer, threads, gradient_checkpointing: false };
        TrainSession::new(
            &self.config,
            self.weights.clone(),
            adapter.as_ref(),
            settings,
            Seed::root(1),
        )
        .unwrap()
    }

    fn sft_batch(&self) -> Vec<WeightedSequence> {
        let row = |row: &Row| WeightedSequence {
            ids: [row.prompt.clone(), row.response.clone()].concat(),
            weights: [vec![0.0; row.prompt.len()], vec![1.0; row.response.len()]].concat(),
        };
        self.golden.rows.iter().map(row).collect()
    }

    fn pairs(&self) -> Vec<DpoExample> {
        let pair = |p: &Pair| DpoExample {
            prompt: p.prompt.clone(),
            chosen: p.chosen.clone(),
            rejected: p.rejected.clone(),
            reference_chosen: p.reference_chosen,
            reference_rejected: p.reference_rejected,
            belief: Belief::SURE,
        };
        self.golden.pairs.iter().map(pair).collect()
    }

    fn lora(&self) -> LoraSettings {
        let modules = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];
        LoraSettings {
            r: self.golden.lora.r,
            alpha: self.golden.lora.alpha,
            target_modules: modules.map(str::to_owned).to_vec(),
        }
    }
}

const SIGMOID: Loss = Loss::Sigmoid { beta: 0.1, label_smoothing: 0.0 };

fn dpo_settings(loss: Loss) -> DpoSettings {
    DpoSettings { loss, nll_weight: 0.0, rehearsal_weight: 0.0 }
}

fn worst(ours: &[f32], theirs: &[f32]) -> f32 {
    assert_eq!(ours.len(), theirs.len());
    ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// Relative L2 error and cosine (F3 of the project's list of oracles).
fn compare(ours: &[f32], theirs: &[f32]) -> (f64, f64) {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
    };
    let gap: Vec<f32> = ours.iter().zip(theirs).map(|(a, b)| a - b).collect();
    let (size_ours, size_theirs) = (dot(ours, ours).sqrt(), dot(theirs, theirs).sqrt());
    (dot(&gap, &gap).sqrt() / size_theirs, dot(ours, theirs) / (size_ours * size_theirs))
}

fn same_gradients(case: &Case, ours: &BTreeMap<String, Vec<f32>>, file: &str) {
    let theirs = case.tensors(file);
    assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>(), "{}", case.name);
    for (name, ours) in ours {
        let (error, cosine) = compare(ours, &theirs[name]);
        assert!(
            error < 1e-4 && cosine > 0.99999,
            "{} {file} {name}: relative error {error:e}, cosine {cosine}",
            case.name
        );
    }
}

fn taken(report: StepReport) -> StepMetrics {
    match report {
        StepReport::Taken(figures) => figures,
        StepReport::Skipped { reason } => panic!("skipped: {reason}"),
    }
}

#[test]
fn logits_and_log_probabilities_are_transformers() {
    for case in cases() {
        let decoder = Decoder::new(&case.config, case.weights.clone(), None).unwrap();
        // All rows packed into one: no token may see another row's.
        let mut packed = PackedRows::default();
        let mut places = Vec::new();
        for row in &case.golden.rows {
            places.push(packed.push(&[row.prompt.clone(), row.response.clone()].concat()));
        }
        let hidden = decoder.hidden(&packed).unwrap();
        for (row, place) in case.golden.rows.iter().zip(places) {
            let rows: Vec<u32> = place.map(|at| at as u32).collect();
            let ours = decoder.logits(&hidden, &rows);
            let gap = worst(&ours, &row.logits.concat());
            assert!(gap < 2e-5, "{}: logits differ by {gap:e}", case.name);
        }
        let sequences: Vec<(Vec<u32>, Vec<u32>)> =
            case.golden.rows.iter().map(|r| (r.prompt.clone(), r.response.clone())).collect();
        let logps = sequence_logps(&decoder, &sequences, &Cancel::default()).unwrap();
        for (ours, row) in logps.iter().zip(&case.golden.rows) {
            assert!((ours - row.logp).abs() < 2e-5, "{}: {ours} and {}", case.name, row.logp);
        }
    }
}

/// The network that draws is other code than the one that trains.
#[test]
fn the_drawing_network_reads_transformers_log_probabilities() {
    for case in cases() {
        let generator = Generator::new(&case.config, case.weights.clone()).unwrap();
        for row in &case.golden.rows {
            let (prompt, response) = ([row.prompt.clone()], [row.response.clone()]);
            let ours = generator.choice_logps(&prompt, &response, &Cancel::default()).unwrap();
            let gap = (ours[0][0] - row.logp).abs();
            assert!(gap < 2e-5, "{}: differs by {gap:e}", case.name);
        }
    }
}

/// Less memory for more arithmetic, and the same numbers.
#[test]
fn activations_that_are_computed_again_give_the_same_gradients() {
    for case in cases() {
        let gradient = |gradient_checkpointing| {
            let optimizer = OptimizerSettings::default();
            let settings = TrainSettings {
                method: Method::Full,
                optimizer,
                threads: 1,
                gradient_checkpointing,
            };
            let weights = case.weights.clone();
            let mut trainer =
                TrainSession::new(&case.config, weights, None, settings, Seed::root(1)).unwrap();
            trainer.dpo_gradient(&case.pairs(), &dpo_settings(SIGMOID)).unwrap()
        };
        assert!(gradient(true) == gradient(false), "{}", case.name);
    }
}

#[test]
fn the_supervised_loss_and_every_gradient_are_transformers() {
    for case in cases() {
        for threads in [1, 2] {
            let mut trainer = case.trainer(Method::Full, OptimizerSettings::default(), threads);
            let ours = trainer.sft_gradient(&case.sft_batch()).unwrap();
            same_gradients(&case, &ours, "sft_grads.safetensors");
            let report = trainer.sft_step(&case.sft_batch(), &Cancel::default()).unwrap();
            let loss = taken(report).loss;
            let theirs = case.golden.sft_loss;
            assert!((loss - theirs).abs() < 1e-5 * theirs, "{}: {loss} and {theirs}", case.name);
        }
    }
}

#[test]
fn the_preference_loss_its_metrics_and_every_gradient_are_trls() {
    let kinds = [
        ("sigmoid", SIGMOID),
        ("hinge", Loss::Hinge { beta: 0.1 }),
        ("ipo", Loss::Ipo { beta: 0.1 }),
    ];
    for case in cases() {
        for (name, kind) in kinds {
            let settings = dpo_settings(kind);
            let mut trainer = case.trainer(Method::Full, OptimizerSettings::default(), 2);
            if kind == SIGMOID {
                let ours = trainer.dpo_gradient(&case.pairs(), &settings).unwrap();
                same_gradients(&case, &ours, "dpo_grads.safetensors");
            }
            let report =
                trainer.dpo_step(&case.pairs(), &[], &settings, &Cancel::default()).unwrap();
            let ours = taken(report);
            let theirs = &case.golden.dpo[name];
            for (what, a, b, tolerance) in [
                ("loss", ours.loss, theirs.loss, 2e-6 * theirs.loss),
                ("rewards/chosen", ours.rewards_chosen, theirs.rewards_chosen, 2e-6),
                ("rewards/rejected", ours.rewards_rejected, theirs.rewards_rejected, 2e-6),
                ("rewards/accuracies", ours.rewards_accuracy, theirs.rewards_accuracy, 1e-9),
                ("rewards/margins", ours.rewards_margin, theirs.rewards_margin, 2e-6),
                ("logps/chosen", ours.logps_chosen, theirs.logps_chosen, 2e-5),
                ("logps/rejected", ours.logps_rejected, theirs.logps_rejected, 2e-5),
            ] {
                assert!((a - b).abs() <= tolerance, "{} {name} {what}: {a} and {b}", case.name);
            }
        }
    }
}

/// TRL's loss, torch's AdamW with decay, its clipping, transformers' cosine with warm-up.
#[test]
fn five_steps_follow_the_same_curve() {
    for case in cases() {
        let optimizer = OptimizerSettings {
            learning_rate: 2e-3,
            schedule: Schedule::Cosine,
            warmup_steps: 1,
            steps_total: 6,
            final_ratio: 0.0,
            weight_decay: 0.01,
            ..OptimizerSettings::default()
        };
        let mut trainer = case.trainer(Method::Full, optimizer, 2);
        let pairs = case.pairs();
        let theirs = &case.golden.curve;
        for step in 0..5 {
            let batch = [pairs[step % 4].clone(), pairs[(step + 1) % 4].clone()];
            let settings = dpo_settings(SIGMOID);
            let report = trainer.dpo_step(&batch, &[], &settings, &Cancel::default()).unwrap();
            let ours = taken(report);
            let rate = theirs.learning_rates[step];
            assert!((ours.learning_rate - rate).abs() < 1e-12, "{} step {step}", case.name);
            let gap = (ours.loss - theirs.losses[step]).abs();
            assert!(gap < 2e-5, "{} step {step}: losses differ by {gap:e}", case.name);
            let gap = (ours.grad_norm - theirs.norms[step]).abs() / theirs.norms[step];
            assert!(gap < 2e-4, "{} step {step}: norms differ by {gap:e}", case.name);
        }
    }
}

#[test]
fn an_adapter_of_pefts_gives_its_logits_loss_and_gradients() {
    for case in cases() {
        let adapter = Weights::load_file(&at(&format!("{}/lora.safetensors", case.name))).unwrap();
        let lora = Lora::new(&adapter, &case.lora()).unwrap();
        let decoder = Decoder::new(&case.config, case.weights.clone(), Some(&lora)).unwrap();
        let first = &case.golden.rows[0];
        let mut packed = PackedRows::default();
        let place = packed.push(&[first.prompt.clone(), first.response.clone()].concat());
        let hidden = decoder.hidden(&packed).unwrap();
        let last = [place.end as u32 - 1];
        let ours = decoder.logits(&hidden, &last);
        let gap = worst(&ours, &case.golden.lora.last_logits);
        assert!(gap < 2e-5, "{}: {gap:e}", case.name);
        let merged = case.weights.merged(&adapter, case.lora().scale()).unwrap();
        let plain = Decoder::new(&case.config, merged, None).unwrap();
        let hidden = plain.hidden(&packed).unwrap();
        let ours = plain.logits(&hidden, &last);
        let gap = worst(&ours, &case.golden.lora.last_logits);
        assert!(gap < 5e-5, "{} merged: {gap:e}", case.name);
        let method = Method::Lora(case.lora());
        let mut trainer = case.trainer(method, OptimizerSettings::default(), 1);
        let ours = trainer.sft_gradient(&case.sft_batch()).unwrap();
        same_gradients(&case, &ours, "lora_grads.safetensors");
        let report = trainer.sft_step(&case.sft_batch(), &Cancel::default()).unwrap();
        let (loss, theirs) = (taken(report).loss, case.golden.lora.sft_loss);
        assert!((loss - theirs).abs() < 1e-5 * theirs, "{}: {loss} and {theirs}", case.name);
    }
}

#[test]
fn schedules_are_transformers() {
    let theirs: BTreeMap<String, Vec<f64>> = serde_json::from_str(&text("schedules.json")).unwrap();
    for (name, schedule) in [
        ("cosine", Schedule::Cosine),
        ("linear", Schedule::Linear),
        ("constant", Schedule::Constant),
    ] {
        let settings = OptimizerSettings {
            learning_rate: 1.0,
            schedule,
            warmup_steps: 4,
            steps_total: 20,
            final_ratio: 0.0,
            ..OptimizerSettings::default()
        };
        for (step, theirs) in theirs[name].iter().enumerate() {
            let ours = settings.learning_rate_at(step as u32);
            assert!((ours - theirs).abs() < 1e-12, "{name} step {step}: {ours} and {theirs}");
        }
    }
}
