//! `gradus.yaml`: reading with messages a person can act on, and writing with comments.

use super::describe::{ValueKind, current_key};
use super::{Config, SettingInfo};
use crate::codes::Code;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// What can be wrong with settings.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file could not be read.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("{path}:{place} {reason}")]
    File {
        /// Which.
        path: PathBuf,
        /// Line and column.
        place: String,
        /// What is wrong, with the key that may have been meant.
        reason: String,
    },
    /// A value is out of range.
    #[error("{key} is {value}; allowed: {allowed}")]
    Range {
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
        /// What is allowed.
        allowed: String,
    },
    /// A value in a file is out of range.
    #[error("{path}:{place} {key} is {value}; allowed: {allowed}")]
    RangeAt {
        /// The file.
        path: PathBuf,
        /// The line; empty where the file does not set the key.
        place: String,
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
        /// What is allowed.
        allowed: String,
    },
    /// The file says nothing.
    #[error(
        "{path} is empty: the run's settings are gone. Restore the file from a copy, or write the \
         settings back that the run was started with: its log has them, in the record run_started"
    )]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// No such setting.
    #[error("there is no setting {key}{}", meant.as_ref().map_or_else(String::new, |meant| format!(". Did you mean {meant}?")))]
    UnknownKey {
        /// What was asked for.
        key: String,
        /// The one that may have been meant.
        meant: Option<String>,
    },
    /// A value that a setting does not take.
    #[error("{key} cannot be {value}: it takes {takes}")]
    Value {
        /// The key.
        key: String,
        /// What was given.
        value: String,
        /// What it takes.
        takes: String,
    },
    /// No such preset.
    #[error("there is no preset {0:?}; there are: recommended, paper, tiny, verifiable, demo")]
    Preset(String),
}

/// Letters to change, add or remove to get from one word to the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        if let Some(first) = row.first_mut() {
            *first = left;
        }
        for (slot, cb) in row.iter_mut().skip(1).zip(&b) {
            let best = (*slot + 1).min(left + 1).min(diagonal + usize::from(ca != *cb));
            diagonal = *slot;
            *slot = best;
            left = best;
        }
    }
    row.last().copied().unwrap_or_default()
}

/// The word that may have been meant, where one is near.
fn nearest<'w>(meant: &str, words: &[&'w str]) -> Option<&'w str> {
    let nearest = words.iter().min_by_key(|word| distance(meant, word))?;
    (distance(meant, nearest) <= 1 + meant.len() / 3).then_some(nearest)
}

fn suggestion(message: &str) -> Option<String> {
    let unknown = message.split("unknown field").nth(1)?;
    let name = unknown.split(['`', '\'', '"']).nth(1)?;
    let keys: Vec<String> = SettingInfo::all().into_iter().map(|one| one.key).collect();
    let names: Vec<&str> = keys.iter().filter_map(|key| key.rsplit('.').next()).collect();
    Some(match nearest(name, &names) {
        Some(nearest) => format!("unknown key {name}. Did you mean {nearest}?"),
        None => format!("unknown key {name}"),
    })
}

/// What a person can do about what the parser said of a line, from 1.
fn reason(message: &str, line: usize, text: &str) -> String {
    if let Some(reason) = suggestion(message) {
        return reason;
    }
    let first = message.lines().next().unwrap_or_default();
    if let Some((_, rest)) = first.split_once("duplicate mapping key: ") {
        let key = rest.split(',').next().unwrap_or_default();
        return format!("the key {key} is there twice; merge the two");
    }
    if let Some(name) =
        first.split("duplicate field").nth(1).and_then(|rest| rest.split(['`', '\'', '"']).nth(1))
    {
        return format!("{name} is there twice, under two of its names; keep one");
    }
    // It begins with the place, which is said already.
    let what = first.rsplit_once("column ").and_then(|(_, rest)| rest.split_once(": "));
    let what = what.map_or(first, |(_, what)| what);
    let Some(key) = key_at(line, text) else { return what.to_owned() };
    let defaults = Config::default().as_json();
    match defaults.pointer(&format!("/{}", key.replace('.', "/"))) {
        None => format!("{key}: {what}"),
        Some(default) => format!("{key}: {what}. It takes {}", kind(default)),
    }
}

