//! The front door's error: what happened, where, why, and what to do about it. A program tells errors
//! apart by their kind ([`Error`]) or their code ([`Code`]); a person reads the code and the message,
//! and finds cause and cure in `docs/errors.md`.

pub use crate::codes::{Code, Retry};

use crate::blob::BlobError;
use crate::config::ConfigError;
use crate::domain::PanelError;
use crate::lm::error::LmError;
use crate::log::LogError;
use crate::prompts::PromptsError;
use crate::rubric::RubricError;
use crate::stage::StageError;
use std::fmt;
use std::path::PathBuf;

/// Anything that can stop a run from being created, opened or driven. Its text begins with its code.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be used.
    Io {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The settings are wrong.
    Config(ConfigError),
    /// The log failed.
    Log(LogError),
    /// A content-addressed file failed.
    Blob(BlobError),
    /// The model failed.
    Model(LmError),
    /// A prompt file is not what it should be.
    Prompts(PromptsError),
    /// A rubric's component cannot be used.
    Rubric(RubricError),
    /// Rubrics make no panel.
    Panel(PanelError),
    /// A stage's tools failed.
    Stage(StageError),
    /// The folder holds no run.
    NoRun(PathBuf),
    /// The folder holds what was to become a run.
    Unfinished(PathBuf),
    /// The folder holds a run already.
    RunExists(PathBuf),
    /// The runtime was shut down.
    Closed,
    /// The run cannot go on by itself.
    Halted {
        /// Why, for programs.
        code: Code,
        /// Why, and what to do.
        message: String,
    },
    /// What was asked for cannot be done with this run, these files or these arguments.
    Refused {
        /// Why, for programs.
        code: Code,
        /// Why, and what to do.
        message: String,
    },
}

impl Error {
    /// An I/O error with its path.
    pub fn io(path: impl Into<PathBuf>, source: std::io::Error) -> Error {
        Error::Io { path: path.into(), source }
    }

    /// A request that cannot be met.
    pub fn refused(code: Code, message: impl Into<String>) -> Error {
        Error::Refused { code, message: message.into() }
    }

    /// A run that cannot go on by itself.
    pub fn halted(code: Code, message: impl Into<String>) -> Error {
        Error::Halted { code, message: message.into() }
    }

    /// A value of ours that could not be written as JSON, which never happens as long as gradus keeps
    /// its own rules.
    pub(crate) fn not_json(what: &str, error: &serde_json::Error) -> Error {
        Error::refused(Code::Defect, format!("{what} could not be written as JSON: {error}"))
    }

    /// What happened, as programs tell it apart.
    pub fn code(&self) -> Code {
        match self {
            Error::Io { source, .. } => Code::of_io(source),
            Error::Config(error) => error.code(),
            Error::Log(error) => error.code(),
            Error::Blob(error) => error.code(),
            Error::Model(error) => crate::engine::code_of_model(error),
            Error::Prompts(error) => error.code(),
            Error::Rubric(error) => error.code(),
            Error::Panel(error) => error.code(),
            Error::Stage(error) => error.code(),
            Error::NoRun(_) => Code::NoRun,
            Error::Unfinished(_) => Code::RunUnfinished,
            Error::RunExists(_) => Code::RunExists,
            Error::Closed => Code::RunClosed,
            Error::Halted { code, .. } | Error::Refused { code, .. } => *code,
        }
    }

    /// Whether the same call may succeed later, with nothing in it changed: when the machine or
    /// another process grants what it refused.
    pub fn is_retryable(&self) -> bool {
        self.code().is_retryable()
    }

    /// Its text without the code.
    pub fn message(&self) -> String {
        WithoutCode(self).to_string()
    }

