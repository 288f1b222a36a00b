//! THE MEMORY: events in order, durable when [`Log::append`] returns, batch chained to batch by hash.
//!
//! ```text
//!   offset   0     1     2     3     4     5
//!          +-----+-----+-----+-----+-----+ - - +
//!          | rec | rec | rec | rec | rec |     |
//!          +-----+-----+-----+-----+-----+ - - +
//!                   ^ cursor            ^ tail: the first unwritten offset
//! ```
//!
//! A batch, its task key and a cursor move commit together or not at all. A key is taken once: the
//! second batch with the same key is a [`Appended::Duplicate`] and writes nothing, so that doing a
//! task again is safe and recording it twice is impossible.
//!
//! Providers: [`DurableLog`] (a strict journal and a sled store that mend each other),
//! [`JournalLog`] (the same folder, for reading alone), [`MemoryLog`] (tests, simulations). One
//! suite, `conformance`, holds them to the same contract.

mod ballast;
mod base;
mod block;
mod chain;
mod codec;
mod compact;
#[cfg(test)]
mod conformance;
mod digest;
mod durable;
mod error;
mod journal;
mod lock;
mod mark;
mod memory;
mod mend;
mod reader;
mod recent;
mod record;
mod recover;
mod segment;
mod spares;
mod store;
mod verify;
mod walk;
mod writer;

pub use base::Base;
pub use compact::{Compacted, Compaction};
pub use digest::{Digest, state_digest};
pub use durable::{DurableLog, LogSettings};
pub use error::LogError;
pub use lock::holder;
pub use memory::MemoryLog;
pub use mend::Loss;
pub use reader::JournalLog;
pub use record::Recorded;
pub use verify::{Verified, verify, verify_at_rest, verify_folder};

use crate::domain::{Event, Offset, TaskKey};
use crossbeam_channel::Receiver;
use std::sync::Arc;

/// What is appended together.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Taken once; `None` for what may happen any number of times.
    pub key: Option<TaskKey>,
    /// In order.
    pub events: Vec<Event>,
    /// A named consumer's next offset.
    pub cursor: Option<(String, Offset)>,
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// It is durable at `first..tail`.
    New {
        /// Offset of its first event.
        first: Offset,
        /// The tail after it.
        tail: Offset,
    },
    /// Its key was taken; nothing was written.
    Duplicate {
        /// Where the first batch with this key begins.
        first: Offset,
    },
}

/// Whether a log takes batches.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Health {
    /// It does.
    #[default]
    Sound,
    /// Not now: there is no space. It will by itself when there is.
    Full {
        /// What the system said.
        reason: String,
    },
    /// Not before it is opened again.
    Lost {
        /// What the system said.
        reason: String,
    },
}

/// The time, injected: this room reads no clock.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since 1970.
    fn now_ms(&self) -> u64;
}

/// An append-only sequence of events.
pub trait Log: Send + Sync + 'static {
    /// Appends a batch; durable when this returns. A batch without events writes nothing: its key
    /// is not taken, its cursor does not move.
    ///
    /// # Errors
    /// [`LogError::TooLarge`] for an event over 1 MiB (nothing is written);
    /// [`LogError::Full`] while there is no space (nothing is written); [`LogError::Poisoned`]
    /// once it is unknown what a write left.
    fn append(&self, batch: Batch) -> Result<Appended, LogError>;

    /// Up to `max` records from `from` on. Without gaps, but below the floor of a compacted log.
    ///
    /// # Errors
    /// When a record is damaged.
    fn read(&self, from: Offset, max: usize) -> Result<Vec<Recorded>, LogError>;

    /// The record at an offset, if there is one.
    ///
    /// # Errors
    /// When it is damaged.
    fn get(&self, offset: Offset) -> Result<Option<Recorded>, LogError> {
        Ok(self.read(offset, 1)?.into_iter().find(|r| r.offset == offset))
    }

    /// The first unwritten offset.
    fn tail(&self) -> Offset;

    /// Whether a key is taken, and where.
    ///
    /// # Errors
    /// When the index cannot be read.
    fn find(&self, key: &TaskKey) -> Result<Option<Offset>, LogError>;

    /// A named consumer's next offset; 0 for one that never moved.
    ///
    /// # Errors
    /// When the index cannot be read.
    fn cursor(&self, name: &str) -> Result<Offset, LogError>;

    /// What a compacted log begins with. Below [`Base::floor`] records are missing: reading skips
    /// them, and a view begins with what it was there.
    fn base(&self) -> Option<Arc<Base>> {
        None
    }

    /// A doorbell of capacity one that rings after every append: many rings are one.
    fn subscribe(&self) -> Receiver<()>;

    /// Whether it takes batches.
    fn health(&self) -> Health {
        Health::Sound
    }
}

/// An event's payload is at most this many bytes; larger things are blobs.
pub const EVENT_BYTES_MAX: usize = 1 << 20;

/// Doorbells of all subscribers.
#[derive(Debug, Default)]
pub(crate) struct Bells(std::sync::Mutex<Vec<crossbeam_channel::Sender<()>>>);

impl Bells {
    pub(crate) fn subscribe(&self) -> Receiver<()> {
        let (ring, bell) = crossbeam_channel::bounded(1);
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(ring);
        bell
    }

    /// Rings every bell; those whose listener is gone are taken down.
    pub(crate) fn ring(&self) {
        let mut bells = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        bells.retain(|bell| {
            !matches!(bell.try_send(()), Err(crossbeam_channel::TrySendError::Disconnected(())))
        });
    }
}

/// The events of a batch as JSON, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Payloads {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Payloads {
    /// Writes the events into `bytes`, which is emptied first.
    ///
    /// # Errors
    /// [`LogError::TooLarge`].
    pub fn of(events: &[Event], mut bytes: Vec<u8>) -> Result<Payloads, LogError> {
        bytes.clear();
        let mut ends = Vec::with_capacity(events.len());
        for event in events {
            let start = bytes.len();
            codec::encode_to(event, &mut bytes).map_err(LogError::Read)?;
            let (kind, length) = (event.kind(), bytes.len() - start);
            if length > EVENT_BYTES_MAX {
                return Err(LogError::TooLarge { kind, bytes: length, max: EVENT_BYTES_MAX });
            }
            ends.push(bytes.len());
        }
        Ok(Payloads { bytes, ends })
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Each event's JSON.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| self.bytes.get(start..*end).unwrap_or_default())
    }

    /// The memory, to be used again.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}