/// What may stand where this stands by default.
fn kind(default: &serde_json::Value) -> String {
    match default {
        serde_json::Value::Bool(_) => format!("true or false, by default {default}"),
        serde_json::Value::Number(n) if n.is_f64() => format!("a number, by default {default}"),
        serde_json::Value::Number(_) => format!("a whole number from 0, by default {default}"),
        serde_json::Value::String(_) => format!("a word, by default {default}"),
        serde_json::Value::Array(_) => format!("a list, by default {default}"),
        _ => "keys below it, each on a line of its own".to_owned(),
    }
}

/// The key that is set on a line, with the keys above it.
fn key_at(line: usize, text: &str) -> Option<String> {
    let mut keys: Vec<&str> = Vec::new();
    let mut depth = usize::MAX;
    let above: Vec<&str> = text.lines().take(line).collect();
    for line in above.into_iter().rev() {
        let indent = line.len() - line.trim_start().len();
        let key = line.trim_start().split_once(':').map(|(key, _)| key.trim());
        let Some(key) = key.filter(|key| indent < depth && !key.starts_with('#')) else {
            continue;
        };
        keys.insert(0, key);
        depth = indent;
    }
    (!keys.is_empty()).then(|| keys.join("."))
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`ConfigError`] with file, line and key.
    pub fn from_yaml(path: &Path) -> Result<Config, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Io { path: path.to_owned(), source })?;
        let config = Config::read(path, &text)?;
        if config.evaluate.gate.min_win_rate.is_some() {
            tracing::warn!(
                file = %path.display(),
                "evaluate.gate.min_win_rate is not used any more: evaluate.gate.mode and margin say \
                 what passes. Delete the line"
            );
        }
        Ok(config)
    }

    /// As [`Config::from_yaml`], from the file's text.
    pub(super) fn read(path: &Path, text: &str) -> Result<Config, ConfigError> {
        if says_nothing(text) {
            return Err(ConfigError::Empty { path: path.to_owned() });
        }
        let config = Config::parse(path, text)?;
        config.validate().map_err(|error| error.placed(path, text))?;
        Ok(config)
    }

    /// As [`Config::from_yaml`], from a text and without the check of ranges.
    ///
    /// # Errors
    /// [`ConfigError::File`].
    pub fn parse(path: &Path, text: &str) -> Result<Config, ConfigError> {
        let mut config: Config = serde_saphyr::from_str(text).map_err(|error| {
            let place = error
                .location()
                .map_or_else(String::new, |at| format!("{}:{}", at.line(), at.column()));
            let line = error.location().map_or(0, |at| at.line() as usize);
            let reason = reason(&error.to_string(), line, text);
            ConfigError::File { path: path.to_owned(), place, reason }
        })?;
        config.rubrics.convert(config.sampling.candidates.saturating_mul(config.judge.samples));
        config.brought.writer_of_old = config.prompts.convert();
        Ok(config)
    }

    /// Sets one setting, given as text: `train.dpo.beta`, `0.2`. Whether it fits the others is not
    /// looked at ([`Config::validate`]).
    ///
    /// # Errors
    /// [`ConfigError::UnknownKey`]; [`ConfigError::Value`] with what the setting takes.
    pub fn set(&mut self, key: &str, text: &str) -> Result<(), ConfigError> {
        let info = SettingInfo::find(key)?;
        let refused = || ConfigError::Value {
            key: info.key.clone(),
            value: text.to_owned(),
            takes: info.takes(),
        };
        if info.kind == ValueKind::Group {
            return Err(refused());
        }
        let read = serde_saphyr::from_str::<Value>(text).ok();
        let value = match (&info.kind, read) {
            (_, Some(Value::Null)) if text == "null" => Value::Null,
            (ValueKind::Text, _) | (_, None) => Value::String(text.to_owned()),
            (_, Some(value)) => value,
        };
        let mut settings = self.as_json();
        let path = current_key(key);
        let (group, name) = path.rsplit_once('.').unwrap_or(("", &path));
        let group = group.split('.').filter(|part| !part.is_empty());
        let place = group.fold(&mut settings, |place, part| &mut place[part]);
        place[name] = value;
        let mut changed: Config = serde_json::from_value(settings).map_err(|_| refused())?;
        std::mem::swap(&mut changed.brought, &mut self.brought);
        *self = changed;
        Ok(())
    }

    /// Sets settings, given as `key=value`, one after the other, and checks what comes of it.
    ///
    /// # Errors
    /// As [`Config::set`] and [`Config::validate`].
    pub fn set_all(&mut self, all: &[String]) -> Result<(), ConfigError> {
        for one in all {
            let Some((key, value)) = one.split_once('=') else {
                return Err(ConfigError::unknown_key(one));
            };
            self.set(key.trim(), value.trim())?;
        }
        self.validate()
    }

    /// The settings as a commented file that [`Config::from_yaml`] reads back to the same value.
    pub fn to_commented_yaml(&self) -> String {
        let head = "# Settings of a gradus run. Keys under `train` have TRL's names. One by itself: gradus config\n\
            # explain KEY; all: docs/settings.md.\n\
            # An iteration's plan is made of them when it opens: what you change counts from the next\n\
            # one on, and is recorded. `seed` cannot change.\n";
        let value = self.as_json();
        let mut text = head.to_owned();
        write_map(&value, 0, "", &mut text);
        text
    }
}

