//! The durable log, on sled 0.34.7, never bare:
//!
//! * sled's `flush` on Linux ends in `sync_file_range`, which does not reach the disk
//!   (spacejam/sled#1351, #1452). After every group commit comes an `fdatasync` of its data file
//!   through a descriptor of our own.
//! * Its recovery survives a torn tail, not reordered pages over more than a segment: a group
//!   commit takes at most 128 KiB of batches and the next begins only after the sync.
//! * Concurrent `flush_async` can deadlock (#1308): there is one writer thread and no background
//!   flusher.
//! * `open` panics on a flipped bit: it runs on a thread of its own with a time limit.

use super::error::LogError;
use super::record::{Draft, Recorded, decode, encode};
use super::{Appended, Batch, Bells, Clock, Log};
use crate::domain::{Offset, TaskKey};
use crossbeam_channel::{Receiver, Sender, bounded};
use sled::transaction::{ConflictableTransactionError, TransactionError, Transactional};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The folder's format; a newer one is refused.
const FORMAT: u32 = 1;
const OPEN_PATIENCE: Duration = Duration::from_secs(30);
/// Batches waiting for the writer; more wait with their sender.
const QUEUE_BATCHES_MAX: usize = 1024;
/// Bytes of one group commit, far below sled's segment of 512 KiB.
const GROUP_BYTES_MAX: usize = 128 << 10;

struct Order {
    batch: Batch,
    payloads: Vec<Vec<u8>>,
    answer: Sender<Result<Appended, LogError>>,
}

struct Trees {
    log: sled::Tree,
    keys: sled::Tree,
    cursors: sled::Tree,
}

/// The durable log.
pub struct SledLog {
    trees: Arc<Trees>,
    tail: Arc<AtomicU64>,
    bells: Arc<Bells>,
    orders: Option<Sender<Order>>,
    writer: Option<std::thread::JoinHandle<()>>,
}

fn open_error(path: &Path, reason: impl ToString) -> LogError {
    LogError::Open { path: path.to_owned(), reason: reason.to_string() }
}

fn check_format(path: &Path) -> Result<(), LogError> {
    let file = path.join("FORMAT");
    match std::fs::read_to_string(&file) {
        Ok(found) if found.trim().parse::<u32>().is_ok_and(|f| f <= FORMAT) => Ok(()),
        Ok(found) => {
            let found = found.trim().to_owned();
            Err(LogError::Format { path: path.to_owned(), found, ours: FORMAT })
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            std::fs::write(&file, format!("{FORMAT}\n")).map_err(|e| open_error(path, e))
        }
        Err(error) => Err(open_error(path, error)),
    }
}

fn open_sled(path: &Path) -> Result<sled::Db, LogError> {
    let store = path.join("sled");
    let (send, opened) = bounded(1);
    let inner = store.clone();
    std::thread::Builder::new()
        .name("gradus-log-open".into())
        .spawn(move || {
            let config = sled::Config::new().path(&inner).flush_every_ms(None);
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| config.open()));
            let _ = send.send(result);
        })
        .map_err(|error| open_error(path, error))?;
    match opened.recv_timeout(OPEN_PATIENCE) {
        Ok(Ok(Ok(db))) => Ok(db),
        Ok(Ok(Err(error))) if error.to_string().contains("lock") => {
            let pid = std::fs::read_to_string(path.join("pid")).unwrap_or_default();
            let run = path.parent().unwrap_or(path).to_owned();
            Err(LogError::InUse { path: run, pid: pid.trim().to_owned() })
        }
        Ok(Ok(Err(error))) => Err(open_error(path, error)),
        Ok(Err(_)) => Err(open_error(path, "the store is damaged (it panicked)")),
        Err(_) => Err(open_error(path, "it did not open within 30 s")),
    }
}

