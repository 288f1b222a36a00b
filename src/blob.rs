//! Content-addressed files: weights, optimiser states, seed data. A file is durable before the
//! event that names it, and its bytes are checked against its name before they are used.
//!
//! `blobs/ab/abcdef...`, each written as an atomic file. Whoever reads creates, changes and removes
//! nothing; only the process that holds the run's lock opens the folder for writing, and removes what
//! writers left that died.

use crate::atomic_file::{self, Access, AtomicFile};
use crate::codes::Code;
use crate::domain::BlobHash;
use crate::machine::{Found, Place};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
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
    /// The store's folder, or the one in it that would hold the blob, is not there, which says
    /// nothing about the blob.
    #[error("the folder {path} is away: {reason}. Once it is back in its place, the run goes on")]
    Away {
        /// Which folder.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// Another folder lies where the store was opened.
    #[error(
        "{path} is not the folder any more that was opened, but another. Put the right one back in \
         its place, and start again"
    )]
    Replaced {
        /// Where.
        path: PathBuf,
    },
    /// A store that was opened for reading was asked to write.
    #[error("{0} was opened for reading alone")]
    ReadOnly(PathBuf),
}

impl BlobError {
    /// What happened, as programs tell it apart.
    pub fn code(&self) -> Code {
        match self {
            BlobError::Io { source, .. } => Code::of_io(source),
            BlobError::Damaged { .. } => Code::BlobDamaged,
            BlobError::Away { .. } => Code::FolderAway,
            BlobError::Replaced { .. } => Code::FolderReplaced,
            BlobError::ReadOnly(_) => Code::BlobsReadOnly,
        }
    }

    /// Whether the same call may succeed later, with nothing in it changed.
    pub fn is_retryable(&self) -> bool {
        self.code().is_retryable()
    }

    /// The blob that cannot be had any more, if that is what happened.
    pub fn lost(&self) -> Option<BlobHash> {
        let path = match self {
            BlobError::Damaged { path, .. } => path,
            BlobError::Io { path, source } if source.kind() == std::io::ErrorKind::NotFound => path,
            BlobError::Io { .. }
            | BlobError::Away { .. }
            | BlobError::Replaced { .. }
            | BlobError::ReadOnly(_) => return None,
        };
        Some(BlobHash(path.file_name()?.to_str()?.to_owned()))
    }
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> BlobError + '_ {
    move |source| BlobError::Io { path: path.to_owned(), source }
}

/// What a store may do with its folder.
#[derive(Clone, Debug)]
enum Rights {
    Read,
    /// At this place and no other.
    Write(Place),
}

/// A folder of content-addressed files.
#[derive(Debug)]
pub struct BlobStore {
    root: PathBuf,
    rights: Rights,
    /// What was stored since the store was opened, and when: by a clock that nobody can set, so
    /// the file's own time will not do.
    fresh: Mutex<BTreeMap<BlobHash, Instant>>,
    grace: Duration,
}

/// The bytes of blobs by their hash: what a stage sees of the store.
pub trait ReadBlobs: Send + Sync {
    /// The bytes of a blob.
    ///
    /// # Errors
    /// When it is missing or damaged.
    fn bytes(&self, hash: &BlobHash) -> Result<Vec<u8>, BlobError>;
}

impl ReadBlobs for BlobStore {
    fn bytes(&self, hash: &BlobHash) -> Result<Vec<u8>, BlobError> {
        self.read(hash)
    }
}

impl BlobStore {
    /// Opens the folder for reading, beside a process that writes or without one. Nothing is looked
    /// at, made or removed.
    pub fn reader(root: &Path) -> BlobStore {
        BlobStore::with(root, Rights::Read)
    }

    /// Opens or creates the folder for writing; temporary files of processes that died are removed.
    /// One store at a time: for who holds the lock of the folder's run, or whose folder it is.
    ///
    /// # Errors
    /// When the folder cannot be made or listed.
    pub fn open(root: &Path) -> Result<BlobStore, BlobError> {
        atomic_file::create_private_folder(root).map_err(io(root))?;
        for shard in fs::read_dir(root).map_err(io(root))?.flatten() {
            atomic_file::remove_abandoned(&shard.path());
        }
        let place = Place::of(root).map_err(io(root))?;
        Ok(BlobStore::with(root, Rights::Write(place)))
    }

    fn with(root: &Path, rights: Rights) -> BlobStore {
        BlobStore { root: root.to_owned(), rights, fresh: Mutex::default(), grace: GRACE }
    }

    /// # Errors
    /// [`BlobError::ReadOnly`].
    fn may_write(&self) -> Result<(), BlobError> {
        match self.rights {
            Rights::Write(_) => Ok(()),
            Rights::Read => Err(BlobError::ReadOnly(self.root.clone())),
        }
    }

