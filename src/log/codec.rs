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
    serde_json::to_vec(event).map_err(|error| error.to_string())
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
