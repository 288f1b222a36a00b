//! What values settings may have. Everything that cannot work is refused when it is read, with its
//! key, its value and what is allowed: no number that is none or endless, nothing of which there must
//! be one, no count so large that memory or a product of counts would burst. The upper bounds are far
//! above what anybody needs; what a run takes of the memory that is there is asked at its start
//! ([`Code::NotEnoughMemory`](crate::Code::NotEnoughMemory)).

use super::{Config, ConfigError, Trial};
use crate::lm::config::ModelConfig;
use crate::lm::lora;

/// Iterations of a run.
const ITERATIONS_MAX: u32 = 100_000;
/// Prompts of an iteration, held-out ones, pairs.
const PROMPTS_MAX: u32 = 1_000_000;
/// Tokens of an answer, a reply or a new prompt: the longest contexts that models are made for.
const TOKENS_MAX: u32 = 131_072;
/// Answers to a prompt, judgments of one, demonstrations, threads.
const FEW_MAX: u32 = 1024;
/// Rows of a step, prompts of a task, draws of a round, comparisons of a prompt.
const BATCH_MAX: u32 = 65_536;
/// Prompts of a round of probes, which is one event.
const PROBES_MAX: u32 = 32;
/// Passes over the data, prompts with probes in all rounds.
const PASSES_MAX: u32 = 10_000;
/// Rank of an adapter; long before, it does not fit into memory, which its start says.
const RANK_MAX: u32 = 1 << 24;
/// Steps between checkpoints.
const STEPS_MAX: u32 = 1_000_000;
/// Seconds of a year.
const SECONDS_MAX: u32 = 31_536_000;
/// 64 TiB in MiB.
const MIB_MAX: u32 = 1 << 26;
/// Of weights and strengths; with more, 32-bit numbers do not bear the products.
const FACTOR_MAX: f64 = 1e6;

/// What a number may be.
enum Span {
    /// From, to, both included.
    Within(f64, f64),
    /// Above 0, up to.
    AboveZero(f64),
    /// From 0, without an end, but a number.
    NotNegative,
}

impl Span {
    fn holds(&self, value: f64) -> bool {
        match self {
            Span::Within(least, most) => (*least..=*most).contains(&value),
            Span::AboveZero(most) => value > 0.0 && value <= *most,
            Span::NotNegative => value >= 0.0 && value.is_finite(),
        }
    }

    fn words(&self) -> String {
        match self {
            Span::Within(least, most) => format!("{least} to {most}"),
            Span::AboveZero(most) if *most == f64::MAX => "above 0".to_owned(),
            Span::AboveZero(most) => format!("above 0, at most {most}"),
            Span::NotNegative => "0 or more".to_owned(),
        }
    }
}

fn refuse(key: &'static str, value: impl ToString, allowed: impl Into<String>) -> ConfigError {
    ConfigError::Range { key, value: value.to_string(), allowed: allowed.into() }
}

