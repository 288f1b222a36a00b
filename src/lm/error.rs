//! What can go wrong with a model: files, shapes, numbers. A bad completion is not among them.

use std::path::PathBuf;

/// An error of the model room.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LmError {
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A folder or file is not a model we can use; the text says what is missing and what to do.
    #[error("{0}")]
    Model(String),
    /// `config.json` does not describe a network we know.
    #[error("model configuration: {0}")]
    Config(String),
    /// The tokenizer refused.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// The chat template refused.
    #[error("chat template: {0}")]
    Template(String),
    /// A tensor operation failed: a shape or a type.
    #[error("tensor operation: {0}")]
    Tensor(#[from] candle_core::Error),
    /// Training cannot begin or go on; the text has the figures.
    #[error("training: {0}")]
    Training(String),
    /// A device that was asked for cannot be had.
    #[error("device {device}: {why}. {advice}")]
    Device {
        /// Which.
        device: String,
        /// Why.
        why: String,
        /// What to do.
        advice: String,
    },
    /// The device has no room for what a computation needs.
    #[error("device memory: {wanted} bytes are wanted, {held} are held, and {why}")]
    DeviceMemory {
        /// Bytes that were asked for.
        wanted: u64,
        /// Bytes that gradus held then.
        held: u64,
        /// What was said.
        why: String,
    },
    /// The caller asked to stop.
    #[error("cancelled")]
    Cancelled,
}

impl LmError {
    /// An I/O error with its path.
    pub fn io(path: impl Into<PathBuf>, source: std::io::Error) -> LmError {
        LmError::Io { path: path.into(), source }
    }
}
