//! `log/ballast`: a file without meaning. Opening a log writes some bytes; on a disk that others
//! filled there would be no room for them. Then the ballast goes, and comes back when there is room.

use crate::space::free_bytes;
use std::path::Path;

/// What opening a log and closing it may need, generously.
const BALLAST_BYTES: u64 = 4 << 20;
/// With less than this free, the ballast is thrown.
const TIGHT_BYTES: u64 = 1 << 20;
/// With more than this free, it is taken on.
const ROOMY_BYTES: u64 = 16 * BALLAST_BYTES;

/// Throws the ballast of the log in the folder `dir` if there is hardly any room.
pub(crate) fn throw_if_tight(dir: &Path) {
    if free_bytes(dir).is_some_and(|free| free < TIGHT_BYTES) {
        let thrown = std::fs::remove_file(dir.join("ballast"));
        tracing::warn!(thrown = thrown.is_ok(), "there is hardly any space; the ballast is thrown");
    }
}

/// Takes it on again if there is room.
pub(crate) fn take_if_roomy(dir: &Path) {
    let path = dir.join("ballast");
    let there = std::fs::metadata(&path).is_ok_and(|found| found.len() == BALLAST_BYTES);
    if there || free_bytes(dir).is_none_or(|free| free < ROOMY_BYTES) {
        return;
    }
    // Numbers without a pattern: a file system that compresses must not make it small.
    let mut bytes = vec![0; BALLAST_BYTES as usize];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    if std::fs::write(&path, bytes).is_err() {
        let _ = std::fs::remove_file(&path);
    }
}