impl Config {
    /// Checks every setting by itself, and those that must fit each other.
    ///
    /// # Errors
    /// [`ConfigError::Range`] with the key, its value and what is allowed.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if let serde_json::Value::String(why) = self.as_json() {
            return Err(refuse("gradus.yaml", why, "settings that JSON can hold"));
        }
        for (key, value, least, most) in self.counts() {
            if !(least..=most).contains(&value) {
                return Err(refuse(key, value, format!("{least} to {most}")));
            }
        }
        for (key, value, span) in self.numbers() {
            if !span.holds(value) {
                return Err(refuse(key, value, span.words()));
            }
        }
        if ![8, 32].contains(&self.sampling.weight_bits) {
            return Err(refuse("sampling.weight_bits", self.sampling.weight_bits, "32, or 8"));
        }
        if self.judge.probes_max < self.judge.probes {
            let allowed = format!("judge.probes ({}) or more", self.judge.probes);
            return Err(refuse("judge.probes_max", self.judge.probes_max, allowed));
        }
        if self.train.dpo.label_smoothing >= 0.5 {
            let allowed =
                "0 to below 0.5: with as much or more a pair teaches nothing, or the reverse";
            return Err(refuse(
                "train.dpo.label_smoothing",
                self.train.dpo.label_smoothing,
                allowed,
            ));
        }
        match self.evaluate.gate.min_win_rate {
            None | Some(0.5) => {}
            Some(rate) => {
                let allowed = "nothing any more: the gate goes by certainty now. Delete the line, and \
                     set mode: not_worse with a margin (0.1: the win rate is surely above 0.4), or \
                     mode: better";
                return Err(refuse("evaluate.gate.min_win_rate", rate, allowed));
            }
        }
        self.validate_modules()
    }

    /// Whole numbers: key, value, least, most.
    fn counts(&self) -> [(&'static str, u32, u32, u32); 35] {
        let Config { prompts, sampling, judge, train, evaluate, .. } = self;
        let (sft, dpo) = (&train.sft, &train.dpo);
        let (supervision, storage, rubrics) = (&self.supervision, &self.storage, &self.rubrics);
        [
            ("iterations", self.iterations, 1, ITERATIONS_MAX),
            ("prompts.per_iteration", prompts.per_iteration, 1, PROMPTS_MAX),
            ("prompts.shots", prompts.shots, 0, FEW_MAX),
            ("prompts.draws_per_round", prompts.draws_per_round, 1, BATCH_MAX),
            ("prompts.rounds_max", prompts.rounds_max, 0, PASSES_MAX),
            ("prompts.max_new_tokens", prompts.max_new_tokens, 1, TOKENS_MAX),
            ("prompts.wait_for", prompts.wait_for, 0, PROMPTS_MAX),
            ("prompts.held_out", prompts.held_out, 0, PROMPTS_MAX),
            // A pair needs two.
            ("sampling.candidates", sampling.candidates, 2, FEW_MAX),
            ("sampling.max_new_tokens", sampling.max_new_tokens, 1, TOKENS_MAX),
            ("sampling.batch_prompts", sampling.batch_prompts, 1, BATCH_MAX),
            ("judge.samples", judge.samples, 1, FEW_MAX),
            ("judge.max_new_tokens", judge.max_new_tokens, 1, TOKENS_MAX),
            ("judge.probes", judge.probes, 0, PROBES_MAX),
            ("judge.probes_max", judge.probes_max, 0, PASSES_MAX),
            ("judge.comparisons_max", judge.comparisons_max, 1, BATCH_MAX),
            ("pairs.min_pairs", self.pairs.min_pairs, 0, PROMPTS_MAX),
            ("train.lora_r", train.lora_r, 1, RANK_MAX),
            ("train.segment_steps", train.segment_steps, 1, STEPS_MAX),
            ("train.threads", train.threads, 1, FEW_MAX),
            ("train.sft.train_batch_size", sft.train_batch_size, 1, BATCH_MAX),
            ("train.sft.num_train_epochs", sft.num_train_epochs, 1, PASSES_MAX),
            ("train.dpo.train_batch_size", dpo.train_batch_size, 1, BATCH_MAX),
            ("train.dpo.num_train_epochs", dpo.num_train_epochs, 1, PASSES_MAX),
            ("evaluate.prompts", evaluate.prompts, 0, PROMPTS_MAX),
            ("evaluate.judge_prompts", evaluate.judge_prompts, 0, PROMPTS_MAX),
            ("rubrics.trial_prompts", rubrics.trial_prompts, 0, Trial::PROMPTS_MAX),
            ("rubrics.watch_prompts", rubrics.watch_prompts, 0, Trial::PROMPTS_MAX),
            ("supervision.frozen_after_seconds", supervision.frozen_after_seconds, 1, SECONDS_MAX),
            ("supervision.memory_reserve_mib", supervision.memory_reserve_mib, 0, MIB_MAX),
            ("storage.keep_iterations", storage.keep_iterations, 0, ITERATIONS_MAX),
            ("storage.quota_mib", storage.quota_mib, 0, MIB_MAX),
            ("storage.reserve_mib", storage.reserve_mib, 0, MIB_MAX),
            // A warm-up may be longer than what it warms up: the rate rises to the end then.
            ("train.sft.warmup_steps", sft.warmup_steps, 0, u32::MAX),
            ("train.dpo.warmup_steps", dpo.warmup_steps, 0, u32::MAX),
        ]
    }

    /// Numbers with a fraction: key, value, what it may be.
    fn numbers(&self) -> [(&'static str, f64, Span); 30] {
        let Config { prompts, sampling, judge, pairs, train, evaluate, rubrics, .. } = self;
        let (sft, dpo, gate) = (&train.sft, &train.dpo, &evaluate.gate);
        let (heat, nucleus) = (|| Span::Within(0.0, 10.0), || Span::AboveZero(1.0));
        let (share, factor) = (|| Span::Within(0.0, 1.0), || Span::Within(0.0, FACTOR_MAX));
        let rate = || Span::AboveZero(f64::MAX);
        [
            ("sampling.temperature", sampling.temperature, heat()),
            ("judge.temperature", judge.temperature, heat()),
            ("evaluate.temperature", evaluate.temperature, heat()),
            ("prompts.temperature", prompts.temperature, heat()),
            ("sampling.top_p", sampling.top_p, nucleus()),
            ("judge.top_p", judge.top_p, nucleus()),
            ("evaluate.top_p", evaluate.top_p, nucleus()),
            ("prompts.top_p", prompts.top_p, nucleus()),
            ("pairs.min_gap", pairs.min_gap, factor()),
            ("pairs.noise", pairs.noise, factor()),
            ("pairs.length_control", pairs.length_control, share()),
            ("judge.forgery_gain_max", judge.forgery_gain_max, share()),
            ("rubrics.unparsed_max", rubrics.unparsed_max, share()),
            ("rubrics.mass_min", rubrics.mass_min, share()),
            ("train.lora_alpha", train.lora_alpha, Span::AboveZero(FACTOR_MAX)),
            ("train.sft.learning_rate", sft.learning_rate, rate()),
            ("train.dpo.learning_rate", dpo.learning_rate, rate()),
            ("train.sft.final_ratio", sft.final_ratio, share()),
            ("train.dpo.final_ratio", dpo.final_ratio, share()),
            ("train.sft.weight_decay", sft.weight_decay, factor()),
            ("train.dpo.weight_decay", dpo.weight_decay, factor()),
            ("train.sft.max_grad_norm", sft.max_grad_norm, Span::NotNegative),
            ("train.dpo.max_grad_norm", dpo.max_grad_norm, Span::NotNegative),
            ("train.dpo.beta", dpo.beta, Span::AboveZero(FACTOR_MAX)),
            ("train.dpo.label_smoothing", dpo.label_smoothing, share()),
            ("train.dpo.reference_decay", dpo.reference_decay, share()),
            ("train.dpo.nll_weight", dpo.nll_weight, factor()),
            ("train.dpo.rehearsal_weight", dpo.rehearsal_weight, factor()),
            ("evaluate.gate.margin", gate.margin, Span::Within(0.0, 0.5)),
            ("evaluate.gate.length_growth_max", gate.length_growth_max, Span::NotNegative),
        ]
    }

    fn validate_modules(&self) -> Result<(), ConfigError> {
        let modules = &self.train.lora_target_modules;
        let empty = modules.is_empty() || modules.iter().any(|module| module.trim().is_empty());
        match empty {
            true => Err(refuse(
                "train.lora_target_modules",
                format!("{modules:?}"),
                "one or more names of layers, such as q_proj",
            )),
            false => Ok(()),
        }
    }

    /// Checks what must fit the model that is trained.
    ///
    /// # Errors
    /// [`ConfigError::Range`]: an adapter is wanted on layers that this model does not have.
    pub fn validate_for(&self, model: &ModelConfig) -> Result<(), ConfigError> {
        if !self.train.use_peft {
            return Ok(());
        }
        let known = lora::target_names(model);
        let modules = &self.train.lora_target_modules;
        match modules.iter().find(|module| !lora::is_target(model, module)) {
            None => Ok(()),
            Some(unknown) => Err(refuse(
                "train.lora_target_modules",
                format!("{modules:?}"),
                format!(
                    "names of layers that this model has, which {unknown} is not: {}",
                    known.into_iter().collect::<Vec<_>>().join(", ")
                ),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::path::Path;

    /// Every setting that is a number, by its path, and whether it is a whole one.
    fn numeric() -> Vec<(String, bool)> {
        fn walk(value: &Value, path: &str, found: &mut Vec<(String, bool)>) {
            match value {
                Value::Object(map) => map.iter().for_each(|(key, value)| {
                    let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    walk(value, &path, found);
                }),
                Value::Number(number) => found.push((path.to_owned(), !number.is_f64())),
                _ => {}
            }
        }
        let mut found = Vec::new();
        walk(&serde_json::to_value(Config::default()).unwrap(), "", &mut found);
        // Left out of what is written.
        found.extend([
            ("sampling.weight_bits".to_owned(), true),
            ("judge.comparisons_max".to_owned(), true),
            ("evaluate.gate.min_win_rate".to_owned(), false),
        ]);
        found
    }

    /// Sets one key; what is said of it.
    fn set(key: &str, value: &str) -> Result<Config, String> {
        let levels: Vec<&str> = key.split('.').collect();
        let mut text = String::new();
        for (depth, level) in levels.iter().enumerate() {
            let value = if depth + 1 == levels.len() { format!(" {value}") } else { String::new() };
            text.push_str(&format!("{}{level}:{value}\n", "  ".repeat(depth)));
        }
        let read = Config::read(Path::new("run/gradus.yaml"), &text);
        read.map_err(|error| {
            let (error, line) = (error.to_string(), levels.len());
            assert!(error.contains(&format!("run/gradus.yaml:{line}")), "{key}: {value}: {error}");
            assert!(error.contains(key), "{key}: {value}: {error}");
            error
        })
    }

    /// Where nothing, or nobody, is a choice.
    const MAY_BE_ZERO: [&str; 39] = [
        "seed",
        "prompts.shots",
        "prompts.rounds_max",
        "prompts.temperature",
        "prompts.held_out",
        "sampling.temperature",
        "judge.temperature",
        "judge.probes",
        "judge.forgery_gain_max",
        "pairs.min_gap",
        "pairs.noise",
        "pairs.min_pairs",
        "pairs.length_control",
        "train.sft.warmup_steps",
        "train.sft.final_ratio",
        "train.sft.weight_decay",
        "train.sft.max_grad_norm",
        "train.dpo.label_smoothing",
        "train.dpo.reference_decay",
        "train.dpo.nll_weight",
        "train.dpo.rehearsal_weight",
        "train.dpo.warmup_steps",
        "train.dpo.final_ratio",
        "train.dpo.weight_decay",
        "train.dpo.max_grad_norm",
        "evaluate.prompts",
        "evaluate.judge_prompts",
        "evaluate.temperature",
        "evaluate.gate.margin",
        "evaluate.gate.length_growth_max",
        "rubrics.trial_prompts",
        "rubrics.watch_prompts",
        "rubrics.unparsed_max",
        "rubrics.mass_min",
        "supervision.memory_reserve_mib",
        "storage.keep_iterations",
        "storage.quota_mib",
        "storage.reserve_mib",
        // Not fewer than `judge.probes`, which it is beside here.
        "judge.probes_max",
    ];

    /// Of these as much as a number holds.
    const MAY_BE_ANYTHING: [&str; 3] = ["seed", "train.sft.warmup_steps", "train.dpo.warmup_steps"];
    /// Numbers without an end that is known; one that is too large shows in training and is recorded.
    const MAY_BE_LARGE: [&str; 5] = [
        "train.sft.learning_rate",
        "train.dpo.learning_rate",
        "train.sft.max_grad_norm",
        "train.dpo.max_grad_norm",
        "evaluate.gate.length_growth_max",
    ];

    #[test]
    fn every_number_is_held_to_what_can_work() {
        let all = numeric();
        assert!(all.len() >= 60, "{}", all.len());
        for (key, whole) in &all {
            let key = key.as_str();
            for none in [".nan", ".inf", "-.inf", "-1", "x", "[]"] {
                assert!(set(key, none).is_err(), "{key}: {none} is taken");
            }
            let zero = MAY_BE_ZERO.contains(&key);
            let beside = key == "judge.probes_max";
            assert_eq!(set(key, "0").is_ok(), zero && !beside, "{key}: 0");
            let most = if *whole { "4294967295" } else { "1.0e+300" };
            let large = MAY_BE_ANYTHING.contains(&key) || MAY_BE_LARGE.contains(&key);
            assert_eq!(set(key, most).is_ok(), large, "{key}: {most}");
        }
        let known = |key: &&str| all.iter().any(|(known, _)| known == key);
        assert!(MAY_BE_ZERO.iter().chain(&MAY_BE_ANYTHING).chain(&MAY_BE_LARGE).all(known));
    }

    #[test]
    fn what_is_said_names_the_value_and_what_is_allowed() {
        for (key, value, said) in [
            ("sampling.candidates", "4000000000", "is 4000000000; allowed: 2 to 1024"),
            ("sampling.candidates", "1", "is 1; allowed: 2 to 1024"),
            ("pairs.min_gap", ".nan", "pairs.min_gap is NaN; allowed: 0 to 1000000"),
            ("train.dpo.max_grad_norm", "-1", "is -1; allowed: 0 or more"),
            ("train.lora_r", "0", "train.lora_r is 0; allowed: 1 to 16777216"),
            ("train.lora_alpha", "0", "is 0; allowed: above 0, at most 1000000"),
            ("train.lora_target_modules", "[]", "is []; allowed: one or more names of layers"),
            ("train.lora_target_modules", "[q_proj, \"\"]", "one or more names of layers"),
            ("train.threads", "100000", "is 100000; allowed: 1 to 1024"),
            ("iterations", "0", "iterations is 0; allowed: 1 to 100000"),
            ("train.sft.final_ratio", "1.5", "is 1.5; allowed: 0 to 1"),
            ("train.sft.weight_decay", "-0.1", "is -0.1; allowed: 0 to 1000000"),
            ("judge.max_new_tokens", "200000", "is 200000; allowed: 1 to 131072"),
            ("judge.probes_max", "1", "is 1; allowed: judge.probes (4) or more"),
            ("train.dpo.label_smoothing", "0.5", "allowed: 0 to below 0.5"),
        ] {
            let error = set(key, value).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn a_line_is_named_however_the_settings_are_written() {
        for (text, place) in [
            ("seed: 1\n# min_gap: 2\npairs: {min_gap: .nan}\n", "run/gradus.yaml:3 pairs.min_gap"),
            ("train:\n\n  # rank\n  lora_r: 0 # none\n", "run/gradus.yaml:4 train.lora_r is 0"),
        ] {
            let error = Config::read(Path::new("run/gradus.yaml"), text).unwrap_err().to_string();
            assert!(error.contains(place), "{error}");
        }
    }

    #[test]
    fn a_file_that_says_nothing_is_no_file_of_defaults() {
        for text in ["", "\n \n", "# settings\n  # of a run\n", "---\n", "null\n", "---\n~\n...\n"]
        {
            let error = Config::read(Path::new("run/gradus.yaml"), text).unwrap_err().to_string();
            assert!(error.contains("run/gradus.yaml is empty"), "{text:?}: {error}");
            assert!(error.contains("in the record run_started"), "{error}");
        }
        assert!(Config::read(Path::new("gradus.yaml"), "seed: 1\n").is_ok());
    }

    #[test]
    fn an_adapter_lies_on_layers_that_the_model_has() {
        let model = r#"{"model_type":"qwen3","hidden_size":8,"intermediate_size":16,
            "num_hidden_layers":1,"num_attention_heads":2,"vocab_size":10}"#;
        let model = ModelConfig::from_hf_json(model).unwrap();
        let wanted = |modules: &[&str], use_peft: bool| {
            let mut config = Config::default();
            config.train.use_peft = use_peft;
            config.train.lora_target_modules = modules.iter().map(|m| (*m).to_owned()).collect();
            config.validate_for(&model).map_err(|error| error.to_string())
        };
        assert_eq!(wanted(&["q_proj", "mlp.down_proj"], true), Ok(()));
        assert_eq!(wanted(&["qqq"], false), Ok(()), "nobody uses it");
        for modules in [vec!["qqq"], vec!["q_proj", "qqq"], vec!["proj"], vec!["q_norm"]] {
            let error = wanted(&modules, true).unwrap_err();
            let last = modules.last().unwrap();
            assert!(error.contains("train.lora_target_modules"), "{error}");
            assert!(
                error.contains(&format!("which {last} is not: down_proj, gate_proj")),
                "{error}"
            );
        }
    }
}
