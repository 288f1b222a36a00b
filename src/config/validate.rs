//! What values settings may have. Everything that cannot work is refused when it is read, with its
//! key, its value and what is allowed: no number that is none or endless, nothing of which there must
//! be one, no count so large that memory or a product of counts would burst. The upper bounds are far
//! above what anybody needs; what a run takes of the memory that is there is asked at its start
//! ([`Code::NotEnoughMemory`](crate::Code::NotEnoughMemory)).

use super::span::Span;
use super::{Config, ConfigError};
use crate::lm::config::ModelConfig;
use crate::lm::lora;

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
        for (key, value, span) in self.all_numbers() {
            if !span.holds(value) {
                return Err(refuse(key, value, span.words()));
            }
        }
        if ![8, 32].contains(&self.sampling.weight_bits) {
            return Err(refuse("sampling.weight_bits", self.sampling.weight_bits, "32, or 8"));
        }
        self.intake.patterns()?;
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

    /// Every number: key, value, what it may be.
    fn all_numbers(&self) -> Vec<(&'static str, f64, Span)> {
        let Config { prompts, sampling, judge, pairs, train, evaluate, .. } = self;
        [
            self.numbers(),
            prompts.numbers(),
            sampling.numbers(),
            judge.numbers(),
            pairs.numbers(),
            train.numbers(),
            train.sft.numbers(),
            train.dpo.numbers(),
            evaluate.numbers(),
            evaluate.gate.numbers(),
            self.rubrics.numbers(),
            self.intake.numbers(),
            self.supervision.numbers(),
            self.storage.numbers(),
        ]
        .concat()
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
    /// Numbers that are held to more than a span.
    const HELD_TO_MORE: [&str; 5] = [
        "sampling.weight_bits",
        "judge.probes",
        "judge.probes_max",
        "train.dpo.label_smoothing",
        "evaluate.gate.min_win_rate",
    ];

    /// A number of that kind as a file has it.
    fn written(value: f64, whole: bool) -> String {
        if whole { format!("{value:.0}") } else { format!("{value:?}") }
    }

    #[test]
    fn every_number_is_held_to_what_can_work() {
        let all = numeric();
        assert!(all.len() >= 60, "{}", all.len());
        let spans = Config::default().all_numbers();
        for (key, whole) in &all {
            let key = key.as_str();
            for none in [".nan", ".inf", "-.inf", "-1", "x", "[]"] {
                assert!(set(key, none).is_err(), "{key}: {none} is taken");
            }
            let most = if *whole { "4294967295" } else { "1.0e+300" };
            let large = MAY_BE_ANYTHING.contains(&key) || MAY_BE_LARGE.contains(&key);
            assert_eq!(set(key, most).is_ok(), large, "{key}: {most}");
            if HELD_TO_MORE.contains(&key) || MAY_BE_ANYTHING.contains(&key) {
                continue;
            }
            let span = spans.iter().find(|(of, _, _)| *of == key);
            let (_, _, span) = span.unwrap_or_else(|| panic!("{key} has no span"));
            let zero = span.holds(0.0);
            assert_eq!(set(key, if *whole { "0" } else { "0.0" }).is_ok(), zero, "{key}: 0");
            if let Span::Within(least, most) = *span {
                let beyond = if *whole { 1.0 } else { most.abs() * 1e-9 + 1e-9 };
                for (value, taken) in
                    [(least, true), (most, true), (least - beyond, false), (most + beyond, false)]
                {
                    let value = written(value, *whole);
                    assert_eq!(set(key, &value).is_ok(), taken, "{key}: {value}");
                }
            }
        }
        let known = |key: &&str| all.iter().any(|(known, _)| known == key);
        assert!(HELD_TO_MORE.iter().chain(&MAY_BE_ANYTHING).chain(&MAY_BE_LARGE).all(known));
    }

    /// Where nothing, or nobody, is no choice: said once more, for a span that begins at 0 by mistake.
    #[test]
    fn what_there_must_be_one_of_is_not_none() {
        for key in [
            "iterations",
            "prompts.per_iteration",
            "prompts.draws_per_round",
            "prompts.max_new_tokens",
            "sampling.candidates",
            "sampling.max_new_tokens",
            "sampling.batch_prompts",
            "judge.samples",
            "judge.max_new_tokens",
            "judge.comparisons_max",
            "train.lora_r",
            "train.save_steps",
            "train.threads",
            "train.sft.per_device_train_batch_size",
            "train.sft.num_train_epochs",
            "train.dpo.per_device_train_batch_size",
            "train.dpo.num_train_epochs",
            "supervision.frozen_after_seconds",
        ] {
            assert!(set(key, "0").is_err(), "{key}: 0");
        }
        for key in ["train.dpo.beta", "train.lora_alpha", "train.dpo.learning_rate", "judge.top_p"]
        {
            assert!(set(key, "0.0").is_err(), "{key}: 0.0");
        }
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
            ("train.sft.min_lr_rate", "1.5", "is 1.5; allowed: 0 to 1"),
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
