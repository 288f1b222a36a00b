//! Group commit: whoever comes first writes the journal for all who wait (a group of at most
//! 128 KiB, and the batch that passes it), and they share its sync; nobody waits for company. The
//! caller's own thread does it, for two changes of thread are a tenth of a commit. The store
//! follows later, on a thread of its own.

use super::block::Block;
use super::chain::Chain;
use super::codec::Payloads;
use super::compact::{self, Compacted, Compaction};
use super::error::LogError;
use super::journal::{AppendError, Journal};
use super::lock::Lock;
use super::record::{BatchHash, Common, RecordParts, encode};
use super::shared::LogState;
use super::{Appended, Batch, Clock, Health};
use crate::domain::{Offset, TaskKey};
use crossbeam_channel::{Sender, bounded};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes of one group, to which one more batch may be added.
const GROUP_BYTES_MAX: usize = 128 << 10;

/// A batch, its events as JSON, and where the answer goes.
struct PendingAppend {
    batch: Batch,
    payloads: Payloads,
    answer: Sender<Result<Appended, LogError>>,
}

/// The way to the journal.
pub(crate) struct CommitQueue {
    waiting: Mutex<VecDeque<PendingAppend>>,
    writer: Mutex<Writer>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl CommitQueue {
    pub fn new(writer: Writer) -> CommitQueue {
        CommitQueue { waiting: Mutex::default(), writer: Mutex::new(writer) }
    }

    /// Does something while nothing is appended.
    pub fn with_writer<T>(&self, task: impl FnOnce(&mut Writer) -> T) -> T {
        task(&mut locked(&self.writer))
    }

    /// Appends a batch; durable when this returns.
    ///
    /// # Errors
    /// As [`super::Log::append`].
    pub fn append(&self, batch: Batch, payloads: Payloads) -> Result<Appended, LogError> {
        let (answer, answered) = bounded(1);
        locked(&self.waiting).push_back(PendingAppend { batch, payloads, answer });
        loop {
            let mut writer = locked(&self.writer);
            // Whoever wrote meanwhile may have written this too.
            if let Ok(result) = answered.try_recv() {
                return result;
            }
            writer.write_group(|| locked(&self.waiting).pop_front());
        }
    }
}

/// What one group writes.
struct CommitGroup {
    block: Block,
    keys: HashMap<TaskKey, Offset>,
    answers: Vec<(Sender<Result<Appended, LogError>>, Appended)>,
    last: BatchHash,
}

/// The writer's state.
pub(crate) struct Writer {
    pub journal: Journal,
    pub shared: Arc<LogState>,
    pub clock: Arc<dyn Clock>,
    pub segment_bytes: u64,
    pub tail: Offset,
    pub last: BatchHash,
    /// Held as long as the log is open.
    pub lock: Lock,
}

impl Writer {
    /// Writes what waits, as much as one group may have.
    fn write_group(&mut self, mut next: impl FnMut() -> Option<PendingAppend>) {
        let mut group = self.begin();
        while group.block.bytes().len() < GROUP_BYTES_MAX
            && let Some(pending) = next()
        {
            self.add(pending, &mut group);
        }
        self.commit(group);
    }

    /// Compacts the log: see [`super::DurableLog::compact`].
    ///
    /// # Errors
    /// As there.
    pub fn compact<'a>(
        &mut self,
        wanted: impl FnOnce(Offset) -> Result<Compaction<'a>, LogError>,
    ) -> Result<Option<Compacted>, LogError> {
        if let Health::Lost { reason } = self.shared.health() {
            return Err(LogError::Poisoned(reason));
        }
        if let Err(AppendError::Lost(reason)) = self.check_still_linked() {
            return Err(LogError::Poisoned(reason));
        }
        self.shared.queue.wait_until_empty();
        if let Some(reason) = self.shared.queue.stuck() {
            return Err(LogError::Full { reason });
        }
        self.shared.at_its_place().map_err(|reason| LogError::Full { reason })?;
        let wanted = wanted(self.tail)?;
        let end = Chain::after(self.tail, self.last);
        compact::compact(&self.shared, &mut self.journal, &end, wanted)
    }

