//! The ballast file, `log/ballast`: space that is reserved by bytes without meaning. Opening a log
//! writes some bytes; on a disk that others filled there would be no room for them. Then the ballast
//! is deleted, and written again when there is room.

use crate::space::free_bytes;
use std::path::Path;

/// What opening a log and closing it may need, generously.
const BALLAST_BYTES: u64 = 4 << 20;
/// With less than this free, the ballast is deleted.
const TIGHT_BYTES: u64 = 1 << 20;
/// With more than this free, it is written.
const ROOMY_BYTES: u64 = 16 * BALLAST_BYTES;

/// Deletes the ballast of the log in the folder `dir` if there is hardly any room.
pub(crate) fn delete_if_tight(dir: &Path) {
    if free_bytes(dir).is_some_and(|free| free < TIGHT_BYTES) {
        let deleted = std::fs::remove_file(dir.join("ballast"));
        tracing::warn!(
            deleted = deleted.is_ok(),
            "there is hardly any space; the ballast is deleted"
        );
    }
}

/// Writes it again if there is room.
pub(crate) fn write_if_roomy(dir: &Path) {
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
