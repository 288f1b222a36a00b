//! What can go wrong with the log, and which command helps.

use crate::domain::Offset;
use std::path::{Path, PathBuf};

/// An error of the log room.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// Another process holds the folder.
    #[error(
        "GRADUS0601 {path} is in use by {}. Wait for it, or stop it (SIGTERM is safe); what it \
         is doing: gradus status {path}",
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
    /// The folder was written by another gradus.
    #[error(
        "{path} has log format {found:?}, this gradus reads {ours}. Use the gradus that wrote it (1 and 2 \
         were never released: start the run anew)"
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
        "GRADUS0602 {path}: records {from} to {to} were written and are in neither the journal nor the \
         store. Restore the folder from a copy; or keep what is before them (the damaged files stay \
         beside): gradus log rebuild --accept-loss DIR"
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
    #[error("GRADUS0603 no space for the log: {reason}. Free some; the run goes on by itself then")]
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
        "record {offset} is damaged: {reason}. How much is: gradus log verify DIR; mend it: gradus \
         log rebuild DIR"
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
}

/// A process as people read it.
fn process(pid: &str) -> String {
    match pid {
        "" => "another process".to_owned(),
        pid => format!("process {pid}"),
    }
}
