//! The state digest: one hash for everything a run came to, whatever the order in which its stages
//! happened to append, and however often it was interrupted.

use super::error::LogError;
use super::record::Recorded;
use super::{Log, codec};
use crate::domain::Offset;

/// A run's state as one hash.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Digest {
    /// BLAKE3, 64 hex digits.
    pub digest: String,
    /// Events it covers.
    pub events: u64,
}

/// A sum over records that forgets their order: to each belongs a vector of 1024 numbers, made by
/// BLAKE3 from its task key and its event, and vectors are added modulo 2^16 (LtHash16, Bellare and
/// Micciancio 1997; Lewi et al. 2019). So that a compacted log can go on from where it was.
#[derive(Clone, PartialEq)]
pub(crate) struct Sum([u16; SUM_LANES]);

const SUM_LANES: usize = 1024;

impl Default for Sum {
    fn default() -> Sum {
        Sum([0; SUM_LANES])
    }
}

impl std::fmt::Debug for Sum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sum({})", self.digest())
    }
}

impl Sum {
    /// Adds a record.
    ///
    /// # Errors
    /// When its event cannot be encoded.
    pub fn add(&mut self, record: &Recorded) -> Result<(), LogError> {
        let key = record.key.as_ref().map_or("-", |key| key.as_str());
        let body = codec::encode(&record.event).map_err(LogError::Read)?;
        let mut hasher = blake3::Hasher::new_derive_key("gradus state digest v2");
        hasher.update(key.as_bytes()).update(blake3::hash(&body).as_bytes());
        let mut bytes = [0; 2 * SUM_LANES];
        hasher.finalize_xof().fill(&mut bytes);
        let (numbers, _) = bytes.as_chunks::<2>();
        for (sum, number) in self.0.iter_mut().zip(numbers) {
            *sum = sum.wrapping_add(u16::from_le_bytes(*number));
        }
        Ok(())
    }

    fn bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|number| number.to_le_bytes()).collect()
    }

    /// 64 hex digits.
    pub fn digest(&self) -> String {
        blake3::hash(&self.bytes()).to_hex().to_string()
    }
}

impl serde::Serialize for Sum {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let hex: String = self.bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        to.serialize_str(&hex)
    }
}

impl<'de> serde::Deserialize<'de> for Sum {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Sum, D::Error> {
        let hex = String::deserialize(from)?;
        let (digits, _) = hex.as_bytes().as_chunks::<4>();
        let mut sum = Sum::default();
        if hex.len() != 4 * SUM_LANES {
            return Err(serde::de::Error::custom("a sum has 4096 hex digits"));
        }
        for (lane, digits) in sum.0.iter_mut().zip(digits) {
            let digits = std::str::from_utf8(digits).map_err(serde::de::Error::custom)?;
            let number = u16::from_str_radix(digits, 16).map_err(serde::de::Error::custom)?;
            *lane = number.swap_bytes();
        }
        Ok(sum)
    }
}

/// Hash over the multiset of (task key, event) of all records, those before the floor included;
/// offsets, times and the order of independent tasks are outside. Blobs are covered by the hashes
/// that events name.
///
/// # Errors
/// When the log cannot be read.
pub fn state_digest(log: &dyn Log) -> Result<Digest, LogError> {
    let (mut sum, mut events, mut next) = match log.base() {
        Some(base) => {
            let state = base.state()?;
            (state.digest, state.events, base.floor())
        }
        None => (Sum::default(), 0, Offset(0)),
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
