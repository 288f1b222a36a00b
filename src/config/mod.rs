//! Settings of a run: typed, checked, and read from `gradus.yaml` with messages that name file,
//! line and the key that was meant. Training keys have TRL's names.

mod changes;
mod engines;
mod file;
mod plan;
mod presets;
mod validate;

pub use crate::domain::plan::{
    GateMode, JudgeSource, KeepCheckpoints, OnNoSignal, ReadoutMode, ReferenceRule, Schedule,
};
pub use crate::domain::{Trial, When};
pub use crate::lm::device::{DeviceChoice, Dtype};
pub use changes::changes;
pub use engines::{Brought, EngineConfig};
pub use file::ConfigError;
pub use plan::PlanInputs;

use crate::domain::plan::WriterPlan;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

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

/// All settings of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Root of all randomness.
    pub seed: u64,
    /// Iterations in all, the supervised one included.
    pub iterations: u32,
    /// What to do after an iteration that failed.
    pub on_failure: OnFailure,
    /// What computes. The machine's business and not the run's: it may be another at every start,
    /// and no task's key knows of it.
    pub device: DeviceChoice,
    /// What a GPU computes with; the machine's business too.
    pub dtype: Dtype,
    /// Where prompts come from.
    pub prompts: PromptsConfig,
    /// Models beside the run's own, by the names that `sampling.engine` and `judge.engine` call them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub engines: BTreeMap<String, EngineConfig>,
    /// How completions are drawn.
    pub sampling: SamplingConfig,
    /// How completions are judged.
    pub judge: JudgeConfig,
    /// How pairs are chosen.
    pub pairs: PairsConfig,
    /// How weights move.
    pub train: TrainConfig,
    /// How checkpoints are measured.
    pub evaluate: EvaluateConfig,
    /// How rubrics come and go.
    pub rubrics: RubricsConfig,
    /// What happens to tasks that fail or freeze.
    pub supervision: SupervisionConfig,
    /// What a run may take of the disk.
    pub storage: StorageConfig,
    /// What a runtime was given and found beside the settings.
    #[serde(skip)]
    pub brought: Brought,
}

/// How rubrics come and go.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RubricsConfig {
    /// Of a rubric that takes another's place, so many first prompts are looked at before any of
    /// its pairs is made. 0: none.
    pub trial_prompts: u32,
    /// From then on so many of its last prompts are looked at, as long as it judges. 0: none.
    pub watch_prompts: u32,
    /// Share of their judgments that may be without a score; with more, the rubrics before it come
    /// back.
    pub unparsed_max: f64,
    /// Mean probability that the judge must put on the words of the rubric's scores, where they
    /// are read; with less, the rubrics before it come back. 0: any.
    pub mass_min: f64,
    /// What `trial_prompts` was before it counted prompts; read from files of old.
    #[serde(default, skip_serializing)]
    pub trial_judgments: Option<u32>,
    /// A folder, from the run's own: a component that appears there is installed, and a new version
    /// of a rubric that judges takes its place. Empty: none.
    pub watch: String,
    /// From when on such a version judges.
    pub watch_when: When,
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

/// What a run may take of the disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StorageConfig {
    /// Of finished iterations, the last so many keep everything; older ones keep what they came to.
    /// 0: all keep everything.
    pub keep_iterations: u32,
    /// The run waits when its folder has so many MiB. 0: no limit.
    pub quota_mib: u32,
    /// The run waits when the disk has less than so many MiB free.
    pub reserve_mib: u32,
}

/// What happens to tasks that fail or freeze.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SupervisionConfig {
    /// A task that shows no sign of life for so long is given up. More than any one computation
    /// takes between two looks at its flag: a token of a batch, a micro-batch, loading the model.
    pub frozen_after_seconds: u32,
    /// With less memory than so many MiB available, of the machine or of a container's limit, no
    /// task on the model begins: it waits. 0: it never waits.
    pub memory_reserve_mib: u32,
}

