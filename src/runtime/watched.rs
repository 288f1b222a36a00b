//! WATCHED: a thread that looks into a folder when something happens there, and every second in
//! case the file system says nothing. What it finds is told apart by content, never by the kind of
//! event.

use crossbeam_channel::{Sender, TryRecvError, bounded, select, unbounded};
use notify::{EventKind, RecursiveMode, Watcher};
use std::path::PathBuf;
use std::time::Duration;

/// The slow look, for file systems without events.
const POLL: Duration = Duration::from_secs(1);

/// Looks as long as it lives.
pub(crate) struct WatchedFolder {
    _stop: Sender<()>,
}

impl WatchedFolder {
    /// Calls `look` now and whenever the folder was quiet for `quiet` after a change.
    ///
    /// # Errors
    /// When the system will not give a thread.
    pub fn start(
        name: &str,
        dir: PathBuf,
        quiet: Duration,
        mut look: impl FnMut() + Send + 'static,
    ) -> std::io::Result<WatchedFolder> {
        let (stop, stopped) = bounded::<()>(0);
        let watch = move || {
            let (changed, changes) = unbounded();
            let tell = move |event: notify::Result<notify::Event>| {
                // Our own reading is no change.
                if event.is_ok_and(|event| !matches!(event.kind, EventKind::Access(_))) {
                    let _ = changed.send(());
                }
            };
            let mut watcher = notify::recommended_watcher(tell).ok();
            let watching = watcher
                .as_mut()
                .is_some_and(|watcher| watcher.watch(&dir, RecursiveMode::NonRecursive).is_ok());
            if !watching {
                let dir = dir.display().to_string();
                tracing::warn!(dir, "no events from this folder; it is looked at every second");
            }
            loop {
                look();
                select! {
                    recv(stopped) -> _ => return,
                    recv(changes) -> change => {
                        if change.is_ok() {
                            while changes.recv_timeout(quiet).is_ok() {}
                        } else {
                            std::thread::sleep(POLL);
                        }
                    }
                    default(POLL) => {}
                }
                if stopped.try_recv() == Err(TryRecvError::Disconnected) {
                    return;
                }
            }
        };
        std::thread::Builder::new().name(format!("gradus-{name}")).spawn(watch)?;
        Ok(WatchedFolder { _stop: stop })
    }
}
