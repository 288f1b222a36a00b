//! BACKGROUND: threads of the runtime's own that work beside it, and are over when what started them is
//! dropped; and threads for what a host awaits.

use crate::error::Error;
use crate::lm::cancel::Cancel;
use crossbeam_channel::{Receiver, Sender, bounded};
use std::thread::JoinHandle;

/// Works as long as it lives.
pub(super) struct Background {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Background {
    /// Runs `work` on a thread of this name; it ends when its channel is disconnected, which nothing is
    /// ever sent over.
    ///
    /// # Errors
    /// When the system will not give a thread.
    pub fn start(
        name: &str,
        work: impl FnOnce(Receiver<()>) + Send + 'static,
    ) -> std::io::Result<Background> {
        let (stop, stopped) = bounded::<()>(0);
        let thread = std::thread::Builder::new().name(format!("gradus-{name}"));
        let thread = thread.spawn(move || work(stopped))?;
        Ok(Background { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Runs something that blocks on a thread of its own. Dropping the future does not stop it.
///
/// # Errors
/// [`Error::Io`] when the system gives no thread; else what it gives.
pub(super) async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let (send, receive) = tokio::sync::oneshot::channel();
    let run = move || {
        let _ = send.send(work());
    };
    let thread = std::thread::Builder::new().name("gradus-asked".to_owned()).spawn(run);
    thread.map_err(|error| Error::io("a thread", error))?;
    receive.await.map_err(|_| Error::Closed)?
}

/// Stops a computation whose result nobody waits for any more.
pub(super) struct CancelOnDrop(pub(super) Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}
