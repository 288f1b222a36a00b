//! What a suite found of a policy, in a file of the run's folder that grows while it is measured: a
//! measurement that was stopped goes on, and one that is over is read. Not the log: nothing of it
//! counts for the run, and all of it can be made again.

use crate::error::{Code, Error};
use crate::runtime::{Folder, PolicyRow};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::PathBuf;

/// The rows of a policy under a suite.
pub(super) struct SuiteRecords {
    path: PathBuf,
    file: File,
}

impl SuiteRecords {
    /// Opens them; `identity` is everything that the rows depend on beside the policy.
    ///
    /// # Errors
    /// When the folder cannot be written to, or another process measures the same.
    pub fn open(
        folder: &Folder,
        (suite, identity): (&str, &blake3::Hash),
        policy: &PolicyRow,
    ) -> Result<SuiteRecords, Error> {
        let short: String = identity.to_hex().chars().take(12).collect();
        let dir = folder.path().join("suites").join(format!("{suite}-{short}"));
        std::fs::create_dir_all(&dir).map_err(|error| Error::io(&dir, error))?;
        let id: String = policy.policy.id().to_string().chars().take(12).collect();
        let path = dir.join(format!("{}-{id}.jsonl", policy.name));
        let opened = OpenOptions::new().read(true).append(true).create(true).open(&path);
        let file = opened.map_err(|error| Error::io(&path, error))?;
        match file.try_lock() {
            Ok(()) => Ok(SuiteRecords { path, file }),
            Err(TryLockError::WouldBlock) => Err(Error::refused(
                Code::SuiteInUse,
                format!("another process measures {} under {suite} at this moment", policy.name),
            )),
            Err(TryLockError::Error(error)) => Err(Error::io(&path, error)),
        }
    }

    /// What is there; a last line that was not written whole is cut off.
    ///
    /// # Errors
    /// When a line is not a row of the suite.
    pub fn rows<T: DeserializeOwned>(&mut self) -> Result<Vec<T>, Error> {
        let io = |error| Error::io(&self.path, error);
        let mut text = String::new();
        self.file.seek(SeekFrom::Start(0)).map_err(io)?;
        self.file.read_to_string(&mut text).map_err(io)?;
        let whole = text.rfind('\n').map_or(0, |at| at + 1);
        if whole < text.len() {
            self.file.set_len(whole as u64).map_err(io)?;
        }
        let row = |(at, line): (usize, &str)| {
            serde_json::from_str(line).map_err(|error| {
                Error::refused(
                    Code::SuiteUnreadable,
                    format!(
                        "{}:{} is no row of this suite: {error}. Remove the file, and it is measured \
                         again",
                        self.path.display(),
                        at + 1
                    ),
                )
            })
        };
        text.get(..whole).unwrap_or_default().lines().enumerate().map(row).collect()
    }

    /// Adds rows, durably.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn add<T: Serialize>(&mut self, rows: &[T]) -> Result<(), Error> {
        let mut lines = String::new();
        for row in rows {
            let line = serde_json::to_string(row);
            lines.push_str(&line.map_err(|error| Error::not_json("a row of a suite", &error))?);
            lines.push('\n');
        }
        let written = self.file.write_all(lines.as_bytes()).and_then(|()| self.file.sync_data());
        written.map_err(|error| Error::io(&self.path, error))
    }
}
