//! Events as JSON, and older schemas brought up to the newest. An event's fields never change
//! their meaning; what a version added has a step here and a fixture in `tests/fixtures/log`.

use crate::domain::Event;
use serde_json::Value;

/// The schema this version writes.
pub const SCHEMA: u16 = 1;

/// A step from one schema to the next.
type Upcast = fn(Value) -> Value;

/// `UPCASTS[n]` brings schema `n + 1` to `n + 2`. Schema 1 is the first.
const UPCASTS: [Upcast; 0] = [];

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

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// One payload or more of every kind, as schema 1 wrote it. Never changed, never removed: a
    /// log of that day must be readable for ever.
    const SCHEMA_1: &str = include_str!("../../tests/fixtures/log/schema-1.jsonl");

    #[test]
    fn every_kind_of_every_schema_is_read_and_written_as_it_was() {
        let mut kinds = BTreeSet::new();
        for line in SCHEMA_1.lines() {
            let event = decode(1, line.as_bytes()).unwrap_or_else(|why| panic!("{why}: {line}"));
            kinds.insert(event.kind());
            assert_eq!(String::from_utf8(encode(&event).unwrap()).unwrap(), line);
        }
        // The arms of `Event::kind`.
        let source = include_str!("../domain/event.rs");
        let arms = source.lines().filter(|line| line.trim_start().starts_with("Event::"));
        assert_eq!(kinds.len(), arms.count(), "a kind has no fixture: {kinds:?}");
    }

    #[test]
    fn a_schema_of_the_future_or_of_nobody_is_refused() {
        for schema in [0, SCHEMA + 1, u16::MAX] {
            let error = decode(schema, br#"{"type":"pause_requested"}"#).unwrap_err();
            assert!(error.contains(&format!("schema {schema}")), "{error}");
        }
    }
}
