//! The second copy: a sled 0.34.7 database with the lines (in chunks, each under the offset of its
//! first), the task keys and the cursors. It answers all questions; it is never the only place that has something, so it may be
//! written late, and set aside and made again from the journal when it is damaged.
//!
//! sled is never used bare: it panics on damaged pages (here every call is caught), its `open` may
//! hang (here it has a thread and a time limit), un-flushed writes grow its memory without bound
//! and concurrent `flush_async` can deadlock (here one thread writes, and flushes each group).

use super::block::Block;
use super::faults::{Point, pass};
use super::record::LineHash;
use crate::domain::{Offset, TaskKey};
use crossbeam_channel::bounded;
use sled::transaction::{ConflictableTransactionError, TransactionError, Transactional};
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

const OPEN_PATIENCE: Duration = Duration::from_secs(30);
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
const CACHE_BYTES: u64 = 32 << 20;
/// A chunk takes no further line from here on. sled's price is by the value more than by the byte;
/// but it writes whole leaves of up to 17 values, and a leaf of over 128 KiB to a file of its own.
const CHUNK_BYTES: usize = 7 << 10;

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
            let Some((key, chunk)) = self.log.last()? else { return Ok(None) };
            let (mut at, mut last) = (offset_of(&key)?.0, &*chunk);
            for (n, line) in chunk.split(|byte| *byte == b'\n').enumerate() {
                (at, last) = (offset_of(&key)?.0 + n as u64, line);
            }
            Ok(Some((Offset(at), *blake3::hash(last).as_bytes())))
        })
    }

    /// The first unwritten offset.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn tail(&self) -> Result<Offset, StoreError> {
        Ok(self.last()?.map_or(Offset(0), |(last, _)| Offset(last.0 + 1)))
    }

    /// Writes records that follow the last, in order, all or none, and flushes them out of memory.
    /// They need not be on the disk afterwards.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn apply(&self, blocks: &[Arc<Block>]) -> Result<(), StoreError> {
        pass(Point::StoreApply).map_err(|error| StoreError::Io(error.to_string()))?;
        let chunks = chunks(blocks);
        guarded(|| {
            let trees = (&self.log, &self.keys, &self.cursors);
            let result: Result<(), TransactionError<()>> =
                trees.transaction(|(log, keys, cursors)| {
                    for (at, chunk) in &chunks {
                        log.insert(&at.0.to_be_bytes(), chunk.as_slice())?;
                    }
                    for (key, at) in blocks.iter().flat_map(|block| &block.keys) {
                        // Where it was taken is its first record; a block may begin after it.
                        if keys.get(key.as_str())?.is_none() {
                            keys.insert(key.as_str(), &at.0.to_be_bytes())?;
                        }
                    }
                    for (name, at) in blocks.iter().flat_map(|block| &block.cursors) {
                        cursors.insert(name.as_str(), &at.0.to_be_bytes())?;
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
    pub fn lines(&self, from: Offset, to: Offset) -> Result<Vec<Vec<u8>>, StoreError> {
        guarded(|| {
            let mut lines = Vec::with_capacity((to.0 - from.0) as usize);
            let missing = |at: u64| StoreError::Damaged(format!("record {at} is missing"));
            let begin = self.log.range(..=from.0.to_be_bytes()).next_back().transpose()?;
            let (begin, _) = begin.ok_or_else(|| missing(from.0))?;
            let mut expected = offset_of(&begin)?.0;
            for entry in self.log.range(begin..sled::IVec::from(&to.0.to_be_bytes())) {
                let (key, chunk) = entry?;
                if offset_of(&key)?.0 != expected {
                    return Err(missing(expected));
                }
                for line in chunk.split(|byte| *byte == b'\n') {
                    if (from.0..to.0).contains(&expected) {
                        lines.push(line.to_vec());
                    }
                    expected += 1;
                }
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

/// The lines of some blocks, packed: each chunk with the offset of its first line, no line feed
/// after its last.
fn chunks(blocks: &[Arc<Block>]) -> Vec<(Offset, Vec<u8>)> {
    let mut chunks: Vec<(Offset, Vec<u8>)> = Vec::new();
    let lines = blocks.iter().flat_map(|block| block.lines(block.first(), block.tail()));
    for (at, line) in lines {
        match chunks.last_mut() {
            Some((_, chunk)) if chunk.len() + line.len() < CHUNK_BYTES => {
                chunk.push(b'\n');
                chunk.extend_from_slice(line);
            }
            _ => {
                let mut chunk = Vec::with_capacity(line.len().max(CHUNK_BYTES));
                chunk.extend_from_slice(line);
                chunks.push((at, chunk));
            }
        }
    }
    chunks
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