    fn begin(&self) -> CommitGroup {
        CommitGroup {
            block: Block::new(self.tail, self.shared.buffers.take()),
            keys: HashMap::new(),
            answers: Vec::new(),
            last: self.last,
        }
    }

    fn add(&self, pending: PendingAppend, group: &mut CommitGroup) {
        let PendingAppend { batch, payloads, answer } = pending;
        if let Some(key) = &batch.key {
            let taken = match group.keys.get(key) {
                Some(first) => Ok(Some(*first)),
                None => self.shared.find(key),
            };
            match taken {
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
        let first = group.block.tail();
        self.add_lines(&batch, &payloads, group);
        self.shared.buffers.give(payloads.into_bytes());
        let tail = group.block.tail();
        if tail != first {
            group.keys.extend(batch.key.clone().map(|key| (key, first)));
            group.block.keys.extend(batch.key.map(|key| (key, first)));
            group.block.cursors.extend(batch.cursor);
        }
        group.answers.push((answer, Appended::New { first, tail }));
    }

    #[expect(clippy::indexing_slicing, reason = "`start` is where its lines begin")]
    fn add_lines(&self, batch: &Batch, payloads: &Payloads, group: &mut CommitGroup) {
        let start = group.block.bytes().len();
        let common = Common::new(self.clock.now_ms(), self.tail, batch.key.as_ref());
        for (n, payload) in payloads.iter().enumerate() {
            let left = (payloads.len() - n - 1) as u32;
            let draft = RecordParts {
                offset: group.block.tail(),
                common: &common,
                cursor: batch.cursor.as_ref().filter(|_| left == 0),
                previous: (n == 0).then_some(group.last),
                left,
                payload,
            };
            group.block.push(|bytes| encode(&draft, bytes));
        }
        if payloads.len() > 0 {
            let lines = &group.block.bytes()[start..];
            group.last = *blake3::hash(lines).as_bytes();
        }
    }

    fn commit(&mut self, mut group: CommitGroup) {
        group.block.position = self.journal.position();
        if let Err(error) = self.write(&group) {
            for (answer, _) in group.answers {
                let _ = answer.send(Err(error.clone()));
            }
            return;
        }
        (self.tail, self.last) = (group.block.tail(), group.last);
        self.shared.publish(group.block);
        for (answer, appended) in group.answers {
            let _ = answer.send(Ok(appended));
        }
        if self.journal.bytes() >= self.segment_bytes
            && self.shared.at_its_place().is_ok()
            && let Err(error) = self.journal.rotate(self.tail, self.last)
        {
            tracing::warn!(%error, "no new journal segment; the old one stays in use");
        }
    }

    /// Appends the group to the journal, or says why not.
    fn write(&mut self, group: &CommitGroup) -> Result<(), LogError> {
        if let Health::Lost { reason } = self.shared.health() {
            return Err(LogError::Poisoned(reason));
        }
        let full = |reason| LogError::Full { reason };
        if let Some(reason) = self.shared.held() {
            return Err(full(reason));
        }
        self.shared.queue.wait_for_room().map_err(full)?;
        if group.block.is_empty() {
            return Ok(());
        }
        self.lock.put_back();
        match self.check_still_linked().and_then(|()| self.journal.append(group.block.bytes())) {
            Ok(()) => {
                self.shared.set_health(Health::Sound);
                Ok(())
            }
            Err(AppendError::Full(reason)) => {
                self.shared.set_health(Health::Full { reason: reason.clone() });
                Err(full(reason))
            }
            Err(AppendError::Lost(reason)) => {
                tracing::error!(reason, "the log can no longer be written");
                self.shared.set_health(Health::Lost { reason: reason.clone() });
                Err(LogError::Poisoned(reason))
            }
        }
    }

    /// Whether the files that are written are still those of the folder. What goes into a file
    /// without a name nobody finds again, and where the store's is gone so is the lock in it.
    ///
    /// # Errors
    /// [`AppendError::Lost`] with what was taken away.
    fn check_still_linked(&self) -> Result<(), AppendError> {
        let gone = self.journal.unlinked().or_else(|| self.shared.store.unlinked());
        gone.map_or(Ok(()), |path| {
            let path = path.display();
            Err(AppendError::Lost(format!(
                "{path} was removed or replaced while the log was open: another process may work on \
                 the run"
            )))
        })
    }
}
