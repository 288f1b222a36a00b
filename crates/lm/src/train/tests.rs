//! Steps on a tiny network, on the CPU. Those of a device: `lm::gpu`.

use super::*;
use crate::config::Architecture;
use crate::decoder::{InitSettings, random_weights};
use crate::logp::sequence_logps;
use crate::loss::Loss;
use crate::optimizer::Schedule;
use crate::weights::WeightDtype;

fn config() -> ModelConfig {
    ModelConfig {
        architecture: Architecture::default(),
        rope_scaling: None,
        vocab_size: 32,
        hidden_size: 16,
        intermediate_size: 24,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 4,
        rms_norm_eps: 1e-5,
        rope_theta: 10000.0,
        max_position_embeddings: 64,
        tie_word_embeddings: false,
        bos_token_id: Some(0),
        eos_token_ids: vec![1],
    }
}

fn weights() -> Weights {
    let init = InitSettings { embedding_std: 0.3, residual_scale: 0.5 };
    random_weights(&config(), Seed::root(1), init).unwrap()
}

fn settings(method: Method, threads: usize) -> TrainSettings {
    let optimizer = OptimizerSettings {
        learning_rate: 1e-2,
        schedule: Schedule::Cosine,
        warmup_steps: 2,
        steps_total: 40,
        ..OptimizerSettings::default()
    };
    TrainSettings { method, optimizer, threads, gradient_checkpointing: false }
}

fn trainer(method: Method, threads: usize) -> TrainSession {
    TrainSession::new(&config(), weights(), None, settings(method, threads), Seed::root(2)).unwrap()
}

fn cpu_backend(method: Method) -> CpuBackend {
    let settings = settings(method, 1);
    let lora = lora_of(&config(), None, &settings, Seed::root(2)).unwrap();
    let decoder = Decoder::new(&config(), weights(), lora.as_ref()).unwrap();
    CpuBackend::new(decoder, &settings).unwrap()
}

fn values(trainer: &TrainSession) -> Vec<Vec<f32>> {
    let base = trainer.weights().unwrap().0;
    let all = base.into_iter().chain(trainer.adapter().unwrap().into_iter().flat_map(|a| a.0));
    all.map(|(_, t)| t.flatten_all().unwrap().to_vec1().unwrap()).collect()
}

fn lora() -> Method {
    let target_modules = ["q_proj", "v_proj", "down_proj"].map(str::to_owned).to_vec();
    Method::Lora(LoraSettings { r: 2, alpha: 4.0, target_modules })
}

fn rows() -> Vec<WeightedSequence> {
    (0..6u32)
        .map(|i| WeightedSequence {
            ids: (0..7).map(|j| (i * 5 + j * 3) % 32).collect(),
            weights: vec![0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0],
        })
        .collect()
}

fn pairs(weights: &Weights) -> Vec<DpoExample> {
    let decoder = Decoder::new(&config(), weights.clone(), None).unwrap();
    let logp = |prompt: &[u32], response: &[u32]| {
        let one = [(prompt.to_vec(), response.to_vec())];
        sequence_logps(&decoder, &one, &Cancel::default()).unwrap()[0]
    };
    (0..4u32)
        .map(|i| {
            let (prompt, chosen, rejected) = (vec![0, i + 2], vec![i + 3, 9, 1], vec![i + 7, 1]);
            DpoExample {
                reference_chosen: logp(&prompt, &chosen),
                reference_rejected: logp(&prompt, &rejected),
                belief: Belief::SURE,
                prompt,
                chosen,
                rejected,
            }
        })
        .collect()
}

const DPO: DpoSettings = DpoSettings {
    loss: Loss::Sigmoid { beta: 0.1, label_smoothing: 0.0 },
    nll_weight: 0.0,
    rehearsal_weight: 0.5,
};

fn loss(report: StepReport) -> f64 {
    match report {
        StepReport::Taken(figures) => figures.loss,
        StepReport::Skipped { reason } => panic!("{reason}"),
    }
}

#[test]
fn every_tensor_learns_and_the_loss_falls() {
    for method in [Method::Full, lora()] {
        let mut t = trainer(method, 2);
        t.check_gradient_coverage(&rows()).unwrap();
        let first = loss(t.sft_step(&rows(), &Cancel::default()).unwrap());
        for _ in 0..25 {
            t.sft_step(&rows(), &Cancel::default()).unwrap();
        }
        let last = loss(t.sft_step(&rows(), &Cancel::default()).unwrap());
        assert!(last < first - 0.2, "{first} to {last}");
    }
}

