//! Everything that can have happened: one enum, in the order of one prompt's journey.
//!
//! An event is a fact in the past tense. It carries what a reader needs and names weights and
//! other large things by the hash of their blob. The fields never change their meaning: a new
//! meaning is a new event.

use super::alarm::Alarm;
use super::evaluation::{Evaluation, HeldOutAnswer};
use super::id::{BlobHash, Iteration, Offset, PolicyId, PromptId, RubricId, TaskKey};
use super::judgment::{Judgment, RubricName};
use super::pair::{PairId, PreferencePair, SkipReason};
use super::panel::{Panel, Trial, When};
pub use super::plan::IterationKind;
use super::plan::{IterationPlan, SampleSet, SettingChange};
use super::policy::{AdapterShape, PolicyRef};
use super::probe::ProbeReport;
use super::prompt::{Message, Prompt};
use super::vote::Vote;
use crate::lm::completion::Completion;
pub use crate::lm::train::StepMetrics;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

fn is_zero(n: &u64) -> bool {
    *n == 0
}

fn is_none_left(n: &u32) -> bool {
    *n == 0
}

fn own_samples() -> String {
    SampleSet::POLICY.to_owned()
}

fn are_own_samples(set: &str) -> bool {
    set == SampleSet::POLICY
}

/// Reference log-probabilities of one pair, natural log, summed over response tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReferenceLogps {
    /// The pair.
    pub pair: PairId,
    /// Of the chosen completion.
    pub chosen: f64,
    /// Of the rejected completion.
    pub rejected: f64,
}

/// How an iteration ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum IterationOutcome {
    /// Its checkpoint became the policy.
    Promoted,
    /// The gate kept the old policy.
    Rejected {
        /// The gate's reason with its figures.
        reason: String,
    },
    /// Too little to learn from; nothing was trained.
    NoSignal {
        /// The figures.
        reason: String,
    },
    /// The judge believes what answers say about themselves; nothing was trained.
    JudgeCompromised {
        /// The figures.
        reason: String,
    },
    /// Training could not be completed.
    Failed {
        /// What happened.
        reason: String,
    },
}

/// One row of seed data: a chat and the answer to learn (IFT), or a judge's prompt and its reply
/// (EFT).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SeedRow {
    /// The turns up to the answer.
    pub messages: Vec<Message>,
    /// The answer to learn.
    pub completion: String,
}

