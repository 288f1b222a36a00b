//! The state digest: one hash for everything a run came to, whatever the order in which its stages
//! happened to append, and however often it was interrupted.

use super::Log;
use super::digest_sum::DigestSum;
use super::error::LogError;
use crate::domain::Offset;

/// A run's state as one hash.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Digest {
    /// BLAKE3, 64 hex digits.
    pub digest: String,
    /// Events it covers.
    pub events: u64,
}

/// Hash over the multiset of (task key, event) of all records, those before the floor included;
/// offsets, times and the order of independent tasks are outside. Blobs are covered by the hashes
/// that events name.
///
/// # Errors
/// When the log cannot be read.
pub fn state_digest(log: &dyn Log) -> Result<Digest, LogError> {
    let (mut sum, mut events, mut next) = match log.compacted() {
        Some(compacted) => {
            let state = compacted.state()?;
            (state.digest, state.events, compacted.floor())
        }
        None => (DigestSum::default(), 0, Offset(0)),
    };
    loop {
        let records = log.read(next, 256)?;
        let Some(last) = records.last() else { break };
        next = Offset(last.offset.0 + 1);
        for record in records.iter().filter(|r| !r.event.is_volatile()) {
            sum.add(record)?;
            events += 1;
        }
    }
    Ok(Digest { digest: sum.digest(), events })
}