/// Whether a file holds no setting at all: nothing, comments, or a document that is null. Defaults in
/// the place of settings that were lost would be another run.
fn says_nothing(text: &str) -> bool {
    let said = text.lines().map(|line| line.split(" #").next().unwrap_or_default().trim());
    let mut said = said.filter(|line| !line.is_empty() && !line.starts_with('#'));
    said.all(|line| {
        matches!(line, "---" | "..." | "null" | "Null" | "NULL" | "~" | "--- null" | "--- ~")
    })
}

impl ConfigError {
    /// That there is no such setting, with the one that may have been meant.
    pub(super) fn unknown_key(key: &str) -> ConfigError {
        let keys: Vec<String> = SettingInfo::all().into_iter().map(|one| one.key).collect();
        // A name alone may be meant, without the groups that it is in.
        let names = keys.iter().map(String::as_str);
        let near = nearest(key, &names.clone().collect::<Vec<_>>());
        let by_name = || names.clone().find(|one| one.rsplit('.').next() == Some(key));
        let meant = by_name().or(near).map(str::to_owned);
        ConfigError::UnknownKey { key: key.to_owned(), meant }
    }

    /// What happened, as programs tell it apart.
    pub fn code(&self) -> Code {
        match self {
            ConfigError::Io { source, .. } => Code::of_io(source),
            ConfigError::File { .. }
            | ConfigError::UnknownKey { .. }
            | ConfigError::Value { .. } => Code::SettingsUnreadable,
            ConfigError::Range { .. } | ConfigError::RangeAt { .. } => Code::SettingOutOfRange,
            ConfigError::Empty { .. } => Code::SettingsEmpty,
            ConfigError::Preset(_) => Code::PresetUnknown,
        }
    }

    /// Whether the same call may succeed later, with nothing in it changed.
    pub fn is_retryable(&self) -> bool {
        self.code().is_retryable()
    }

    /// An error of a range with the file that it stands in, and the line.
    #[must_use]
    pub fn at(self, path: &Path) -> ConfigError {
        // A file that cannot be read any more has no line to name.
        let text = std::fs::read_to_string(path).unwrap_or_default();
        self.placed(path, &text)
    }

    fn placed(self, path: &Path, text: &str) -> ConfigError {
        let ConfigError::Range { key, value, allowed } = self else { return self };
        let place = line_of(key, text).map_or_else(String::new, |line| line.to_string());
        ConfigError::RangeAt { path: path.to_owned(), place, key, value, allowed }
    }
}

