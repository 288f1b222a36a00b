//! Settings by name. `recommended` is what a run has that says nothing; `paper` is what the paper
//! states, number by number (a test holds the list), with nothing on that it does not have; `tiny` is
//! an iteration of a 135 M model on two cores in about half an hour; `demo` is the embedded world.

use super::*;

impl Default for Config {
    fn default() -> Self {
        Config {
            seed: 1,
            iterations: 3,
            on_failure: OnFailure::Stop,
            device: DeviceChoice::Auto,
            dtype: Dtype::Bf16,
            prompts: PromptsConfig::default(),
            sampling: SamplingConfig::default(),
            judge: JudgeConfig::default(),
            pairs: PairsConfig::default(),
            train: TrainConfig::default(),
            evaluate: EvaluateConfig::default(),
            supervision: SupervisionConfig::default(),
            storage: StorageConfig::default(),
            engines: BTreeMap::new(),
            brought: Brought::default(),
            rubrics: RubricsConfig::default(),
        }
    }
}

impl Default for SupervisionConfig {
    fn default() -> Self {
        SupervisionConfig { frozen_after_seconds: 900, memory_reserve_mib: 256 }
    }
}

impl Default for RubricsConfig {
    fn default() -> Self {
        let trial = Trial::default();
        RubricsConfig {
            trial_prompts: trial.prompts,
            watch_prompts: trial.watch,
            unparsed_max: trial.unparsed_max,
            mass_min: trial.mass_min,
            trial_judgments: None,
            watch: "watch".to_owned(),
            watch_when: When::NextIteration,
        }
    }
}

impl Default for StorageConfig {
    fn default() -> Self {
        StorageConfig { keep_iterations: 0, quota_mib: 0, reserve_mib: 64 }
    }
}

impl Default for PromptsConfig {
    fn default() -> Self {
        PromptsConfig {
            per_iteration: 1000,
            wait_for: 0,
            generate: false,
            writer: None,
            shots: 8,
            draws_per_round: 32,
            rounds_max: 50,
            temperature: 0.6,
            top_p: 0.9,
            max_new_tokens: 96,
            held_out: 64,
        }
    }
}

impl Default for SamplingConfig {
    fn default() -> Self {
        SamplingConfig {
            engine: None,
            candidates: 4,
            temperature: 0.7,
            top_p: 0.9,
            max_new_tokens: 512,
            batch_prompts: 16,
            weight_bits: 32,
        }
    }
}

impl Default for JudgeConfig {
    fn default() -> Self {
        JudgeConfig {
            engine: None,
            samples: 3,
            temperature: 0.7,
            top_p: 0.9,
            max_new_tokens: 256,
            readout: ReadoutMode::Expected,
            source: JudgeSource::Model,
            probes: 4,
            probes_max: 16,
            forgery_gain_max: 0.1,
            comparisons_max: COMPARISONS_MAX,
        }
    }
}

impl Default for PairsConfig {
    fn default() -> Self {
        PairsConfig {
            rule: PairRule::BestWorst,
            min_gap: 0.0,
            noise: 1.0,
            min_pairs: 16,
            length_control: 0.0,
            require_ended: true,
            on_no_signal: OnNoSignal::Continue,
        }
    }
}

impl Default for TrainConfig {
    fn default() -> Self {
        let modules = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];
        TrainConfig {
            sft: SftConfig::default(),
            dpo: DpoConfig::default(),
            use_peft: false,
            lora_r: 16,
            lora_alpha: 32.0,
            lora_target_modules: modules.map(str::to_owned).to_vec(),
            segment_steps: 20,
            threads: 2,
            gradient_checkpointing: false,
            keep_checkpoints: KeepCheckpoints::Newest,
        }
    }
}

impl Default for SftConfig {
    fn default() -> Self {
        SftConfig {
            learning_rate: 5.5e-6,
            train_batch_size: 16,
            num_train_epochs: 1,
            warmup_steps: 0,
            lr_scheduler_type: Schedule::Cosine,
            final_ratio: 0.2,
            weight_decay: 0.0,
            max_grad_norm: 1.0,
        }
    }
}

