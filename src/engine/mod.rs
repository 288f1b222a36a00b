//! ENGINES: the ports behind which models are. An [`Engine`] takes a chat and gives text, a
//! [`Scorer`] says how likely given text is, a [`TrainBackend`] moves weights. The model on this
//! machine ([`local`]) is all three; a host brings others through
//! [`Builder`](crate::runtime::Builder), and settings name frozen models that answer or judge
//! beside the run's own ([`candle`]).
//!
//! What an engine can do beside answering is declared ([`Capabilities`]). Stages do without what is
//! missing where that is possible; where it is not, the run is refused before it begins
//! ([`ModelBackend::check`]).
//!
//! This room knows no stage, no log and no actor. To add an engine: its file here, its line in
//! [`open`], its kind in `config/engines.rs`, its test.

mod backend;
pub mod batcher;
pub mod candle;
pub mod error;
pub mod local;
pub mod tokens;
pub mod training;

pub use backend::{ModelBackend, PolicyTokens, text_alone};
pub use error::EngineError;
pub(crate) use error::code_of_model;
pub use training::TrainBackend;

use crate::config::{Config, EngineConfig};
use crate::domain::plan::{self, AnswersWith, NamedEngine};
use crate::domain::{BlobHash, Completion, Message, PolicyRef, Seed};
use crate::lm::cancel::Cancel;
use std::path::Path;
use std::sync::Arc;

/// What a task takes of the machine, from the least to the most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Needs {
    /// Milliseconds of bookkeeping, or a program.
    #[default]
    Nothing,
    /// An engine elsewhere: it waits, and computes nothing here.
    Network,
    /// It computes with a model on this machine, and waits for the device lease.
    Device,
}

/// What an engine can do beside answering a chat.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// BLAKE3 of the `tokenizer.json` whose ids it takes and gives; `None`: it takes and gives text
    /// alone. Where it is not the policy's, the text is encoded once with the policy's tokenizer.
    pub vocabulary: Option<BlobHash>,
    /// It says how likely each of several continuations of a reply is.
    pub choice_logps: bool,
    /// The same seed gives the same answer. Without it a task that is done again after a crash may
    /// come to other answers; only one of them is ever recorded.
    pub seeds: bool,
    /// It goes on with words that the model's turn begins with.
    pub begun_turns: bool,
}

/// What an engine is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// For people: `candle qwen3, Q4_K_M`.
    pub what: String,
    /// BLAKE3 of everything that its answers depend on, beside what it is asked and, where it takes
    /// them, the policy's weights.
    pub hash: BlobHash,
    /// Whose weights answer.
    pub answers_with: AnswersWith,
}

impl Identity {
    /// As a plan records it.
    pub fn named(self, name: &str) -> NamedEngine {
        let Identity { what, hash, answers_with } = self;
        NamedEngine { name: name.to_owned(), what, identity: hash, answers_with }
    }
}

/// Chat in, text out.
pub trait Engine: Send + Sync {
    /// What it is; it does not change while it lives.
    fn identity(&self) -> Identity;

    /// What it can do beside answering.
    fn capabilities(&self) -> Capabilities;

    /// What answering takes.
    fn needs(&self) -> Needs;

    /// A policy made ready to answer. An engine elsewhere publishes the weights here, where it does
    /// not have them; one that answers with its own ([`AnswersWith::Own`]) does not look at
    /// `policy`.
    ///
    /// # Errors
    /// When the weights are missing, damaged or do not fit, or the engine cannot be had.
    fn open(
        &self,
        policy: &PolicyRef,
        plan: &plan::PlannedEngine,
    ) -> Result<Arc<dyn ChatModel>, EngineError>;
}

/// A conversation as a model takes it, made by [`ChatModel::prepare`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Prepared {
    /// The turns before the model's.
    pub messages: Vec<Message>,
    /// Words that the model's turn begins with; mostly none.
    pub begun: String,
    /// The same as ids of the engine's vocabulary, the model's turn opened; empty where the engine
    /// takes text alone.
    pub ids: Vec<u32>,
}

