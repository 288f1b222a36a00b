//! Settings of a run: typed, checked, and read from `gradus.yaml` with messages that name file,
//! line and the key that was meant. Training keys have TRL's names.

mod changes;
mod describe;
mod engines;
mod file;
mod groups;
mod plan;
mod pool;
mod presets;
mod schema;
mod span;
mod validate;

pub use crate::domain::plan::{
    GateMode, JudgeSource, KeepCheckpoints, OnNoSignal, ReadoutMode, ReferenceRule, Schedule,
};
pub use crate::domain::{Trial, When};
pub use crate::lm::device::{DeviceChoice, Dtype};
pub use changes::{changes, differences};
pub use describe::{SettingInfo, ValueKind, settings_page};
pub use engines::{Brought, EngineConfig};
pub use file::ConfigError;
pub use groups::{
    Config, DpoConfig, EvaluateConfig, GateConfig, IntakeConfig, JudgeConfig, PairsConfig,
    PromptsConfig, RubricsConfig, SamplingConfig, SftConfig, StorageConfig, SupervisionConfig,
    TrainConfig,
};
pub use plan::PlanInputs;
pub use pool::PoolForecast;
pub use schema::schema;

use crate::domain::plan::WriterPlan;
use serde::{Deserialize, Serialize};

/// TRL's `loss_type`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossType {
    /// DPO's own; with label smoothing, cDPO.
    #[default]
    Sigmoid,
    /// Robust DPO: `label_smoothing` is how often labels are swapped.
    Robust,
    /// IPO.
    Ipo,
    /// SLiC.
    Hinge,
}

/// What a run does after an iteration that failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// It waits for the host: `gradus run` ends with the reason.
    #[default]
    Stop,
    /// It opens the next on the policy from before.
    Continue,
}

/// What of chats becomes prompts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IntakeMode {
    /// Nothing: a chat leaves no trace.
    #[default]
    Off,
    /// What was asked.
    Prompts,
}

impl IntakeConfig {
    /// What is taken out of texts before they are stored.
    ///
    /// # Errors
    /// [`ConfigError::Range`] with the pattern that is no regular expression.
    pub fn patterns(&self) -> Result<Vec<regex::Regex>, ConfigError> {
        let compiled = |pattern: &String| {
            regex::Regex::new(pattern).map_err(|error| ConfigError::Range {
                key: "intake.redact",
                value: format!("{pattern:?}"),
                allowed: format!("regular expressions: {error}"),
            })
        };
        self.redact.iter().map(compiled).collect()
    }
}

impl RubricsConfig {
    /// What is asked of a rubric that takes another's place.
    pub fn trial(&self) -> Trial {
        Trial {
            judgments: 0,
            prompts: self.trial_prompts,
            unparsed_max: self.unparsed_max,
            watch: self.watch_prompts,
            mass_min: self.mass_min,
        }
    }

    /// Takes `trial_judgments` over, where a file still has it: 0 stays none, and a number becomes
    /// at least as many prompts as they were of, and not fewer than a trial has.
    pub(super) fn convert(&mut self, judgments_per_prompt: u32) {
        let Some(judgments) = self.trial_judgments.take() else { return };
        self.trial_prompts = match judgments {
            0 if self.trial_prompts == RubricsConfig::default().trial_prompts => 0,
            n => self.trial_prompts.max(n.div_ceil(judgments_per_prompt.max(1))),
        };
        tracing::warn!(
            "rubrics.trial_judgments: {judgments} is read as rubrics.trial_prompts: {}, for a trial \
             counts prompts now; write that into gradus.yaml",
            self.trial_prompts
        );
    }
}

/// Which two of a prompt's answers become a pair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PairRule {
    /// The best against the worst (the paper).
    #[default]
    BestWorst,
    /// The best against the worst of as many answers by the first policy that was promoted.
    Anchored,
}

/// Keys that say where a run computes and not what it is.
const OF_THE_MACHINE: [&str; 2] = ["device", "dtype"];

impl PromptsConfig {
    /// Takes `writer` over, where a file still has it: it says what the host has to bring.
    pub(super) fn convert(&mut self) -> Option<String> {
        // Files of old have the product's own written out.
        let writer = self.writer.take().filter(|name| name != WriterPlan::NUMBERED)?;
        tracing::warn!(
            "prompts.writer: {writer} is read and does nothing: how the policy is asked for prompts \
             comes with the host (Builder::prompt_writer), and the demo brings its own. Delete the line"
        );
        Some(writer)
    }
}

impl Config {
    /// The settings as JSON. They are plain data, which JSON holds; should it ever not,
    /// [`Config::validate`] refuses them, and the value says so in the place of all of them.
    pub(crate) fn as_json(&self) -> serde_json::Value {
        let refused = |error| serde_json::Value::String(format!("no JSON: {error}"));
        serde_json::to_value(self).unwrap_or_else(refused)
    }

    /// What a setting is set to, by its key; `None` of a group or where there is no such setting.
    pub fn value(&self, key: &str) -> Option<serde_json::Value> {
        let info = SettingInfo::find(key).ok().filter(|info| info.kind != ValueKind::Group)?;
        // What is not written is as by default.
        Some(describe::at(&self.as_json(), &info.key).cloned().unwrap_or(info.default))
    }

    /// The settings as a run's log keeps them: without those that are the machine's business, so
    /// that a run is the same one wherever it was begun.
    pub fn recorded(&self) -> serde_json::Value {
        let mut value = self.as_json();
        if let serde_json::Value::Object(map) = &mut value {
            // Order is kept: it is hashed as it stands.
            OF_THE_MACHINE.iter().for_each(|key| drop(map.shift_remove(*key)));
        }
        value
    }
}
