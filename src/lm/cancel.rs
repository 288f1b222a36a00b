//! A flag that long computations look at: per token, per micro-batch.

use super::error::LmError;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Shared between whoever may stop a computation and the computation.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Asks all holders to stop.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether somebody asked.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// `Err(Cancelled)` once somebody asked.
    ///
    /// # Errors
    /// [`LmError::Cancelled`].
    pub fn check(&self) -> Result<(), LmError> {
        if self.is_cancelled() { Err(LmError::Cancelled) } else { Ok(()) }
    }
}
