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
//! Providers: [`DurableLog`] (a strict journal and a sled store that repair each other),
//! [`JournalLog`] (the same folder, for reading alone), [`MemoryLog`] (tests, simulations). One
//! suite, `conformance`, holds them to the same contract.
//!
//! Files, from the bottom to the top (each uses only those above it in this list):
//!
//! - `error`: what can go wrong
//! - `layout`: what lies where in the log's folder
//! - `codec`: events as JSON, and older schemas brought up to the newest
//! - `record`: a record is a line with a checksum
//! - `segment`: the journal's files, their header lines, and lines in them
//! - `chain`: follows the hashes from batch to batch
//! - `scan`: the journal's records one after the other, past what is damaged
//! - `block`: lines in memory, on their way to the journal and the store
//! - `digest_sum`: the sum behind the state digest
//! - `compacted`: what a compacted log begins with
//! - `mod`: this file, the [`Log`] trait
//! - `digest`: the state digest of a log
//! - `subscribers`: whoever wants to know that a log grew
//! - `memory`: the log in memory
//! - `reader`: the journal, for reading alone
//! - `lock`: who may write
//! - `journal`: the strict copy, open for appending
//! - `store`: the second copy, in sled
//! - `store_sync`: in what the two differ, and giving the store what it lacks
//! - `shutdown`: how the log was left
//! - `verify`: checks a whole log
//! - `repair`: cuts off a torn end of the journal, and restores what the store still has
//! - `recover`: opens both copies and makes them equal
//! - `ballast`: space that is reserved for opening on a full disk
//! - `buffer_pool`: memory that is used again
//! - `store_queue`: what is in the journal and not yet in the store
//! - `shared`: what the threads of an open log share
//! - `compact`: drops old records
//! - `writer`: group commit
//! - `durable`: the durable log

mod ballast;
mod block;
mod buffer_pool;
mod chain;
mod codec;
mod compact;
mod compacted;
#[cfg(test)]
mod conformance;
mod digest;
mod digest_sum;
mod durable;
mod error;
mod journal;
mod layout;
mod lock;
mod memory;
mod reader;
mod record;
mod recover;
mod repair;
mod scan;
mod segment;
mod shared;
mod shutdown;
mod store;
mod store_queue;
mod store_sync;
mod subscribers;
mod verify;
mod writer;

pub use codec::EVENT_BYTES_MAX;
pub use compact::{Compacted, Compaction};
pub use compacted::CompactedPrefix;
pub use digest::{Digest, state_digest};
pub use durable::{DurableLog, LogSettings};
pub use error::LogError;
pub use lock::holder;
pub use memory::MemoryLog;
pub use reader::JournalLog;
pub use record::Recorded;
pub use repair::LostRecords;
pub use verify::{Verified, verify, verify_at_rest, verify_folder};

use crate::domain::{Event, Offset, TaskKey};
use crossbeam_channel::Receiver;
use std::ops::ControlFlow;
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

/// Records that are read at a time by who reads many.
const WALKED: usize = 512;

/// Shows the records of a log from an offset on, one after the other, until somebody has seen enough.
///
/// # Errors
/// When the log cannot be read.
pub fn walk(
    log: &dyn Log,
    mut from: Offset,
    mut see: impl FnMut(Recorded) -> ControlFlow<()>,
) -> Result<(), LogError> {
    loop {
        let records = log.read(from, WALKED)?;
        let Some(last) = records.last() else { return Ok(()) };
        from = Offset(last.offset.0 + 1);
        for record in records {
            if see(record).is_break() {
                return Ok(());
            }
        }
    }
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

    /// What a compacted log begins with. Below [`CompactedPrefix::floor`] records are missing:
    /// reading skips them, and a view begins with what it was there.
    fn compacted(&self) -> Option<Arc<CompactedPrefix>> {
        None
    }

    /// A channel of capacity one that gets a notice after every append: many notices are one.
    fn subscribe(&self) -> Receiver<()>;

    /// Whether it takes batches.
    fn health(&self) -> Health {
        Health::Sound
    }
}
