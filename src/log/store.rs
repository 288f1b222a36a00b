//! The second copy: a sled 0.34.7 database with every line by offset, the task keys and the
//! cursors. It answers all questions; it is never the only place that has something, so it may be
//! written late, and set aside and made again from the journal when it is damaged.
//!
//! sled is never used bare: it panics on damaged pages (here every call is caught), its `open` may
//! hang (here it has a thread and a time limit), un-flushed writes grow its memory without bound
//! and concurrent `flush_async` can deadlock (here one thread writes, and flushes each group).

use super::faults::{Point, pass};
use super::record::LineHash;
use super::walk::Entry;
use crate::domain::{Offset, TaskKey};
use crossbeam_channel::bounded;
use sled::transaction::{ConflictableTransactionError, TransactionError, Transactional};
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const OPEN_PATIENCE: Duration = Duration::from_secs(30);
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
const CACHE_BYTES: u64 = 32 << 20;

/// Why the store gave no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StoreError {
    /// The disk is full or refuses; the store itself may be sound.
    Io(String),
    /// What it holds cannot be read.
    Damaged(String),
}

impl StoreError {
    pub fn reason(&self) -> &str {
        match self {
            StoreError::Io(reason) | StoreError::Damaged(reason) => reason,
        }
    }
}

impl From<sled::Error> for StoreError {
    fn from(error: sled::Error) -> StoreError {
        match error {
            sled::Error::Io(error) => StoreError::Io(error.to_string()),
            other => StoreError::Damaged(other.to_string()),
        }
    }
}

/// Calls sled; a panic is an answer.
fn guarded<T>(call: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(call))
        .unwrap_or_else(|_| Err(StoreError::Damaged("sled panicked".to_owned())))
}

/// The database.
pub(crate) struct Store {
    db: sled::Db,
    /// sled's `flush` ends in `sync_file_range` on Linux, which promises nothing (spacejam/sled
    /// #1351, #1452); this descriptor is for `fdatasync`.
    data: File,
    log: sled::Tree,
    keys: sled::Tree,
    cursors: sled::Tree,
}

fn offset_of(bytes: &[u8]) -> Result<Offset, StoreError> {
    let bytes = bytes.try_into();
    let bytes = bytes.map_err(|_| StoreError::Damaged("an offset is not 8 bytes".to_owned()))?;
    Ok(Offset(u64::from_be_bytes(bytes)))
}

