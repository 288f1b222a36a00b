//! BACKGROUND: a thread of the runtime's own that works beside it, and is over when this is dropped.

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