/// The line, from 1, where a key of some levels is set, or else the last level of it that has a line
/// of its own.
fn line_of(key: &str, text: &str) -> Option<usize> {
    let mut lines = text.lines().enumerate();
    let mut found = None;
    for level in key.split('.') {
        let sets = |line: &str| line.trim_start().strip_prefix(level)?.strip_prefix(':').map(drop);
        let Some((at, _)) = lines.find(|(_, line)| sets(line).is_some()) else { break };
        found = Some(at + 1);
    }
    found
}

fn write_map(value: &serde_json::Value, depth: usize, path: &str, text: &mut String) {
    let serde_json::Value::Object(map) = value else { return };
    for (key, value) in map {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        if let Some(comment) = comment(&path) {
            text.push_str(&format!("{}# {comment}\n", "  ".repeat(depth)));
        }
        text.push_str(&format!("{}{key}:", "  ".repeat(depth)));
        if value.is_object() {
            text.push('\n');
            write_map(value, depth + 1, &path, text);
        } else {
            // JSON scalars and lists are YAML as they are.
            text.push_str(&format!(" {value}\n"));
        }
    }
}

fn comment(path: &str) -> Option<&'static str> {
    Some(match path {
        "iterations" => "iterations in all, the supervised one included",
        "on_failure" => "stop | continue: after an iteration that failed",
        "device" => "auto | cpu | cuda | cuda:N; may be another at every start (or --device)",
        "dtype" => "what a GPU computes with: bf16 | f32 (to compare); the CPU has f32 always",
        "prompts" => "prompts answered per iteration; generate: the policy writes more itself",
        "sampling" => {
            "the paper: 4 candidates at temperature 0.7, top_p 0.9; weight_bits: 8 saves memory"
        }
        "judge" => {
            "the paper: 3 samples, mean. readout: expected | parsed | forced; source: model | random"
        }
        "pairs" => {
            "rule: best_worst | anchored (the worst of M1's answers is rejected). By more than min_gap \
             and `noise` standard errors; length_control is Meta-Rewarding's rho"
        }
        "train.sft" => "supervised fine-tuning on seed data (iteration 1, when there is any)",
        "train.dpo" => {
            "on self-judged pairs. loss_type: sigmoid | robust | ipo | hinge; reference: previous | \
             initial | ema | none"
        }
        "train.use_peft" => "train a LoRA adapter instead of all weights",
        "train.save_steps" => "steps between checkpoints: what a crash can cost",
        "train.keep_checkpoints" => "newest: what resuming needs | all",
        "train.gradient_checkpointing" => "slower, in less memory: activations are not kept",
        "supervision" => {
            "tasks without a sign of life are given up; none begins with less memory than this"
        }
        "rubrics" => {
            "a new one is on trial and watched as long as it judges; those in `watch` are taken"
        }
        "storage" => "0: keep every iteration whole, no quota; the run waits when there is no room",
        "evaluate" => "rubrics: [NAME, ...] compare the policies in the place of those that judge",
        "evaluate.gate" => {
            "mode: paper (always) | not_worse (surely, within the margin) | better (surely)"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::{DeviceChoice, Dtype, GateMode};
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(Path::new("run/gradus.yaml"), text).map_err(|e| e.to_string())
    }

    #[test]
    fn every_preset_is_valid_and_comes_back_from_its_file() {
        for name in ["recommended", "paper", "tiny", "verifiable", "demo"] {
            let config = Config::preset(name).unwrap();
            config.validate().unwrap();
            assert_eq!(parse(&config.to_commented_yaml()).unwrap(), config, "{name}");
        }
        assert!(
            Config::preset("huge")
                .unwrap_err()
                .to_string()
                .contains("recommended, paper, tiny, verifiable, demo")
        );
    }

    #[test]
    fn the_defaults_are_the_papers() {
        let c = Config::default();
        assert_eq!((c.sampling.candidates, c.judge.samples), (4, 3));
        assert_eq!((c.sampling.temperature, c.sampling.top_p), (0.7, 0.9));
        assert_eq!((c.train.dpo.beta, c.train.dpo.learning_rate), (0.1, 1e-6));
        assert_eq!(
            (c.train.sft.learning_rate, c.train.sft.per_device_train_batch_size),
            (5.5e-6, 16)
        );
    }

    #[test]
    fn the_device_is_its_text_and_no_part_of_what_is_recorded() {
        let config = parse("device: cuda:1\ndtype: f32\n").unwrap();
        assert_eq!((config.device, config.dtype), (DeviceChoice::Cuda(1), Dtype::F32));
        let text = config.to_commented_yaml();
        assert!(text.contains("\ndevice: \"cuda:1\"\n") && text.contains("cuda:N;"), "{text}");
        assert_eq!(config.recorded(), Config::default().recorded());
        let recorded = config.recorded();
        assert!(recorded.get("device").is_none() && recorded.get("dtype").is_none());
        let keys: Vec<&str> = recorded.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys[..3], ["seed", "iterations", "on_failure"], "in their order");
    }

    #[test]
    fn unknown_keys_name_the_line_and_what_was_meant() {
        let error = parse("seed: 3\ntrain:\n  dpo:\n    learning_rte: 1\n").unwrap_err();
        assert!(error.contains("run/gradus.yaml:4"), "{error}");
        assert!(error.contains("Did you mean learning_rate?"), "{error}");
        let error = parse("quite_something_else: 1\n").unwrap_err();
        assert!(error.contains("unknown key") && !error.contains("mean"), "{error}");
    }

    /// What a file of old says of the gate is read, or refused with what to do.
    #[test]
    fn gates_of_old() {
        for (old, new) in [
            ("off", GateMode::Paper),
            ("lenient", GateMode::NotWorse),
            ("strict", GateMode::Better),
            ("paper", GateMode::Paper),
            ("not_worse", GateMode::NotWorse),
            ("better", GateMode::Better),
        ] {
            let config = parse(&format!("evaluate:\n  gate:\n    mode: \"{old}\"\n")).unwrap();
            assert_eq!(config.evaluate.gate.mode, new);
            assert!(!config.to_commented_yaml().contains("min_win_rate"));
        }
        let gate = |line: &str| parse(&format!("evaluate:\n  gate:\n    {line}\n")).unwrap();
        assert!(gate("min_win_rate: 0.5").validate().is_ok(), "what every file of old says");
        for (line, said) in [
            ("min_win_rate: 0.55", "Delete the line, and set mode: not_worse with a margin"),
            ("margin: 0.6", "evaluate.gate.margin is 0.6; allowed: 0 to 0.5"),
            ("margin: .nan", "evaluate.gate.margin is NaN"),
            ("length_growth_max: -1", "evaluate.gate.length_growth_max is -1; allowed: 0 or more"),
            ("length_growth_max: .inf", "evaluate.gate.length_growth_max is inf"),
        ] {
            let error = gate(line).validate().unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn a_trial_that_counted_judgments_counts_prompts() {
        let prompts = |text: &str| parse(text).map(|config| config.rubrics.trial_prompts);
        for (text, wanted) in [
            ("", 16),
            ("rubrics:\n  trial_judgments: 40\n", 16),
            ("rubrics:\n  trial_judgments: 0\n", 0),
            ("rubrics:\n  trial_judgments: 240\n", 20),
            ("rubrics:\n  trial_judgments: 24\n  trial_prompts: 4\n", 4),
            ("rubrics:\n  trial_prompts: 0\n", 0),
        ] {
            assert_eq!(prompts(text), Ok(wanted), "{text}");
        }
        assert!(!Config::default().to_commented_yaml().contains("trial_judgments"));
    }

    #[test]
    fn other_names_are_read_and_not_twice() {
        let config = parse(
            "train:\n  segment_steps: 7\n  dpo:\n    train_batch_size: 3\n    rpo_alpha: 0.5\n",
        );
        let train = config.unwrap().train;
        assert_eq!((train.save_steps, train.dpo.per_device_train_batch_size), (7, 3));
        assert_eq!(train.dpo.nll_weight, 0.5);
        let error = parse("train:\n  segment_steps: 7\n  save_steps: 7\n").unwrap_err();
        assert!(error.contains("save_steps is there twice, under two of its names"), "{error}");
    }

    #[test]
    fn settings_are_set_by_key_and_text() {
        let mut config = Config::default();
        let set = |config: &mut Config, all: &[&str]| {
            let all: Vec<String> = all.iter().map(|one| (*one).to_owned()).collect();
            config.set_all(&all).map_err(|error| error.to_string())
        };
        config.brought.memory_bytes = 5;
        let all = [
            "train.dpo.beta=0.2",
            "iterations=7",
            "train.use_peft=true",
            "device=cpu",
            "evaluate.rubrics=[a, b]",
            "judge.engine=big",
            "train.segment_steps=9",
            "sampling.weight_bits=8",
            "judge.probes=40",
            "judge.probes_max=40",
        ];
        assert_eq!(set(&mut config, &all[..8]), Ok(()));
        let error = set(&mut config.clone(), &all[8..]).unwrap_err();
        assert!(error.contains("judge.probes is 40; allowed: 0 to 32"), "{error}");
        assert_eq!(
            (config.train.dpo.beta, config.iterations, config.train.save_steps),
            (0.2, 7, 9)
        );
        assert_eq!((config.device, config.train.use_peft), (DeviceChoice::Cpu, true));
        assert_eq!(
            (config.evaluate.rubrics.len(), config.judge.engine.as_deref()),
            (2, Some("big"))
        );
        assert_eq!((config.sampling.weight_bits, config.brought.memory_bytes), (8, 5));
        assert_eq!(set(&mut config, &["judge.engine=null"]), Ok(()));
        assert_eq!(config.judge.engine, None);
        for (wrong, said) in [
            (
                "train.dpo.bete=1",
                "there is no setting train.dpo.bete. Did you mean train.dpo.beta?",
            ),
            ("beta=1", "Did you mean train.dpo.beta?"),
            ("iterations", "there is no setting iterations"),
            ("train=1", "train cannot be 1: it takes settings below it"),
            ("judge.readout=guess", "it takes expected | parsed | forced"),
            ("iterations=many", "iterations cannot be many: it takes a whole number, 1 to 100000"),
            ("iterations=0", "iterations is 0; allowed: 1 to 100000"),
        ] {
            let error = set(&mut config.clone(), &[wrong]).unwrap_err();
            assert!(error.contains(said), "{wrong}: {error}");
        }
    }

    #[test]
    fn wrong_types_and_ranges() {
        for (text, place, wanted) in [
            ("seed: many\n", "1:7", "seed: invalid u64. It takes a whole number from 0"),
            ("seed: 1\nstorage:\n  # free\n  quota_mib: -3\n", "4:14", "storage.quota_mib: inv"),
            ("train:\n  dpo:\n    beta: much\n", "3:11", "train.dpo.beta: invalid f"),
            ("train:\n  use_peft: 3\n", "2:13", "by default false"),
            ("judge:\n  readout: guess\n", "2:12", "expected"),
            ("train: 3\n", "1:8", "keys below it"),
            (
                "seed: 1\ndevice: gpu\n",
                "2:9",
                "no device \"gpu\". Devices: auto, cpu, cuda, cuda:N",
            ),
            ("dtype: f16\n", "1:8", "dtype: unknown variant"),
            ("seed: 1\nstorage: {}\nseed: 2\n", "3:1", "the key seed is there twice"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(&format!("gradus.yaml:{place} ")), "{error}");
            assert!(error.contains(wanted) && !error.contains("error: line"), "{error}");
        }
        let mut config = Config::default();
        config.sampling.top_p = 0.0;
        let error = config.validate().unwrap_err().to_string();
        assert!(error.contains("sampling.top_p is 0; allowed: above 0"), "{error}");
        let config = parse("rubrics:\n  watch_prompts: 2000\n").unwrap();
        let error = config.validate().unwrap_err().to_string();
        assert!(error.contains("rubrics.watch_prompts is 2000; allowed: 0 to 1024"), "{error}");
        let config = parse("sampling:\n  weight_bits: 16\n").unwrap();
        let error = config.validate().unwrap_err().to_string();
        assert!(error.contains("sampling.weight_bits is 16; allowed: 32, or 8"), "{error}");
    }
}
