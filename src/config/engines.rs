//! Models beside the run's own: what `engines:` in the settings names, and what an opened runtime
//! found them to be.

use crate::domain::BlobHash;
use crate::domain::plan::{AnswersWith, NamedEngine, PlannedEngine, WriterPlan};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// An engine that settings name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum EngineConfig {
    /// A causal model of candle-transformers, frozen, on this machine's CPU.
    Candle {
        /// A Hugging Face folder with safetensors, or a GGUF file, which stays quantised; from the
        /// run's own folder.
        model: PathBuf,
    },
}

/// What a runtime was given and found beside the settings: no setting, and in no record of them.
/// Plans record it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Brought {
    /// What answers with the run's policies, where it is not the model on this machine.
    pub policy: Option<NamedEngine>,
    /// Engines by name, opened.
    pub engines: BTreeMap<String, NamedEngine>,
    /// Bytes that engines on this machine hold in its memory beside the run's own model.
    pub memory_bytes: u64,
    /// The name of the host's prompt writer.
    pub writer: Option<String>,
    /// What `prompts.writer` said in a file of old.
    pub writer_of_old: Option<String>,
}

impl Brought {
    /// What answers with the run's policies; `local` is this machine's model.
    pub(super) fn policy_engine(&self, local: PlannedEngine) -> PlannedEngine {
        self.policy.clone().map_or(local, PlannedEngine::Named)
    }

    /// The engine of a name. Of one that was not opened only the name is known: a runtime does not
    /// begin with it.
    pub(super) fn engine(&self, name: &str) -> PlannedEngine {
        PlannedEngine::Named(self.engines.get(name).cloned().unwrap_or_else(|| NamedEngine {
            name: name.to_owned(),
            what: "not opened".to_owned(),
            identity: BlobHash(String::new()),
            answers_with: AnswersWith::Own,
        }))
    }

    /// The name of the writer that plans get.
    pub(super) fn writer(&self) -> String {
        self.writer.clone().unwrap_or_else(|| WriterPlan::NUMBERED.to_owned())
    }
}
