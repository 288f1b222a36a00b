//! Why a task could not be done. A bad model output is not among these: it is an event.

use crate::blob::BlobError;
use crate::lm::error::LmError;
use crate::log::LogError;

/// An error of a stage.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StageError {
    /// The model room failed.
    #[error(transparent)]
    Model(#[from] LmError),
    /// The log failed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A blob failed.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// Something the view names is not where it should be.
    #[error("{0}; run `gradus log verify` on the folder")]
    Missing(String),
    /// The rubric of the iteration is not installed.
    #[error("{0}")]
    Rubric(String),
    /// The system did not give a sandbox what it needs; another time it will.
    #[error("no room for a sandbox: {0}")]
    Sandbox(String),
    /// The task panicked; the text is the panic's.
    #[error("panic: {0}")]
    Panic(String),
}

impl StageError {
    /// Whether there was no space to write to, or no memory for a sandbox, which is nobody's
    /// failure.
    pub fn is_no_room(&self) -> bool {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        match self {
            StageError::Blob(BlobError::Io { source, .. }) => {
                matches!(source.kind(), StorageFull | QuotaExceeded)
            }
            StageError::Log(LogError::Full { .. }) | StageError::Sandbox(_) => true,
            _ => false,
        }
    }

    /// Whether what was asked failed and not the machine: the model cannot take it, a rubric is not
    /// there, or the code tripped over it. Asked again, it fails again.
    pub fn is_the_questions(&self) -> bool {
        matches!(
            self,
            StageError::Rubric(_)
                | StageError::Panic(_)
                | StageError::Model(
                    LmError::Model(_) | LmError::Tokenizer(_) | LmError::Template(_)
                )
        )
    }

    /// Whether the host asked to stop, which is no failure.
    pub fn is_cancelled(&self) -> bool {
        matches!(self, StageError::Model(LmError::Cancelled))
    }
}
