//! The front door's error: what happened, where, why, and what to do about it.

use crate::lm::error::LmError;
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
    Model(#[from] LmError),
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
    /// The folder holds what was to become a run.
    #[error(
        "{0} holds no run but the beginning of one: making it was not finished. Give the command again \
         that began it (gradus init, gradus rejudge --into, gradus rubric taint --rebuild), which \
         removes what is left; if it is refused, remove the folder first"
    )]
    Unfinished(PathBuf),
    /// The folder holds a run already.
    #[error("{0} holds a run already. Go on with it: gradus run {0}")]
    RunExists(PathBuf),
    /// The runtime was shut down.
    #[error("the run was closed in this process. Start it again to go on")]
    Closed,
    /// The run cannot go on by itself.
    #[error("{0}")]
    Halted(String),
    /// The request makes no sense for this run.
    #[error("{0}")]
    Usage(String),
}

impl Error {
    /// An I/O error with its path.
    pub fn io(path: impl Into<PathBuf>, source: std::io::Error) -> Error {
        Error::Io { path: path.into(), source }
    }

    /// How a command ends with this error.
    pub fn exit_status(&self) -> ExitStatus {
        match self {
            Error::Config(_)
            | Error::Model(LmError::Device { .. })
            | Error::Prompts(_)
            | Error::NoRun(_)
            | Error::Unfinished(_)
            | Error::RunExists(_)
            | Error::Usage(_) => ExitStatus::WrongInput,
            Error::Log(crate::log::LogError::InUse { .. }) => ExitStatus::InUse,
            _ => ExitStatus::Failed,
        }
    }
}

/// How a process ended, for whoever started it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// All was done.
    Done,
    /// It failed; starting it again may help.
    Failed,
    /// Arguments, settings or files are wrong; starting it again will not help.
    WrongInput,
    /// Another process works on the run.
    InUse,
    /// A signal stopped it at a safe point.
    Stopped,
}

impl ExitStatus {
    /// The number that the process ends with.
    pub fn code(self) -> u8 {
        match self {
            ExitStatus::Done => 0,
            ExitStatus::Failed => 1,
            ExitStatus::WrongInput => 2,
            ExitStatus::InUse => 3,
            ExitStatus::Stopped => 130,
        }
    }
}
