//! The durable log: a journal that is synced before anything is acknowledged, and a sled store
//! that answers questions.
//!
//! ```text
//!   append ---> queue ----> journal (fdatasync) ---> acknowledged, readable
//!                                  \
//!                                    queue ---> store (sled) ---> answers by offset, key, cursor
//! ```
//!
//! Why the journal is the strict copy: a commit through sled cost 1.57 ms where a plain file costs
//! 0.47 (`benches/results/parts.md`), and pages of an unsynced sled database that reach the disk
//! out of order can take acknowledged records with them without a word.

use super::ballast;
use super::codec::Payloads;
use super::compact::{Compacted, Compaction};
use super::compacted::CompactedPrefix;
use super::error::LogError;
use super::layout::{check_format, write_format};
use super::lock::Lock;
use super::record::{Recorded, decode};
use super::recover::{self, OpenMode, OpenedCopies};
use super::repair::LostRecords;
use super::shared::LogState;
use super::shutdown::ShutdownMarker;
use super::verify::{Verified, both};
use super::writer::{CommitQueue, Writer};
use super::{Appended, Batch, Clock, Health, Log};
use crate::atomic_file::create_private_folder;
use crate::domain::{Event, Offset, TaskKey};
use crossbeam_channel::Receiver;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

/// How a durable log keeps its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// A journal segment that reached this size is sealed and the next begun.
    pub segment_bytes: u64,
}

impl Default for LogSettings {
    fn default() -> LogSettings {
        LogSettings { segment_bytes: 64 << 20 }
    }
}

/// The durable log.
pub struct DurableLog {
    shared: Arc<LogState>,
    queue: CommitQueue,
    follower: Option<JoinHandle<bool>>,
    repairs: Vec<String>,
}

impl DurableLog {
    /// Opens or creates the log in the folder `path`; one process at a time. What one copy lost
    /// comes from the other, and is recorded as [`Event::LogRepaired`].
    ///
    /// # Errors
    /// [`LogError::InUse`], [`LogError::Format`], [`LogError::Open`]; [`LogError::Lost`] when
    /// neither copy has what was durable.
    pub fn open(path: &Path, clock: Arc<dyn Clock>) -> Result<DurableLog, LogError> {
        DurableLog::open_with(path, clock, LogSettings::default())
    }

    /// As [`DurableLog::open`], with other settings.
    ///
    /// # Errors
    /// As [`DurableLog::open`].
    pub fn open_with(
        path: &Path,
        clock: Arc<dyn Clock>,
        settings: LogSettings,
    ) -> Result<DurableLog, LogError> {
        DurableLog::open_carefully(path, clock, settings, OpenMode::Normal)
    }

    /// Looks at everything and repairs what can be repaired, each copy from the other: the repairs.
    ///
    /// # Errors
    /// As [`DurableLog::open`]; with [`LostRecords::Accept`] lost records are no error.
    pub fn rebuild(
        path: &Path,
        clock: Arc<dyn Clock>,
        lost_records: LostRecords,
    ) -> Result<Vec<String>, LogError> {
        let log = DurableLog::open_carefully(
            path,
            clock,
            LogSettings::default(),
            OpenMode::Rebuild(lost_records),
        )?;
        Ok(log.repairs.clone())
    }

    fn open_carefully(
        path: &Path,
        clock: Arc<dyn Clock>,
        settings: LogSettings,
        mode: OpenMode,
    ) -> Result<DurableLog, LogError> {
        create_private_folder(path).map_err(|error| LogError::open(path, error))?;
        ballast::delete_if_tight(path);
        let mut lock = Lock::take(path)?;
        write_format(path)?;
        check_format(path)?;
        lock.show();
        let opened = recover::open(path, mode)?;
        ShutdownMarker::write_open(path).map_err(|error| LogError::open(path, error))?;
        ballast::write_if_roomy(path);
        let log = DurableLog::start(path, clock, settings, lock, opened)?;
        if !log.repairs.is_empty() {
            let event = Event::LogRepaired { what: log.repairs.clone() };
            log.append(Batch { events: vec![event], ..Batch::default() })?;
        }
        Ok(log)
    }

    fn start(
        path: &Path,
        clock: Arc<dyn Clock>,
        settings: LogSettings,
        lock: Lock,
        opened: OpenedCopies,
    ) -> Result<DurableLog, LogError> {
        let OpenedCopies { journal, store, tail, last, repairs, compacted } = opened;
        let shared = Arc::new(LogState::new(path, store, compacted, tail)?);
        let ours = shared.clone();
        let follower = std::thread::Builder::new().name("gradus-store".to_owned());
        let follower = follower.spawn(move || ours.queue.run(&ours.store, &ours.buffers));
        let follower = follower.map_err(|error| LogError::open(path, error))?;
        let LogSettings { segment_bytes } = settings;
        let writer =
            Writer { journal, shared: shared.clone(), clock, segment_bytes, tail, last, lock };
        Ok(DurableLog {
            shared,
            queue: CommitQueue::new(writer),
            follower: Some(follower),
            repairs,
        })
    }