    /// Whether the folder is there that was opened, and none in its place. Who reads alone has
    /// nothing to lose by another.
    fn at_its_place(&self) -> Result<(), BlobError> {
        let path = self.root.clone();
        let Rights::Write(place) = &self.rights else { return Ok(()) };
        match place.look() {
            Found::It => Ok(()),
            Found::Nothing(reason) => Err(BlobError::Away { path, reason }),
            Found::Another => Err(BlobError::Replaced { path }),
        }
    }

    /// What an error in storing is: it may be that the folder went away meanwhile.
    fn refused(&self, path: &Path, source: std::io::Error) -> BlobError {
        let path = path.to_owned();
        match self.at_its_place() {
            Err(away) if source.kind() == ErrorKind::NotFound => away,
            _ => BlobError::Io { path, source },
        }
    }

    /// The bytes of a file. That it is not there is only said of a folder that is.
    fn bytes(&self, path: &Path) -> Result<Vec<u8>, BlobError> {
        let missing = match fs::read(path) {
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
            {
                error
            }
            read => return read.map_err(io(path)),
        };
        self.at_its_place()?;
        let shard = path.parent().unwrap_or(&self.root);
        if !shard.is_dir() {
            return Err(BlobError::Away { path: shard.to_owned(), reason: missing.to_string() });
        }
        // Once more: the folder may have come back between the two looks.
        fs::read(path).map_err(io(path))
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
        self.may_write()?;
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
        self.make_shard(folder)?;
        self.stored(&path, atomic_file::write(&path, bytes, Access::Private))?;
        Ok(hash)
    }