impl Default for DpoConfig {
    fn default() -> Self {
        DpoConfig {
            beta: 0.1,
            loss_type: LossType::Sigmoid,
            label_smoothing: 0.0,
            reference: ReferenceRule::Previous,
            reference_decay: 0.9,
            nll_weight: 0.0,
            rehearsal_weight: 0.0,
            learning_rate: 1e-6,
            train_batch_size: 16,
            num_train_epochs: 1,
            warmup_steps: 0,
            lr_scheduler_type: Schedule::Cosine,
            final_ratio: 0.1,
            weight_decay: 0.0,
            max_grad_norm: 1.0,
        }
    }
}

impl Default for EvaluateConfig {
    fn default() -> Self {
        EvaluateConfig {
            prompts: 64,
            judge_prompts: 80,
            temperature: 0.7,
            top_p: 0.9,
            rubrics: Vec::new(),
            gate: GateConfig::default(),
        }
    }
}

impl Default for GateConfig {
    fn default() -> Self {
        GateConfig {
            mode: GateMode::NotWorse,
            margin: 0.1,
            length_growth_max: 0.5,
            min_win_rate: None,
        }
    }
}

impl Config {
    /// The preset with a name.
    ///
    /// # Errors
    /// [`ConfigError::Preset`] with the names there are.
    pub fn preset(name: &str) -> Result<Config, ConfigError> {
        match name {
            "recommended" => Ok(Config::default()),
            "paper" => Ok(paper()),
            "tiny" => Ok(tiny()),
            "demo" => Ok(demo()),
            _ => Err(ConfigError::Preset(name.to_owned())),
        }
    }
}

/// Yuan et al. 2024: the numbers of sections 2.3 and 3.1.3, and none of what later work added. What
/// the paper does not state (epochs, prompts of an iteration, bounds on lengths) is the default.
fn paper() -> Config {
    let mut config = Config::default();
    config.prompts.generate = true;
    config.prompts.held_out = 256;
    config.evaluate.prompts = 256;
    config.judge = JudgeConfig { readout: ReadoutMode::Parsed, probes: 0, ..config.judge };
    config.pairs = PairsConfig { noise: 0.0, min_pairs: 1, require_ended: false, ..config.pairs };
    config.train.segment_steps = 200;
    config.evaluate.gate.mode = GateMode::Paper;
    config
}

fn tiny() -> Config {
    let mut config = Config { iterations: 1, ..Config::default() };
    config.prompts.per_iteration = 48;
    config.prompts.held_out = 16;
    config.sampling = SamplingConfig { max_new_tokens: 96, batch_prompts: 8, ..config.sampling };
    config.judge = JudgeConfig { max_new_tokens: 96, probes: 2, probes_max: 8, ..config.judge };
    config.pairs.min_pairs = 4;
    config.pairs.require_ended = false;
    config.train.use_peft = true;
    config.train.segment_steps = 4;
    config.train.dpo.learning_rate = 5e-5;
    config.train.dpo.train_batch_size = 8;
    config.evaluate.prompts = 16;
    // With sixteen prompts no win rate is known to a tenth: half of its interval is a quarter.
    config.evaluate.gate.margin = 0.25;
    config
}