/// Everything that can have happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[expect(missing_docs, reason = "fields are named by the glossary; variants are documented")]
#[non_exhaustive]
pub enum Event {
    /// The run was created with these settings on this base.
    RunStarted { seed: u64, base: PolicyRef, settings: serde_json::Value },
    /// The files in `DIR/model` that say how texts become tokens and what the network is like, by
    /// the BLAKE3 of their bytes: as long as the run lives they stay what they are.
    ModelPinned {
        files: BTreeMap<String, BlobHash>,
        /// In a run that began under schema 1: what its adapters are whose records do not say it,
        /// by the settings that it was gone on with.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        adapters_of_old: Option<AdapterShape>,
    },
    /// `gradus.yaml` is another than it was. What follows from it counts from the next plan on.
    SettingsChanged { changes: Vec<SettingChange> },
    /// A rubric passed validation; it is not yet used.
    RubricInstalled { rubric: RubricId, name: String, version: String },
    /// These rubrics judge from here on.
    RubricActivated {
        #[serde(rename = "rubric")]
        panel: Panel,
        #[serde(default, skip_serializing_if = "When::is_next_iteration")]
        when: When,
        /// Of rubrics that did not judge before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        trial: Option<Trial>,
    },
    /// These judge beside the panel from here on, and count for nothing.
    ShadowsSet { rubrics: Vec<RubricId> },
    /// A component in the watched folder is not used.
    RubricRefused { file: String, reason: String },
    /// A rubric proved bad at work, or somebody said so: the panel before it judges again, the open
    /// iteration too, and what the bad one judged there counts for nothing. It is not activated
    /// again.
    RubricRolledBack {
        rubric: RubricId,
        back_to: Panel,
        reason: String,
        /// Every rubric whose judgments in the open iteration count for nothing from here on, with
        /// the pairs that were formed from them and what was trained on those. Not in records of
        /// old, where pairs that were formed stayed.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        taken_back: Vec<RubricId>,
    },
    /// A prompt entered the pool.
    PromptAdmitted { prompt: Prompt },
    /// `prompts.held_out` was changed to `wanted`: these given prompts, which nothing was trained on,
    /// are held out from here on, and `wanted` of all that are held out are measured on.
    PromptsHeldOut { wanted: u32, prompts: Vec<PromptId> },
    /// A generated or given prompt was refused by a filter.
    PromptRejected { text: String, reason: String },
    /// Rows for supervised fine-tuning came in (JSON lines of [`SeedRow`]).
    SeedDataAdmitted { name: String, rows: u32, blob: BlobHash },
    /// One round of prompt writing by the policy; its admitted and rejected prompts precede it.
    PromptsWritten { iteration: Iteration, round: u32, admitted: u32, rejected: u32 },
    /// The Conductor opened an iteration; what it does is decided.
    IterationStarted { iteration: Iteration, plan: Box<IterationPlan> },
    /// What schema 1 recorded of that: settings were read as they stood at every moment.
    IterationStartedUnplanned {
        iteration: Iteration,
        kind: IterationKind,
        policy: PolicyRef,
        reference: PolicyRef,
        #[serde(rename = "rubric")]
        panel: Panel,
    },
    /// An iteration that was open without a plan goes on under this one.
    PlanAdopted { iteration: Iteration, plan: Box<IterationPlan> },
    /// The iteration answers exactly these prompts, and those of its `left` next events of this
    /// kind.
    PromptsSealed {
        iteration: Iteration,
        prompts: Vec<PromptId>,
        #[serde(default, skip_serializing_if = "is_none_left")]
        left: u32,
    },
    /// A policy answered a prompt N times.
    CompletionsSampled {
        iteration: Iteration,
        prompt: PromptId,
        policy: PolicyId,
        completions: Vec<Completion>,
        /// Name of the sample set.
        #[serde(default = "own_samples", skip_serializing_if = "are_own_samples")]
        set: String,
        /// The prompt as the policy read it. Not in records of schema 1.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        prompt_ids: Vec<u32>,
    },
    /// The iteration's judge scored answers that are known to be bad. There are several rounds where
    /// the first ones do not say enough.
    JudgeProbed {
        iteration: Iteration,
        judge: PolicyId,
        rubric: RubricId,
        report: ProbeReport,
        #[serde(default, skip_serializing_if = "is_none_left")]
        round: u32,
    },
    /// All judgments of a prompt's completions, k for each.
    JudgmentsRecorded {
        iteration: Iteration,
        prompt: PromptId,
        judge: PolicyId,
        judgments: Vec<Judgment>,
        /// What each completion came to under the rubrics together; `None`: no score. Not in
        /// records of old, where it is the mean of a completion's scores.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        scores: Vec<Option<f64>>,
        /// Standard errors of these over the judge's samples; `None`: not known. Not in records of
        /// old.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        errors: Vec<Option<f64>>,
        /// Tokens of each completion. Not in records of old.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        lengths: Vec<u32>,
        /// Groups of completions that a rubric that compares was not shown, for there were too many
        /// (`judge.comparisons_max`).
        #[serde(default, skip_serializing_if = "is_zero")]
        not_compared: u64,
        /// The rubrics that asked. Not in records of old.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        rubrics: Vec<RubricName>,
    },
    /// What a shadow said of a prompt's completions. Nothing is made of it.
    ShadowJudged {
        iteration: Iteration,
        prompt: PromptId,
        judge: PolicyId,
        rubric: RubricId,
        judgments: Vec<Judgment>,
        scores: Vec<Option<f64>>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        errors: Vec<Option<f64>>,
    },
    /// A prompt gave a training pair.
    PairFormed { iteration: Iteration, pair: PreferencePair },
    /// A prompt gave none, and why.
    PairSkipped { iteration: Iteration, prompt: PromptId, reason: SkipReason },
    /// The iteration trains on exactly these pairs, and those of its `left` next events of this
    /// kind.
    PairsSealed {
        iteration: Iteration,
        pairs: Vec<PairId>,
        #[serde(default, skip_serializing_if = "is_none_left")]
        left: u32,
    },
    /// The reference's log-probabilities of sealed pairs, as many at a time as are one task, in
    /// their order.
    ReferenceScored { iteration: Iteration, reference: PolicyId, logps: Vec<ReferenceLogps> },
    /// The policy's adapter was merged into the weights below it: training begins with `merged`,
    /// which says the same.
    AdapterMerged { iteration: Iteration, policy: PolicyRef, merged: PolicyRef },
    /// The weights that the loss is held against did not exist before: they were made for this
    /// iteration.
    ReferenceMade { iteration: Iteration, policy: PolicyRef },
    /// One optimiser step, recorded together with the checkpoint that contains it.
    StepTaken { iteration: Iteration, step: u32, metrics: StepMetrics },
    /// A step with a non-finite loss or gradient changed nothing.
    StepSkipped { iteration: Iteration, step: u32, reason: String },
    /// A micro-batch of a step did not fit on the device: it was taken again in parts of at most
    /// `rows` rows. Stands before its step, which is whole.
    MemoryShort { iteration: Iteration, step: u32, rows: u32, reason: String },
    /// Too many steps in a row were skipped: those since the last checkpoint that ends well are
    /// undone, and training goes on from `step`, its end, with the learning rate times `scale`.
    TrainingRolledBack { iteration: Iteration, step: u32, scale: f64, reason: String },
    /// It happened again after the last rollback that is granted: the iteration is given up.
    TrainingDiverged { iteration: Iteration, step: u32, reason: String },
    /// Weights and optimiser state after `step` steps of `steps_total`.
    CheckpointSaved {
        iteration: Iteration,
        step: u32,
        steps_total: u32,
        policy: PolicyRef,
        optimizer: BlobHash,
    },
    /// The last checkpoint's bytes are gone or are not its own: training goes on from an earlier
    /// one, or begins again.
    CheckpointLost {
        iteration: Iteration,
        step: u32,
        blob: BlobHash,
        reason: String,
        /// The step it goes on from. Not in records of schema 1, where it was the checkpoint before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        back_to: Option<u32>,
    },
    /// The answers of the policies that are compared to a held-out prompt, and what was said of
    /// them: what an evaluation is made of, and recorded before it. What does not fit into one
    /// event follows in the next of the same prompt.
    HeldOutJudged {
        iteration: Iteration,
        prompt: PromptId,
        judge: PolicyId,
        answers: Vec<HeldOutAnswer>,
        /// Their `candidate` counts the prompt's answers, over all its events.
        judgments: Vec<Judgment>,
        /// The rubrics that asked.
        rubrics: Vec<RubricName>,
    },
    /// Held-out quality of the iteration's last checkpoint.
    EvaluationFinished { iteration: Iteration, evaluation: Evaluation },
    /// Something of the iteration looks like a loop going wrong. Stands before its end.
    AlarmRaised { iteration: Iteration, alarm: Alarm },
    /// The gate made the checkpoint the policy.
    CheckpointPromoted { iteration: Iteration, policy: PolicyRef },
    /// The gate kept the old policy.
    CheckpointRejected { iteration: Iteration, policy: PolicyRef, reason: String },
    /// The iteration is over.
    IterationFinished { iteration: Iteration, outcome: IterationOutcome },
    /// A task failed; after the third time it is not tried again.
    TaskFailed {
        stage: String,
        task: TaskKey,
        attempt: u32,
        reason: String,
        /// What was asked failed, not the machine: the model cannot take it, or who asks is not
        /// there. Not in records of old.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        questions: bool,
    },
    /// A stage failed so often in a row that it waits for the host to say go on.
    StageHalted { stage: String, reason: String },
    /// A task of several prompts failed too often: from here on each is tried alone.
    PromptsSplit { iteration: Iteration, prompts: Vec<PromptId> },
    /// A task of one prompt failed too often: the iteration goes on without it.
    PromptQuarantined { iteration: Iteration, prompt: PromptId, stage: String, task: TaskKey },
    /// Somebody chose which policy acts from here on, whatever the gate said: one from before comes
    /// back, or one that was rejected is taken. An open iteration that began with another ends.
    PolicyChosen {
        policy: PolicyRef,
        /// Whether it stays, whatever later iterations come to.
        pinned: bool,
        reason: String,
    },
    /// The run shall have so many iterations, where its settings say fewer.
    IterationsRaised { total: u32 },
    /// Somebody said what an answer is worth.
    VoteRecorded { vote: Box<Vote> },
    /// The host asked for a pause; what is computed is given up or cut at a step, and all wait.
    PauseRequested,
    /// The host asked to go on.
    ResumeRequested,
    /// Opening the log found damage and mended it, one line for each repair.
    LogRepaired { what: Vec<String> },
    /// Records before the floor were dropped, as the settings or a person wanted.
    LogCompacted { floor: Offset, dropped: u64 },
}

