//! One record's bytes: a fixed header, a JSON payload, a checksum, and the hash of the record
//! before it. `docs/log-format.md` draws it.

use super::codec;
use super::error::LogError;
use crate::domain::{Event, Offset, TaskKey};

/// First bytes of every record.
const MAGIC: [u8; 4] = *b"GRD1";
/// magic 4, schema 2, flags 2, offset 8, time 8, previous hash 32, key length 2, payload length 4.
const HEADER_BYTES: usize = 62;
const CHECKSUM_BYTES: usize = 16;

/// An event with its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Recorded {
    /// Its position.
    pub offset: Offset,
    /// When it was written, milliseconds since 1970; for people only.
    pub at_ms: u64,
    /// The task it belongs to.
    pub key: Option<TaskKey>,
    /// What happened.
    pub event: Event,
    /// BLAKE3 of its bytes, which hold the hash of the record before it.
    pub hash: [u8; 32],
}

/// What a record is made from.
pub(crate) struct Draft<'a> {
    pub offset: Offset,
    pub at_ms: u64,
    pub key: Option<&'a TaskKey>,
    pub previous: [u8; 32],
    pub payload: &'a [u8],
}

/// The bytes of a record and their hash.
pub(crate) fn encode(draft: &Draft<'_>) -> (Vec<u8>, [u8; 32]) {
    let key = draft.key.map_or("", TaskKey::as_str).as_bytes();
    let mut bytes =
        Vec::with_capacity(HEADER_BYTES + key.len() + draft.payload.len() + CHECKSUM_BYTES);
    bytes.extend(MAGIC);
    bytes.extend(codec::SCHEMA.to_be_bytes());
    bytes.extend(0u16.to_be_bytes());
    bytes.extend(draft.offset.0.to_be_bytes());
    bytes.extend(draft.at_ms.to_be_bytes());
    bytes.extend(draft.previous);
    bytes.extend((key.len() as u16).to_be_bytes());
    bytes.extend((draft.payload.len() as u32).to_be_bytes());
    bytes.extend(key);
    bytes.extend(draft.payload);
    let checksum = blake3::hash(&bytes);
    bytes.extend(checksum.as_bytes().iter().take(CHECKSUM_BYTES));
    let hash = *blake3::hash(&bytes).as_bytes();
    (bytes, hash)
}

fn take<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

/// Reads a record back. `offset` is where it was found.
///
/// # Errors
/// [`LogError::Damaged`] with what does not fit.
pub(crate) fn decode(offset: Offset, bytes: &[u8]) -> Result<(Recorded, [u8; 32]), LogError> {
    let damaged = |reason: &str| LogError::Damaged { offset, reason: reason.to_owned() };
    let body_bytes = bytes.len().checked_sub(CHECKSUM_BYTES).ok_or_else(|| damaged("cut off"))?;
    let (body, checksum) = bytes.split_at(body_bytes);
    if body.len() < HEADER_BYTES {
        return Err(damaged("cut off"));
    }
    if take::<4>(body, 0) != Some(MAGIC) {
        return Err(damaged("it does not begin with GRD1"));
    }
    if blake3::hash(body).as_bytes().get(..CHECKSUM_BYTES) != Some(checksum) {
        return Err(damaged("the checksum does not fit"));
    }
    let schema = u16::from_be_bytes(take(body, 4).unwrap_or_default());
    let stated = u64::from_be_bytes(take(body, 8).unwrap_or_default());
    if stated != offset.0 {
        return Err(damaged(&format!("it says that it is record {stated}")));
    }
    let at_ms = u64::from_be_bytes(take(body, 16).unwrap_or_default());
    let previous: [u8; 32] = take(body, 24).unwrap_or_default();
    let key_bytes = u16::from_be_bytes(take(body, 56).unwrap_or_default()) as usize;
    let payload_bytes = u32::from_be_bytes(take(body, 58).unwrap_or_default()) as usize;
    let key = body.get(HEADER_BYTES..HEADER_BYTES + key_bytes);
    let payload = body.get(HEADER_BYTES + key_bytes..);
    let (Some(key), Some(payload)) = (key, payload.filter(|p| p.len() == payload_bytes)) else {
        return Err(damaged("its lengths do not fit"));
    };
    let key = std::str::from_utf8(key).map_err(|_| damaged("its key is not text"))?;
    let event: Event = codec::decode(schema, payload).map_err(|reason| damaged(&reason))?;
    let key = (!key.is_empty()).then(|| TaskKey(key.to_owned()));
    let hash = *blake3::hash(bytes).as_bytes();
    Ok((Recorded { offset, at_ms, key, event, hash }, previous))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back_and_every_flipped_bit_is_noticed() {
        let payload = codec::encode(&Event::PauseRequested).unwrap();
        let key = TaskKey("k".into());
        let draft = Draft {
            offset: Offset(7),
            at_ms: 3,
            key: Some(&key),
            previous: [9; 32],
            payload: &payload,
        };
        let (bytes, hash) = encode(&draft);
        let (record, previous) = decode(Offset(7), &bytes).unwrap();
        assert_eq!(
            (record.event, record.key, record.hash),
            (Event::PauseRequested, Some(key), hash)
        );
        assert_eq!(previous, [9; 32]);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(Offset(7), &flipped).is_err(), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(decode(Offset(7), &bytes[..length]).is_err(), "length {length}");
        }
        assert!(decode(Offset(8), &bytes).is_err());
    }
}
