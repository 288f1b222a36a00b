//! A log in memory, for tests and simulations: the same lines (unchained), the same rules, no
//! disk.

use super::codec::Payloads;
use super::error::LogError;
use super::record::{Common, RecordParts, Recorded, decode, encode};
use super::subscribers::Subscribers;
use super::{Appended, Batch, Log};
use crate::domain::{Offset, TaskKey};
use crossbeam_channel::Receiver;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

#[derive(Default)]
struct Contents {
    records: Vec<Vec<u8>>,
    keys: BTreeMap<TaskKey, Offset>,
    cursors: BTreeMap<String, Offset>,
}

/// A log in memory. Its records have no time: simulations have none.
#[derive(Default)]
pub struct MemoryLog {
    contents: Mutex<Contents>,
    subscribers: Subscribers,
}

impl MemoryLog {
    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log for MemoryLog {
    fn append(&self, batch: Batch) -> Result<Appended, LogError> {
        let payloads = Payloads::of(&batch.events, Vec::new())?;
        let mut contents = self.contents();
        if let Some(first) = batch.key.as_ref().and_then(|key| contents.keys.get(key)) {
            return Ok(Appended::Duplicate { first: *first });
        }
        let first = Offset(contents.records.len() as u64);
        if payloads.len() == 0 {
            return Ok(Appended::New { first, tail: first });
        }
        let common = Common::new(0, first, batch.key.as_ref());
        for (n, payload) in payloads.iter().enumerate() {
            let left = (payloads.len() - n - 1) as u32;
            let draft = RecordParts {
                offset: Offset(contents.records.len() as u64),
                common: &common,
                cursor: batch.cursor.as_ref().filter(|_| left == 0),
                previous: None,
                left,
                payload,
            };
            let mut bytes = Vec::with_capacity(payload.len() + 320);
            encode(&draft, &mut bytes);
            contents.records.push(bytes);
        }
        if let Some(key) = batch.key {
            contents.keys.insert(key, first);
        }
        if let Some((name, at)) = batch.cursor {
            contents.cursors.insert(name, at);
        }
        let tail = Offset(contents.records.len() as u64);
        drop(contents);
        self.subscribers.notify();
        Ok(Appended::New { first, tail })
    }

    fn read(&self, from: Offset, max: usize) -> Result<Vec<Recorded>, LogError> {
        let contents = self.contents();
        let wanted = contents.records.iter().enumerate().skip(from.0 as usize).take(max);
        wanted.map(|(at, bytes)| decode(Offset(at as u64), bytes)).collect()
    }

    fn tail(&self) -> Offset {
        Offset(self.contents().records.len() as u64)
    }

    fn find(&self, key: &TaskKey) -> Result<Option<Offset>, LogError> {
        Ok(self.contents().keys.get(key).copied())
    }

    fn cursor(&self, name: &str) -> Result<Offset, LogError> {
        Ok(self.contents().cursors.get(name).copied().unwrap_or_default())
    }

    fn subscribe(&self) -> Receiver<()> {
        self.subscribers.add()
    }
}
