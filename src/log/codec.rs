//! Events as JSON, and older schemas brought up to the newest. An event's fields never change
//! their meaning; what a version changed has a step here and a fixture in `tests/fixtures/log`.

use super::error::LogError;
use crate::domain::Event;
use serde_json::{Value, json};

/// The schema this version writes.
pub const SCHEMA: u16 = 2;

/// An event's payload is at most this many bytes; larger things are blobs.
pub const EVENT_BYTES_MAX: usize = 1 << 20;

/// A step from one schema to the next.
type Upcast = fn(Value) -> Value;

/// `UPCASTS[n]` brings schema `n + 1` to `n + 2`. Schema 1 is the first.
const UPCASTS: [Upcast; 1] = [plans_and_sides];

/// Schema 1 to 2: an iteration opened without a plan, and a pair's sides were indices of the
/// policy's completions, with their figures beside them. (What schema 2 merely added has a default.)
fn plans_and_sides(mut event: Value) -> Value {
    match event.get("type").and_then(Value::as_str) {
        Some("iteration_started") => {
            if let Some(kind) = event.get_mut("type") {
                *kind = json!("iteration_started_unplanned");
            }
        }
        Some("pair_formed") => {
            if let Some(pair) = event.get_mut("pair").and_then(Value::as_object_mut) {
                for side in ["chosen", "rejected"] {
                    let mut take = |name: String| pair.shift_remove(&name).unwrap_or_default();
                    let (index, score) = (take(side.to_owned()), take(format!("score_{side}")));
                    let (error, tokens) =
                        (take(format!("error_{side}")), take(format!("length_{side}")));
                    let text = json!({"from": "completion", "set": "policy", "index": index});
                    let whole =
                        json!({"text": text, "score": score, "error": error, "tokens": tokens});
                    pair.insert(side.to_owned(), whole);
                }
            }
        }
        _ => {}
    }
    event
}

/// The payload of an event.
///
/// # Errors
/// What serde says (a number that JSON has no word for).
pub fn encode(event: &Event) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    encode_to(event, &mut bytes)?;
    Ok(bytes)
}

/// Appends the payload of an event.
///
/// # Errors
/// As [`encode`].
pub fn encode_to(event: &Event, bytes: &mut Vec<u8>) -> Result<(), String> {
    serde_json::to_writer(bytes, event).map_err(|error| error.to_string())
}

/// Reads a payload of any schema up to ours.
///
/// # Errors
/// What does not fit, for a person.
pub fn decode(schema: u16, payload: &[u8]) -> Result<Event, String> {
    if schema == 0 || schema > SCHEMA {
        return Err(format!("it has schema {schema}, this gradus reads up to {SCHEMA}"));
    }
    if schema == SCHEMA {
        return serde_json::from_slice(payload).map_err(|error| error.to_string());
    }
    let mut value: Value = serde_json::from_slice(payload).map_err(|error| error.to_string())?;
    for upcast in UPCASTS.iter().skip(usize::from(schema) - 1) {
        value = upcast(value);
    }
    serde_json::from_value(value).map_err(|error| error.to_string())
}

/// The events of a batch as JSON, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Payloads {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Payloads {
    /// Writes the events into `bytes`, which is emptied first.
    ///
    /// # Errors
    /// [`LogError::TooLarge`].
    pub fn of(events: &[Event], mut bytes: Vec<u8>) -> Result<Payloads, LogError> {
        bytes.clear();
        let mut ends = Vec::with_capacity(events.len());
        for event in events {
            let start = bytes.len();
            encode_to(event, &mut bytes).map_err(LogError::Read)?;
            let (kind, length) = (event.kind(), bytes.len() - start);
            if length > EVENT_BYTES_MAX {
                return Err(LogError::TooLarge { kind, bytes: length, max: EVENT_BYTES_MAX });
            }
            ends.push(bytes.len());
        }
        Ok(Payloads { bytes, ends })
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Each event's JSON.
    #[expect(clippy::indexing_slicing, reason = "`ends` lie in `bytes` in order")]
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| &self.bytes[start..*end])
    }

    /// The memory, to be used again.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Side, TextRef};
    use std::collections::BTreeSet;

    /// One payload or more of every kind, as the schema wrote it. Never changed, never removed: a
    /// log of that day must be readable for ever.
    const SCHEMA_1: &str = include_str!("../../tests/fixtures/log/schema-1.jsonl");
    const SCHEMA_2: &str = include_str!("../../tests/fixtures/log/schema-2.jsonl");

    fn read(schema: u16, line: &str) -> Event {
        decode(schema, line.as_bytes()).unwrap_or_else(|why| panic!("{why}: {line}"))
    }

    fn written(event: &Event) -> String {
        String::from_utf8(encode(event).unwrap()).unwrap()
    }

    #[test]
    fn every_kind_is_read_and_written_as_it_was() {
        let mut kinds = BTreeSet::new();
        for line in SCHEMA_2.lines() {
            let event = read(2, line);
            kinds.insert(event.kind());
            assert_eq!(written(&event), line);
        }
        kinds.extend(SCHEMA_1.lines().map(|line| read(1, line).kind()));
        // The variants, each in a line of `Event::facts`.
        let source = include_str!("../domain/event.rs");
        let (_, facts) = source.split_once("fn facts(&self)").unwrap();
        let arms = facts.lines().filter(|line| line.contains(" => "));
        assert_eq!(kinds.len(), arms.count(), "a kind has no fixture: {kinds:?}");
    }

    /// What schema 1 wrote is read, and what it comes to is written and read again as that. Most of
    /// it is what it was, to the letter.
    #[test]
    fn schema_1_is_brought_up() {
        let mut brought_up = BTreeSet::new();
        for line in SCHEMA_1.lines() {
            let event = read(1, line);
            let now = written(&event);
            assert_eq!(read(2, &now), event, "{line}");
            if now != line {
                brought_up.insert(event.kind());
            }
        }
        let expected = ["iteration_started_unplanned", "pair_formed"];
        assert_eq!(brought_up.into_iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_pair_of_schema_1_keeps_every_figure() {
        let line = r#"{"type":"pair_formed","iteration":2,"pair":{"id":"2/p","prompt":"p","chosen":3,
            "rejected":1,"score_chosen":4.5,"score_rejected":1.25,"error_rejected":0.5,
            "length_chosen":9,"length_rejected":7}}"#;
        let Event::PairFormed { pair, .. } = read(1, line) else { panic!("it is a pair") };
        let side = |index, score, error, tokens| Side {
            text: TextRef::own(index),
            score: Some(score),
            error,
            tokens,
        };
        assert_eq!(pair.chosen, side(3, 4.5, None, 9));
        assert_eq!(pair.rejected, side(1, 1.25, Some(0.5), 7));
        assert_eq!((pair.weight, pair.label), (1.0, 1.0));
    }

    #[test]
    fn a_schema_of_the_future_or_of_nobody_is_refused() {
        for schema in [0, SCHEMA + 1, u16::MAX] {
            let error = decode(schema, br#"{"type":"pause_requested"}"#).unwrap_err();
            assert!(error.contains(&format!("schema {schema}")), "{error}");
        }
    }
}