/// One conversation and the answers wanted.
#[derive(Clone, Debug)]
pub struct AnswerRequest {
    /// What is answered.
    pub prompt: Arc<Prepared>,
    /// One for each answer.
    pub seeds: Vec<Seed>,
    /// How tokens are drawn.
    pub sampling: plan::PlannedSampling,
    /// Ids that end an answer beside those that always do; for engines that take ids.
    pub stop_ids: Vec<u32>,
    /// Texts that end an answer; it has neither them nor what follows.
    pub stop: Vec<String>,
}

/// A reply in the making, and ways in which it may go on.
#[derive(Clone, Debug)]
pub struct ChoiceRequest {
    /// What is replied to.
    pub prompt: Arc<Prepared>,
    /// Ids of the reply as the engine drew it; none of one that is only known as text.
    pub reply_ids: Vec<u32>,
    /// The reply's text up to the place. It begins with the text of `reply_ids` or of a part of it,
    /// and may go on where that ends.
    pub before: String,
    /// The ways.
    pub choices: Vec<String>,
}

/// A model that is ready to answer.
pub trait ChatModel: Send + Sync {
    /// A conversation as this model takes it; contents cannot forge special tokens. `begun`: words
    /// that the model's turn begins with, or none.
    ///
    /// # Errors
    /// The template refuses the turns, or the engine cannot begin a turn.
    fn prepare(&self, messages: &[Message], begun: &str) -> Result<Prepared, EngineError>;

    /// Draws every answer of every request; the ids of a completion are the engine's own, or none.
    /// The result of a request does not depend on the others. `cancel` is looked at per token, or
    /// while waiting.
    ///
    /// # Errors
    /// [`crate::lm::error::LmError::Cancelled`]; a prompt that the model has no room for; an engine
    /// that does not answer.
    fn answer(
        &self,
        requests: &[AnswerRequest],
        cancel: &Cancel,
    ) -> Result<Vec<Vec<Completion>>, EngineError>;

    /// Per request and choice the natural-log probability that the reply goes on with exactly this
    /// choice. `None` for a request whose choices the vocabulary cannot spell apart, or that the
    /// model has no room for.
    ///
    /// # Errors
    /// As [`ChatModel::answer`]; [`EngineError::Lacks`] where [`Capabilities::choice_logps`] is not
    /// declared.
    fn choice_logps(
        &self,
        requests: &[ChoiceRequest],
        cancel: &Cancel,
    ) -> Result<Vec<Option<Vec<f64>>>, EngineError>;

    /// Longest sequence, prompt and answer together, in tokens; `None` where that is not known.
    fn context_tokens_max(&self) -> Option<usize>;
}

/// Log-probabilities of given text under a policy.
pub trait Scorer: Send + Sync {
    /// What scoring takes.
    fn needs(&self) -> Needs {
        Needs::Device
    }

    /// For each (prompt ids, response ids) the summed natural-log probability of the response; ids
    /// are those of the policy's vocabulary.
    ///
    /// # Errors
    /// When the weights are missing, damaged or do not fit;
    /// [`crate::lm::error::LmError::Cancelled`].
    fn logps(
        &self,
        policy: &PolicyRef,
        sequences: &[(Vec<u32>, Vec<u32>)],
        cancel: &Cancel,
    ) -> Result<Vec<f64>, EngineError>;
}

/// Opens an engine that settings name. `base` is what relative paths begin at: the run's folder.
/// Its weights are read when it is first asked.
///
/// # Errors
/// What is missing or wrong, and what to do.
pub fn open(settings: &EngineConfig, base: &Path) -> Result<Arc<dyn Engine>, EngineError> {
    Ok(match settings {
        EngineConfig::Candle { model } => Arc::new(candle::CandleEngine::open(&base.join(model))?),
    })
}

/// Bytes that the engines hold in this machine's memory which `sampling.engine` and `judge.engine`
/// name; nothing is opened. Of files that cannot be read nothing is counted: opening refuses them.
pub fn memory_bytes(config: &Config, base: &Path) -> u64 {
    let mut used: Vec<&str> = config.engines_used().into_iter().map(|(_, name)| name).collect();
    used.sort_unstable();
    used.dedup();
    let settings = used.into_iter().filter_map(|name| config.engines.get(name));
    let bytes =
        settings.map(|EngineConfig::Candle { model }| candle::memory_bytes(&base.join(model)));
    bytes.sum()
}
