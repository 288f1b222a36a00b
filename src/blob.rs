//! Content-addressed files: weights, optimiser states, seed data. A file is durable before the
//! event that names it, and its bytes are checked against its name before they are used.
//!
//! `blobs/ab/abcdef...`: written under a temporary name in the same folder, synced, renamed, the
//! folder synced.

use crate::domain::BlobHash;
use crate::faults::{Point, pass};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A blob that was stored within this time may belong to an event that is on its way.
const GRACE: Duration = Duration::from_secs(3600);

/// What can go wrong with a blob.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BlobError {
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The bytes are not what the name says.
    #[error("{path} is damaged: its bytes hash to {found}. Restore it from a copy of the folder")]
    Damaged {
        /// Which.
        path: PathBuf,
        /// The hash of its bytes.
        found: String,
    },
}

impl BlobError {
    /// The blob that cannot be had any more, if that is what happened.
    pub fn lost(&self) -> Option<BlobHash> {
        let path = match self {
            BlobError::Damaged { path, .. } => path,
            BlobError::Io { path, source } if source.kind() == std::io::ErrorKind::NotFound => path,
            BlobError::Io { .. } => return None,
        };
        Some(BlobHash(path.file_name()?.to_str()?.to_owned()))
    }
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> BlobError + '_ {
    move |source| BlobError::Io { path: path.to_owned(), source }
}

/// A folder of content-addressed files.
#[derive(Debug)]
pub struct BlobStore {
    root: PathBuf,
    next: AtomicU64,
    /// What was stored since the store was opened, and when: by a clock that nobody can set, so
    /// the file's own time will not do.
    fresh: Mutex<BTreeMap<BlobHash, Instant>>,
    grace: Duration,
}

impl BlobStore {
    /// Opens or creates the folder; temporary files of processes that died are removed.
    ///
    /// # Errors
    /// When the folder cannot be made or listed.
    pub fn open(root: &Path) -> Result<BlobStore, BlobError> {
        fs::create_dir_all(root).map_err(io(root))?;
        for shard in fs::read_dir(root).map_err(io(root))?.flatten() {
            for file in fs::read_dir(shard.path()).into_iter().flatten().flatten() {
                if file.file_name().to_string_lossy().starts_with(".new-") {
                    let _ = fs::remove_file(file.path());
                }
            }
        }
        let fresh = Mutex::default();
        Ok(BlobStore { root: root.to_owned(), next: AtomicU64::new(0), fresh, grace: GRACE })
    }

    /// Where a blob is or would be.
    pub fn path(&self, hash: &BlobHash) -> PathBuf {
        let shard = hash.as_str().get(..2).unwrap_or("xx");
        self.root.join(shard).join(hash.as_str())
    }

    /// Stores bytes; durable when this returns. What is there already is read and kept if it is
    /// whole.
    ///
    /// # Errors
    /// When the disk is full or refuses.
    pub fn put(&self, bytes: &[u8]) -> Result<BlobHash, BlobError> {
        let hash = BlobHash(blake3::hash(bytes).to_hex().to_string());
        let path = self.path(&hash);
        // First: `retain` must not remove what is found here.
        let mut fresh = self.fresh.lock().unwrap_or_else(PoisonError::into_inner);
        fresh.insert(hash.clone(), Instant::now());
        drop(fresh);
        if fs::read(&path).is_ok_and(|found| found == bytes) {
            return Ok(hash);
        }
        let folder = path.parent().unwrap_or(&self.root);
        fs::create_dir_all(folder).map_err(io(folder))?;
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        let fresh = folder.join(format!(".new-{}-{n}", std::process::id()));
        let written = pass(Point::BlobWrite).and_then(|()| {
            let mut file = File::create(&fresh)?;
            file.write_all(bytes).and_then(|()| file.sync_all())
        });
        let named = written.and_then(|()| pass(Point::BlobRename));
        if let Err(error) = named.and_then(|()| fs::rename(&fresh, &path)) {
            // Half a checkpoint on a full disk would keep it full.
            let _ = fs::remove_file(&fresh);
            return Err(io(&path)(error));
        }
        pass(Point::BlobSync).map_err(io(folder))?;
        for folder in [folder, self.root.as_path()] {
            File::open(folder).and_then(|f| f.sync_all()).map_err(io(folder))?;
        }
        Ok(hash)
    }

