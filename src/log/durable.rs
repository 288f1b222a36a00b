//! The durable log: a journal that is synced before anything is acknowledged, and a sled store
//! that answers questions.
//!
//! ```text
//!   append ---> queue ----> journal (fdatasync) ---> acknowledged, readable
//!                                  \
//!                                   recent ---> store (sled) ---> answers by offset, key, cursor
//! ```
//!
//! Why the journal is the strict copy: a commit through sled cost 1.57 ms where a plain file costs
//! 0.47 (`benches/results/parts.md`), and pages of an unsynced sled database that reach the disk
//! out of order can take acknowledged records with them without a word.

use super::ballast;
use super::base::Base;
use super::block::Block;
use super::compact::{Compacted, Compaction};
use super::error::LogError;
use super::lock::Lock;
use super::mark::Mark;
use super::mend::Loss;
use super::recent::Recent;
use super::record::{Recorded, decode};
use super::recover::{self, Care, Opened, entries, open_error};
use super::spares::Spares;
use super::store::{Store, StoreError};
use super::verify::{Verified, both};
use super::writer::{CommitQueue, Writer};
use super::{Appended, Batch, Bells, Clock, Health, Log, Payloads};
use crate::domain::{Event, Offset, TaskKey};
use crate::machine::{Found, Place};
use crossbeam_channel::Receiver;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// The folder's format; any other is refused.
pub(crate) const FORMAT: u32 = 3;

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

/// What the threads and the readers share.
pub(crate) struct Shared {
    dir: PathBuf,
    /// The folder behind `dir`: another log may come to lie there.
    place: Place,
    pub store: Store,
    pub recent: Recent,
    pub spares: Spares,
    base: Mutex<Option<Arc<Base>>>,
    tail: AtomicU64,
    bells: Bells,
    health: Mutex<Health>,
    held: Mutex<Option<String>>,
}

impl Shared {
    /// The log's folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What the log begins with, once it was compacted.
    pub fn base(&self) -> Option<Arc<Base>> {
        self.base.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says so when the folder is not there, or another one: what is read by name would be another
    /// log's then, and what is written would be in it.
    pub fn at_its_place(&self) -> Result<(), String> {
        match self.place.look() {
            Found::It => Ok(()),
            Found::Nothing(reason) => Err(format!("the log's folder is away: {reason}")),
            Found::Another => Err("another folder is in the place of the log's".to_owned()),
        }
    }

    pub fn set_base(&self, base: Option<Base>) {
        *self.base.lock().unwrap_or_else(PoisonError::into_inner) = base.map(Arc::new);
    }

    /// Shows a durable group to readers.
    pub fn publish(&self, block: Block) {
        let tail = block.tail();
        self.recent.push(block);
        self.tail.store(tail.0, Ordering::Release);
        self.bells.ring();
    }

    /// Where a key was taken.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn find(&self, key: &TaskKey) -> Result<Option<Offset>, LogError> {
        // What waits first: meanwhile it may move to the store, never back.
        if let Some(at) = self.recent.key(key) {
            return Ok(Some(at));
        }
        self.store.key(key).map_err(|error| match error {
            StoreError::Io(_) | StoreError::InUse => LogError::Read(error.reason().to_owned()),
            // Opening it again mends it.
            StoreError::Damaged(reason) => {
                LogError::Poisoned(format!("its index is damaged: {reason}"))
            }
        })
    }

