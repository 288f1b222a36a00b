//! What can go wrong with the log.

use crate::codes::Code;
use crate::domain::Offset;
use std::path::{Path, PathBuf};

/// An error of the log room.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// Another process holds the folder.
    #[error(
        "{path} is in use by {}, which works on the run. Wait for it, or stop it (SIGTERM is safe)",
        process(pid)
    )]
    InUse {
        /// The run's folder.
        path: PathBuf,
        /// The holder, as it wrote itself down; empty when that is not known.
        pid: String,
    },
    /// The store would not open.
    #[error(
        "{path}: the log does not open: {reason}. Keep a copy of the folder; nothing was changed"
    )]
    Open {
        /// The log's folder.
        path: PathBuf,
        /// What the store said.
        reason: String,
    },
    /// The folder was written by a gradus of another version.
    #[error(
        "{path} has log format {found:?}, and this version of gradus reads {ours}. Use the version that \
         wrote it (formats 1 and 2 were never released: make the run anew)"
    )]
    Format {
        /// The log's folder.
        path: PathBuf,
        /// The folder's format.
        found: String,
        /// Ours.
        ours: u32,
    },
    /// What was durable is in neither copy.
    #[error(
        "{path}: records {from} to {to} were written and are in neither the journal nor the store. \
         Restore the folder from a copy, or rebuild the log with that loss accepted: what is before \
         them is kept then, and the damaged files stay beside it"
    )]
    Lost {
        /// The log's folder.
        path: PathBuf,
        /// The first lost record.
        from: Offset,
        /// The tail that was known.
        to: Offset,
    },
    /// There is no space; nothing was written, and it may be tried again.
    #[error("no space for the log: {reason}. Free some; the run goes on by itself then")]
    Full {
        /// What the system said.
        reason: String,
    },
    /// The log was compacted, and a reader wants what was dropped.
    #[error(
        "records {from} to {to} were dropped when the log was compacted. Begin with a view of the \
         log's floor, or at record {to}"
    )]
    Dropped {
        /// The first that is not there.
        from: Offset,
        /// The next that is.
        to: Offset,
    },
    /// A record is not what was written.
    #[error(
        "record {offset} is damaged: {reason}. Check the log to see how much is, and rebuild it to take \
         what is damaged from its other copy"
    )]
    Damaged {
        /// Which.
        offset: Offset,
        /// How it shows.
        reason: String,
    },
    /// An event is larger than the log takes.
    #[error("a {kind} event has {bytes} bytes, more than {max}; large things belong in blobs")]
    TooLarge {
        /// Its kind.
        kind: &'static str,
        /// Its size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// A write failed before; the log takes nothing more until it is opened again.
    #[error(
        "the log stopped taking events after: {0}. Mend that (space, the disk, the folder), then restart"
    )]
    Poisoned(String),
    /// The store failed.
    #[error("the log cannot be read: {0}")]
    Read(String),
}

impl LogError {
    /// That the log in the folder `path` does not open.
    pub(crate) fn open(path: &Path, reason: impl ToString) -> LogError {
        LogError::Open { path: path.to_owned(), reason: reason.to_string() }
    }

    /// What happened, as programs tell it apart.
    pub fn code(&self) -> Code {
        match self {
            LogError::InUse { .. } => Code::LogInUse,
            LogError::Open { .. } => Code::LogNotOpening,
            LogError::Format { .. } => Code::LogFormat,
            LogError::Lost { .. } => Code::LogLost,
            LogError::Full { .. } => Code::NoSpace,
            LogError::Dropped { .. } => Code::LogDropped,
            LogError::Damaged { .. } => Code::RecordDamaged,
            LogError::TooLarge { .. } => Code::EventTooLarge,
            LogError::Poisoned(_) => Code::LogStopped,
            LogError::Read(_) => Code::LogUnreadable,
        }
    }

    /// Whether the same call may succeed later, with nothing in it changed.
    pub fn is_retryable(&self) -> bool {
        self.code().is_retryable()
    }
}

/// A process as people read it.
fn process(pid: &str) -> String {
    match pid {
        "" => "another process".to_owned(),
        pid => format!("process {pid}"),
    }
}
