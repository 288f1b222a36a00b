//! Memory that is used again: a commit of 100 KB in fresh memory pays for its pages one fault at a
//! time, which is a tenth of the commit.

use std::sync::{Mutex, PoisonError};

/// Kept at most; two are in use at a time, and some wait for the store.
const BUFFERS_MAX: usize = 8;
/// A larger one is given back to the system.
const BUFFER_BYTES_MAX: usize = 1 << 20;

/// Buffers that nobody uses.
#[derive(Debug, Default)]
pub(crate) struct BufferPool(Mutex<Vec<Vec<u8>>>);

impl BufferPool {
    /// One of them, or a new one.
    pub fn take(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    /// Keeps one.
    pub fn give(&self, bytes: Vec<u8>) {
        let mut buffers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if buffers.len() < BUFFERS_MAX && bytes.capacity() <= BUFFER_BYTES_MAX {
            buffers.push(bytes);
        }
    }
}