fn demo() -> Config {
    let mut config = Config { iterations: 3, ..Config::default() };
    config.prompts = PromptsConfig {
        per_iteration: 600,
        wait_for: 0,
        generate: true,
        writer: None,
        shots: 4,
        draws_per_round: 128,
        rounds_max: 30,
        temperature: 1.0,
        top_p: 0.98,
        max_new_tokens: 18,
        held_out: 400,
    };
    config.sampling = SamplingConfig {
        candidates: 4,
        temperature: 1.0,
        top_p: 1.0,
        max_new_tokens: 24,
        batch_prompts: 64,
        ..SamplingConfig::default()
    };
    config.judge = JudgeConfig {
        samples: 3,
        temperature: 0.3,
        top_p: 1.0,
        max_new_tokens: 96,
        ..JudgeConfig::default()
    };
    config.pairs = PairsConfig { min_gap: 0.5, min_pairs: 32, ..PairsConfig::default() };
    config.train.segment_steps = 40;
    config.train.sft = SftConfig {
        learning_rate: 8e-4,
        train_batch_size: 32,
        num_train_epochs: 3,
        warmup_steps: 10,
        final_ratio: 0.1,
        ..SftConfig::default()
    };
    config.train.dpo = DpoConfig {
        learning_rate: 1.5e-4,
        train_batch_size: 16,
        num_train_epochs: 2,
        warmup_steps: 10,
        nll_weight: 0.1,
        rehearsal_weight: 0.3,
        ..DpoConfig::default()
    };
    config.evaluate = EvaluateConfig {
        prompts: 400,
        judge_prompts: 100,
        temperature: 1.0,
        top_p: 1.0,
        ..EvaluateConfig::default()
    };
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `paper-and-peers` A3 and A4: what the paper states, where it states it.
    const STATED: [(&str, &str, &str); 36] = [
        ("2.1, three models: one SFT and two DPO rounds", "/iterations", "3"),
        ("2.3 step 1, new prompts are generated", "/prompts/generate", "true"),
        ("2.3 step 1, eight demonstrations, two of them the model's", "/prompts/shots", "8"),
        ("3.1.3, T of new prompts", "/prompts/temperature", "0.6"),
        ("3.1.3, p of new prompts", "/prompts/top_p", "0.9"),
        ("2.3 step 2, N", "/sampling/candidates", "4"),
        ("3.1.3, T of answers", "/sampling/temperature", "0.7"),
        ("3.1.3, p of answers", "/sampling/top_p", "0.9"),
        ("2.3 step 3, three judgments and their mean", "/judge/samples", "3"),
        ("2.3 step 3, sampled as answers are: T", "/judge/temperature", "0.7"),
        ("2.3 step 3, sampled as answers are: p", "/judge/top_p", "0.9"),
        ("figure 2, the score that is written", "/judge/readout", "\"parsed\""),
        ("2.2, the policy judges itself", "/judge/source", "\"model\""),
        ("no probes", "/judge/probes", "0"),
        ("2.3, discarded only if the scores are equal", "/pairs/min_gap", "0.0"),
        ("the same: nothing is said of noise", "/pairs/noise", "0.0"),
        ("2.3, highest against lowest, whatever their length", "/pairs/length_control", "0.0"),
        ("the same: no answer is left out for being cut off", "/pairs/require_ended", "false"),
        ("no bound on the number of pairs", "/pairs/min_pairs", "1"),
        ("3.1.3, SFT learning rate, its beginning", "/train/sft/learning_rate", "5.5e-6"),
        ("3.1.3, SFT schedule", "/train/sft/lr_scheduler_type", "\"cosine\""),
        ("3.1.3, SFT learning rate, its end 1.1e-6", "/train/sft/final_ratio", "0.2"),
        ("3.1.3, SFT batch", "/train/sft/train_batch_size", "16"),
        ("3.1.3, DPO learning rate, its beginning", "/train/dpo/learning_rate", "1e-6"),
        ("3.1.3, DPO learning rate, its end 1e-7", "/train/dpo/final_ratio", "0.1"),
        ("3.1.3, DPO schedule", "/train/dpo/lr_scheduler_type", "\"cosine\""),
        ("3.1.3, DPO batch", "/train/dpo/train_batch_size", "16"),
        ("3.1.3, beta", "/train/dpo/beta", "0.1"),
        ("2.4, the loss of DPO", "/train/dpo/loss_type", "\"sigmoid\""),
        ("the same: certain labels", "/train/dpo/label_smoothing", "0.0"),
        ("the same: no NLL beside it", "/train/dpo/nll_weight", "0.0"),
        ("2.4, pairs alone", "/train/dpo/rehearsal_weight", "0.0"),
        ("3.1, all weights", "/train/use_peft", "false"),
        ("3.1.3, a checkpoint every 200 steps", "/train/segment_steps", "200"),
        ("3.1.2, 256 test prompts", "/evaluate/prompts", "256"),
        ("2.4, every model goes on", "/evaluate/gate/mode", "\"paper\""),
    ];

    #[test]
    fn the_paper_is_the_paper() {
        let paper = serde_json::to_value(Config::preset("paper").unwrap()).unwrap();
        for (source, key, stated) in STATED {
            let ours = paper.pointer(key).unwrap_or_else(|| panic!("no setting {key}"));
            let stated: serde_json::Value = serde_json::from_str(stated).unwrap();
            let same = match (ours.as_f64(), stated.as_f64()) {
                (Some(a), Some(b)) => (a - b).abs() <= 1e-12 * b.abs(),
                _ => *ours == stated,
            };
            assert!(same, "{source}: {key} is {ours}, not {stated}");
        }
    }
}