    /// What opening had to repair.
    pub fn repairs(&self) -> &[String] {
        &self.repairs
    }

    /// Drops the records before the tail, but for those that are kept. `wanted` is asked with the
    /// tail, while nothing is appended; views must have folded up to there. `None` when there was
    /// nothing to drop.
    ///
    /// # Errors
    /// What `wanted` says; [`LogError::Full`], [`LogError::Damaged`]: nothing is changed then.
    pub fn compact<'a>(
        &self,
        wanted: impl FnOnce(Offset) -> Result<Compaction<'a>, LogError>,
    ) -> Result<Option<Compacted>, LogError> {
        self.queue.with_writer(|writer| writer.compact(wanted))
    }

    /// Takes nothing more while there is a reason not to, as on a full disk.
    pub fn hold(&self, reason: Option<String>) {
        self.shared.set_held(reason);
    }

    /// Checks both copies, and that they are the same.
    ///
    /// # Errors
    /// [`LogError::Open`] when the journal cannot be read at all.
    pub fn verify(&self) -> Result<Verified, LogError> {
        self.shared.queue.wait_until_empty();
        both(self.shared.dir(), Some(&self.shared.store))
    }
}

impl Drop for DurableLog {
    fn drop(&mut self) {
        self.shared.queue.close();
        let stored = self.follower.take().map(JoinHandle::join);
        let lost = matches!(self.shared.health(), Health::Lost { .. });
        if matches!(stored, Some(Ok(true))) && !lost && self.shared.at_its_place().is_ok() {
            // Without the marker the next opening looks closer, that is all.
            let _ = ShutdownMarker::write_closed(self.shared.dir(), self.tail());
        }
    }
}

impl Log for DurableLog {
    fn append(&self, batch: Batch) -> Result<Appended, LogError> {
        let payloads = Payloads::of(&batch.events, self.shared.buffers.take())?;
        self.queue.append(batch, payloads)
    }

    fn read(&self, from: Offset, max: usize) -> Result<Vec<Recorded>, LogError> {
        let compacted = self.shared.compacted();
        let found = self.read_above(compacted.as_deref(), from, max);
        match found {
            // It was compacted meanwhile.
            Err(_) if !same(&compacted, &self.shared.compacted()) => self.read(from, max),
            found => found,
        }
    }

    fn compacted(&self) -> Option<Arc<CompactedPrefix>> {
        self.shared.compacted()
    }

    fn tail(&self) -> Offset {
        self.shared.tail()
    }

    fn find(&self, key: &TaskKey) -> Result<Option<Offset>, LogError> {
        self.shared.find(key)
    }

    fn cursor(&self, name: &str) -> Result<Offset, LogError> {
        if let Some(at) = self.shared.queue.cursor(name) {
            return Ok(at);
        }
        let found = self.shared.store.cursor(name);
        Ok(found.map_err(|e| LogError::Read(e.reason().to_owned()))?.unwrap_or_default())
    }

    fn subscribe(&self) -> Receiver<()> {
        self.shared.subscribers.add()
    }

    fn health(&self) -> Health {
        match (self.shared.health(), self.shared.held().or_else(|| self.shared.queue.stuck())) {
            (Health::Sound, Some(reason)) => Health::Full { reason },
            (health, _) => health,
        }
    }
}

fn same(one: &Option<Arc<CompactedPrefix>>, other: &Option<Arc<CompactedPrefix>>) -> bool {
    let floor = |known: &Option<Arc<CompactedPrefix>>| known.as_ref().map(|known| known.floor());
    floor(one) == floor(other)
}

impl DurableLog {
    /// Reads what is kept below the floor, and from there on what is durable.
    fn read_above(
        &self,
        compacted: Option<&CompactedPrefix>,
        from: Offset,
        max: usize,
    ) -> Result<Vec<Recorded>, LogError> {
        let (mut records, mut from, mut max) = (Vec::new(), from, max);
        if let Some(compacted) = compacted.filter(|known| from < known.floor()) {
            records = compacted.read(from, max)?;
            max -= records.len();
            from = compacted.floor();
        }
        // Only what is durable: the tail moves after the sync.
        let to = Offset(self.tail().0.min(from.0.saturating_add(max as u64)));
        if from >= to {
            return Ok(records);
        }
        // What waits first: meanwhile it may move to the store, never back.
        let (boundary, blocks) = self.shared.queue.blocks(from, to);
        if from < boundary {
            records.extend(self.shared.older(from, boundary.min(to))?);
        }
        for (at, line) in blocks.iter().flat_map(|block| block.lines(from, to)) {
            records.push(decode(at, line)?);
        }
        Ok(records)
    }
}
