//! One record is one line of JSON, the same bytes in the journal and in the store:
//!
//! ```text
//! {"crc":"8a9136aa","offset":7,"at_ms":1764000000000,"schema":1,"durable":5,"left":0,
//!  "previous":"<64 hex>","key":"<64 hex>","cursor":["report",6],"event":{"type":...}}
//! ```
//!
//! (in one line). `docs/log-format.md` says what each field is for.

use super::codec;
use super::error::LogError;
use crate::domain::{Event, Offset, TaskKey};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::io::Write;

/// What every line begins with; eight hex digits, `",` and what they cover follow.
const CRC_FIELD: &[u8] = b"{\"crc\":\"";
/// Where the covered part begins: after `{"crc":"01234567",`.
pub(crate) const COVERED: usize = CRC_FIELD.len() + 10;
/// The largest event, and a header around it.
pub(crate) const LINE_BYTES_MAX: usize = codec::EVENT_BYTES_MAX + 4096;

/// BLAKE3 of a batch's lines, all with their line feeds; zeros before the first batch.
pub(crate) type BatchHash = [u8; 32];

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
}

/// What all records of a batch have in common, as JSON fields.
pub(crate) struct Common {
    before: Vec<u8>,
    after: Vec<u8>,
}

impl Common {
    /// Everything below `durable` is on the disk when the batch is written.
    pub fn new(at_ms: u64, durable: Offset, key: Option<&TaskKey>) -> Common {
        let schema = codec::SCHEMA;
        let before =
            format!(",\"at_ms\":{at_ms},\"schema\":{schema},\"durable\":{durable},\"left\":");
        let mut after = Vec::new();
        if let Some(key) = key {
            after.extend_from_slice(b",\"key\":");
            string(&mut after, key.as_str());
        }
        Common { before: before.into_bytes(), after }
    }
}

/// What a record is made from.
pub(crate) struct RecordParts<'a> {
    pub offset: Offset,
    pub common: &'a Common,
    pub cursor: Option<&'a (String, Offset)>,
    /// In the first record of a batch, the hash of the batch before.
    pub previous: Option<BatchHash>,
    /// Records of the same batch that follow this one.
    pub left: u32,
    pub payload: &'a [u8],
}

/// A line's fields, its event still text.
#[derive(Debug, Deserialize)]
pub(crate) struct Header<'a> {
    previous: Option<String>,
    pub offset: Offset,
    pub at_ms: u64,
    schema: u16,
    pub durable: Offset,
    pub left: u32,
    pub key: Option<TaskKey>,
    pub cursor: Option<(String, Offset)>,
    #[serde(borrow)]
    event: &'a RawValue,
}

impl Header<'_> {
    /// The hash of the batch before, in the first record of a batch.
    ///
    /// # Errors
    /// When it is no hash.
    pub fn previous(&self) -> Result<Option<BatchHash>, String> {
        let hash = self.previous.as_ref().map(blake3::Hash::from_hex).transpose();
        let hash = hash.map_err(|error| format!("`previous` is no hash: {error}"))?;
        Ok(hash.map(|hash| *hash.as_bytes()))
    }
}

/// Fills in the checksum of a line that was begun with [`begin`].
#[expect(
    clippy::indexing_slicing,
    reason = "a line that was not begun has no room for its checksum, and must not be recorded"
)]
pub(crate) fn seal(line: &mut [u8]) {
    let crc = crc32fast::hash(&line[COVERED..]);
    // The field has room for eight digits.
    let mut field = &mut line[CRC_FIELD.len()..CRC_FIELD.len() + 8];
    let _ = write!(field, "{crc:08x}");
}

/// Begins a line, with room for its checksum.
pub(crate) fn begin(line: &mut Vec<u8>) {
    line.extend_from_slice(CRC_FIELD);
    line.extend_from_slice(b"00000000\",");
}

fn string(line: &mut Vec<u8>, text: &str) {
    // Writing text to memory cannot fail.
    let _ = serde_json::to_writer(line, text);
}

/// Appends the line of a record to `bytes`, without a line feed.
#[expect(clippy::indexing_slicing, reason = "`start` is where the line was begun")]
pub(crate) fn encode(draft: &RecordParts<'_>, bytes: &mut Vec<u8>) {
    let start = bytes.len();
    begin(bytes);
    fields(draft, bytes);
    seal(&mut bytes[start..]);
}

