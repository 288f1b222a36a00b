//! Records that are in the journal and not yet in the store, and the thread that takes them over.
//! Readers see both as one.

use super::store::{Store, StoreError};
use super::walk::Entry;
use crate::domain::{Offset, TaskKey};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Bytes that go to the store together, far below sled's segment of 512 KiB.
const APPLY_BYTES_MAX: usize = 128 << 10;
/// Bytes that may wait for the store; more, and the writer waits too.
const WAITING_BYTES_MAX: usize = 32 << 20;
/// Between two attempts of a store that refuses.
const RETRY: Duration = Duration::from_millis(500);
/// Without work for so long, what was applied is made durable.
const IDLE: Duration = Duration::from_secs(1);

#[derive(Default)]
struct State {
    /// Offset of the first that waits; everything below is in the store.
    first: Offset,
    entries: VecDeque<Entry>,
    bytes: usize,
    keys: HashMap<TaskKey, Offset>,
    cursors: HashMap<String, Offset>,
    /// Why the store takes nothing at present.
    stuck: Option<String>,
    closing: bool,
}

/// The waiting records.
#[derive(Default)]
pub(crate) struct Recent {
    state: Mutex<State>,
    changed: Condvar,
}

impl Recent {
    /// Nothing waits; the store has everything below `first`.
    pub fn new(first: Offset) -> Recent {
        let state = State { first, ..State::default() };
        Recent { state: Mutex::new(state), changed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes durable records over. `keys` and `cursors` are theirs.
    pub fn push(
        &self,
        entries: Vec<Entry>,
        keys: impl IntoIterator<Item = (TaskKey, Offset)>,
        cursors: impl IntoIterator<Item = (String, Offset)>,
    ) {
        let mut state = self.state();
        state.bytes += entries.iter().map(|entry| entry.line.len()).sum::<usize>();
        state.entries.extend(entries);
        state.keys.extend(keys);
        state.cursors.extend(cursors);
        drop(state);
        self.changed.notify_all();
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
        while !state.entries.is_empty() && state.stuck.is_none() {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Where the store ends, and the waiting lines of `from..to`.
    pub fn lines(&self, from: Offset, to: Offset) -> (Offset, Vec<Arc<[u8]>>) {
        let state = self.state();
        let skip = from.0.saturating_sub(state.first.0) as usize;
        let take = to.0.saturating_sub(from.0.max(state.first.0)) as usize;
        let lines = state.entries.iter().skip(skip).take(take).map(|entry| entry.line.clone());
        (state.first, lines.collect())
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

    /// Lets [`Recent::run`] end once nothing waits, or at once when the store is stuck.
    pub fn close(&self) {
        self.state().closing = true;
        self.changed.notify_all();
    }

    /// The next records for the store; `None` when it is time to end.
    fn next(&self, store: &Store, unsynced: &mut bool) -> Option<Vec<Entry>> {
        let mut state = self.state();
        while state.entries.is_empty() {
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
        let mut bytes = 0;
        let fits = |entry: &&Entry| {
            let first = bytes == 0;
            bytes += entry.line.len();
            first || bytes <= APPLY_BYTES_MAX
        };
        Some(state.entries.iter().take_while(fits).cloned().collect())
    }

    fn applied(&self, entries: &[Entry]) {
        let mut state = self.state();
        for entry in entries {
            state.entries.pop_front();
            state.bytes -= entry.line.len();
            if let Some(key) = &entry.key
                && state.keys.get(key) == Some(&entry.offset)
            {
                state.keys.remove(key);
            }
            state.first = Offset(entry.offset.0 + 1);
        }
        if state.entries.is_empty() {
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

    /// Takes records over until [`Recent::close`]. True when the store has everything, durably.
    pub fn run(&self, store: &Store) -> bool {
        let mut unsynced = true;
        while let Some(entries) = self.next(store, &mut unsynced) {
            match store.apply(&entries) {
                Ok(()) => {
                    unsynced = true;
                    self.applied(&entries);
                }
                Err(error) if self.refused(&error) => return false,
                Err(_) => std::thread::sleep(RETRY),
            }
        }
        store.sync().is_ok()
    }
}
