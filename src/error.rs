//! The front door's error: what happened, where, why, and what to do about it.

use std::path::PathBuf;

/// Anything that can stop a run from being created, opened or driven.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be used.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The settings are wrong.
    #[error(transparent)]
    Config(#[from] crate::config::ConfigError),
    /// The log failed.
    #[error(transparent)]
    Log(#[from] crate::log::LogError),
    /// A blob failed.
    #[error(transparent)]
    Blob(#[from] crate::blob::BlobError),
    /// The model failed.
    #[error(transparent)]
    Model(#[from] crate::lm::error::LmError),
    /// A prompt file is not what it should be.
    #[error(transparent)]
    Prompts(#[from] crate::prompts::PromptsError),
    /// A rubric failed.
    #[error(transparent)]
    Rubric(#[from] crate::rubric::RubricError),
    /// A stage's tools failed.
    #[error(transparent)]
    Stage(#[from] crate::stage::StageError),
    /// The folder holds no run.
    #[error("{0} holds no run. Create one: gradus init {0} --model MODEL --prompts FILE")]
    NoRun(PathBuf),
    /// The folder holds a run already.
    #[error("{0} holds a run already. Go on with it: gradus run {0}")]
    RunExists(PathBuf),
    /// The request makes no sense for this run.
    #[error("{0}")]
    Usage(String),
}

impl Error {
    /// An I/O error with its path.
    pub fn io(path: impl Into<PathBuf>, source: std::io::Error) -> Error {
        Error::Io { path: path.into(), source }
    }

    /// The exit code of a command that ends with this error: 2 for what the user can put right,
    /// 1 for the rest.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Config(_)
            | Error::Prompts(_)
            | Error::NoRun(_)
            | Error::RunExists(_)
            | Error::Usage(_) => 2,
            _ => 1,
        }
    }
}
