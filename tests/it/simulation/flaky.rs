//! What a power cut leaves: a log and blobs. And the log as a process sees it, whose next append
//! may fail before it is durable, or after it is durable and before the process hears of it.

use gradus::blob::{BlobError, ReadBlobs};
use gradus::domain::{BlobHash, Offset, TaskKey};
use gradus::log::{Appended, Batch, Log, LogError, MemoryLog, Recorded};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// Content-addressed bytes.
#[derive(Clone, Default)]
pub struct Blobs(Arc<Mutex<BTreeMap<BlobHash, Vec<u8>>>>);

impl Blobs {
    /// Stores bytes under their hash.
    pub fn put(&self, bytes: &[u8]) -> BlobHash {
        let name = BlobHash(blake3::hash(bytes).to_hex().to_string());
        self.0.lock().unwrap().insert(name.clone(), bytes.to_vec());
        name
    }

    /// Removes what is under a hash.
    pub fn remove(&self, name: &BlobHash) {
        self.0.lock().unwrap().remove(name);
    }

    /// The bytes under a hash.
    pub fn get(&self, name: &BlobHash) -> Option<Vec<u8>> {
        self.0.lock().unwrap().get(name).cloned()
    }
}

impl ReadBlobs for Blobs {
    fn bytes(&self, name: &BlobHash) -> Result<Vec<u8>, BlobError> {
        let gone = || BlobError::Io {
            path: name.as_str().into(),
            source: std::io::Error::from(std::io::ErrorKind::NotFound),
        };
        self.get(name).ok_or_else(gone)
    }
}

/// A batch that the log took: its key, its first offset, and the tail after it.
pub type Taken = (Option<TaskKey>, Offset, Offset);

/// What survives.
#[derive(Clone, Default)]
pub struct Disk {
    /// The log's records and its index of keys.
    pub log: Arc<MemoryLog>,
    /// Weights, optimiser states, seed data.
    pub blobs: Blobs,
    /// Every batch taken, acknowledged or not; the checks read it, the run does not.
    pub taken: Arc<Mutex<Vec<Taken>>>,
}

/// What becomes of the next append.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Power {
    /// It is durable and acknowledged.
    #[default]
    Holds,
    /// Nothing of it is durable.
    FailsBefore,
    /// It is durable, and the process is gone before it hears so.
    FailsAfter,
}

#[derive(Default)]
struct Supply {
    next: Power,
    off: bool,
}

/// The log of one process; once the power has failed, this process appends nothing more.
pub struct FlakyLog {
    disk: Disk,
    supply: Mutex<Supply>,
}

impl FlakyLog {
    /// A new process's view of the disk.
    pub fn new(disk: &Disk) -> FlakyLog {
        FlakyLog { disk: disk.clone(), supply: Mutex::default() }
    }

    /// Decides about the next append.
    pub fn set(&self, power: Power) {
        self.supply.lock().unwrap().next = power;
    }
}

impl Log for FlakyLog {
    fn append(&self, batch: Batch) -> Result<Appended, LogError> {
        let mut supply = self.supply.lock().unwrap();
        let power = std::mem::take(&mut supply.next);
        let cut = || Err(LogError::Poisoned("the power failed".to_owned()));
        supply.off |= power != Power::Holds;
        if power == Power::FailsBefore || (supply.off && power == Power::Holds) {
            return cut();
        }
        let key = batch.key.clone();
        let appended = self.disk.log.append(batch)?;
        match appended {
            Appended::New { first, tail } => {
                self.disk.taken.lock().unwrap().push((key, first, tail));
            }
            Appended::Duplicate { .. } => {}
        }
        if power == Power::FailsAfter { cut() } else { Ok(appended) }
    }

    fn read(&self, from: Offset, max: usize) -> Result<Vec<Recorded>, LogError> {
        self.disk.log.read(from, max)
    }

    fn tail(&self) -> Offset {
        self.disk.log.tail()
    }

    fn find(&self, key: &TaskKey) -> Result<Option<Offset>, LogError> {
        self.disk.log.find(key)
    }

    fn cursor(&self, name: &str) -> Result<Offset, LogError> {
        self.disk.log.cursor(name)
    }

    fn subscribe(&self) -> crossbeam_channel::Receiver<()> {
        self.disk.log.subscribe()
    }
}