    /// How a command ends with this error.
    pub fn exit_status(&self) -> ExitStatus {
        match self {
            Error::Config(_)
            | Error::Model(LmError::Device { .. })
            | Error::Prompts(_)
            | Error::Panel(_)
            | Error::NoRun(_)
            | Error::Unfinished(_)
            | Error::RunExists(_)
            | Error::Refused { .. } => ExitStatus::WrongInput,
            // A file that is no rubric is wrong; a machine that gives no sandbox is not.
            Error::Rubric(RubricError::Engine(_) | RubricError::Sandbox(_)) => ExitStatus::Failed,
            Error::Rubric(_) => ExitStatus::WrongInput,
            _ if self.code() == Code::LogInUse => ExitStatus::InUse,
            _ => ExitStatus::Failed,
        }
    }
}

/// An error's text without its code.
struct WithoutCode<'a>(&'a Error);

impl fmt::Display for WithoutCode<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Error::Io { path, source } => write!(f, "{}: {source}", path.display()),
            Error::Config(error) => error.fmt(f),
            Error::Log(error) => error.fmt(f),
            Error::Blob(error) => error.fmt(f),
            Error::Model(error) => error.fmt(f),
            Error::Prompts(error) => error.fmt(f),
            Error::Rubric(error) => error.fmt(f),
            Error::Panel(error) => error.fmt(f),
            Error::Stage(error) => error.fmt(f),
            Error::NoRun(dir) => {
                write!(
                    f,
                    "{} holds no run. Make one there, or name the folder of one",
                    dir.display()
                )
            }
            Error::Unfinished(dir) => write!(
                f,
                "{} holds no run but the beginning of one: making it was not finished. Make it \
                 again, which removes what is left; if that is refused, remove the folder first",
                dir.display()
            ),
            Error::RunExists(dir) => write!(
                f,
                "{} holds a run already. Go on with that one, or name another folder",
                dir.display()
            ),
            Error::Closed => {
                f.write_str("the run was closed in this process. Start it again to go on")
            }
            Error::Halted { message, .. } | Error::Refused { message, .. } => f.write_str(message),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code(), WithoutCode(self))
    }
}

impl std::error::Error for Error {
    // An error of a room is this error, not its cause: its text is not said twice.
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Config(error) => error.source(),
            Error::Log(error) => error.source(),
            Error::Blob(error) => error.source(),
            Error::Model(error) => error.source(),
            Error::Prompts(error) => error.source(),
            Error::Rubric(error) => error.source(),
            Error::Panel(error) => error.source(),
            Error::Stage(error) => error.source(),
            Error::Io { source, .. } => Some(source),
            Error::NoRun(_)
            | Error::Unfinished(_)
            | Error::RunExists(_)
            | Error::Closed
            | Error::Halted { .. }
            | Error::Refused { .. } => None,
        }
    }
}

macro_rules! from_rooms {
    ($($kind:ident($error:ty),)+) => {
        $(impl From<$error> for Error {
            fn from(error: $error) -> Error {
                Error::$kind(error)
            }
        })+
    };
}

from_rooms! {
    Config(ConfigError),
    Log(LogError),
    Blob(BlobError),
    Model(LmError),
    Prompts(PromptsError),
    Rubric(RubricError),
    Panel(PanelError),
    Stage(StageError),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_begins_with_its_code_once() {
        let used = LogError::InUse { path: "run".into(), pid: "7".into() };
        for error in [Error::from(used.clone()), Error::from(StageError::from(used))] {
            let text = error.to_string();
            assert!(text.starts_with("GRADUS0601 run is in use by process 7"), "{text}");
            assert_eq!(text.matches("GRADUS").count(), 1, "{text}");
            assert_eq!(text, error.code().says(error.message()));
            assert!(error.is_retryable());
            assert_eq!(error.exit_status(), ExitStatus::InUse);
            assert!(std::error::Error::source(&error).is_none());
        }
        let gone = Error::io("a/b", std::io::Error::from_raw_os_error(2));
        assert_eq!((gone.code(), gone.is_retryable()), (Code::FileMissing, false));
        assert!(gone.to_string().starts_with("GRADUS0702 a/b: "), "{gone}");
        let full = Error::io("a/b", std::io::Error::from_raw_os_error(28));
        assert_eq!((full.code(), full.is_retryable()), (Code::FileRefused, true));
    }
}
