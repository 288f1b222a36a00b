//! Why a task could not be done, and whose doing that is. A bad model output is not among these: it
//! is an event.

use crate::blob::BlobError;
use crate::codes::Code;
use crate::engine::{EngineError, code_of_model};
use crate::lm::error::LmError;
use crate::log::LogError;
use std::path::PathBuf;

/// An error of a stage.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StageError {
    /// The model room failed.
    #[error(transparent)]
    Model(LmError),
    /// The files of the run's model cannot be read. They belong to the run as its folders do, and
    /// are not what a task asks about: it waits for them.
    #[error("{}: {source}. The run waits until its model files can be read again", path.display())]
    ModelFiles {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The log failed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// An engine cannot do what is asked of it, or is not there.
    #[error(transparent)]
    Engine(EngineError),
    /// A content-addressed file failed.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// Something the records name is not where it should be.
    #[error("{0} is missing. The run's records may be damaged: check its log")]
    Missing(String),
    /// A rubric that is needed is not there, or did not do its part.
    #[error("{message}")]
    Rubric {
        /// Why, for programs.
        code: Code,
        /// Why, and what to do.
        message: String,
    },
    /// The system did not give a sandbox what it needs; another time it will.
    #[error("no room for a rubric's sandbox: {0}")]
    Sandbox(String),
    /// The task panicked; the text is the panic's.
    #[error("the code that did it panicked: {0}. That is a defect of gradus")]
    Panic(String),
}

impl From<LmError> for StageError {
    fn from(error: LmError) -> StageError {
        match error {
            LmError::Io { path, source } => StageError::ModelFiles { path, source },
            error => StageError::Model(error),
        }
    }
}

/// Whose doing an error is, which says what becomes of the task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The task's: what was asked cannot be done, data is damaged, or the code tripped. The failure
    /// is recorded, and after [`super::ATTEMPTS_MAX`] of them the task is given up.
    Task,
    /// The machine's, for now: no space, no memory, no file handle, a folder that is away. Nothing
    /// is recorded; the task waits and is tried again until it can be done.
    Shortage,
    /// The machine's, for as long as the process lives: a lost device, a log that cannot be written
    /// or read any more, another folder in the place of the run's. Nothing is recorded; the run
    /// stops, and goes on when it is started again on a machine that is mended.
    Loss,
    /// The host's, who asked to stop.
    Stopped,
}

impl StageError {
    /// What happened, as programs tell it apart.
    pub fn code(&self) -> Code {
        match self {
            StageError::Model(error) => code_of_model(error),
            StageError::ModelFiles { .. } => Code::ModelFilesAway,
            StageError::Log(error) => error.code(),
            StageError::Engine(error) => error.code(),
            StageError::Blob(error) => error.code(),
            StageError::Missing(_) => Code::RecordMissing,
            StageError::Rubric { code, .. } => *code,
            StageError::Sandbox(_) => Code::SandboxShort,
            StageError::Panic(_) => Code::TaskPanicked,
        }
    }

    /// Whether the same task may succeed later, with nothing changed: a task that is, waits.
    pub fn is_retryable(&self) -> bool {
        self.code().is_retryable()
    }

    /// Its text with its code before it, as it is recorded and shown.
    pub fn coded(&self) -> String {
        self.code().says(self)
    }

    /// Whose doing it is. What may succeed later waits ([`Cause::Shortage`]), and nothing else does.
    pub fn cause(&self) -> Cause {
        match self.code() {
            code if code.is_retryable() => Cause::Shortage,
            Code::Cancelled => Cause::Stopped,
            Code::DeviceUnavailable
            | Code::DeviceLost
            | Code::LogNotOpening
            | Code::LogFormat
            | Code::LogLost
            | Code::RecordDamaged
            | Code::LogStopped
            | Code::FolderReplaced => Cause::Loss,
            _ => Cause::Task,
        }
    }

    /// Whether what was asked failed and not the machine: the model cannot take it, a rubric is not
    /// there, or the code tripped over it. Asked again, it fails again.
    pub fn is_the_questions(&self) -> bool {
        matches!(
            self,
            StageError::Rubric { .. }
                | StageError::Panic(_)
                | StageError::Log(LogError::TooLarge { .. })
                | StageError::Model(
                    LmError::NoModel { .. }
                        | LmError::Incomplete(_)
                        | LmError::NotFinite { .. }
                        | LmError::NoTemplate
                        | LmError::Model(_)
                        | LmError::Tokenizer(_)
                        | LmError::Template(_)
                )
        )
    }
}

impl From<EngineError> for StageError {
    fn from(error: EngineError) -> StageError {
        match error {
            EngineError::Model(error) => error.into(),
            EngineError::Blob(error) => StageError::Blob(error),
            EngineError::Missing(what) => StageError::Missing(what),
            other => StageError::Engine(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Error;

    fn io(code: i32) -> StageError {
        let source = Error::from_raw_os_error(code);
        BlobError::Io { path: "blobs/ab/abcd".into(), source }.into()
    }

    #[test]
    fn what_a_machine_does_is_no_tasks_failure() {
        // Out of space, quota, handles of the process and of the system, memory; a disk's error, a
        // disk that can only be read, a network's folder that is stale, a right that is missing.
        for code in [28, 122, 24, 23, 12, 5, 30, 116, 13] {
            assert_eq!(io(code).cause(), Cause::Shortage, "{}", io(code));
        }
        let away = BlobError::Away { path: "blobs".into(), reason: "moved".into() };
        let short = LmError::DeviceMemory { wanted: 1, held: 2, why: "full".into() };
        let model = LmError::io("model/config.json", Error::from_raw_os_error(2));
        for error in [
            away.into(),
            short.into(),
            model.into(),
            LmError::Threads("EAGAIN".into()).into(),
            StageError::Sandbox("no memory".into()),
            LogError::Full { reason: "full".into() }.into(),
            LogError::Read("EIO".into()).into(),
        ] {
            let error: StageError = error;
            assert_eq!(
                (error.cause(), error.is_the_questions()),
                (Cause::Shortage, false),
                "{error}"
            );
        }
        for error in [
            BlobError::Replaced { path: "blobs".into() }.into(),
            LmError::DeviceLost("fell off the bus".into()).into(),
            LogError::Poisoned("fdatasync".into()).into(),
        ] {
            let error: StageError = error;
            assert_eq!(error.cause(), Cause::Loss, "{error}");
        }
    }

    #[test]
    fn what_is_damaged_or_cannot_be_asked_is() {
        let damaged = BlobError::Damaged { path: "blobs/ab/abcd".into(), found: "00".into() };
        for error in [
            io(2),
            damaged.into(),
            LmError::Model("too long".into()).into(),
            LmError::Training("no gradient".into()).into(),
            LogError::TooLarge { kind: "x", bytes: 2, max: 1 }.into(),
            StageError::Panic("index".into()),
            StageError::Rubric { code: Code::RubricMissing, message: "gone".into() },
        ] {
            let error: StageError = error;
            assert_eq!(error.cause(), Cause::Task, "{error}");
        }
        assert_eq!(StageError::from(LmError::Cancelled).cause(), Cause::Stopped);
    }
}
