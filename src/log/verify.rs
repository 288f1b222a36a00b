//! Walks a whole log: every checksum, every link of the chain, every offset.

use super::Log;
use super::error::LogError;
use crate::domain::Offset;
use std::collections::BTreeMap;

/// What a walk found.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Verified {
    /// Records that are what was written.
    pub records: u64,
    /// How many of each kind.
    pub kinds: BTreeMap<String, u64>,
    /// Tasks whose key is taken.
    pub tasks: u64,
    /// The first thing that is wrong, if anything is.
    pub first_error: Option<String>,
}

/// Walks the log. Damage is a finding, not an error.
///
/// # Errors
/// None at present; reading stops at the first damaged record and says so in the finding.
pub fn verify(log: &dyn Log) -> Result<Verified, LogError> {
    let mut found = Verified::default();
    let mut next = Offset(0);
    let mut last_key = None;
    while next < log.tail() {
        let records = match log.read(next, 256) {
            Ok(records) => records,
            Err(error) => {
                found.first_error = Some(error.to_string());
                return Ok(found);
            }
        };
        if records.is_empty() {
            found.first_error = Some(format!("record {next} is missing below the tail"));
            return Ok(found);
        }
        for record in records {
            if record.offset != next {
                found.first_error = Some(format!("record {next} is missing"));
                return Ok(found);
            }
            if let Some(key) = &record.key
                && last_key.as_ref() != Some(key)
            {
                found.tasks += 1;
                if log.find(key)? != Some(record.offset) {
                    let text = format!("record {next}: its task key is not in the index");
                    found.first_error = Some(text);
                    return Ok(found);
                }
            }
            last_key = record.key.clone();
            *found.kinds.entry(record.event.kind().to_owned()).or_default() += 1;
            found.records += 1;
            next = Offset(next.0 + 1);
        }
    }
    Ok(found)
}
