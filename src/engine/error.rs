//! Why an engine could not do what it was asked.

use crate::blob::BlobError;
use crate::codes::Code;
use crate::lm::error::LmError;

/// An error of an engine, a scorer or a training backend.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The model.
    #[error(transparent)]
    Model(#[from] LmError),
    /// A blob.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// Something that is named is not where it should be.
    #[error("{0} is missing. The run's records may be damaged: check its log")]
    Missing(String),
    /// It cannot do what these settings ask of it.
    #[error("the engine {engine} {lacks}. {cure}")]
    Lacks {
        /// Which, as the settings call it.
        engine: String,
        /// What it cannot do: `gives no log-probabilities of choices, which ... asks for`.
        lacks: String,
        /// What to do.
        cure: String,
    },
    /// A plan names an engine that is not there, or has become another.
    #[error("{0}")]
    Another(String),
    /// It cannot be reached now; another time it may.
    #[error("the engine {engine} does not answer: {reason}")]
    Away {
        /// Which.
        engine: String,
        /// What was seen.
        reason: String,
    },
}

impl EngineError {
    /// What happened, as programs tell it apart.
    pub fn code(&self) -> Code {
        match self {
            EngineError::Model(error) => code_of_model(error),
            EngineError::Blob(error) => error.code(),
            EngineError::Missing(_) => Code::RecordMissing,
            EngineError::Lacks { .. } => Code::EngineLacks,
            EngineError::Another(_) => Code::EngineAnother,
            EngineError::Away { .. } => Code::EngineAway,
        }
    }

    /// Whether the same call may succeed later, with nothing in it changed.
    pub fn is_retryable(&self) -> bool {
        self.code().is_retryable()
    }
}

/// The code of a model's error. The model layer knows no codes.
pub(crate) fn code_of_model(error: &LmError) -> Code {
    match error {
        LmError::Io { source, .. } => Code::of_io(source),
        LmError::NoModel { .. } => Code::ModelNotFound,
        LmError::Incomplete(_) => Code::ModelIncomplete,
        LmError::NotFinite { .. } => Code::WeightsNotFinite,
        LmError::NoTemplate => Code::NoChatTemplate,
        LmError::Model(_) => Code::ModelUnusable,
        LmError::Config(_) => Code::ModelConfig,
        LmError::Tokenizer(_) => Code::TokenizerFailed,
        LmError::Template(_) => Code::ChatTemplateFailed,
        LmError::Tensor(_) => Code::TensorOperation,
        LmError::Training(_) => Code::TrainingRefused,
        LmError::Device { .. } => Code::DeviceUnavailable,
        LmError::DeviceMemory { .. } => Code::DeviceMemoryShort,
        LmError::DeviceLost(_) => Code::DeviceLost,
        LmError::Threads(_) => Code::NoThread,
        LmError::Cancelled => Code::Cancelled,
    }
}
