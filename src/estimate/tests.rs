//! What is asked of the estimate: that it counts what it says, that lighter settings are lighter, and
//! that what a refusal names fits.

use super::remedies::lighter;
use super::*;
use crate::config::Dtype;
use crate::lm::estimate::gpu as device;

/// SmolLM2-135M has 134,515,008 parameters (its model card).
const SMOLLM2: &str = r#"{"model_type":"llama","hidden_size":576,"intermediate_size":1536,
    "num_hidden_layers":30,"num_attention_heads":9,"num_key_value_heads":3,
    "vocab_size":49152,"max_position_embeddings":8192,"rope_theta":100000.0,
    "rms_norm_eps":1e-5,"eos_token_id":2,"tie_word_embeddings":true}"#;

#[test]
fn counts_parameters() {
    let model = ModelConfig::from_hf_json(SMOLLM2).unwrap();
    assert_eq!(parameters(&model), 134_515_008);
}

fn smollm2() -> ModelConfig {
    ModelConfig::from_hf_json(SMOLLM2).unwrap()
}

fn outline<'a>(model: &'a ModelConfig, config: &'a Config) -> Outline<'a> {
    Outline { model, config, kinds: Kinds::Preference, lengths: None, device: DeviceKind::Cpu }
}

fn peak(change: impl Fn(&mut Config)) -> u64 {
    let mut config = Config::default();
    change(&mut config);
    outline(&smollm2(), &config).needs(Memory::Machine).peak().1
}

#[test]
fn lighter_settings_need_less() {
    let plain = peak(|_| {});
    let recomputing = peak(|c| c.train.gradient_checkpointing = true);
    let adapter = peak(|c| c.train.use_peft = true);
    assert!(recomputing < plain && adapter < recomputing, "{plain} {recomputing} {adapter}");
    assert!(peak(|c| c.iterations = 1) < plain, "fewer policies are open");
    let judged = |change: &dyn Fn(&mut Config)| {
        let mut config = Config::default();
        change(&mut config);
        outline(&smollm2(), &config).needs(Memory::Machine).judge
    };
    assert!(judged(&|c| c.judge.max_new_tokens = 64) < judged(&|_| {}));
    assert!(judged(&|c| c.sampling.batch_prompts = 2) < judged(&|_| {}));
    // A batch is cut into parts that fit.
    assert_eq!(peak(|c| c.train.dpo.per_device_train_batch_size = 64), plain);
}

#[test]
fn frozen_models_are_held_beside_everything() {
    let (model, mut config) = (smollm2(), Config::default());
    let needs = |config: &Config| outline(&model, config).needs(Memory::Machine).stages();
    let alone = needs(&config);
    config.brought.memory_bytes = 1 << 30;
    for ((stage, alone), (_, beside)) in alone.into_iter().zip(needs(&config)) {
        assert_eq!(beside - alone, 1 << 30, "{stage}");
    }
}

#[test]
fn an_adapter_spares_the_supervised_iteration_too() {
    let (model, mut config) = (smollm2(), Config::preset("tiny").unwrap());
    let seeded = |config: &Config| {
        Outline { kinds: Kinds::SupervisedFirst, ..outline(&model, config) }
            .needs(Memory::Machine)
            .trainer
    };
    let adapter = seeded(&config);
    assert_eq!(adapter, outline(&model, &config).needs(Memory::Machine).trainer);
    config.train.use_peft = false;
    assert!(seeded(&config) > adapter + 4 * parameters(&model));
}

/// 3,128 rows on a model of 135 M, all weights: 16 GB were kept of that iteration alone (case G14).
#[test]
fn a_disk_holds_the_newest_checkpoint_or_all() {
    let (model, mut config) = (smollm2(), Config::default());
    let disk = |config: &Config| {
        Outline { kinds: Kinds::SupervisedFirst, ..outline(&model, config) }.disk(3128)
    };
    let weights = parameters(&model) * 4;
    let newest = disk(&config);
    assert_eq!(
        (newest.base, newest.policies, newest.training),
        (weights, 3 * weights, 6 * weights)
    );
    config.train.keep_checkpoints = crate::config::KeepCheckpoints::All;
    // 196 steps, 20 to a segment; of 1,000 pairs 63.
    assert_eq!(disk(&config).training, (10 + 2 * 4) * 3 * weights);
    config.train.use_peft = true;
    let adapter = adapter_parameters(&model, &config) * 4;
    assert_eq!((disk(&config).policies, disk(&config).training), (3 * adapter, 18 * 3 * adapter));
    let fewer = Config { iterations: 1, ..config.clone() };
    assert!(disk(&fewer).texts < disk(&config).texts && disk(&fewer).texts > 4 << 20);
}

#[test]
fn what_was_measured_counts_up_to_what_the_settings_allow() {
    let (model, mut config) = (smollm2(), Config::default());
    let seen = Lengths { prompt: 40, answer: 70, rubric: 400, question: 150, reply: 90 };
    let known = |config: &Config| {
        let lengths = Some(seen);
        Outline { lengths, ..outline(&model, config) }.needs(Memory::Machine).judge
    };
    let before = known(&config);
    assert!(before < outline(&model, &config).needs(Memory::Machine).judge);
    config.judge.max_new_tokens = 32;
    assert!(known(&config) < before);
}