#[test]
fn a_step_that_would_not_be_finite_changes_nothing() {
    for method in [Method::Full, lora()] {
        let mut t = trainer(method, 1);
        t.sft_step(&rows(), &Cancel::default()).unwrap();
        t.settings.optimizer.learning_rate = 1e300;
        let state = |t: &TrainSession| {
            let optimizer = t.optimizer_state().unwrap().to_bytes(WeightDtype::F32).unwrap();
            (values(t), optimizer)
        };
        let before = state(&t);
        let report = t.sft_step(&rows(), &Cancel::default()).unwrap();
        assert!(matches!(report, StepReport::Skipped { .. }), "{report:?}");
        assert!(state(&t) == before);
    }
}

/// A gradient whose square is not finite would leave an infinite moment behind.
#[test]
fn moments_stay_finite() {
    for method in [Method::Full, lora()] {
        let mut t = cpu_backend(method);
        t.gradients(&[LossTerm::sft(&rows(), 1.0)], &Cancel::default()).unwrap();
        let optimizer =
            OptimizerSettings { max_grad_norm: 0.0, ..settings(Method::Full, 1).optimizer };
        t.apply(&optimizer, &mut StepMetrics::default()).unwrap().unwrap();
        let state = |t: &CpuBackend| {
            let all = [t.base(), t.adapter(), t.optimizer_state()];
            all.map(|weights| weights.unwrap().to_bytes(WeightDtype::F32).unwrap())
        };
        let before = state(&t);
        t.fill_gradients(|first| if first { 1e30 } else { 0.1 });
        let refused = t.apply(&optimizer, &mut StepMetrics::default()).unwrap();
        assert!(refused.unwrap_err().contains("moments"));
        assert!(state(&t) == before);
    }
}

#[test]
fn preference_steps_begin_at_ln_2_and_widen_the_margin() {
    let pairs = pairs(&weights());
    let mut t = trainer(Method::Full, 2);
    t.check_initial_dpo_loss(&pairs, &DPO).unwrap();
    let settings = DpoSettings { rehearsal_weight: 0.0, ..DPO };
    let first = loss(t.dpo_step(&pairs, &[], &settings, &Cancel::default()).unwrap());
    assert!((first - std::f64::consts::LN_2).abs() < 1e-5);
    for _ in 0..10 {
        t.dpo_step(&pairs, &rows(), &DPO, &Cancel::default()).unwrap();
    }
    match t.dpo_step(&pairs, &[], &settings, &Cancel::default()).unwrap() {
        StepReport::Taken(f) => {
            assert!(f.rewards_margin > 0.1 && f.rewards_accuracy == 1.0, "{f:?}");
        }
        StepReport::Skipped { reason } => panic!("{reason}"),
    }
}

#[test]
fn a_wrong_reference_is_refused() {
    let mut pairs = pairs(&weights());
    pairs[0].reference_chosen -= 3.0;
    let error = trainer(Method::Full, 1).check_initial_dpo_loss(&pairs, &DPO).unwrap_err();
    assert!(error.to_string().contains("must be 0.693147"), "{error}");
}

#[test]
fn five_steps_and_a_restart_equal_ten_steps_bit_for_bit() {
    let bits = |t: &TrainSession| -> Vec<u32> {
        values(t).iter().flatten().map(|v| v.to_bits()).collect()
    };
    for method in [Method::Full, lora()] {
        let mut whole = trainer(method.clone(), 2);
        (0..10).for_each(|_| drop(whole.sft_step(&rows(), &Cancel::default()).unwrap()));
        let mut half = trainer(method, 2);
        (0..5).for_each(|_| drop(half.sft_step(&rows(), &Cancel::default()).unwrap()));
        let saved = half.optimizer_state().unwrap().to_bytes(WeightDtype::F32).unwrap();
        let state = Weights::from_bytes(&saved).unwrap();
        let mut rest = TrainSession::new(
            &config(),
            half.weights().unwrap(),
            half.adapter().unwrap().as_ref(),
            half.settings.clone(),
            Seed::root(2),
        )
        .unwrap();
        rest.restore_optimizer(&state).unwrap();
        (0..5).for_each(|_| drop(rest.sft_step(&rows(), &Cancel::default()).unwrap()));
        assert_eq!(bits(&whole), bits(&rest));
    }
}

#[test]
fn what_is_not_finite_changes_nothing() {
    let mut t = trainer(Method::Full, 1);
    let mut bad = rows();
    bad[0].weights[3] = f32::INFINITY;
    let before = values(&t);
    let report = t.sft_step(&bad, &Cancel::default()).unwrap();
    assert!(matches!(report, StepReport::Skipped { .. }), "{report:?}");
    assert_eq!(before, values(&t));
    assert_eq!(t.step(), 0);
}

#[test]
fn the_base_below_an_adapter_does_not_move() {
    let mut t = trainer(lora(), 1);
    (0..3).for_each(|_| drop(t.sft_step(&rows(), &Cancel::default()).unwrap()));
    for (name, tensor) in &weights().0 {
        let now = t.weights().unwrap().0[name].flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(now, tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap());
    }
}
