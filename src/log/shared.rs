//! What the threads of an open log and its readers share.

use super::Health;
use super::block::Block;
use super::buffer_pool::BufferPool;
use super::compacted::CompactedPrefix;
use super::error::LogError;
use super::record::{Recorded, decode};
use super::scan::entries;
use super::store::{Store, StoreError};
use super::store_queue::StoreQueue;
use super::subscribers::Subscribers;
use crate::domain::{Offset, TaskKey};
use crate::machine::{Found, Place};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What is known of an open log.
pub(crate) struct LogState {
    dir: PathBuf,
    /// The folder behind `dir`: another log may come to lie there.
    place: Place,
    pub store: Store,
    pub queue: StoreQueue,
    pub buffers: BufferPool,
    pub subscribers: Subscribers,
    compacted: Mutex<Option<Arc<CompactedPrefix>>>,
    tail: AtomicU64,
    health: Mutex<Health>,
    held: Mutex<Option<String>>,
}

impl LogState {
    /// What a log in the folder `dir` begins with, whose copies both have everything up to `tail`.
    ///
    /// # Errors
    /// [`LogError::Open`] when the folder went away.
    pub fn new(
        dir: &Path,
        store: Store,
        compacted: Option<CompactedPrefix>,
        tail: Offset,
    ) -> Result<LogState, LogError> {
        let place = Place::of(dir).map_err(|error| LogError::open(dir, error))?;
        Ok(LogState {
            dir: dir.to_owned(),
            place,
            store,
            queue: StoreQueue::new(tail),
            buffers: BufferPool::default(),
            subscribers: Subscribers::default(),
            compacted: Mutex::new(compacted.map(Arc::new)),
            tail: AtomicU64::new(tail.0),
            health: Mutex::default(),
            held: Mutex::default(),
        })
    }

    /// The first unwritten offset.
    pub fn tail(&self) -> Offset {
        Offset(self.tail.load(Ordering::Acquire))
    }

    /// The log's folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What the log begins with, once it was compacted.
    pub fn compacted(&self) -> Option<Arc<CompactedPrefix>> {
        self.compacted.lock().unwrap_or_else(PoisonError::into_inner).clone()
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

    pub fn set_compacted(&self, compacted: Option<CompactedPrefix>) {
        let mut known = self.compacted.lock().unwrap_or_else(PoisonError::into_inner);
        *known = compacted.map(Arc::new);
    }

    /// Shows a durable group to readers.
    pub fn publish(&self, block: Block) {
        let tail = block.tail();
        self.queue.push(block);
        self.tail.store(tail.0, Ordering::Release);
        self.subscribers.notify();
    }

    /// Where a key was taken.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn find(&self, key: &TaskKey) -> Result<Option<Offset>, LogError> {
        // What waits first: meanwhile it may move to the store, never back.
        if let Some(at) = self.queue.key(key) {
            return Ok(Some(at));
        }
        self.store.key(key).map_err(|error| match error {
            StoreError::Io(_) | StoreError::InUse => LogError::Read(error.reason().to_owned()),
            // Opening it again repairs it.
            StoreError::Damaged(reason) => {
                LogError::Poisoned(format!("its index is damaged: {reason}"))
            }
        })
    }

    /// Why nothing may be written at present.
    pub fn held(&self) -> Option<String> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set_held(&self, reason: Option<String>) {
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
    /// store knows the position; from the store's own copy, where the journal cannot give them.
    ///
    /// # Errors
    /// When neither can.
    pub fn older(&self, from: Offset, to: Offset) -> Result<Vec<Recorded>, LogError> {
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
        let position = self.store.position(from).map_err(|error| match error {
            StoreError::Io(_) | StoreError::InUse => LogError::Read(error.reason().to_owned()),
            StoreError::Damaged(reason) => damaged(reason),
        })?;
        let max = (to.0 - from.0) as usize;
        let found = entries(&self.dir, from, max, position);
        let found = found.map_err(|error| LogError::Read(error.to_string()))?;
        let records = (from.0..).zip(&found).map(|(at, entry)| decode(Offset(at), &entry.line));
        let records = records.collect::<Result<Vec<_>, _>>()?;
        match records.len() == max {
            true => Ok(records),
            false => Err(damaged(format!("records {from} to {to} are not all there"))),
        }
    }
}
