//! What an iteration does, decided once when it opens and recorded in its first event. The stages
//! read it from the view and hold no settings, so a change of `gradus.yaml` counts from the next
//! iteration on and never reaches back, and a new method is a new kind of plan.
//!
//! The file of settings ([`crate::config`] in the library) is what the next plan is made from.

use super::id::{BlobHash, PolicyId};
use super::panel::Panel;
use super::policy::{AdapterShape, PolicyRef};
pub use crate::lm::loss::Loss;
pub use crate::lm::optimizer::Schedule;
use serde::{Deserialize, Serialize};

/// How an iteration trains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IterationKind {
    /// Supervised fine-tuning on the seed data (M0 to M1).
    Sft,
    /// Preference optimisation on self-judged pairs (M1 to M2 and on).
    Dpo,
}

/// Everything that the result of an iteration depends on, beside what it meets on the way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IterationPlan {
    /// What training minimises, and on what.
    pub objective: Objective,
    /// The weights that training begins with. They also answer, judge and write new prompts, where
    /// the parts below name no others.
    pub policy: PolicyRef,
    /// What the loss holds them against.
    pub reference: Reference,
    /// Which prompts are answered.
    pub prompts: PromptPlan,
    /// Who answers them, and how often.
    pub samples: Vec<SampleSet>,
    /// Prompts of one task of answering, judging and pairing: what a crash can cost.
    pub batch_prompts: u32,
    /// Who judges the answers, and how.
    pub judge: JudgePlan,
    /// How judged answers become pairs.
    pub pairing: PairingPlan,
    /// How weights move.
    pub training: TrainingPlan,
    /// How what came of it is measured, and when it becomes the policy.
    pub evaluation: EvaluationPlan,
}

impl IterationPlan {
    /// Whether it is supervised.
    pub fn kind(&self) -> IterationKind {
        match self.objective {
            Objective::Supervised { .. } => IterationKind::Sft,
            Objective::Preference { .. } => IterationKind::Dpo,
        }
    }

    /// The policy's own answers: those that the pairs are about.
    pub fn own_samples(&self) -> Option<&SampleSet> {
        self.samples.iter().find(|set| set.name == SampleSet::POLICY)
    }

    /// What answers with the run's policies: for who measures them, or lets them write.
    pub fn policy_engine(&self) -> PlannedEngine {
        let engines = self.samples.iter().map(|set| &set.engine).chain([&self.judge.engine]);
        let found = engines.into_iter().find(|engine| engine.takes_policies());
        found.cloned().unwrap_or(PlannedEngine::EXACT)
    }
}

/// What training minimises, and on what.
///
/// An objective whose teacher is a policy that has read more than the student (self-distillation)
/// is a further kind, with what the teacher has read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Objective {
    /// The negative log-likelihood of seed answers (M0 to M1).
    Supervised {
        /// The rows.
        data: Vec<SeedSet>,
    },
    /// A preference loss on the iteration's pairs.
    Preference {
        /// The loss, with every parameter.
        loss: Loss,
        /// Weight of the negative log-likelihood of the chosen text, per token (Iterative RPO).
        nll_weight: f64,
        /// Seed rows that are learned beside the pairs.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rehearsal: Option<Rehearsal>,
    },
}

/// Seed rows that are learned beside the pairs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rehearsal {
    /// Weight of their loss.
    pub weight: f64,
    /// The rows.
    pub data: Vec<SeedSet>,
}

/// Rows of seed data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeedSet {
    /// `ift` or `eft`.
    pub name: String,
    /// JSON lines of [`super::event::SeedRow`].
    pub blob: BlobHash,
    /// How many rows.
    pub rows: u32,
}

/// What the loss holds the policy against.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reference {
    /// The rule by which it was chosen.
    pub rule: ReferenceRule,
    /// The weights; `None` under [`ReferenceRule::None`], and where they are made first.
    pub policy: Option<PolicyRef>,
    /// What weights are made of first, under [`ReferenceRule::Ema`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_of: Option<MovingMean>,
}