/// Opens sled. Its threads may hold the lock of a database that this process just closed for a
/// moment longer; other processes are kept out by our own lock.
fn open_sled(path: &Path) -> Result<sled::Db, StoreError> {
    let config = sled::Config::new().path(path).flush_every_ms(None).cache_capacity(CACHE_BYTES);
    let until = Instant::now() + LOCK_PATIENCE;
    loop {
        match config.open() {
            Err(sled::Error::Io(error)) if error.to_string().contains("could not acquire lock") => {
                if Instant::now() > until {
                    return Err(StoreError::Damaged(error.to_string()));
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            opened => return Ok(opened?),
        }
    }
}

fn open_here(path: &Path) -> Result<Store, StoreError> {
    let db = open_sled(path)?;
    let data = File::open(path.join("db")).map_err(|error| StoreError::Io(error.to_string()))?;
    let (log, keys, cursors) =
        (db.open_tree("log")?, db.open_tree("keys")?, db.open_tree("cursors")?);
    let store = Store { db, data, log, keys, cursors };
    store.last()?;
    Ok(store)
}

impl Store {
    /// Opens or creates the database in the folder `path`.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is changed then.
    pub fn open(path: &Path) -> Result<Store, StoreError> {
        let (send, opened) = bounded(1);
        let inner = path.to_owned();
        let opener = move || {
            let _ = send.send(guarded(|| open_here(&inner)));
        };
        std::thread::Builder::new()
            .name("gradus-log-open".into())
            .spawn(opener)
            .map_err(|error| StoreError::Io(error.to_string()))?;
        opened
            .recv_timeout(OPEN_PATIENCE)
            .unwrap_or_else(|_| Err(StoreError::Damaged("it did not open within 30 s".to_owned())))
    }

    /// The last record: its offset and the hash of its line.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn last(&self) -> Result<Option<(Offset, LineHash)>, StoreError> {
        guarded(|| {
            let Some((key, line)) = self.log.last()? else { return Ok(None) };
            Ok(Some((offset_of(&key)?, *blake3::hash(&line).as_bytes())))
        })
    }

    /// The first unwritten offset.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn tail(&self) -> Result<Offset, StoreError> {
        Ok(self.last()?.map_or(Offset(0), |(last, _)| Offset(last.0 + 1)))
    }

    /// Writes entries in order, all or none, and flushes them out of memory. They need not be on
    /// the disk afterwards.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn apply(&self, entries: &[Entry]) -> Result<(), StoreError> {
        pass(Point::StoreApply).map_err(|error| StoreError::Io(error.to_string()))?;
        guarded(|| {
            let trees = (&self.log, &self.keys, &self.cursors);
            let result: Result<(), TransactionError<()>> =
                trees.transaction(|(log, keys, cursors)| {
                    let mut before = None;
                    for entry in entries {
                        let at = entry.offset.0.to_be_bytes();
                        log.insert(&at, &*entry.line)?;
                        // All records of a batch name its key; the first is where it was taken.
                        let key = entry.key.as_ref();
                        if let Some(new) = key.filter(|key| before != Some(*key))
                            && keys.get(new.as_str())?.is_none()
                        {
                            keys.insert(new.as_str(), &at)?;
                        }
                        before = key;
                        if let Some((name, at)) = &entry.cursor {
                            cursors.insert(name.as_str(), &at.0.to_be_bytes())?;
                        }
                    }
                    Ok::<(), ConflictableTransactionError<()>>(())
                });
            match result {
                Ok(()) => Ok(()),
                Err(TransactionError::Storage(error)) => Err(error.into()),
                Err(TransactionError::Abort(())) => Ok(()),
            }
        })?;
        pass(Point::StoreFlush).map_err(|error| StoreError::Io(error.to_string()))?;
        guarded(|| self.db.flush().map(|_| ()).map_err(StoreError::from))
    }

    /// Makes everything that was applied durable.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn sync(&self) -> Result<(), StoreError> {
        guarded(|| {
            self.db.flush()?;
            self.data.sync_data().map_err(|error| StoreError::Io(error.to_string()))
        })
    }

    /// The lines from `from` up to `to`, without gaps.
    ///
    /// # Errors
    /// [`StoreError`], also when one is missing.
    pub fn lines(&self, from: Offset, to: Offset) -> Result<Vec<sled::IVec>, StoreError> {
        guarded(|| {
            let mut lines = Vec::with_capacity((to.0 - from.0) as usize);
            for entry in self.log.range(from.0.to_be_bytes()..to.0.to_be_bytes()) {
                let (key, line) = entry?;
                let expected = from.0 + lines.len() as u64;
                if offset_of(&key)?.0 != expected {
                    return Err(StoreError::Damaged(format!("record {expected} is missing")));
                }
                lines.push(line);
            }
            match lines.len() as u64 == to.0 - from.0 {
                true => Ok(lines),
                false => Err(StoreError::Damaged(format!("records below {to} are missing"))),
            }
        })
    }

    /// Where a task key was taken.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn key(&self, key: &TaskKey) -> Result<Option<Offset>, StoreError> {
        guarded(|| self.keys.get(key.as_str())?.map(|at| offset_of(&at)).transpose())
    }

    /// A named consumer's next offset.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn cursor(&self, name: &str) -> Result<Option<Offset>, StoreError> {
        guarded(|| self.cursors.get(name)?.map(|at| offset_of(&at)).transpose())
    }
}

/// Renames the database out of the way, keeping it; the name it has now.
///
/// # Errors
/// What the file system says.
pub(crate) fn set_aside(path: &Path) -> std::io::Result<PathBuf> {
    for n in 1.. {
        let aside = path.with_extension(format!("damaged-{n}"));
        if !aside.exists() {
            std::fs::rename(path, &aside)?;
            return Ok(aside);
        }
    }
    Err(std::io::Error::other("no name left"))
}
