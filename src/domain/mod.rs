//! THE WORDS. Pure types that every other room speaks: ids, prompts, completions, judgments,
//! pairs, policies, and [`event::Event`], which lists everything that can have happened.
//!
//! The words that the model layer speaks too ([`Seed`], [`Message`], [`Completion`]...) are at home in
//! [`crate::lm`] and named here again. Of ours this room knows nothing else. It does no I/O, reads no clock and draws no randomness,
//! so nothing in it can fail except decoding.
//!
//! Files, from the bottom to the top (each uses only those above it in this list):
//!
//! - `id`: names of things
//! - `text`: texts that others wrote, with an end
//! - `tuple_form`: structs that are written as JSON arrays
//! - `prompt`: what is asked
//! - `policy`: the weights that act
//! - `judgment`: one judge reply about one completion
//! - `panel`: which rubrics judge
//! - `probe`: what the judge made of bad answers
//! - `evaluation`: measured quality of a checkpoint
//! - `alarm`: what looks like a loop going wrong
//! - `plan`: what an iteration does
//! - `pair`: one training example of a preference loss
//! - `vote`: what people say of answers
//! - `event`: everything that can have happened

pub mod alarm;
pub mod evaluation;
pub mod event;
pub mod id;
pub mod judgment;
pub mod pair;
pub mod panel;
pub mod plan;
pub mod policy;
pub mod probe;
pub mod prompt;
pub mod text;
mod tuple_form;
pub mod vote;

pub use crate::lm::chat::{Message, Role};
pub use crate::lm::completion::{Completion, StopReason};
pub use crate::lm::seed::Seed;
pub use alarm::{Alarm, AlarmKind};
pub use event::Event;
pub use id::{BlobHash, Iteration, Offset, PolicyId, PromptId, RubricId, TaskKey};
pub use judgment::{
    Criterion, Judgment, JudgmentCounts, Outcome, ReadoutFacts, Remarks, RubricName, Scale,
};
pub use pair::{PairId, PreferencePair, Side, SkipReason, TextRef};
pub use panel::{Panel, PanelError, PanelMember, Trial, When};
pub use plan::IterationPlan;
pub use policy::{AdapterRef, AdapterShape, PolicyRef};
pub use probe::{Attack, Forgery, ProbeReport, ProbedAnswer};
pub use prompt::{Notes, Prompt, PromptOrigin};
pub(crate) use tuple_form::tuple_form;
