//! The state digest: one hash for everything a run came to, whatever the order in which its stages
//! happened to append, and however often it was interrupted.

use super::error::LogError;
use super::{Log, codec};
use crate::domain::{Event, Offset};
use std::collections::BTreeSet;

/// A run's state as one hash.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Digest {
    /// BLAKE3, 64 hex digits.
    pub digest: String,
    /// Events it covers.
    pub events: u64,
}

/// Failures, pauses and repairs depend on the machine and the host, not on the run.
fn is_volatile(event: &Event) -> bool {
    matches!(
        event,
        Event::TaskFailed { .. }
            | Event::StageHalted { .. }
            | Event::PauseRequested
            | Event::ResumeRequested
            | Event::LogRepaired { .. }
    )
}

/// Hash over the sorted set of (task key, event) of all records; offsets, times and the order of
/// independent tasks are outside. Blobs are covered by the hashes that events name.
///
/// # Errors
/// When the log cannot be read.
pub fn state_digest(log: &dyn Log) -> Result<Digest, LogError> {
    let mut set = BTreeSet::new();
    let (mut next, mut events) = (Offset(0), 0u64);
    loop {
        let records = log.read(next, 256)?;
        let Some(last) = records.last() else { break };
        next = Offset(last.offset.0 + 1);
        for record in records.iter().filter(|r| !is_volatile(&r.event)) {
            let key = record.key.as_ref().map_or("-", |key| key.as_str());
            let body = codec::encode(&record.event).map_err(LogError::Read)?;
            set.insert((key.to_owned(), *blake3::hash(&body).as_bytes()));
            events += 1;
        }
    }
    let mut hasher = blake3::Hasher::new_derive_key("gradus state digest v1");
    for (key, body) in set {
        hasher.update(key.as_bytes());
        hasher.update(&body);
    }
    Ok(Digest { digest: hasher.finalize().to_hex().to_string(), events })
}