fn fields(draft: &RecordParts<'_>, line: &mut Vec<u8>) {
    let _ = write!(line, "\"offset\":{}", draft.offset);
    line.extend_from_slice(&draft.common.before);
    let _ = write!(line, "{}", draft.left);
    if let Some(previous) = draft.previous {
        let _ = write!(line, ",\"previous\":\"{}\"", blake3::Hash::from_bytes(previous).to_hex());
    }
    line.extend_from_slice(&draft.common.after);
    if let Some((name, at)) = draft.cursor {
        line.extend_from_slice(b",\"cursor\":[");
        string(line, name);
        let _ = write!(line, ",{at}]");
    }
    line.extend_from_slice(b",\"event\":");
    line.extend_from_slice(draft.payload);
    line.push(b'}');
}

/// Whether a line's checksum fits.
///
/// # Errors
/// Why it does not.
pub(crate) fn check(line: &[u8]) -> Result<(), &'static str> {
    let covered = line.get(COVERED..).filter(|_| line.starts_with(CRC_FIELD));
    let covered = covered.ok_or("it does not begin with a checksum")?;
    let stated = line.get(CRC_FIELD.len()..CRC_FIELD.len() + 8);
    let stated = stated.and_then(|hex| std::str::from_utf8(hex).ok());
    let stated = stated.filter(|hex| !hex.bytes().any(|b| b.is_ascii_uppercase() || b == b'+'));
    let stated = stated.and_then(|hex| u32::from_str_radix(hex, 16).ok());
    let closed = line.get(COVERED - 2..COVERED) == Some(b"\",");
    if !closed || stated != Some(crc32fast::hash(covered)) {
        return Err("the checksum does not fit");
    }
    Ok(())
}

/// A line's fields.
///
/// # Errors
/// What does not fit, for a person.
pub(crate) fn header(line: &[u8]) -> Result<Header<'_>, String> {
    check(line)?;
    serde_json::from_slice::<Header<'_>>(line).map_err(|error| error.to_string())
}

/// A record whose checksum fits, its event not read.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub offset: Offset,
    /// Its bytes, without the line feed.
    pub line: Vec<u8>,
    /// In the first record of a batch, the hash of the batch before.
    pub previous: Option<BatchHash>,
    pub durable: Offset,
    /// Records of the same batch that follow.
    pub left: u32,
    pub key: Option<TaskKey>,
    pub cursor: Option<(String, Offset)>,
}

impl Entry {
    /// Reads a line's frame.
    ///
    /// # Errors
    /// What does not fit.
    pub fn of(line: Vec<u8>) -> Result<Entry, String> {
        let header = header(&line)?;
        let previous = header.previous()?;
        let (offset, durable, left) = (header.offset, header.durable, header.left);
        let (key, cursor) = (header.key, header.cursor);
        Ok(Entry { offset, line, previous, durable, left, key, cursor })
    }
}

/// Reads a record back. `offset` is where it was found.
///
/// # Errors
/// [`LogError::Damaged`] with what does not fit.
pub(crate) fn decode(offset: Offset, line: &[u8]) -> Result<Recorded, LogError> {
    let damaged = |reason: String| LogError::Damaged { offset, reason };
    let header = header(line).map_err(damaged)?;
    if header.offset != offset {
        return Err(damaged(format!("it says that it is record {}", header.offset)));
    }
    let event = codec::decode(header.schema, header.event.get().as_bytes()).map_err(damaged)?;
    Ok(Recorded { offset, at_ms: header.at_ms, key: header.key, event })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back_and_every_flipped_bit_is_noticed() {
        let payload = codec::encode(&Event::PauseRequested).unwrap();
        let key = TaskKey("k\"\n".into());
        let cursor = ("reader".to_owned(), Offset(4));
        let draft = RecordParts {
            offset: Offset(7),
            common: &Common::new(3, Offset(5), Some(&key)),
            cursor: Some(&cursor),
            previous: Some([9; 32]),
            left: 2,
            payload: &payload,
        };
        let mut line = Vec::new();
        encode(&draft, &mut line);
        let record = decode(Offset(7), &line).unwrap();
        assert_eq!((record.event, record.key), (Event::PauseRequested, Some(key)));
        let fields = header(&line).unwrap();
        assert_eq!(fields.previous(), Ok(Some([9; 32])));
        assert_eq!((fields.durable, fields.left, fields.cursor), (Offset(5), 2, Some(cursor)));
        assert!(!line.contains(&b'\n'), "a record is one line");
        for bit in 0..line.len() * 8 {
            let mut flipped = line.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(Offset(7), &flipped).is_err(), "bit {bit}");
        }
        for length in 0..line.len() {
            assert!(decode(Offset(7), &line[..length]).is_err(), "length {length}");
        }
        assert!(decode(Offset(8), &line).is_err());
    }
}