impl SledLog {
    /// Opens or creates the log in the folder `path`; one process at a time.
    ///
    /// # Errors
    /// [`LogError::InUse`], [`LogError::Format`], [`LogError::Open`].
    pub fn open(path: &Path, clock: Arc<dyn Clock>) -> Result<SledLog, LogError> {
        std::fs::create_dir_all(path).map_err(|error| open_error(path, error))?;
        check_format(path)?;
        let db = open_sled(path)?;
        let _ = std::fs::write(path.join("pid"), std::process::id().to_string());
        let tree = |name: &str| db.open_tree(name).map_err(|error| open_error(path, error));
        let trees =
            Arc::new(Trees { log: tree("log")?, keys: tree("keys")?, cursors: tree("cursors")? });
        let data = path.join("sled").join("db");
        let data = File::open(&data).map_err(|error| open_error(&data, error))?;
        let (tail, last) = last_record(&trees.log)?;
        let tail = Arc::new(AtomicU64::new(tail));
        let bells = Arc::new(Bells::default());
        let (orders, inbox) = bounded(QUEUE_BATCHES_MAX);
        let writer = Writer {
            db,
            data,
            trees: trees.clone(),
            tail: tail.clone(),
            bells: bells.clone(),
            clock,
            last,
        };
        let writer = std::thread::Builder::new()
            .name("gradus-log".into())
            .spawn(move || writer.run(&inbox))
            .map_err(|error| open_error(path, error))?;
        Ok(SledLog { trees, tail, bells, orders: Some(orders), writer: Some(writer) })
    }
}

fn last_record(log: &sled::Tree) -> Result<(u64, [u8; 32]), LogError> {
    match log.last().map_err(|error| LogError::Read(error.to_string()))? {
        None => Ok((0, [0; 32])),
        Some((key, value)) => {
            let offset = offset_of(&key);
            let (record, _) = decode(offset, &value)?;
            Ok((offset.0 + 1, record.hash))
        }
    }
}

fn offset_of(key: &[u8]) -> Offset {
    Offset(u64::from_be_bytes(key.try_into().unwrap_or([0xff; 8])))
}

impl Drop for SledLog {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

impl Log for SledLog {
    fn append(&self, batch: Batch) -> Result<Appended, LogError> {
        let payloads = batch.events.iter().map(super::payload).collect::<Result<Vec<_>, _>>()?;
        let (answer, answered) = bounded(1);
        let gone = || LogError::Poisoned("the writer ended".to_owned());
        let orders = self.orders.as_ref().ok_or_else(gone)?;
        orders.send(Order { batch, payloads, answer }).map_err(|_| gone())?;
        answered.recv().map_err(|_| gone())?
    }

    fn read(&self, from: Offset, max: usize) -> Result<Vec<Recorded>, LogError> {
        // Only what is durable: the tail moves after the sync.
        let to = self.tail().0.min(from.0.saturating_add(max as u64));
        if from.0 >= to {
            return Ok(Vec::new());
        }
        let range = self.trees.log.range(from.0.to_be_bytes()..to.to_be_bytes());
        range
            .map(|entry| {
                let (key, value) = entry.map_err(|error| LogError::Read(error.to_string()))?;
                Ok(decode(offset_of(&key), &value)?.0)
            })
            .collect()
    }

    fn tail(&self) -> Offset {
        Offset(self.tail.load(Ordering::Acquire))
    }

    fn find(&self, key: &TaskKey) -> Result<Option<Offset>, LogError> {
        let found = self.trees.keys.get(key.as_str());
        Ok(found.map_err(|e| LogError::Read(e.to_string()))?.map(|value| offset_of(&value)))
    }

    fn cursor(&self, name: &str) -> Result<Offset, LogError> {
        let found = self.trees.cursors.get(name);
        let found = found.map_err(|e| LogError::Read(e.to_string()))?;
        Ok(found.map(|value| offset_of(&value)).unwrap_or_default())
    }