    /// Why nothing may be written at present.
    pub fn held(&self) -> Option<String> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_held(&self, reason: Option<String>) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reason) = reason.as_ref().filter(|_| held.is_none()) {
            tracing::warn!(reason, "the log is held");
        }
        *held = reason;
    }

    pub fn health(&self) -> Health {
        self.health.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set_health(&self, health: Health) {
        *self.health.lock().unwrap_or_else(PoisonError::into_inner) = health;
    }

    /// Records that the store has: read from the journal, which costs no memory and where the
    /// store knows the place; from the store's own copy, where the journal cannot give them.
    fn older(&self, from: Offset, to: Offset) -> Result<Vec<Recorded>, LogError> {
        self.journalled(from, to).or_else(|error| {
            match &error {
                // The disk's fault, or that of a limit: it says nothing about the journal.
                LogError::Read(reason) => tracing::debug!(reason, "read from the store instead"),
                _ => tracing::warn!(%error, "the journal is damaged; read from the store instead"),
            }
            // As long as the disk refuses, nobody knows whether anything is damaged.
            let lines = self.store.lines(from, to).map_err(|stored| match stored {
                StoreError::Io(_) | StoreError::InUse => LogError::Read(stored.reason().to_owned()),
                StoreError::Damaged(_) => error,
            })?;
            (from.0..).zip(&lines).map(|(at, line)| decode(Offset(at), line)).collect()
        })
    }

    fn journalled(&self, from: Offset, to: Offset) -> Result<Vec<Recorded>, LogError> {
        let damaged = |reason: String| LogError::Damaged { offset: from, reason };
        self.at_its_place().map_err(LogError::Read)?;
        let place = self.store.place(from).map_err(|error| match error {
            StoreError::Io(_) | StoreError::InUse => LogError::Read(error.reason().to_owned()),
            StoreError::Damaged(reason) => damaged(reason),
        })?;
        let max = (to.0 - from.0) as usize;
        let found = entries(&self.dir, from, max, place);
        let found = found.map_err(|error| LogError::Read(error.to_string()))?;
        let records = (from.0..).zip(&found).map(|(at, entry)| decode(Offset(at), &entry.line));
        let records = records.collect::<Result<Vec<_>, _>>()?;
        match records.len() == max {
            true => Ok(records),
            false => Err(damaged(format!("records {from} to {to} are not all there"))),
        }
    }
}

/// The durable log.
pub struct DurableLog {
    shared: Arc<Shared>,
    queue: CommitQueue,
    follower: Option<JoinHandle<bool>>,
    repairs: Vec<String>,
}

/// Refuses another format.
pub(crate) fn check_format(path: &Path) -> Result<(), LogError> {
    let found = std::fs::read_to_string(path.join("FORMAT"));
    let found = found.map_err(|error| open_error(path, error))?.trim().to_owned();
    match found == FORMAT.to_string() {
        true => Ok(()),
        false => Err(LogError::Format { path: path.to_owned(), found, ours: FORMAT }),
    }
}

/// Writes the format into a folder that has none.
fn write_format(path: &Path) -> Result<(), LogError> {
    let file = path.join("FORMAT");
    if file.exists() {
        return Ok(());
    }
    super::journal::replace(&file, format!("{FORMAT}\n").as_bytes())
        .map_err(|error| open_error(path, error))
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
        DurableLog::open_carefully(path, clock, settings, Care::Usual)
    }

    /// Looks at everything and mends what can be mended, each copy from the other: the repairs.
    ///
    /// # Errors
    /// As [`DurableLog::open`]; with [`Loss::Accept`] lost records are no error.
    pub fn rebuild(
        path: &Path,
        clock: Arc<dyn Clock>,
        loss: Loss,
    ) -> Result<Vec<String>, LogError> {
        let log =
            DurableLog::open_carefully(path, clock, LogSettings::default(), Care::Rebuild(loss))?;
        Ok(log.repairs.clone())
    }

    fn open_carefully(
        path: &Path,
        clock: Arc<dyn Clock>,
        settings: LogSettings,
        care: Care,
    ) -> Result<DurableLog, LogError> {
        std::fs::create_dir_all(path).map_err(|error| open_error(path, error))?;
        ballast::throw_if_tight(path);
        let mut lock = Lock::take(path)?;
        write_format(path)?;
        check_format(path)?;
        lock.show();
        let opened = recover::open(path, care)?;
        Mark::write_open(path).map_err(|error| open_error(path, error))?;
        ballast::take_if_roomy(path);
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
        opened: Opened,
    ) -> Result<DurableLog, LogError> {
        let Opened { journal, store, tail, last, repairs, base } = opened;
        let place = Place::of(path).map_err(|error| open_error(path, error))?;
        let shared = Arc::new(Shared {
            dir: path.to_owned(),
            place,
            store,
            recent: Recent::new(tail),
            spares: Spares::default(),
            base: Mutex::new(base.map(Arc::new)),
            tail: AtomicU64::new(tail.0),
            bells: Bells::default(),
            health: Mutex::default(),
            held: Mutex::default(),
        });
        let ours = shared.clone();
        let follower = std::thread::Builder::new().name("gradus-store".to_owned());
        let follower = follower.spawn(move || ours.recent.run(&ours.store, &ours.spares));
        let follower = follower.map_err(|error| open_error(path, error))?;
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

    /// What opening had to mend.
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
        self.shared.recent.wait_until_empty();
        both(&self.shared.dir, Some(&self.shared.store))
    }
}

