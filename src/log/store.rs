//! The second copy: a sled 0.34.7 database with the lines (in chunks, each under the offset of its
//! first), the task keys and the cursors. It answers all questions; it is never the only place that has something, so it may be
//! written late, and set aside and made again from the journal when it is damaged.
//!
//! sled is never used bare: it panics on damaged pages (here every call is caught), its `open` may
//! hang (here it has a thread and a time limit), un-flushed writes grow its memory without bound
//! and concurrent `flush_async` can deadlock (here one thread writes, and flushes).

use super::block::Block;
use super::lock::{LockedFile, is_unlinked, own};
use super::segment::JournalPosition;
use crate::domain::{Offset, TaskKey};
use crate::faults::{Point, pass};
use crossbeam_channel::bounded;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const OPEN_PATIENCE: Duration = Duration::from_secs(30);
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
const CACHE_BYTES: u64 = 4 << 20;
/// A chunk takes no further line from here on. sled's price is by the value more than by the byte;
/// but it writes whole leaves of up to 17 values, one of over 128 KiB to a file of its own, and
/// memory of that size is fetched from the system and given back for every leaf.
const CHUNK_BYTES: usize = 4 << 10;
/// A reader searches about so much of the journal for a record.
const PLACE_BYTES: u64 = 4 << 10;
/// What sled may hold in memory unwritten; a flush wakes all its threads, so it is not for every
/// group.
const FLUSH_BYTES: u64 = 1 << 20;

/// Why the store gave no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StoreError {
    /// The disk is full or refuses; the store itself may be sound.
    Io(String),
    /// What it holds cannot be read.
    Damaged(String),
    /// Another process has it open.
    InUse,
}

impl StoreError {
    pub fn reason(&self) -> &str {
        match self {
            StoreError::Io(reason) | StoreError::Damaged(reason) => reason,
            StoreError::InUse => "another process has the store open",
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
    /// Locked as long as the store is open: see [`super::lock`].
    own: LockedFile,
    own_path: PathBuf,
    log: sled::Tree,
    /// Where some records begin in the journal.
    places: sled::Tree,
    keys: sled::Tree,
    cursors: sled::Tree,
    /// Bytes of lines since the last flush.
    unflushed: AtomicU64,
    /// Whether lines are being written, or were when that failed.
    attempted: AtomicBool,
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

/// Takes the lock in the store's folder, which is for this user alone.
fn lock(path: &Path) -> Result<(PathBuf, LockedFile), StoreError> {
    let io = |error: std::io::Error| StoreError::Io(error.to_string());
    std::fs::create_dir_all(path).map_err(io)?;
    // Somebody else's folder stays as it is.
    let _ = std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700));
    let file = path.join("lock");
    let own = own(&file).map_err(io)?.ok_or(StoreError::InUse)?;
    Ok((file, own))
}

fn open_here(path: &Path) -> Result<Store, StoreError> {
    let (own_path, own) = lock(path)?;
    let db = open_sled(path)?;
    let data = File::open(path.join("db")).map_err(|error| StoreError::Io(error.to_string()))?;
    let (log, places) = (db.open_tree("log")?, db.open_tree("places")?);
    let (keys, cursors) = (db.open_tree("keys")?, db.open_tree("cursors")?);
    let (unflushed, attempted) = (AtomicU64::new(0), AtomicBool::new(false));
    let store = Store { db, data, own, own_path, log, places, keys, cursors, unflushed, attempted };
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

    /// The store's lock, when it was unlinked.
    pub fn unlinked(&self) -> Option<&Path> {
        is_unlinked(&self.own).then_some(self.own_path.as_path())
    }

    /// The last record: its offset and its line.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn last(&self) -> Result<Option<(Offset, Vec<u8>)>, StoreError> {
        guarded(|| {
            let Some((key, chunk)) = self.log.last()? else { return Ok(None) };
            let (mut at, mut last) = (offset_of(&key)?.0, &*chunk);
            for (n, line) in chunk.split(|byte| *byte == b'\n').enumerate() {
                (at, last) = (offset_of(&key)?.0 + n as u64, line);
            }
            Ok(Some((Offset(at), last.to_vec())))
        })
    }