/// Where prompts come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PromptsConfig {
    /// Prompts answered in an iteration.
    pub per_iteration: u32,
    /// An iteration is opened once so many wait; until then the run waits, at no cost. 0: it is opened
    /// with what there is, and a run without any ends.
    #[serde(skip_serializing_if = "waits_for_nothing")]
    pub wait_for: u32,
    /// Whether the policy writes new ones when too few wait.
    pub generate: bool,
    /// What chose the demo's way of asking for prompts before the host brought it; read from files of
    /// old.
    #[serde(default, skip_serializing)]
    pub writer: Option<String>,
    /// Demonstrations it is shown.
    pub shots: u32,
    /// Draws in a round of writing.
    pub draws_per_round: u32,
    /// Rounds of writing in an iteration.
    pub rounds_max: u32,
    /// Temperature of writing.
    pub temperature: f64,
    /// Nucleus of writing.
    pub top_p: f64,
    /// Bound on a draw, tokens.
    pub max_new_tokens: u32,
    /// Prompts of the file that are kept for evaluation. Changed later: raised, given prompts that
    /// nothing was trained on are held out too; lowered, fewer are measured on, and what was held
    /// out stays out of training.
    pub held_out: u32,
}

/// How completions are drawn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SamplingConfig {
    /// Who answers: a name under `engines`; none: the run's own policy. What another model says is
    /// trained on as the policy's tokenizer spells it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
    /// Completions per prompt (N).
    pub candidates: u32,
    /// Temperature.
    pub temperature: f64,
    /// Nucleus.
    pub top_p: f64,
    /// Bound on a completion, tokens.
    pub max_new_tokens: u32,
    /// Prompts of one task: what a crash can cost.
    pub batch_prompts: u32,
    /// Bits of a weight as whoever draws or judges reads it: 32, or 8, in less memory and not
    /// quite the same (docs/performance.md). Training and the reference always read 32.
    #[serde(skip_serializing_if = "are_all_bits")]
    pub weight_bits: u32,
}

/// Left out of what is written and hashed, so that runs that know nothing of it stay what they are.
fn are_all_bits(bits: &u32) -> bool {
    *bits == 32
}

/// Left out of what is written and hashed, as `weight_bits`.
fn waits_for_nothing(prompts: &u32) -> bool {
    *prompts == 0
}

/// How completions are judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JudgeConfig {
    /// Who judges: a name under `engines`; none: the run's own policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
    /// Judgments per completion (k).
    pub samples: u32,
    /// Temperature.
    pub temperature: f64,
    /// Nucleus.
    pub top_p: f64,
    /// Bound on a judgment, tokens; the rubric may ask for less.
    pub max_new_tokens: u32,
    /// How a judgment becomes a number.
    pub readout: ReadoutMode,
    /// Where scores come from.
    pub source: JudgeSource,
    /// Prompts of an iteration to which bad answers, bare and with a forged verdict, are judged
    /// too; 0 is none.
    pub probes: u32,
    /// With as many more at a time, up to so many, while these do not say whether forging pays.
    pub probes_max: u32,
    /// Share of the rubric's scale by which forged verdicts may raise bad answers.
    pub forgery_gain_max: f64,
    /// Under a rubric that compares: groups of a prompt's answers that are shown at most. With more,
    /// every answer is in equally many of those that are.
    #[serde(skip_serializing_if = "is_the_usual_bound")]
    pub comparisons_max: u32,
}

/// Left out of what is written and hashed, as `weight_bits`.
fn is_the_usual_bound(bound: &u32) -> bool {
    *bound == COMPARISONS_MAX
}

/// What `judge.comparisons_max` is by default.
const COMPARISONS_MAX: u32 = 256;

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

/// How pairs are chosen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PairsConfig {
    /// Which two of a prompt's answers.
    pub rule: PairRule,
    /// Best minus worst must exceed this.
    pub min_gap: f64,
    /// And this many standard errors of that difference, over the judge's samples of either; 0: the
    /// samples' noise is not looked at (the paper).
    pub noise: f64,
    /// Fewer pairs than this are not trained on.
    pub min_pairs: u32,
    /// Length control rho of Meta-Rewarding; 0 is the paper's plain rule.
    pub length_control: f64,
    /// Whether completions that were cut off may not compete.
    pub require_ended: bool,
    /// What to do after an iteration with too few pairs, or with a judge that can be fooled.
    pub on_no_signal: OnNoSignal,
}