/// A step of an exponential moving mean of weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MovingMean {
    /// The mean so far.
    pub mean: PolicyRef,
    /// What comes to it.
    pub newest: PolicyRef,
    /// What the mean so far counts for; the newest for the rest.
    pub decay: f64,
}

/// Which weights are the reference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ReferenceRule {
    /// Those that training begins with (the paper).
    #[default]
    Previous,
    /// The first that were promoted (M1); before there are any, the base.
    Initial,
    /// The exponential moving mean of the policies that acted since the first one that was promoted.
    Ema,
    /// None: the loss takes the policy's own log-probabilities (TRL's `reference_free`).
    None,
}

/// How many prompts are answered, and where new ones come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PromptPlan {
    /// Prompts that are answered.
    pub per_iteration: u32,
    /// How the policy writes new ones when too few wait; `None`: it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writer: Option<WriterPlan>,
    /// What happens when there are too few all the same.
    #[serde(default, skip_serializing_if = "PromptReuse::is_never")]
    pub reuse: PromptReuse,
}

/// Whether an iteration that finds too few new prompts answers some again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PromptReuse {
    /// It answers the new ones alone.
    #[default]
    Never,
    /// It fills up with prompts that earlier iterations answered, drawn by the run's seed.
    WhenEmpty,
}

impl PromptReuse {
    /// Whether it is the default, which is not written.
    pub fn is_never(&self) -> bool {
        *self == PromptReuse::Never
    }
}

impl WriterPlan {
    /// The name of the product's own writer: a numbered list that the model goes on with in its turn.
    pub const NUMBERED: &str = "numbered";
}

/// How the policy writes new prompts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WriterPlan {
    /// Who asks it, and reads the prompts in what it says: the name of a writer. `numbered` is the
    /// product's own; a host brings others.
    pub style: String,
    /// Demonstrations it is shown.
    pub shots: u32,
    /// Draws in a round.
    pub draws_per_round: u32,
    /// Rounds in an iteration.
    pub rounds_max: u32,
    /// How it draws.
    pub sampling: PlannedSampling,
}

/// How tokens are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlannedSampling {
    /// 0 is greedy.
    pub temperature: f64,
    /// Nucleus.
    pub top_p: f64,
    /// Bound on new tokens.
    pub max_new_tokens: u32,
}

/// Answers to every prompt by one policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SampleSet {
    /// What pairs call it; [`SampleSet::POLICY`] are the policy's own answers.
    pub name: String,
    /// Who answers; the plan's policy where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyRef>,
    /// What computes.
    pub engine: PlannedEngine,
    /// Answers to each prompt.
    pub n: u32,
    /// How they are drawn.
    pub sampling: PlannedSampling,
}

impl SampleSet {
    /// The name of the policy's own answers.
    pub const POLICY: &str = "policy";
    /// The name of the answers of the first policy that was promoted.
    pub const INITIAL: &str = "initial";
}

/// What computes answers and judgments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum PlannedEngine {
    /// This machine, with the run's own model.
    Local {
        /// Bits of a weight as it is read: 32, or 8 in less memory and not quite the same.
        weight_bits: u32,
    },
    /// Another one, that the settings name or the host brought.
    Named(NamedEngine),
}

/// An engine beside the model on this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedEngine {
    /// As the settings call it; [`NamedEngine::POLICY`] is the one that the host brought to answer
    /// with the run's policies.
    pub name: String,
    /// What it is, for people.
    pub what: String,
    /// BLAKE3 of everything that its answers depend on, beside what it is asked and the policy's
    /// weights where it takes them: of a model's files, for one.
    pub identity: BlobHash,
    /// Whose weights answer.
    pub answers_with: AnswersWith,
}

/// Whose weights an engine answers with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnswersWith {
    /// Those of the policy that is asked: the engine is given them.
    Policy,
    /// Its own, which stay as they are.
    Own,
}

impl NamedEngine {
    /// The name of the engine that answers with the run's policies in the place of this machine's
    /// model. Settings cannot give it.
    pub const POLICY: &str = "policy";
}

