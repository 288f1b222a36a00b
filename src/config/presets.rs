//! Settings by name. `paper` is what the paper states; `tiny` is an iteration of a 135 M model on
//! two cores in about half an hour; `demo` is the embedded world.

use super::*;

impl Default for Config {
    fn default() -> Self {
        Config {
            seed: 1,
            iterations: 3,
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
            generate: false,
            writer: WriterStyle::Numbered,
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
            samples: 3,
            temperature: 0.7,
            top_p: 0.9,
            max_new_tokens: 256,
            readout: ReadoutMode::Expected,
            source: JudgeSource::Model,
            probes: 4,
            forgery_gain_max: 0.1,
        }
    }
}

impl Default for PairsConfig {
    fn default() -> Self {
        PairsConfig {
            min_gap: 0.0,
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
            gate: GateConfig::default(),
        }
    }
}

impl Default for GateConfig {
    fn default() -> Self {
        GateConfig { mode: GateMode::Lenient, min_win_rate: 0.5 }
    }
}

impl Config {
    /// The preset with a name.
    ///
    /// # Errors
    /// [`ConfigError::Preset`] with the names there are.
    pub fn preset(name: &str) -> Result<Config, ConfigError> {
        match name {
            "paper" => Ok(Config::default()),
            "tiny" => Ok(tiny()),
            "demo" => Ok(demo()),
            _ => Err(ConfigError::Preset(name.to_owned())),
        }
    }
}

fn tiny() -> Config {
    let mut config = Config { iterations: 1, ..Config::default() };
    config.prompts.per_iteration = 48;
    config.prompts.held_out = 16;
    config.sampling = SamplingConfig { max_new_tokens: 96, batch_prompts: 8, ..config.sampling };
    config.judge = JudgeConfig { max_new_tokens: 96, probes: 2, ..config.judge };
    config.pairs.min_pairs = 4;
    config.pairs.require_ended = false;
    config.train.use_peft = true;
    config.train.segment_steps = 4;
    config.train.dpo.learning_rate = 5e-5;
    config.train.dpo.train_batch_size = 8;
    config.evaluate.prompts = 16;
    config
}

fn demo() -> Config {
    let mut config = Config { iterations: 3, ..Config::default() };
    config.prompts = PromptsConfig {
        per_iteration: 600,
        generate: true,
        writer: WriterStyle::Tagged,
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
        gate: GateConfig::default(),
    };
    config
}