impl Drop for DurableLog {
    fn drop(&mut self) {
        self.shared.recent.close();
        let stored = self.follower.take().map(JoinHandle::join);
        let lost = matches!(self.shared.health(), Health::Lost { .. });
        if matches!(stored, Some(Ok(true))) && !lost && self.shared.at_its_place().is_ok() {
            // Without the mark the next opening looks closer, that is all.
            let _ = Mark::write_closed(&self.shared.dir, self.tail());
        }
    }
}

impl Log for DurableLog {
    fn append(&self, batch: Batch) -> Result<Appended, LogError> {
        let payloads = Payloads::of(&batch.events, self.shared.spares.take())?;
        self.queue.append(batch, payloads)
    }

    fn read(&self, from: Offset, max: usize) -> Result<Vec<Recorded>, LogError> {
        let base = self.shared.base();
        let found = self.read_above(base.as_deref(), from, max);
        match found {
            // It was compacted meanwhile.
            Err(_) if !same(&base, &self.shared.base()) => self.read(from, max),
            found => found,
        }
    }

    fn base(&self) -> Option<Arc<Base>> {
        self.shared.base()
    }

    fn tail(&self) -> Offset {
        Offset(self.shared.tail.load(Ordering::Acquire))
    }

    fn find(&self, key: &TaskKey) -> Result<Option<Offset>, LogError> {
        self.shared.find(key)
    }

    fn cursor(&self, name: &str) -> Result<Offset, LogError> {
        if let Some(at) = self.shared.recent.cursor(name) {
            return Ok(at);
        }
        let found = self.shared.store.cursor(name);
        Ok(found.map_err(|e| LogError::Read(e.reason().to_owned()))?.unwrap_or_default())
    }

    fn subscribe(&self) -> Receiver<()> {
        self.shared.bells.subscribe()
    }

    fn health(&self) -> Health {
        match (self.shared.health(), self.shared.held().or_else(|| self.shared.recent.stuck())) {
            (Health::Sound, Some(reason)) => Health::Full { reason },
            (health, _) => health,
        }
    }
}

fn same(one: &Option<Arc<Base>>, other: &Option<Arc<Base>>) -> bool {
    let floor = |base: &Option<Arc<Base>>| base.as_ref().map(|base| base.floor());
    floor(one) == floor(other)
}

impl DurableLog {
    /// Reads what is kept below the floor, and from there on what is durable.
    fn read_above(
        &self,
        base: Option<&Base>,
        from: Offset,
        max: usize,
    ) -> Result<Vec<Recorded>, LogError> {
        let (mut records, mut from, mut max) = (Vec::new(), from, max);
        if let Some(base) = base.filter(|base| from < base.floor()) {
            records = base.read(from, max)?;
            max -= records.len();
            from = base.floor();
        }
        // Only what is durable: the tail moves after the sync.
        let to = Offset(self.tail().0.min(from.0.saturating_add(max as u64)));
        if from >= to {
            return Ok(records);
        }
        // What waits first: meanwhile it may move to the store, never back.
        let (boundary, blocks) = self.shared.recent.blocks(from, to);
        if from < boundary {
            records.extend(self.shared.older(from, boundary.min(to))?);
        }
        for (at, line) in blocks.iter().flat_map(|block| block.lines(from, to)) {
            records.push(decode(at, line)?);
        }
        Ok(records)
    }
}