/// What every fold and reader wants to know of an event, whatever it says.
struct Facts {
    kind: &'static str,
    iteration: Option<Iteration>,
    by: &'static str,
    volatile: bool,
}

/// An event of the run.
fn of_run(kind: &'static str) -> Facts {
    Facts { kind, iteration: None, by: "conductor", volatile: false }
}

/// An event of an iteration, recorded by a stage.
fn by(stage: &'static str, kind: &'static str, iteration: &Iteration) -> Facts {
    Facts { kind, iteration: Some(*iteration), by: stage, volatile: false }
}

/// An event that belongs to the machine or the host.
fn volatile(facts: Facts) -> Facts {
    Facts { volatile: true, ..facts }
}

impl Event {
    /// The stable name of the kind, as in the JSON `type` field.
    pub fn kind(&self) -> &'static str {
        self.facts().kind
    }

    /// The iteration it belongs to, if it is of one.
    pub fn iteration(&self) -> Option<Iteration> {
        self.facts().iteration
    }

    /// The stage that records it, within an iteration.
    pub fn stage(&self) -> &'static str {
        self.facts().by
    }

    /// Whether it depends on the machine and the host and not on the run: a failure, lack of memory,
    /// a pause, a repair, a compaction. Such events are outside a run's digest.
    pub fn is_volatile(&self) -> bool {
        self.facts().volatile
    }

    fn facts(&self) -> Facts {
        use Event::*;
        match self {
            RunStarted { .. } => of_run("run_started"),
            ModelPinned { .. } => of_run("model_pinned"),
            SettingsChanged { .. } => of_run("settings_changed"),
            RubricInstalled { .. } => of_run("rubric_installed"),
            RubricActivated { .. } => of_run("rubric_activated"),
            ShadowsSet { .. } => of_run("shadows_set"),
            RubricRefused { .. } => of_run("rubric_refused"),
            RubricRolledBack { .. } => of_run("rubric_rolled_back"),
            PromptAdmitted { .. } => of_run("prompt_admitted"),
            PromptsHeldOut { .. } => of_run("prompts_held_out"),
            PromptRejected { .. } => of_run("prompt_rejected"),
            SeedDataAdmitted { .. } => of_run("seed_data_admitted"),
            IterationStarted { .. } => of_run("iteration_started"),
            IterationStartedUnplanned { .. } => of_run("iteration_started_unplanned"),
            PolicyChosen { .. } => of_run("policy_chosen"),
            VoteRecorded { .. } => of_run("vote_recorded"),
            IterationsRaised { .. } => volatile(of_run("iterations_raised")),
            TaskFailed { .. } => volatile(of_run("task_failed")),
            StageHalted { .. } => volatile(of_run("stage_halted")),
            PauseRequested => volatile(of_run("pause_requested")),
            ResumeRequested => volatile(of_run("resume_requested")),
            LogRepaired { .. } => volatile(of_run("log_repaired")),
            LogCompacted { .. } => volatile(of_run("log_compacted")),
            PlanAdopted { iteration: i, .. } => by("conductor", "plan_adopted", i),
            PromptsWritten { iteration: i, .. } => by("sampler", "prompts_written", i),
            PromptsSealed { iteration: i, .. } => by("conductor", "prompts_sealed", i),
            CompletionsSampled { iteration: i, .. } => by("sampler", "completions_sampled", i),
            JudgeProbed { iteration: i, .. } => by("judge", "judge_probed", i),
            JudgmentsRecorded { iteration: i, .. } => by("judge", "judgments_recorded", i),
            ShadowJudged { iteration: i, .. } => by("judge", "shadow_judged", i),
            PairFormed { iteration: i, .. } => by("pair_store", "pair_formed", i),
            PairSkipped { iteration: i, .. } => by("pair_store", "pair_skipped", i),
            PairsSealed { iteration: i, .. } => by("conductor", "pairs_sealed", i),
            ReferenceScored { iteration: i, .. } => by("trainer", "reference_scored", i),
            ReferenceMade { iteration: i, .. } => by("trainer", "reference_made", i),
            AdapterMerged { iteration: i, .. } => by("trainer", "adapter_merged", i),
            StepTaken { iteration: i, .. } => by("trainer", "step_taken", i),
            StepSkipped { iteration: i, .. } => by("trainer", "step_skipped", i),
            MemoryShort { iteration: i, .. } => volatile(by("trainer", "memory_short", i)),
            TrainingRolledBack { iteration: i, .. } => by("trainer", "training_rolled_back", i),
            TrainingDiverged { iteration: i, .. } => by("trainer", "training_diverged", i),
            CheckpointSaved { iteration: i, .. } => by("trainer", "checkpoint_saved", i),
            CheckpointLost { iteration: i, .. } => by("trainer", "checkpoint_lost", i),
            HeldOutJudged { iteration: i, .. } => by("evaluator", "held_out_judged", i),
            EvaluationFinished { iteration: i, .. } => by("evaluator", "evaluation_finished", i),
            AlarmRaised { iteration: i, .. } => by("conductor", "alarm_raised", i),
            CheckpointPromoted { iteration: i, .. } => by("conductor", "checkpoint_promoted", i),
            CheckpointRejected { iteration: i, .. } => by("conductor", "checkpoint_rejected", i),
            IterationFinished { iteration: i, .. } => by("conductor", "iteration_finished", i),
            PromptsSplit { iteration: i, .. } => by("conductor", "prompts_split", i),
            PromptQuarantined { iteration: i, .. } => by("conductor", "prompt_quarantined", i),
        }
    }
}
