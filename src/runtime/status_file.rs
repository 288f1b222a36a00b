//! `status.json` in the run's folder: what [`super::Status`] says, once a second.

use super::core::Core;
use super::status::Status;
use crossbeam_channel::{Sender, bounded};
use std::fs::File;
use std::io::{Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

/// Between two writes.
const EVERY: Duration = Duration::from_secs(1);
/// The file has this size, or a multiple of it: on a full disk there is no other room.
const BYTES: usize = 16 << 10;

/// Writes it as long as it lives.
pub(super) struct StatusFile {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl StatusFile {
    /// # Errors
    /// When the system will not give a thread.
    pub fn start(path: PathBuf, core: &Arc<Core>) -> std::io::Result<StatusFile> {
        let (stop, stopped) = bounded::<()>(0);
        let core = Arc::downgrade(core);
        let write = move || {
            let mut file = None;
            loop {
                let Some(status) = Weak::upgrade(&core).and_then(|core| core.status().ok()) else {
                    break;
                };
                write(&mut file, &path, &status);
                if stopped.recv_timeout(EVERY) != Err(crossbeam_channel::RecvTimeoutError::Timeout)
                {
                    break;
                }
            }
            remove(file, &path);
        };
        let thread = std::thread::Builder::new().name("gradus-status".to_owned()).spawn(write)?;
        Ok(StatusFile { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for StatusFile {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A courtesy: a full disk must not stop a run over it. It is written over in place.
fn write(file: &mut Option<File>, path: &Path, status: &Status) {
    let Ok(mut body) = serde_json::to_vec(status) else { return };
    body.resize(body.len().next_multiple_of(BYTES), b' ');
    if file.is_none() {
        let mut open = File::options();
        let open = open.write(true).create(true).truncate(false).mode(0o600);
        *file = open.open(path).ok();
    }
    let Some(file) = file else { return };
    let _ = file
        .rewind()
        .and_then(|()| file.write_all(&body))
        .and_then(|()| file.set_len(body.len() as u64));
}

/// Removes it, but for another run's that lies in its place.
fn remove(file: Option<File>, path: &Path) {
    let number = |found: std::fs::Metadata| (found.dev(), found.ino());
    let ours = file.and_then(|file| file.metadata().ok()).map(number);
    let there = std::fs::metadata(path).ok().map(number);
    if ours.is_some() && ours == there {
        let _ = std::fs::remove_file(path);
    }
}