/// How weights move.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// The supervised iteration.
    pub sft: SftConfig,
    /// The preference iterations.
    pub dpo: DpoConfig,
    /// Train a LoRA adapter instead of all weights. It may change between iterations: an adapter that
    /// does not fit any more is merged into the weights below it.
    pub use_peft: bool,
    /// Rank of the adapter.
    pub lora_r: u32,
    /// The adapter's term is scaled by alpha / r.
    pub lora_alpha: f64,
    /// Layers that get one.
    pub lora_target_modules: Vec<String>,
    /// Steps between checkpoints: what a crash can cost.
    pub segment_steps: u32,
    /// Threads that compute; part of what makes a run reproducible.
    pub threads: u32,
    /// Compute activations again on the way back instead of keeping them: slower, in less memory.
    pub gradient_checkpointing: bool,
    /// Which checkpoints of an iteration stay on the disk: what resuming needs, or every one.
    pub keep_checkpoints: KeepCheckpoints,
}

/// The supervised iteration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SftConfig {
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Rows of a step.
    pub train_batch_size: u32,
    /// Passes over the rows.
    pub num_train_epochs: u32,
    /// Linear warm-up.
    pub warmup_steps: u32,
    /// Shape after warm-up.
    pub lr_scheduler_type: Schedule,
    /// Last learning rate as a share of the peak.
    pub final_ratio: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Gradient clipping; 0 is none.
    pub max_grad_norm: f64,
}

/// The preference iterations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DpoConfig {
    /// Strength of the pull to the reference.
    pub beta: f64,
    /// The loss.
    pub loss_type: LossType,
    /// cDPO's epsilon.
    pub label_smoothing: f64,
    /// What the policy is held against.
    pub reference: ReferenceRule,
    /// `reference: ema`: what the mean so far counts for beside the newest policy.
    pub reference_decay: f64,
    /// Weight of the NLL of the chosen completion, per token.
    pub nll_weight: f64,
    /// Weight of rehearsed seed rows.
    pub rehearsal_weight: f64,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Pairs of a step.
    pub train_batch_size: u32,
    /// Passes over the pairs.
    pub num_train_epochs: u32,
    /// Linear warm-up.
    pub warmup_steps: u32,
    /// Shape after warm-up.
    pub lr_scheduler_type: Schedule,
    /// Last learning rate as a share of the peak.
    pub final_ratio: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Gradient clipping; 0 is none.
    pub max_grad_norm: f64,
}

/// How checkpoints are measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvaluateConfig {
    /// Held-out prompts answered.
    pub prompts: u32,
    /// Held-out prompts whose four base answers are judged, where an oracle knows the truth.
    pub judge_prompts: u32,
    /// Temperature of held-out answers.
    pub temperature: f64,
    /// Nucleus of held-out answers.
    pub top_p: f64,
    /// Installed rubrics (name, `name@version`, or the beginning of a hash) under which the policies
    /// are compared, each with the same weight, so that a loop is not measured by what trained it.
    /// None: those that judge the iteration.
    pub rubrics: Vec<String>,
    /// When a checkpoint passes.
    pub gate: GateConfig,
}

/// When a checkpoint passes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GateConfig {
    /// How strict.
    pub mode: GateMode,
    /// `not_worse`: the win rate against the previous policy, ties half, must surely be above 0.5
    /// less this.
    pub margin: f64,
    /// Answers that are longer than the previous policy's by more than this share of them cannot be
    /// called better.
    pub length_growth_max: f64,
    /// Of old: what the mean win rate had to reach. Read, so that files of old can be; 0.5, which
    /// was the default, changes nothing, and no other value is taken.
    #[serde(skip_serializing)]
    pub min_win_rate: Option<f64>,
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
