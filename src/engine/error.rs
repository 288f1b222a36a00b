//! Why an engine could not do what it was asked.

use crate::blob::BlobError;
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
    #[error("{0}; run `gradus log verify` on the folder")]
    Missing(String),
    /// It cannot do what these settings ask of it.
    #[error("GRADUS1001 the engine {engine} {lacks}. {cure}")]
    Lacks {
        /// Which, as the settings call it.
        engine: String,
        /// What it cannot do: `gives no log-probabilities of choices, which ... asks for`.
        lacks: String,
        /// What to do.
        cure: String,
    },
    /// A plan names an engine that is not there, or has become another.
    #[error("GRADUS1002 {0}")]
    Another(String),
    /// It cannot be reached now; another time it may.
    #[error("GRADUS1003 the engine {engine} does not answer: {reason}")]
    Away {
        /// Which.
        engine: String,
        /// What was seen.
        reason: String,
    },
}