/// Every change that a refusal names fits by the same estimate when it is made.
fn every_remedy_fits(whole: &Outline<'_>, memory: Memory) {
    let peak = whole.needs(memory).peak();
    assert!(check(whole, memory, None).is_ok() && check(whole, memory, Some(peak.1)).is_ok());
    let mut seen = 0;
    for available in (1..40).map(|tenths| peak.1 / 40 * tenths) {
        let error = check(whole, memory, Some(available)).unwrap_err().to_string();
        assert!(error.contains("GRADUS0110"), "{error}");
        let text = refusal(whole, memory, peak, available);
        for Remedy { change, bytes } in remedies(whole, memory, available) {
            assert!(bytes <= available && text.contains(&change), "{text}");
            let all = lighter(whole.config, memory);
            let Some(tried) = all.into_iter().find(|(name, _)| *name == change) else {
                assert!(change.starts_with("a model of at most"), "{change}");
                continue;
            };
            let tried = Outline { config: &tried.1, ..*whole };
            assert!(check(&tried, memory, Some(available)).is_ok(), "{change}");
            seen += 1;
        }
    }
    assert!(seen > 20, "{seen} changes were tried");
    assert!(remedies(whole, memory, 1 << 20).is_empty());
    assert!(refusal(whole, memory, peak, 1 << 20).contains("No setting makes it fit"));
}

#[test]
fn a_refusal_names_what_fits() {
    let (model, config) = (smollm2(), Config::default());
    every_remedy_fits(&outline(&model, &config), Memory::Machine);
    let gpu = Outline { device: DeviceKind::Cuda(1), ..outline(&model, &config) };
    every_remedy_fits(&gpu, Memory::Machine);
    let exact = Config { dtype: Dtype::F32, ..config.clone() };
    let gpu = Outline { config: &exact, ..gpu };
    every_remedy_fits(&gpu, Memory::Device);
    let text = check(&gpu, Memory::Device, Some(3 << 30)).unwrap_err().to_string();
    for part in ["on cuda:1 (the evaluator)", "dtype: bf16 and train.use_peft", "--device cpu"] {
        assert!(text.contains(part), "no {part}: {text}");
    }
}

/// SmolLM2 with the paper's settings: three open policies, prompts of 256 tokens and answers of 512,
/// pairs of 1280 rows.
#[test]
fn a_gpu_by_hand() {
    let (model, config) = (smollm2(), Config::default());
    let gpu = Outline { device: DeviceKind::Cuda(0), ..outline(&model, &config) };
    let needs = gpu.needs(Memory::Device);
    // 35,136 of the numbers are in vectors, which are kept in f32.
    let frozen = 134_515_008 * 2 + 35_136 * 2;
    let acting = (600 << 20) + 3 * frozen;
    // A pair's activations are 556 MB; so many as one GiB takes, and 512 MiB of logits.
    let training = 134_515_008 * 18 + device::MICRO_BATCH_BYTES + (512 << 20);
    assert_eq!(needs.trainer, acting + training);
    // 16 prompts with 4 answers are drawn together: keys and values, logits, 8192 rows of reading.
    let tokens = 16 * 256 + 64 * 512;
    let answering = (tokens + tokens / 4) * 384 * 2 * 30 + 64 * 49_152 * 4 + 8192 * 15_744;
    assert_eq!(needs.sampler, acting + answering);
    assert_eq!(needs.opening, acting, "three are open at the most");
    assert_eq!(needs.peak().0, "trainer");
    let first = Outline { kinds: Kinds::SupervisedFirst, ..gpu };
    assert_eq!(first.needs(Memory::Device).trainer, needs.trainer, "the same with fewer open");
    // Adapters lie on one copy.
    let lora = Config { iterations: 3, ..Config::preset("tiny").unwrap() };
    let (gpu, first) = (Outline { config: &lora, ..gpu }, Outline { config: &lora, ..first });
    let adapters = 3 * adapter_parameters(&model, &lora) * 2;
    assert_eq!(gpu.needs(Memory::Device).opening, (600 << 20) + frozen + adapters);
    assert_eq!(first.needs(Memory::Device).opening, (600 << 20) + frozen + adapters);
}

#[test]
fn a_gpu_holds_less_of_lighter_settings_and_spares_the_machine() {
    let model = smollm2();
    let peak = |memory: Memory, change: &dyn Fn(&mut Config)| {
        let mut config = Config::default();
        change(&mut config);
        let gpu = Outline { device: DeviceKind::Cuda(0), ..outline(&model, &config) };
        gpu.needs(memory).peak().1
    };
    let on_device = |change: &dyn Fn(&mut Config)| peak(Memory::Device, change);
    let plain = on_device(&|_| {});
    assert!(on_device(&|c| c.dtype = Dtype::F32) > plain);
    assert!(on_device(&|c| c.train.use_peft = true) < plain);
    assert!(on_device(&|c| c.iterations = 1) < plain, "fewer policies are open");
    assert_eq!(on_device(&|c| c.sampling.weight_bits = 8), plain, "that is for the CPU");
    let config = Config::default();
    let on_cpu = outline(&model, &config).needs(Memory::Machine).peak().1;
    assert!(peak(Memory::Machine, &|_| {}) < on_cpu);
}

#[test]
fn changes_are_written_as_settings_are() {
    let names = |config: &Config, memory| -> Vec<String> {
        lighter(config, memory).into_iter().map(|(name, _)| name).collect()
    };
    let named = names(&Config::default(), Memory::Machine);
    assert_eq!(named[0], "train.gradient_checkpointing: true");
    assert_eq!(named[1], "train.use_peft: true");
    assert!(named.iter().any(|name| name.contains("weight_bits")));
    let lora = Config::preset("tiny").unwrap();
    assert!(names(&lora, Memory::Machine).iter().all(|name| !name.contains("use_peft")));
    let exact = Config { dtype: Dtype::F32, ..Config::default() };
    let named = names(&exact, Memory::Device);
    assert!(named.iter().all(|name| name.starts_with("dtype: bf16")), "{named:?}");
    assert!(named.iter().all(|name| !name.contains("weight_bits")), "{named:?}");
}