    /// The first unwritten offset.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn tail(&self) -> Result<Offset, StoreError> {
        Ok(self.last()?.map_or(Offset(0), |(last, _)| Offset(last.0 + 1)))
    }

    /// Writes records that follow the last, in order. They need not be on the disk afterwards, and
    /// some may still be in memory; after an error some may be there, and all may be written again.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn apply(&self, blocks: &[Arc<Block>]) -> Result<(), StoreError> {
        pass(Point::StoreApply).map_err(|error| StoreError::Io(error.to_string()))?;
        let chunks = chunks(blocks);
        guarded(|| {
            // No transaction: sled recovers a beginning of what was written, the lines come last,
            // and what they do not cover is given to the store again.
            for (key, at) in blocks.iter().flat_map(|block| &block.keys) {
                // Where it was taken is its first record; a block may begin after it.
                if self.keys.get(key.as_str())?.is_none() {
                    self.keys.insert(key.as_str(), &at.0.to_be_bytes())?;
                }
            }
            for (name, at) in blocks.iter().flat_map(|block| &block.cursors) {
                self.cursors.insert(name.as_str(), &at.0.to_be_bytes())?;
            }
            self.forget_attempt(chunks.first().map(|chunk| chunk.first))?;
            for Chunk { first, position, lines } in &chunks {
                let first = &first.0.to_be_bytes();
                if is_indexed(*position, lines.len()) {
                    self.places.insert(first, &position_bytes(*position))?;
                }
                self.log.insert(first, &**lines)?;
            }
            Ok(())
        })?;
        let fresh: u64 = blocks.iter().map(|block| block.bytes().len() as u64).sum();
        if self.unflushed.fetch_add(fresh, Ordering::Relaxed) + fresh >= FLUSH_BYTES {
            pass(Point::StoreFlush).map_err(|error| StoreError::Io(error.to_string()))?;
            self.flush()?;
        }
        self.attempted.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Takes out what a failed attempt wrote: the next may divide the lines differently.
    fn forget_attempt(&self, first: Option<Offset>) -> Result<(), StoreError> {
        let failed = self.attempted.swap(true, Ordering::Relaxed);
        let Some(first) = first.filter(|_| failed) else { return Ok(()) };
        for key in self.log.range(first.0.to_be_bytes()..).keys() {
            self.log.remove(key?)?;
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), StoreError> {
        guarded(|| self.db.flush().map(|_| ()).map_err(StoreError::from))?;
        self.unflushed.store(0, Ordering::Relaxed);
        Ok(())
    }

    /// Makes everything that was applied durable.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn sync(&self) -> Result<(), StoreError> {
        self.flush()?;
        guarded(|| self.data.sync_data().map_err(|error| StoreError::Io(error.to_string())))
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

    /// A record at or before `from`, and where it begins in the journal.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn position(&self, from: Offset) -> Result<Option<JournalPosition>, StoreError> {
        guarded(|| {
            let found = self.places.range(..=from.0.to_be_bytes()).next_back().transpose()?;
            found.map(|(_, bytes)| position_of(&bytes)).transpose()
        })
    }

    /// Every task key, and where it was taken.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn keys(&self) -> Result<Vec<(TaskKey, Offset)>, StoreError> {
        guarded(|| {
            let text = |key: &[u8]| String::from_utf8_lossy(key).into_owned();
            let each = |entry: sled::Result<(sled::IVec, sled::IVec)>| {
                let (key, at) = entry?;
                Ok((TaskKey(text(&key)), offset_of(&at)?))
            };
            self.keys.iter().map(each).collect()
        })
    }

    /// Every cursor.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn cursors(&self) -> Result<BTreeMap<String, Offset>, StoreError> {
        guarded(|| {
            let each = |entry: sled::Result<(sled::IVec, sled::IVec)>| {
                let (name, at) = entry?;
                Ok((String::from_utf8_lossy(&name).into_owned(), offset_of(&at)?))
            };
            self.cursors.iter().map(each).collect()
        })
    }

    /// Takes over what is known of the records before a compacted log's floor.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn import(
        &self,
        keys: &[(TaskKey, Offset)],
        cursors: &BTreeMap<String, Offset>,
    ) -> Result<(), StoreError> {
        guarded(|| {
            for (key, at) in keys {
                self.keys.insert(key.as_str(), &at.0.to_be_bytes())?;
            }
            for (name, at) in cursors {
                if self.cursors.get(name)?.is_none() {
                    self.cursors.insert(name.as_str(), &at.0.to_be_bytes())?;
                }
            }
            Ok(())
        })
    }

    /// Drops the lines before the floor of a compacted log.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn delete_below(&self, floor: Offset) -> Result<(), StoreError> {
        guarded(|| {
            for tree in [&self.log, &self.places] {
                for key in tree.range(..floor.0.to_be_bytes()).keys() {
                    tree.remove(key?)?;
                }
            }
            Ok(())
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

/// Whether a place is worth an entry: one for about every [`PLACE_BYTES`] of the journal.
fn is_indexed(position: JournalPosition, bytes: usize) -> bool {
    position.at / PLACE_BYTES != (position.at + bytes as u64 + 1) / PLACE_BYTES
}

fn position_bytes(position: JournalPosition) -> [u8; 16] {
    (u128::from(position.segment.0) << 64 | u128::from(position.at)).to_be_bytes()
}

fn position_of(bytes: &[u8]) -> Result<JournalPosition, StoreError> {
    let bytes = bytes.try_into();
    let bytes = bytes.map_err(|_| StoreError::Damaged("a place is not 16 bytes".to_owned()))?;
    let both = u128::from_be_bytes(bytes);
    Ok(JournalPosition { segment: Offset((both >> 64) as u64), at: both as u64 })
}

/// Lines that lie in the store under one key.
struct Chunk<'a> {
    first: Offset,
    /// Where its first line is in the journal.
    position: JournalPosition,
    /// No line feed after the last.
    lines: Cow<'a, [u8]>,
}

/// The lines of some blocks, packed; those of small blocks together.
fn chunks(blocks: &[Arc<Block>]) -> Vec<Chunk<'_>> {
    let mut chunks: Vec<Chunk<'_>> = Vec::new();
    for block in blocks {
        for (first, lines) in block.runs(CHUNK_BYTES) {
            match chunks.last_mut() {
                Some(last) if last.lines.len() + lines.len() < CHUNK_BYTES => {
                    let joined = last.lines.to_mut();
                    joined.push(b'\n');
                    joined.extend_from_slice(lines);
                }
                _ => {
                    let (position, lines) = (block.position_of(first), Cow::Borrowed(lines));
                    chunks.push(Chunk { first, position, lines });
                }
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