impl PlannedEngine {
    /// This machine, with weights as they are.
    pub const EXACT: PlannedEngine = PlannedEngine::Local { weight_bits: 32 };

    /// Whether a policy's weights answer, and not the engine's own.
    pub fn takes_policies(&self) -> bool {
        match self {
            PlannedEngine::Local { .. } => true,
            PlannedEngine::Named(named) => named.answers_with == AnswersWith::Policy,
        }
    }

    /// Who it is that answers when a policy is asked: the policy, or a model with weights of its own.
    pub fn answers_as(&self, policy: &PolicyRef) -> PolicyId {
        match self {
            PlannedEngine::Named(named) if named.answers_with == AnswersWith::Own => {
                let mut hasher = blake3::Hasher::new_derive_key("gradus engine policy id v1");
                hasher.update(named.identity.as_str().as_bytes());
                PolicyId(hasher.finalize().to_hex().to_string())
            }
            PlannedEngine::Local { .. } | PlannedEngine::Named(_) => policy.id(),
        }
    }
}

/// Who judges, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JudgePlan {
    /// Whose replies are read; the plan's policy where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyRef>,
    /// What computes.
    pub engine: PlannedEngine,
    /// The rubrics that ask, when the iteration opens.
    pub panel: Panel,
    /// Replies to each question (k).
    pub samples: u32,
    /// How they are drawn; a rubric may ask for fewer tokens.
    pub sampling: PlannedSampling,
    /// How a reply becomes a number.
    pub readout: ReadoutMode,
    /// Whose scores count.
    pub source: JudgeSource,
    /// How the judge itself is tested before its scores count; `None`: not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probes: Option<ProbePlan>,
    /// Under a rubric that compares: groups of a prompt's answers that are shown at most.
    pub comparisons_max: u32,
}

/// How the judge is tested with bad answers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProbePlan {
    /// Prompts of a round.
    pub prompts: u32,
    /// Prompts of all rounds.
    pub prompts_max: u32,
    /// Share of a rubric's scale by which forged verdicts may raise bad answers.
    pub forgery_gain_max: f64,
}

/// How judged answers become pairs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PairingPlan {
    /// Which two of a prompt's answers.
    pub rule: PairingRule,
    /// With fewer pairs nothing is trained.
    pub min_pairs: u32,
    /// What happens then.
    pub on_no_signal: OnNoSignal,
}

/// Which two of a prompt's answers become a pair.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum PairingRule {
    /// The best against the worst of the policy's own answers (paper, 2.3 step 3).
    BestWorst(Difference),
    /// The best of the policy's own answers against the worst of another sample set's, so that
    /// rejected answers stay as bad as they were while chosen ones get better (anchored rejection,
    /// arXiv 2508.06026). Its length control is not looked at.
    Anchored {
        /// What the two must differ by.
        difference: Difference,
        /// Name of the other set.
        rejected_from: String,
    },
}

/// What two answers must differ by.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// Best minus worst must exceed this.
    pub min_gap: f64,
    /// And this many standard errors of that difference, over the judge's samples of either.
    pub noise: f64,
    /// Length control rho of Meta-Rewarding (arXiv 2407.19594); 0 is the plain rule.
    pub length_control: f64,
    /// Whether answers that were cut off may not compete.
    pub require_ended: bool,
}

/// How weights move.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainingPlan {
    /// Which of them.
    pub trained: Trained,
    /// How far at each step.
    pub optimizer: OptimizerPlan,
    /// Rows or pairs of a step.
    pub batch_size: u32,
    /// Passes over them.
    pub epochs: u32,
    /// Steps between checkpoints: what a crash can cost.
    pub segment_steps: u32,
    /// Threads that compute; part of what makes a run reproducible.
    pub threads: u32,
    /// Compute activations again on the way back instead of keeping them.
    pub gradient_checkpointing: bool,
    /// Which checkpoints of the iteration stay on the disk.
    #[serde(default)]
    pub keep_checkpoints: KeepCheckpoints,
}

