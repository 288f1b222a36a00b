//! Settings by group, each said once: what it means, its type, what it is by default, and what it may
//! be where it is a number. A new one is a line here, and whoever reads it. `gradus config` and the page
//! of settings are made of this ([`super::describe`]).

use super::describe::{Declaration, ValueKind, attributes, key, kind_of, words_of};
use super::span::{Span, above_zero, not_negative, within};
use super::{
    Brought, DeviceChoice, Dtype, EngineConfig, GateMode, IntakeMode, JudgeSource, KeepCheckpoints,
    LossType, OnFailure, OnNoSignal, PairRule, ReadoutMode, ReferenceRule, Schedule, Trial, When,
};
use crate::domain::plan::{OnAlarm, PromptReuse};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Characters of a conversation.
const CHARACTERS_MAX: u32 = 10_000_000;
/// Iterations of a run.
pub(super) const ITERATIONS_MAX: u32 = 100_000;
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
/// What `judge.comparisons_max` is by default.
const COMPARISONS_MAX: u32 = 256;
/// Layers that an adapter lies on by default: all linear ones of a block.
const LAYERS: [&str; 7] =
    ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

/// Declares groups of settings: `Group at "path" { name: type = default, what it may be; }`, and after `=>`
/// what a group holds that is no setting.
macro_rules! settings {
    ($(
        $(#[doc = $about:literal])*
        $group:ident at $path:literal {
            $(
                $(#[doc = $doc:literal])*
                $(#[serde($($attribute:tt)*)])*
                $name:ident: $kind:ty = $default:expr $(, $span:expr)?;
            )+
            $(=> $(#[$meta:meta])* $other:ident: $other_kind:ty;)*
        }
    )+) => {
        $(
            $(#[doc = $about])*
            #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
            #[serde(deny_unknown_fields, default)]
            pub struct $group {
                $(
                    $(#[doc = $doc])*
                    $(#[serde($($attribute)*)])*
                    pub $name: $kind,
                )+
                $($(#[$meta])* pub $other: $other_kind,)*
            }

            impl Default for $group {
                fn default() -> Self {
                    $group {
                        $($name: $default,)+
                        $($other: Default::default(),)*
                    }
                }
            }

            impl $group {
                /// Its numbers: key, value, what it may be.
                pub(super) fn numbers(&self) -> Vec<(&'static str, f64, Span)> {
                    vec![$($((
                        key(concat!($path, ".", stringify!($name))),
                        f64::from(self.$name),
                        $span,
                    ),)?)+]
                }

                fn declared(all: &mut Vec<Declaration>) {
                    all.push(Declaration {
                        key: $path,
                        about: words_of(&[$($about),*]),
                        kind: ValueKind::Group,
                        default: serde_json::Value::Null,
                        span: None,
                        old_names: Vec::new(),
                        of_old: false,
                    });
                    $({
                        let (old_names, of_old) =
                            attributes(&[$(stringify!($($attribute)*)),*]);
                        let default: $kind = $default;
                        let span: &[Span] = &[$($span)?];
                        all.push(Declaration {
                            key: key(concat!($path, ".", stringify!($name))),
                            about: words_of(&[$($doc),*]),
                            kind: kind_of::<$kind>(),
                            default: serde_json::to_value(&default).unwrap_or_default(),
                            span: span.first().copied(),
                            old_names,
                            of_old,
                        });
                    })+
                }
            }
        )+

        /// Every setting and group, group after group.
        pub(super) fn declarations() -> Vec<Declaration> {
            let mut all = Vec::new();
            $($group::declared(&mut all);)+
            all
        }
    };
}

settings! {
    /// All settings of a run.
    Config at "" {
        /// Root of all randomness. It cannot change once a run has begun.
        seed: u64 = 1;
        /// Iterations in all, the supervised one included.
        iterations: u32 = 3, within(1, ITERATIONS_MAX);
        /// What to do after an iteration that failed: wait for somebody, or go on with the policy from
        /// before.
        on_failure: OnFailure = OnFailure::Stop;
        /// What computes: auto, cpu, cuda or cuda:N. The machine's business and not the run's: it may be
        /// another at every start, and no task's key knows of it.
        device: DeviceChoice = DeviceChoice::Auto;
        /// What a GPU computes with; the machine's business too. The CPU has f32 always.
        dtype: Dtype = Dtype::Bf16;
        /// Where prompts come from.
        prompts: PromptsConfig = PromptsConfig::default();
        /// Models beside the run's own, by the names that `sampling.engine` and `judge.engine` call them.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        engines: BTreeMap<String, EngineConfig> = BTreeMap::new();
        /// How completions are drawn.
        sampling: SamplingConfig = SamplingConfig::default();
        /// How completions are judged.
        judge: JudgeConfig = JudgeConfig::default();
        /// How pairs are chosen.
        pairs: PairsConfig = PairsConfig::default();
        /// How weights move.
        train: TrainConfig = TrainConfig::default();
        /// How checkpoints are measured.
        evaluate: EvaluateConfig = EvaluateConfig::default();
        /// How rubrics come and go.
        rubrics: RubricsConfig = RubricsConfig::default();
        /// What of chats becomes prompts, where the run is served.
        #[serde(skip_serializing_if = "IntakeConfig::is_off")]
        intake: IntakeConfig = IntakeConfig::default();
        /// What happens to tasks that fail or freeze.
        supervision: SupervisionConfig = SupervisionConfig::default();
        /// What a run may take of the disk.
        storage: StorageConfig = StorageConfig::default();
        => /// What a runtime was given and found beside the settings.
        #[serde(skip)]
        brought: Brought;
    }

    /// Where prompts come from.
    PromptsConfig at "prompts" {
        /// Prompts answered in an iteration.
        per_iteration: u32 = 1000, within(1, PROMPTS_MAX);
        /// An iteration is opened once so many wait; until then the run waits, at no cost. 0: it is opened
        /// with what there is, and a run without any ends.
        #[serde(skip_serializing_if = "waits_for_nothing")]
        wait_for: u32 = 0, within(0, PROMPTS_MAX);
        /// Whether the policy writes new ones when too few wait.
        generate: bool = false;
        /// What an iteration does that finds fewer new prompts than it answers, once no more are written:
        /// it answers those alone, or it takes prompts again that earlier iterations answered, drawn by
        /// the run's seed, to fill up.
        #[serde(skip_serializing_if = "PromptReuse::is_never")]
        reuse: PromptReuse = PromptReuse::Never;
        /// What chose the demo's way of asking for prompts before the host brought it; read from files of
        /// old.
        #[serde(default, skip_serializing)]
        writer: Option<String> = None;
        /// Demonstrations it is shown.
        shots: u32 = 8, within(0, FEW_MAX);
        /// Draws in a round of writing.
        draws_per_round: u32 = 32, within(1, BATCH_MAX);
        /// Rounds of writing in an iteration.
        rounds_max: u32 = 50, within(0, PASSES_MAX);
        /// Temperature of writing; 0 takes the likeliest token.
        temperature: f64 = 0.6, within(0, 10);
        /// Nucleus of writing: the likeliest tokens, as many as have so much probability together.
        top_p: f64 = 0.9, above_zero(1.0);
        /// Bound on a draw, tokens.
        max_new_tokens: u32 = 96, within(1, TOKENS_MAX);
        /// Prompts of the file that are kept for evaluation. Changed later: raised, given prompts that
        /// nothing was trained on are held out too; lowered, fewer are measured on, and what was held
        /// out stays out of training.
        held_out: u32 = 64, within(0, PROMPTS_MAX);
    }

    /// How completions are drawn.
    SamplingConfig at "sampling" {
        /// Who answers: a name under `engines`; none: the run's own policy. What another model says is
        /// trained on as the policy's tokenizer spells it.
        #[serde(skip_serializing_if = "Option::is_none")]
        engine: Option<String> = None;
        /// Completions per prompt (N; what GRPO calls num_generations).
        #[serde(alias = "num_generations")]
        candidates: u32 = 4, within(2, FEW_MAX); // A pair needs two.
        /// Temperature; 0 takes the likeliest token.
        temperature: f64 = 0.7, within(0, 10);
        /// Nucleus: the likeliest tokens, as many as have so much probability together.
        top_p: f64 = 0.9, above_zero(1.0);
        /// Bound on a completion, tokens.
        max_new_tokens: u32 = 512, within(1, TOKENS_MAX);
        /// Prompts of one task: what a crash can cost.
        batch_prompts: u32 = 16, within(1, BATCH_MAX);
        /// Bits of a weight as whoever draws or judges reads it: 32, or 8, in less memory and not
        /// quite the same (docs/performance.md). Training and the reference always read 32.
        #[serde(skip_serializing_if = "are_all_bits")]
        weight_bits: u32 = 32;
    }

    /// How completions are judged.
    JudgeConfig at "judge" {
        /// Who judges: a name under `engines`; none: the run's own policy.
        #[serde(skip_serializing_if = "Option::is_none")]
        engine: Option<String> = None;
        /// Judgments per completion (k).
        samples: u32 = 3, within(1, FEW_MAX);
        /// Temperature; 0 takes the likeliest token.
        temperature: f64 = 0.7, within(0, 10);
        /// Nucleus: the likeliest tokens, as many as have so much probability together.
        top_p: f64 = 0.9, above_zero(1.0);
        /// Bound on a judgment, tokens; the rubric may ask for less.
        max_new_tokens: u32 = 256, within(1, TOKENS_MAX);
        /// How a judgment becomes a number.
        readout: ReadoutMode = ReadoutMode::Expected;
        /// Where scores come from.
        source: JudgeSource = JudgeSource::Model;
        /// Prompts of an iteration to which bad answers, bare and with a forged verdict, are judged
        /// too; 0 is none.
        probes: u32 = 4, within(0, PROBES_MAX);
        /// With as many more at a time, up to so many, while these do not say whether forging pays.
        probes_max: u32 = 16, within(0, PASSES_MAX);
        /// Share of the rubric's scale by which forged verdicts may raise bad answers.
        forgery_gain_max: f64 = 0.1, within(0, 1);
        /// Under a rubric that compares: groups of a prompt's answers that are shown at most. With more,
        /// every answer is in equally many of those that are.
        #[serde(skip_serializing_if = "is_the_usual_bound")]
        comparisons_max: u32 = COMPARISONS_MAX, within(1, BATCH_MAX);
    }

    /// How pairs are chosen.
    PairsConfig at "pairs" {
        /// Which two of a prompt's answers.
        rule: PairRule = PairRule::BestWorst;
        /// Best minus worst must exceed this.
        min_gap: f64 = 0.0, within(0, FACTOR_MAX);
        /// And this many standard errors of that difference, over the judge's samples of either; 0: the
        /// samples' noise is not looked at (the paper).
        noise: f64 = 1.0, within(0, FACTOR_MAX);
        /// Fewer pairs than this are not trained on.
        min_pairs: u32 = 16, within(0, PROMPTS_MAX);
        /// Length control rho of Meta-Rewarding; 0 is the paper's plain rule.
        length_control: f64 = 0.0, within(0, 1);
        /// Whether completions that were cut off may not compete.
        require_ended: bool = true;
        /// What to do after an iteration with too few pairs, or with a judge that can be fooled.
        on_no_signal: OnNoSignal = OnNoSignal::Continue;
    }

    /// How weights move.
    TrainConfig at "train" {
        /// The supervised iteration.
        sft: SftConfig = SftConfig::default();
        /// The preference iterations.
        dpo: DpoConfig = DpoConfig::default();
        /// Train a LoRA adapter instead of all weights. It may change between iterations: an adapter that
        /// does not fit any more is merged into the weights below it.
        use_peft: bool = false;
        /// Rank of the adapter.
        lora_r: u32 = 16, within(1, RANK_MAX);
        /// The adapter's term is scaled by alpha / r.
        lora_alpha: f64 = 32.0, above_zero(FACTOR_MAX);
        /// Layers that get one.
        lora_target_modules: Vec<String> = LAYERS.map(str::to_owned).to_vec();
        /// Steps between checkpoints: what a crash can cost.
        #[serde(alias = "segment_steps")]
        save_steps: u32 = 20, within(1, STEPS_MAX);
        /// Threads that compute; part of what makes a run reproducible.
        threads: u32 = 2, within(1, FEW_MAX);
        /// Compute activations again on the way back instead of keeping them: slower, in less memory.
        gradient_checkpointing: bool = false;
        /// Which checkpoints of an iteration stay on the disk: what resuming needs, or every one.
        keep_checkpoints: KeepCheckpoints = KeepCheckpoints::Newest;
    }

    /// The supervised iteration.
    SftConfig at "train.sft" {
        /// Peak learning rate.
        learning_rate: f64 = 5.5e-6, above_zero(f64::MAX);
        /// Rows of a step, however few of them fit into memory at once.
        #[serde(alias = "train_batch_size")]
        per_device_train_batch_size: u32 = 16, within(1, BATCH_MAX);
        /// Passes over the rows.
        num_train_epochs: u32 = 1, within(1, PASSES_MAX);
        /// Steps of linear warm-up.
        warmup_steps: u32 = 0, within(0, u32::MAX); // Longer than what it warms up: it rises to the end.
        /// Shape after warm-up.
        lr_scheduler_type: Schedule = Schedule::Cosine;
        /// Last learning rate as a share of the peak.
        #[serde(alias = "final_ratio")]
        min_lr_rate: f64 = 0.2, within(0, 1);
        /// Decoupled weight decay.
        weight_decay: f64 = 0.0, within(0, FACTOR_MAX);
        /// Gradient clipping; 0 is none.
        max_grad_norm: f64 = 1.0, not_negative();
    }

    /// The preference iterations.
    DpoConfig at "train.dpo" {
        /// Strength of the pull to the reference.
        beta: f64 = 0.1, above_zero(FACTOR_MAX);
        /// The loss of a pair: DPO's own, robust DPO's, IPO's or SLiC's.
        loss_type: LossType = LossType::Sigmoid;
        /// cDPO's epsilon: how often a pair is thought to be the wrong way round.
        label_smoothing: f64 = 0.0, within(0, 1);
        /// What the policy is held against.
        reference: ReferenceRule = ReferenceRule::Previous;
        /// `reference: ema`: what the mean so far counts for beside the newest policy.
        reference_decay: f64 = 0.9, within(0, 1);
        /// Weight of the NLL of the chosen completion, per token.
        #[serde(alias = "rpo_alpha")]
        nll_weight: f64 = 0.0, within(0, FACTOR_MAX);
        /// Weight of rehearsed seed rows.
        rehearsal_weight: f64 = 0.0, within(0, FACTOR_MAX);
        /// Peak learning rate.
        learning_rate: f64 = 1e-6, above_zero(f64::MAX);
        /// Pairs of a step, however few of them fit into memory at once.
        #[serde(alias = "train_batch_size")]
        per_device_train_batch_size: u32 = 16, within(1, BATCH_MAX);
        /// Passes over the pairs.
        num_train_epochs: u32 = 1, within(1, PASSES_MAX);
        /// Steps of linear warm-up.
        warmup_steps: u32 = 0, within(0, u32::MAX); // Longer than what it warms up: it rises to the end.
        /// Shape after warm-up.
        lr_scheduler_type: Schedule = Schedule::Cosine;
        /// Last learning rate as a share of the peak.
        #[serde(alias = "final_ratio")]
        min_lr_rate: f64 = 0.1, within(0, 1);
        /// Decoupled weight decay.
        weight_decay: f64 = 0.0, within(0, FACTOR_MAX);
        /// Gradient clipping; 0 is none.
        max_grad_norm: f64 = 1.0, not_negative();
    }

    /// How checkpoints are measured.
    EvaluateConfig at "evaluate" {
        /// Held-out prompts answered.
        prompts: u32 = 64, within(0, PROMPTS_MAX);
        /// Held-out prompts whose four base answers are judged, where an oracle knows the truth.
        judge_prompts: u32 = 80, within(0, PROMPTS_MAX);
        /// Temperature of held-out answers.
        temperature: f64 = 0.7, within(0, 10);
        /// Nucleus of held-out answers.
        top_p: f64 = 0.9, above_zero(1.0);
        /// Installed rubrics (name, `name@version`, or the beginning of a hash) under which the policies
        /// are compared, each with the same weight, so that a loop is not measured by what trained it.
        /// None: those that judge the iteration.
        rubrics: Vec<String> = Vec::new();
        /// What to do when an iteration looks like a loop going wrong (docs/evaluation.md, alarms): tell
        /// it, or wait for somebody.
        #[serde(skip_serializing_if = "OnAlarm::is_tell")]
        on_alarm: OnAlarm = OnAlarm::Tell;
        /// When a checkpoint passes.
        gate: GateConfig = GateConfig::default();
    }

    /// When a checkpoint passes.
    GateConfig at "evaluate.gate" {
        /// How strict: `paper` always passes, `not_worse` when it is surely not worse by more than the
        /// margin, `better` when it is surely better.
        mode: GateMode = GateMode::NotWorse;
        /// `not_worse`: the win rate against the previous policy, ties half, must surely be above 0.5
        /// less this.
        margin: f64 = 0.1, within(0.0, 0.5);
        /// Answers that are longer than the previous policy's by more than this share of them cannot be
        /// called better.
        length_growth_max: f64 = 0.5, not_negative();
        /// Of old: what the mean win rate had to reach. Read, so that files of old can be; 0.5, which
        /// was the default, changes nothing, and no other value is taken.
        #[serde(skip_serializing)]
        min_win_rate: Option<f64> = None;
    }

    /// How rubrics come and go.
    RubricsConfig at "rubrics" {
        /// Of a rubric that takes another's place, so many first prompts are looked at before any of
        /// its pairs is made. 0: none.
        trial_prompts: u32 = Trial::default().prompts, within(0, Trial::PROMPTS_MAX);
        /// From then on so many of its last prompts are looked at, as long as it judges. 0: none.
        watch_prompts: u32 = Trial::default().watch, within(0, Trial::PROMPTS_MAX);
        /// Share of their judgments that may be without a score; with more, the rubrics before it come
        /// back.
        unparsed_max: f64 = Trial::default().unparsed_max, within(0, 1);
        /// Mean probability that the judge must put on the words of the rubric's scores, where they
        /// are read; with less, the rubrics before it come back. 0: any.
        mass_min: f64 = Trial::default().mass_min, within(0, 1);
        /// What `trial_prompts` was before it counted prompts; read from files of old.
        #[serde(default, skip_serializing)]
        trial_judgments: Option<u32> = None;
        /// A folder, from the run's own: a component that appears there is installed, and a new version
        /// of a rubric that judges takes its place. Empty: none.
        watch: String = "watch".to_owned();
        /// From when on such a version judges.
        watch_when: When = When::NextIteration;
    }

    /// What of chats becomes prompts, where the run is served. A request that says `store: false` is never
    /// taken.
    IntakeConfig at "intake" {
        /// Whether chats are taken in: off, or prompts (what a person's last turn asks is answered and
        /// learned from, with the turns before it).
        mode: IntakeMode = IntakeMode::Off;
        /// Share of them that are taken; the same chat always is or is not.
        share: f64 = 1.0, within(0, 1);
        /// A tag that they have, by which rubrics can be for them. Empty: none.
        tag: String = "chat".to_owned();
        /// Regular expressions: what they find is taken out before anything is stored.
        redact: Vec<String> = Vec::new();
        /// Chats with more characters are left out.
        characters_max: u32 = 8000, within(1, CHARACTERS_MAX);
    }

    /// What happens to tasks that fail or freeze.
    SupervisionConfig at "supervision" {
        /// A task that shows no sign of life for so long is given up. More than any one computation
        /// takes between two looks at its flag: a token of a batch, a micro-batch, loading the model.
        frozen_after_seconds: u32 = 900, within(1, SECONDS_MAX);
        /// With less memory than so many MiB available, of the machine or of a container's limit, no
        /// task on the model begins: it waits. 0: it never waits.
        memory_reserve_mib: u32 = 256, within(0, MIB_MAX);
    }

    /// What a run may take of the disk.
    StorageConfig at "storage" {
        /// Of finished iterations, the last so many keep everything; older ones keep what they came to.
        /// 0: all keep everything.
        keep_iterations: u32 = 0, within(0, ITERATIONS_MAX);
        /// The run waits when its folder has so many MiB. 0: no limit.
        quota_mib: u32 = 0, within(0, MIB_MAX);
        /// The run waits when the disk has less than so many MiB free.
        reserve_mib: u32 = 64, within(0, MIB_MAX);
    }
}

impl IntakeConfig {
    /// Left out of what is written then, so that runs that are not served stay what they are.
    fn is_off(&self) -> bool {
        *self == IntakeConfig::default()
    }
}

/// Left out of what is written and hashed, so that runs that know nothing of it stay what they are.
fn are_all_bits(bits: &u32) -> bool {
    *bits == 32
}

/// Left out of what is written and hashed, as `weight_bits`.
fn waits_for_nothing(prompts: &u32) -> bool {
    *prompts == 0
}

/// Left out of what is written and hashed, as `weight_bits`.
fn is_the_usual_bound(bound: &u32) -> bool {
    *bound == COMPARISONS_MAX
}
