//! Who may use the device. One heavy task computes at a time, so that sampling, judging and
//! training never fight for cores or memory; light tasks need no lease.

use crate::lm::cancel::Cancel;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Between two looks at whether the holder was given up, or the wait.
const LOOK: Duration = Duration::from_millis(50);

/// The device, shared by all workers.
#[derive(Clone, Debug, Default)]
pub struct Lease(Arc<(Mutex<Option<Cancel>>, Condvar)>);

/// The right to use the device, until it is dropped.
pub struct Hold {
    lease: Lease,
    task: Cancel,
}

impl Lease {
    fn holder(&self) -> MutexGuard<'_, Option<Cancel>> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the device is free, and holds it for the task. A holder that was given up has
    /// lost it. `None` when the task was cancelled first.
    pub fn hold(&self, task: &Cancel) -> Option<Hold> {
        let mut holder = self.holder();
        while holder.as_ref().is_some_and(|holder| !holder.is_abandoned()) {
            if task.is_cancelled() {
                return None;
            }
            let woken = self.0.1.wait_timeout(holder, LOOK);
            holder = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        *holder = Some(task.clone());
        Some(Hold { lease: self.clone(), task: task.clone() })
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut holder = self.lease.holder();
        if holder.as_ref().is_some_and(|holder| holder.is(&self.task)) {
            *holder = None;
            self.lease.0.1.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holds_it_and_whoever_was_given_up_has_lost_it() {
        let lease = Lease::default();
        let (frozen, next, third) = (Cancel::default(), Cancel::default(), Cancel::default());
        let held = lease.hold(&frozen).unwrap();
        third.cancel();
        assert!(lease.hold(&third).is_none(), "a cancelled task does not wait");
        frozen.abandon();
        let taken = lease.hold(&next).unwrap();
        drop(held);
        assert!(lease.holder().as_ref().is_some_and(|holder| holder.is(&next)));
        drop(taken);
        assert!(lease.hold(&Cancel::default()).is_some());
    }
}
