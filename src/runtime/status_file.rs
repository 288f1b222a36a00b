//! `status.json` in the run's folder: what [`super::Status`] says, once a second.

use super::background::Background;
use super::core::Core;
use super::status::Status;
use crossbeam_channel::RecvTimeoutError;
use std::fs::File;
use std::io::{Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Between two writes.
const EVERY: Duration = Duration::from_secs(1);
/// The file has this size, or a multiple of it: on a full disk there is no other room.
const BYTES: usize = 16 << 10;

/// Writes it until what is given is dropped. While the log cannot be read, of what was known before:
/// that is when it is wanted most.
///
/// # Errors
/// When the system will not give a thread.
pub(super) fn keep(path: PathBuf, core: &Arc<Core>) -> std::io::Result<Background> {
    let core = Arc::downgrade(core);
    Background::start("status", move |stopped| {
        let mut file = None;
        while let Some(core) = Weak::upgrade(&core) {
            write(&mut file, &path, &core.status_as_known());
            drop(core);
            if stopped.recv_timeout(EVERY) != Err(RecvTimeoutError::Timeout) {
                break;
            }
        }
        remove(file, &path);
    })
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
