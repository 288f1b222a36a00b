//! The write-behind queue: records that are in the journal and not yet in the store, and the thread
//! that takes them over when nobody commits, or when much waits, for its work slows a commit by half.
//! Readers see queue and store as one.

use super::block::Block;
use super::buffer_pool::BufferPool;
use super::store::{Store, StoreError};
use crate::domain::{Offset, TaskKey};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Bytes that go to the store together, far below sled's segment of 512 KiB.
const APPLY_BYTES_MAX: usize = 128 << 10;
/// Bytes that may wait for the store; more, and the writer waits too.
const WAITING_BYTES_MAX: usize = 32 << 20;
/// With less than this waiting, the store waits for a pause of the commits.
const PATIENT_BYTES_MAX: usize = 8 << 20;
/// A pause of the commits.
const PAUSE: Duration = Duration::from_millis(2);
/// Between two attempts of a store that refuses.
const RETRY: Duration = Duration::from_millis(500);
/// Without work for so long, what was applied is made durable.
const IDLE: Duration = Duration::from_secs(1);

#[derive(Default)]
struct Waiting {
    /// Offset of the first that waits; everything below is in the store.
    first: Offset,
    blocks: VecDeque<Arc<Block>>,
    bytes: usize,
    /// How often records came.
    pushes: u64,
    keys: HashMap<TaskKey, Offset>,
    cursors: HashMap<String, Offset>,
    /// Why the store takes nothing at present.
    stuck: Option<String>,
    /// Below this the store may forget what it has.
    floor: Option<Offset>,
    closing: bool,
}

/// The waiting records.
#[derive(Default)]
pub(crate) struct StoreQueue {
    state: Mutex<Waiting>,
    changed: Condvar,
}

impl StoreQueue {
    /// Nothing waits; the store has everything below `first`.
    pub fn new(first: Offset) -> StoreQueue {
        let state = Waiting { first, ..Waiting::default() };
        StoreQueue { state: Mutex::new(state), changed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, Waiting> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes durable records over.
    pub fn push(&self, block: Block) {
        let mut state = self.state();
        let idle = state.blocks.is_empty();
        state.bytes += block.bytes().len();
        state.pushes += 1;
        state.keys.extend(block.keys.iter().cloned());
        state.cursors.extend(block.cursors.iter().cloned());
        state.blocks.push_back(Arc::new(block));
        drop(state);
        if idle {
            self.changed.notify_all();
        }
    }

    /// Waits until more may be pushed.
    ///
    /// # Errors
    /// Why the store takes nothing, when it is stuck with as much as may wait.
    pub fn wait_for_room(&self) -> Result<(), String> {
        let mut state = self.state();
        while state.bytes > WAITING_BYTES_MAX {
            if let Some(reason) = &state.stuck {
                return Err(reason.clone());
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        Ok(())
    }

    /// Waits until the store has everything, or is stuck.
    pub fn wait_until_empty(&self) {
        let mut state = self.state();
        while !state.blocks.is_empty() && state.stuck.is_none() {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Where the store ends, and what waits that has lines of `from..to`.
    pub fn blocks(&self, from: Offset, to: Offset) -> (Offset, Vec<Arc<Block>>) {
        let state = self.state();
        let within = |block: &&Arc<Block>| block.first() < to && block.tail() > from;
        (state.first, state.blocks.iter().filter(within).cloned().collect())
    }

    /// Where a waiting task key was taken.
    pub fn key(&self, key: &TaskKey) -> Option<Offset> {
        self.state().keys.get(key).copied()
    }

    /// A waiting cursor.
    pub fn cursor(&self, name: &str) -> Option<Offset> {
        self.state().cursors.get(name).copied()
    }

    /// Why the store takes nothing at present, if it does not.
    pub fn stuck(&self) -> Option<String> {
        self.state().stuck.clone()
    }

    /// Lets [`StoreQueue::run`] end once nothing waits, or at once when the store is stuck.
    pub fn close(&self) {
        self.state().closing = true;
        self.changed.notify_all();
    }

    /// Lets the store forget what is below a compacted log's floor.
    pub fn delete_below(&self, floor: Offset) {
        self.state().floor = Some(floor);
        self.changed.notify_all();
    }

    /// The next records for the store; `None` when it is time to end.
    fn next(&self, store: &Store, unsynced: &mut bool) -> Option<Vec<Arc<Block>>> {
        let mut state = self.state();
        while state.blocks.is_empty() {
            if let Some(floor) = state.floor.take() {
                drop(state);
                // What stays behind is forgotten at the next opening.
                *unsynced |= store.delete_below(floor).is_ok();
                state = self.state();
                continue;
            }
            if state.closing {
                return None;
            }
            let (woken, waited) =
                self.changed.wait_timeout(state, IDLE).unwrap_or_else(PoisonError::into_inner);
            state = woken;
            if waited.timed_out() && *unsynced {
                drop(state);
                *unsynced = store.sync().is_err();
                state = self.state();
            }
        }
        drop(state);
        self.wait_for_pause();
        let state = self.state();
        let mut bytes = 0;
        let fits = |block: &&Arc<Block>| {
            let first = bytes == 0;
            bytes += block.bytes().len();
            first || bytes <= APPLY_BYTES_MAX
        };
        Some(state.blocks.iter().take_while(fits).cloned().collect())
    }

    fn wait_for_pause(&self) {
        let mut seen = None;
        loop {
            let state = self.state();
            if state.closing || state.bytes > PATIENT_BYTES_MAX || seen == Some(state.pushes) {
                return;
            }
            seen = Some(state.pushes);
            drop(state);
            std::thread::sleep(PAUSE);
        }
    }

    fn applied(&self, blocks: &[Arc<Block>]) {
        let mut state = self.state();
        for block in blocks {
            state.blocks.pop_front();
            state.bytes -= block.bytes().len();
            for (key, _) in &block.keys {
                state.keys.remove(key);
            }
            state.first = block.tail();
        }
        if state.blocks.is_empty() {
            state.cursors.clear();
        }
        state.stuck = None;
        drop(state);
        self.changed.notify_all();
    }

    /// A refusal; true when it is no use to try again before the log is opened anew.
    fn refused(&self, error: &StoreError) -> bool {
        tracing::warn!(reason = error.reason(), "the store takes nothing; the journal goes on");
        let mut state = self.state();
        state.stuck = Some(error.reason().to_owned());
        let end = state.closing;
        drop(state);
        self.changed.notify_all();
        end
    }

    /// Takes records over until [`StoreQueue::close`]. True when the store has everything, durably.
    pub fn run(&self, store: &Store, buffers: &BufferPool) -> bool {
        let mut unsynced = true;
        while let Some(blocks) = self.next(store, &mut unsynced) {
            match store.apply(&blocks) {
                Ok(()) => {
                    unsynced = true;
                    self.applied(&blocks);
                    // A reader may still have some.
                    let free = blocks.into_iter().filter_map(|block| Arc::try_unwrap(block).ok());
                    free.for_each(|block| buffers.give(block.into_bytes()));
                }
                Err(error) if self.refused(&error) => return false,
                Err(_) => std::thread::sleep(RETRY),
            }
        }
        store.sync().is_ok()
    }
}
