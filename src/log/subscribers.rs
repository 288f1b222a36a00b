//! Whoever wants to know that a log grew.

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use std::sync::{Mutex, PoisonError};

/// Channels of capacity one: many notices that nobody has taken yet are one.
#[derive(Debug, Default)]
pub(crate) struct Subscribers(Mutex<Vec<Sender<()>>>);

impl Subscribers {
    /// One more.
    pub fn add(&self) -> Receiver<()> {
        let (send, receive) = bounded(1);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(send);
        receive
    }

    /// Tells everybody; those who are gone are forgotten.
    pub fn notify(&self) {
        let mut senders = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        senders.retain(|send| !matches!(send.try_send(()), Err(TrySendError::Disconnected(()))));
    }
}
