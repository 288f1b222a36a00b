//! Reading the log as it grows.

use crate::domain::Offset;
use crate::error::Error;
use crate::log::{Log, Recorded};
use std::sync::Arc;
use std::time::Duration;

/// A reader of the log that waits at its tail. A slow reader holds nobody up.
pub struct Subscription {
    log: Arc<dyn Log>,
    bell: crossbeam_channel::Receiver<()>,
    next: Offset,
    ready: std::vec::IntoIter<Recorded>,
}

impl Subscription {
    pub(super) fn from(log: &Arc<dyn Log>, from: Offset) -> Subscription {
        let bell = log.subscribe();
        Subscription { log: log.clone(), bell, next: from, ready: Vec::new().into_iter() }
    }

    /// The next record, or `None` when none came within `patience`.
    ///
    /// # Errors
    /// When the log cannot be read, or was compacted and does not have what comes next.
    pub fn next(&mut self, patience: Duration) -> Result<Option<Recorded>, Error> {
        if let Some(record) = self.ready.next() {
            return Ok(Some(record));
        }
        for attempt in 0..2 {
            let records = self.log.read(self.next, 256)?;
            let gap = records.iter().zip(self.next.0..).find(|(r, at)| r.offset.0 != *at);
            if let Some((record, at)) = gap {
                let (from, to) = (Offset(at), record.offset);
                return Err(crate::log::LogError::Dropped { from, to }.into());
            }
            if let Some(last) = records.last() {
                self.next = Offset(last.offset.0 + 1);
                self.ready = records.into_iter();
                return Ok(self.ready.next());
            }
            if attempt == 0 {
                let _ = self.bell.recv_timeout(patience);
            }
        }
        Ok(None)
    }
}