    fn subscribe(&self) -> Receiver<()> {
        self.bells.subscribe()
    }
}

/// What one group commit writes.
#[derive(Default)]
struct Group {
    records: Vec<(u64, Vec<u8>)>,
    keys: Vec<(TaskKey, u64)>,
    cursors: Vec<(String, Offset)>,
    answers: Vec<(Sender<Result<Appended, LogError>>, Appended)>,
    bytes: usize,
}

struct Writer {
    db: sled::Db,
    data: File,
    trees: Arc<Trees>,
    tail: Arc<AtomicU64>,
    bells: Arc<Bells>,
    clock: Arc<dyn Clock>,
    last: [u8; 32],
}

impl Writer {
    fn run(mut self, inbox: &Receiver<Order>) {
        let mut poison: Option<String> = None;
        while let Ok(first) = inbox.recv() {
            if let Some(reason) = &poison {
                let _ = first.answer.send(Err(LogError::Poisoned(reason.clone())));
                continue;
            }
            // Whoever waits already shares the sync; nobody waits for company.
            let mut group = Group::default();
            let mut next = Some(first);
            while let Some(order) = next {
                self.add(order, &mut group);
                let more = group.bytes < GROUP_BYTES_MAX;
                next = if more { inbox.try_recv().ok() } else { None };
            }
            if let Err(reason) = self.commit(group) {
                tracing::error!(reason, "the log can no longer be written");
                poison = Some(reason);
            }
        }
    }

    fn add(&mut self, order: Order, group: &mut Group) {
        let Order { batch, payloads, answer } = order;
        if let Some(key) = &batch.key {
            match self.taken(key, group) {
                Ok(None) => {}
                Ok(Some(first)) => {
                    // Answered with the group, for the first batch may still be in it.
                    group.answers.push((answer, Appended::Duplicate { first }));
                    return;
                }
                Err(error) => {
                    let _ = answer.send(Err(error));
                    return;
                }
            }
        }
        let first = self.tail.load(Ordering::Acquire) + group.records.len() as u64;
        for (at, payload) in (first..).zip(&payloads) {
            let draft = Draft {
                offset: Offset(at),
                at_ms: self.clock.now_ms(),
                key: batch.key.as_ref(),
                previous: self.last,
                payload,
            };
            let (bytes, hash) = encode(&draft);
            self.last = hash;
            group.bytes += bytes.len();
            group.records.push((at, bytes));
        }
        group.keys.extend(batch.key.map(|key| (key, first)));
        group.cursors.extend(batch.cursor);
        let tail = Offset(first + payloads.len() as u64);
        group.answers.push((answer, Appended::New { first: Offset(first), tail }));
    }

    fn taken(&self, key: &TaskKey, group: &Group) -> Result<Option<Offset>, LogError> {
        if let Some((_, first)) = group.keys.iter().find(|(k, _)| k == key) {
            return Ok(Some(Offset(*first)));
        }
        let found = self.trees.keys.get(key.as_str());
        Ok(found.map_err(|e| LogError::Read(e.to_string()))?.map(|value| offset_of(&value)))
    }

    fn commit(&self, group: Group) -> Result<(), String> {
        let result = self.write(&group).and_then(|()| self.sync());
        match result {
            Ok(()) => {
                self.tail.fetch_add(group.records.len() as u64, Ordering::AcqRel);
                for (answer, appended) in group.answers {
                    let _ = answer.send(Ok(appended));
                }
                self.bells.ring();
                Ok(())
            }
            Err(reason) => {
                for (answer, _) in group.answers {
                    let _ = answer.send(Err(LogError::Poisoned(reason.clone())));
                }
                Err(reason)
            }
        }
    }

    fn write(&self, group: &Group) -> Result<(), String> {
        let trees = (&self.trees.log, &self.trees.keys, &self.trees.cursors);
        let result: Result<(), TransactionError<String>> =
            trees.transaction(|(log, keys, cursors)| {
                for (at, bytes) in &group.records {
                    log.insert(&at.to_be_bytes(), bytes.as_slice())?;
                }
                for (key, first) in &group.keys {
                    keys.insert(key.as_str(), &first.to_be_bytes())?;
                }
                for (name, at) in &group.cursors {
                    cursors.insert(name.as_str(), &at.0.to_be_bytes())?;
                }
                Ok::<(), ConflictableTransactionError<String>>(())
            });
        result.map_err(|error| error.to_string())
    }

    fn sync(&self) -> Result<(), String> {
        self.db.flush().map_err(|error| error.to_string())?;
        self.data.sync_data().map_err(|error| format!("fdatasync: {error}"))
    }
}
