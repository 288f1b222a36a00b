//! Settings by name. `recommended` is what a run has that says nothing; `paper` is what the paper
//! states, number by number (a test holds the list), with nothing on that it does not have; `tiny` is
//! an iteration of a 135 M model on two cores in about half an hour; `verifiable` is for prompts whose
//! requirements a program can check, of which it teaches a small model to judge; `demo` is the embedded
//! world.

use super::*;

/// The names of all presets.
pub(super) const NAMES: [&str; 5] = ["recommended", "paper", "tiny", "verifiable", "demo"];

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
            "verifiable" => Ok(verifiable()),
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
    config.train.save_steps = 200;
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
    config.train.save_steps = 4;
    config.train.dpo.learning_rate = 5e-5;
    config.train.dpo.per_device_train_batch_size = 8;
    config.evaluate.prompts = 16;
    // With sixteen prompts no win rate is known to a tenth: half of its interval is a quarter.
    config.evaluate.gate.margin = 0.25;
    config
}

/// For prompts that bring requirements, seed data of `gradus eft build`, and the rubric `requirements`:
/// benches/results/claim-smollm2.md has what it comes to on a 135 M model, and what was tried before.
fn verifiable() -> Config {
    let mut config = Config { iterations: 3, ..Config::default() };
    config.prompts.per_iteration = 256;
    config.prompts.held_out = 64;
    config.sampling = SamplingConfig {
        candidates: 6,
        temperature: 1.0,
        top_p: 0.95,
        max_new_tokens: 96,
        ..config.sampling
    };
    // One judgment, nearly greedy: how sure it is says the probability of its verdict.
    config.judge = JudgeConfig {
        samples: 1,
        temperature: 0.2,
        top_p: 1.0,
        max_new_tokens: 64,
        probes: 2,
        probes_max: 8,
        ..config.judge
    };
    config.pairs.min_gap = 0.05;
    // With all weights the supervised step broke the prose of a small model.
    config.train.use_peft = true;
    (config.train.lora_r, config.train.lora_alpha) = (32, 64.0);
    config.train.sft = SftConfig {
        learning_rate: 1e-3,
        per_device_train_batch_size: 4,
        warmup_steps: 40,
        ..config.train.sft
    };
    config.train.dpo = DpoConfig {
        learning_rate: 5e-4,
        per_device_train_batch_size: 8,
        num_train_epochs: 3,
        warmup_steps: 4,
        nll_weight: 0.1,
        ..config.train.dpo
    };
    config.evaluate.prompts = 64;
    config.evaluate.gate.mode = GateMode::Paper;
    config
}

fn demo() -> Config {
    let mut config = Config { iterations: 3, ..Config::default() };
    config.prompts = PromptsConfig {
        per_iteration: 600,
        generate: true,
        shots: 4,
        draws_per_round: 128,
        rounds_max: 30,
        temperature: 1.0,
        top_p: 0.98,
        max_new_tokens: 18,
        held_out: 400,
        ..PromptsConfig::default()
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
    config.train.save_steps = 40;
    config.train.sft = SftConfig {
        learning_rate: 8e-4,
        per_device_train_batch_size: 32,
        num_train_epochs: 3,
        warmup_steps: 10,
        min_lr_rate: 0.1,
        ..SftConfig::default()
    };
    config.train.dpo = DpoConfig {
        learning_rate: 1.5e-4,
        per_device_train_batch_size: 16,
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
        ("3.1.3, SFT learning rate, its end 1.1e-6", "/train/sft/min_lr_rate", "0.2"),
        ("3.1.3, SFT batch", "/train/sft/per_device_train_batch_size", "16"),
        ("3.1.3, DPO learning rate, its beginning", "/train/dpo/learning_rate", "1e-6"),
        ("3.1.3, DPO learning rate, its end 1e-7", "/train/dpo/min_lr_rate", "0.1"),
        ("3.1.3, DPO schedule", "/train/dpo/lr_scheduler_type", "\"cosine\""),
        ("3.1.3, DPO batch", "/train/dpo/per_device_train_batch_size", "16"),
        ("3.1.3, beta", "/train/dpo/beta", "0.1"),
        ("2.4, the loss of DPO", "/train/dpo/loss_type", "\"sigmoid\""),
        ("the same: certain labels", "/train/dpo/label_smoothing", "0.0"),
        ("the same: no NLL beside it", "/train/dpo/nll_weight", "0.0"),
        ("2.4, pairs alone", "/train/dpo/rehearsal_weight", "0.0"),
        ("3.1, all weights", "/train/use_peft", "false"),
        ("3.1.3, a checkpoint every 200 steps", "/train/save_steps", "200"),
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