/// Which checkpoints of an iteration stay on the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeepCheckpoints {
    /// What resuming needs: the newest, and where a rollback goes to. Of a finished iteration, the
    /// last one's weights.
    #[default]
    Newest,
    /// Every one.
    All,
}

/// Which weights move.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Trained {
    /// All of them. An adapter of the policy is merged first.
    All,
    /// A low-rank adapter: the policy's own where it has this very shape. Another one is merged
    /// into the weights below, and a new one begins.
    Adapter(AdapterShape),
}

/// Numbers of AdamW and of its learning rate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct OptimizerPlan {
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Shape after warm-up.
    pub schedule: Schedule,
    /// Steps of linear warm-up.
    pub warmup_steps: u32,
    /// Last learning rate as a share of the peak.
    pub final_ratio: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Gradient clipping; 0 is none.
    pub max_grad_norm: f64,
}

/// How a checkpoint is measured, and when it becomes the policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvaluationPlan {
    /// Held-out prompts answered.
    pub prompts: u32,
    /// Held-out prompts whose base answers are judged, where an oracle knows the truth.
    pub judge_prompts: u32,
    /// How held-out answers are drawn.
    pub sampling: PlannedSampling,
    /// Rubrics that compare the policies, as the settings name them; none: the judge's panel.
    pub rubrics: Vec<String>,
    /// When it passes.
    pub gate: Gate,
    /// What a run does about an iteration that looks like a loop going wrong.
    #[serde(default, skip_serializing_if = "OnAlarm::is_tell")]
    pub on_alarm: OnAlarm,
}

/// What a run does about an alarm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnAlarm {
    /// It is recorded and told, and the run goes on.
    #[default]
    Tell,
    /// The run waits for somebody.
    Pause,
}

impl OnAlarm {
    /// Left out of what is written and hashed, so that runs that know nothing of it stay what they are.
    pub fn is_tell(&self) -> bool {
        *self == OnAlarm::Tell
    }
}

/// When a checkpoint becomes the policy.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gate {
    /// How strict.
    pub mode: GateMode,
    /// `not_worse`: the win rate must surely be above 0.5 less this.
    pub margin: f64,
    /// Answers that are longer than the previous policy's by more than this share of them cannot be
    /// called better.
    pub length_growth_max: f64,
}

/// Where scores come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum JudgeSource {
    /// The policy judges itself.
    #[default]
    Model,
    /// Control arm: the policy judges itself, and its scores are permuted among a prompt's answers.
    Random,
    /// Control arm: scores are the oracle's.
    Oracle,
}

/// How a judgment becomes a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReadoutMode {
    /// The expectation over the score tokens' probabilities, where the judge wrote a score.
    #[default]
    Expected,
    /// What the rubric parses from the text (the paper).
    Parsed,
    /// As `expected`; and a judge that wrote no score is made to begin one, which is recorded as
    /// forced and counted apart.
    Forced,
}

impl ReadoutMode {
    /// As the settings spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            ReadoutMode::Expected => "expected",
            ReadoutMode::Parsed => "parsed",
            ReadoutMode::Forced => "forced",
        }
    }
}

/// When a checkpoint passes. The names of old are read too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GateMode {
    /// Always (the paper).
    #[serde(alias = "off")]
    Paper,
    /// When it is surely not worse by more than the margin.
    #[default]
    #[serde(alias = "lenient")]
    NotWorse,
    /// When it is surely better.
    #[serde(alias = "strict")]
    Better,
}

/// What a run does after an iteration that gave nothing to learn from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnNoSignal {
    /// It opens the next.
    #[default]
    Continue,
    /// It waits for the host.
    Pause,
}

/// One setting that is another than it was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SettingChange {
    /// Its key in `gradus.yaml`, with those above it: `train.dpo.beta`.
    pub key: String,
    /// What it was; null where it was not known.
    pub from: serde_json::Value,
    /// What it is.
    pub to: serde_json::Value,
}

impl std::fmt::Display for SettingChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} -> {}", self.key, self.from, self.to)
    }
}
