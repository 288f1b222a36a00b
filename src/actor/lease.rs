//! Who may use the device. One heavy task computes at a time, so that sampling, judging and
//! training never fight for cores or memory; light tasks need no lease.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The device, shared by all workers.
#[derive(Clone, Debug, Default)]
pub struct Lease(Arc<Mutex<()>>);

impl Lease {
    /// Waits until the device is free and holds it until the guard drops. A holder that panicked
    /// leaves nothing half done behind (tasks write nothing shared), so poison is ignored.
    pub fn hold(&self) -> MutexGuard<'_, ()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
