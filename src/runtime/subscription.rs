//! SUBSCRIPTION: reading the log as it grows.

use super::core::Core;
use crate::domain::Offset;
use crate::error::Error;
use crate::log::{Log, Recorded};
use std::collections::VecDeque;
use std::sync::Weak;
use std::time::{Duration, Instant};

/// Records read at a time.
const AT_A_TIME: usize = 256;
/// Between two looks of a caller that waits without an executor.
const LOOK: Duration = Duration::from_millis(5);

/// What a reader of the log comes upon.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Delivered {
    /// The next record.
    Record(Box<Recorded>),
    /// The log was compacted, and these records are not there any more: what they came to is in the
    /// view ([`super::Handle::view`]), and the next record is the one at `to`.
    Compacted {
        /// The first that is not there.
        from: Offset,
        /// The first after them.
        to: Offset,
    },
}

/// A reader of the log that waits at its end. A slow reader holds nobody up, and compaction does not
/// end it.
pub struct Subscription {
    core: Weak<Core>,
    tail: tokio::sync::watch::Receiver<Offset>,
    next: Offset,
    ready: VecDeque<Delivered>,
}

impl Subscription {
    pub(super) fn new(
        core: Weak<Core>,
        tail: tokio::sync::watch::Receiver<Offset>,
        from: Offset,
    ) -> Subscription {
        Subscription { core, tail, next: from, ready: VecDeque::new() }
    }

    /// What is there already.
    fn read(&mut self) -> Result<Option<Delivered>, Error> {
        if self.ready.is_empty() {
            let core = self.core.upgrade().ok_or(Error::Closed)?;
            for record in core.log.read(self.next, AT_A_TIME)? {
                let at = record.offset;
                if at > self.next {
                    self.ready.push_back(Delivered::Compacted { from: self.next, to: at });
                }
                self.next = Offset(at.0 + 1);
                self.ready.push_back(Delivered::Record(Box::new(record)));
            }
        }
        Ok(self.ready.pop_front())
    }

    /// The next record, or that some are gone. Waits for it.
    ///
    /// # Errors
    /// When the log cannot be read, which may be tried again; [`Error::Closed`] when the runtime was
    /// shut down and everything was read.
    pub async fn next(&mut self) -> Result<Delivered, Error> {
        loop {
            self.tail.mark_unchanged();
            if let Some(delivered) = self.read()? {
                return Ok(delivered);
            }
            self.tail.changed().await.map_err(|_| Error::Closed)?;
        }
    }

    /// As [`Subscription::next`], for callers that may wait; `None` when nothing came within
    /// `patience`.
    ///
    /// # Errors
    /// As [`Subscription::next`].
    pub fn next_blocking(&mut self, patience: Duration) -> Result<Option<Delivered>, Error> {
        let asked = Instant::now();
        loop {
            let delivered = self.read()?;
            if delivered.is_some() || asked.elapsed() >= patience {
                return Ok(delivered);
            }
            while !self.tail.has_changed().map_err(|_| Error::Closed)? {
                if asked.elapsed() >= patience {
                    return Ok(None);
                }
                std::thread::sleep(LOOK);
            }
            self.tail.mark_unchanged();
        }
    }
}