    /// The folder in the store that holds a blob. The store's own is never made anew: what was put
    /// there would be missing from the one that is away.
    fn make_shard(&self, shard: &Path) -> Result<(), BlobError> {
        self.at_its_place()?;
        match fs::DirBuilder::new().mode(0o700).create(shard) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                Err(self.refused(shard, error))
            }
            _ => Ok(()),
        }
    }

    /// What came of writing a blob to its place; durable with the shard that holds it.
    fn stored(&self, path: &Path, written: std::io::Result<()>) -> Result<(), BlobError> {
        written.map_err(|error| self.refused(path, error))?;
        atomic_file::sync_folder(&self.root).map_err(io(&self.root))
    }

    /// Takes a blob over from another store, as a hard link where the file system has them; its bytes
    /// are checked first. Durable when this returns.
    ///
    /// # Errors
    /// Those of [`BlobStore::read`] on `from`; when the disk is full or refuses.
    pub fn take(&self, hash: &BlobHash, from: &BlobStore) -> Result<(), BlobError> {
        self.may_write()?;
        let (source, path) = (from.path(hash), self.path(hash));
        if self.check(hash).is_ok() {
            return Ok(());
        }
        from.check(hash)?;
        self.make_shard(path.parent().unwrap_or(&self.root))?;
        if let Ok(()) = atomic_file::link(&source, &path) {
            // The same file that was checked.
            return self.stored(&path, Ok(()));
        }
        let copied = File::open(&source).and_then(|mut source| {
            let mut copy = AtomicFile::create(&path, Access::Private)?;
            std::io::copy(&mut source, &mut copy)?;
            copy.commit()
        });
        self.stored(&path, copied)?;
        self.check(hash).inspect_err(|_| {
            let _ = fs::remove_file(&path);
        })
    }

    /// Whether a blob is there and is itself.
    ///
    /// # Errors
    /// Those of [`BlobStore::read`].
    pub fn check(&self, hash: &BlobHash) -> Result<(), BlobError> {
        let path = self.path(hash);
        let mut hasher = blake3::Hasher::new();
        File::open(&path)
            .and_then(|file| hasher.update_reader(file).map(drop))
            .map_err(io(&path))?;
        let found = hasher.finalize().to_hex().to_string();
        if found == hash.as_str() { Ok(()) } else { Err(BlobError::Damaged { path, found }) }
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
        self.may_write()?;
        // What nothing of ours needs in another folder may be all that another run has.
        self.at_its_place()?;
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

    /// Removes a blob that nothing needs any more; one that is not there is gone already.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn remove(&self, hash: &BlobHash) -> Result<(), BlobError> {
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner).remove(hash);
        let path = self.path(hash);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(io(&path)(error)),
            _ => Ok(()),
        }
    }

    /// The bytes of a blob, checked.
    ///
    /// # Errors
    /// [`BlobError::Io`] when it is not there, [`BlobError::Damaged`] when it is not itself;
    /// [`BlobError::Away`], [`BlobError::Replaced`] when its folder is not there.
    pub fn read(&self, hash: &BlobHash) -> Result<Vec<u8>, BlobError> {
        let path = self.path(hash);
        let bytes = self.bytes(&path)?;
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
        let missing = BlobHash(format!("{}{}", &hash.as_str()[..2], "00".repeat(31)));
        assert_eq!(store.read(&missing).unwrap_err().lost(), Some(missing));
        store.put(b"weights").unwrap();
        assert_eq!(store.read(&hash).unwrap(), b"weights", "storing it again heals it");
    }

    /// A folder that is away says nothing about the blobs in it, and is not made anew.
    #[test]
    fn a_folder_that_is_away_is_no_lost_blob() {
        let root = tempfile::tempdir().unwrap();
        let (dir, aside) = (root.path().join("blobs"), root.path().join("aside"));
        let store = BlobStore::open(&dir).unwrap();
        let hash = store.put(b"weights").unwrap();
        let away = |result: Result<(), BlobError>| {
            let error = result.unwrap_err();
            assert!(matches!(error, BlobError::Away { .. }) && error.lost().is_none(), "{error}");
        };
        fs::rename(&dir, &aside).unwrap();
        away(store.read(&hash).map(drop));
        away(store.put(b"more").map(drop));
        assert!(!dir.exists(), "what is stored meanwhile would be missing from the other");
        fs::create_dir(&dir).unwrap();
        let needed = BTreeSet::new();
        let others = [store.read(&hash).map(drop), store.put(b"more").map(drop)];
        for error in others.into_iter().chain([store.retain(&needed, &needed).map(drop)]) {
            assert!(matches!(error, Err(BlobError::Replaced { .. })), "{error:?}");
        }
        fs::remove_dir(&dir).unwrap();
        fs::rename(&aside, &dir).unwrap();
        assert_eq!(store.read(&hash).unwrap(), b"weights");
        store.put(b"more").unwrap();
        let shard = store.path(&hash).parent().unwrap().to_owned();
        fs::rename(&shard, &aside).unwrap();
        away(store.read(&hash).map(drop));
        fs::rename(&aside, &shard).unwrap();
        fs::remove_file(store.path(&hash)).unwrap();
        assert_eq!(store.read(&hash).unwrap_err().lost(), Some(hash), "this is a lost one");
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
    fn leftovers_of_dead_writers_are_removed_and_of_living_ones_not() {
        let dir = tempfile::tempdir().unwrap();
        let leftover = dir.path().join("ab").join(".new-1-0");
        fs::create_dir_all(leftover.parent().unwrap()).unwrap();
        fs::write(&leftover, b"half").unwrap();
        // Under the number of a process that lives, and really being written.
        let dead = dir.path().join("ab").join(format!(".new-{}-7", std::process::id()));
        fs::write(&dead, b"half").unwrap();
        let file = AtomicFile::create(&dir.path().join("ab/abc"), Access::Private).unwrap();
        let living = file.temporary().to_owned();
        BlobStore::reader(dir.path());
        assert!(leftover.exists() && dead.exists(), "a reader removes nothing");
        BlobStore::open(dir.path()).unwrap();
        assert!(!leftover.exists() && !dead.exists() && living.exists());
        drop(file);
        assert!(!living.exists());
    }

    #[test]
    fn a_reader_makes_removes_and_writes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("blobs");
        let reader = BlobStore::reader(&root);
        assert!(!root.exists());
        let writer = BlobStore::open(&root).unwrap();
        let hash = writer.put(b"weights").unwrap();
        assert_eq!(reader.read(&hash).unwrap(), b"weights");
        assert!(matches!(reader.put(b"more"), Err(BlobError::ReadOnly(_))));
        let nothing = BTreeSet::new();
        assert!(matches!(reader.retain(&nothing, &nothing), Err(BlobError::ReadOnly(_))));
        assert!(matches!(reader.take(&hash, &writer), Err(BlobError::ReadOnly(_))));
        assert_eq!(reader.read(&hash).unwrap(), b"weights");
    }

    #[test]
    fn what_is_taken_over_is_whole_or_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let from = BlobStore::open(&dir.path().join("from")).unwrap();
        let to = BlobStore::open(&dir.path().join("to")).unwrap();
        let hash = from.put(&[7; 1000]).unwrap();
        // Half of it is there, as a copy leaves it on a full disk.
        fs::create_dir_all(to.path(&hash).parent().unwrap()).unwrap();
        fs::write(to.path(&hash), [7; 500]).unwrap();
        to.take(&hash, &from).unwrap();
        assert_eq!(to.read(&hash).unwrap(), [7; 1000]);
        let second = from.put(b"second").unwrap();
        fs::write(from.path(&second), b"sec").unwrap();
        assert!(matches!(to.take(&second, &from), Err(BlobError::Damaged { .. })));
        assert!(!to.path(&second).exists());
        let gone = BlobHash("00".repeat(32));
        assert_eq!(to.take(&gone, &from).unwrap_err().lost(), Some(gone.clone()));
        let files = fs::read_dir(to.path(&hash).parent().unwrap()).unwrap().count();
        assert_eq!(files, 1, "no temporary file stays");
    }
}
