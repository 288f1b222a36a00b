//! Memory that is used again: a commit of 100 KB in fresh memory pays for its pages one fault at a
//! time, which is a tenth of the commit.

use std::sync::{Mutex, PoisonError};

/// Kept at most; two are in use at a time, and some wait for the store.
const SPARES_MAX: usize = 8;
/// A larger one is given back to the system.
const SPARE_BYTES_MAX: usize = 1 << 20;

/// Buffers without a use.
#[derive(Debug, Default)]
pub(crate) struct Spares(Mutex<Vec<Vec<u8>>>);

impl Spares {
    /// One of them, or a new one.
    pub fn take(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    /// Keeps one.
    pub fn give(&self, bytes: Vec<u8>) {
        let mut spares = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if spares.len() < SPARES_MAX && bytes.capacity() <= SPARE_BYTES_MAX {
            spares.push(bytes);
        }
    }
}