    /// Removes the blobs that are not among `needed`; how many, and their bytes. What was stored
    /// since the store was opened stays until an event names it (it is among `known`) and an hour
    /// has passed: its event may be on the way.
    ///
    /// # Errors
    /// When the folder cannot be listed, or a file not removed.
    pub fn retain(
        &self,
        needed: &BTreeSet<BlobHash>,
        known: &BTreeSet<BlobHash>,
    ) -> Result<(u64, u64), BlobError> {
        let (mut count, mut bytes) = (0, 0);
        for shard in fs::read_dir(&self.root).map_err(io(&self.root))?.flatten() {
            for file in fs::read_dir(shard.path()).into_iter().flatten().flatten() {
                let name = BlobHash(file.file_name().to_string_lossy().into_owned());
                let Ok(found) = file.metadata() else { continue };
                let mut fresh = self.fresh.lock().unwrap_or_else(PoisonError::into_inner);
                let settled = |at: &Instant| at.elapsed() >= self.grace && known.contains(&name);
                if fresh.get(&name).is_some_and(settled) {
                    fresh.remove(&name);
                }
                let stays = needed.contains(&name) || fresh.contains_key(&name);
                if name.as_str().len() == 64 && !stays {
                    fs::remove_file(file.path()).map_err(io(&file.path()))?;
                    (count, bytes) = (count + 1, bytes + found.len());
                }
            }
        }
        Ok((count, bytes))
    }

    /// The bytes of a blob, checked.
    ///
    /// # Errors
    /// [`BlobError::Io`] when it is not there, [`BlobError::Damaged`] when it is not itself.
    pub fn read(&self, hash: &BlobHash) -> Result<Vec<u8>, BlobError> {
        let path = self.path(hash);
        let bytes = fs::read(&path).map_err(io(&path))?;
        let found = blake3::hash(&bytes).to_hex().to_string();
        if found != hash.as_str() {
            return Err(BlobError::Damaged { path, found });
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_and_damage_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let store = BlobStore::open(dir.path()).unwrap();
        let hash = store.put(b"weights").unwrap();
        assert_eq!(store.put(b"weights").unwrap(), hash);
        assert_eq!(store.read(&hash).unwrap(), b"weights");
        fs::write(store.path(&hash), b"weightz").unwrap();
        let error = store.read(&hash).unwrap_err();
        assert_eq!(error.lost(), Some(hash.clone()));
        let error = error.to_string();
        assert!(error.contains(hash.as_str()) && error.contains("damaged"), "{error}");
        let missing = BlobHash("00".repeat(32));
        assert_eq!(store.read(&missing).unwrap_err().lost(), Some(missing));
        store.put(b"weights").unwrap();
        assert_eq!(store.read(&hash).unwrap(), b"weights", "storing it again heals it");
    }

    #[test]
    fn a_file_of_any_other_length_or_bit_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let store = BlobStore::open(dir.path()).unwrap();
        let whole: Vec<u8> = (0..1000u32).flat_map(u32::to_le_bytes).collect();
        let hash = store.put(&whole).unwrap();
        for length in (0..20).map(|n| n * n * 10).chain([whole.len() + 1]) {
            let mut bytes = whole.clone();
            bytes.resize(length, 0);
            fs::write(store.path(&hash), &bytes).unwrap();
            assert!(store.read(&hash).is_err(), "length {length}");
        }
        for bit in (0..whole.len() * 8).step_by(997) {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            fs::write(store.path(&hash), &bytes).unwrap();
            assert!(store.read(&hash).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn what_nothing_needs_goes_unless_its_event_may_be_on_the_way() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = BlobStore::open(dir.path()).unwrap();
        let (kept, gone) = (store.put(b"kept").unwrap(), store.put(b"gone").unwrap());
        let needed = BTreeSet::from([kept.clone()]);
        let known = BTreeSet::from([kept.clone(), gone.clone()]);
        assert_eq!(store.retain(&needed, &known).unwrap(), (0, 0), "stored just now");
        store.grace = Duration::ZERO;
        assert_eq!(store.retain(&needed, &needed).unwrap(), (0, 0), "no event named it yet");
        assert_eq!(store.retain(&needed, &known).unwrap(), (1, 4));
        assert!(store.read(&kept).is_ok() && store.read(&gone).is_err());
        store.put(b"gone").unwrap();
        assert_eq!(store.retain(&needed, &needed).unwrap(), (0, 0), "stored again");
        // What a process left that was killed before its event: the next makes it again.
        let store = BlobStore::open(dir.path()).unwrap();
        assert_eq!(store.retain(&needed, &needed).unwrap(), (1, 4));
    }

    #[test]
    fn leftovers_of_dead_writers_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let leftover = dir.path().join("ab").join(".new-1-0");
        fs::create_dir_all(leftover.parent().unwrap()).unwrap();
        fs::write(&leftover, b"half").unwrap();
        BlobStore::open(dir.path()).unwrap();
        assert!(!leftover.exists());
    }
}
