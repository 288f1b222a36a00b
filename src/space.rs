//! How much room there is: on a file system, and in a folder.

use std::path::Path;

/// Bytes that this user may still write to the file system that holds `path`; `None` where the
/// system does not say.
pub(crate) fn free_bytes(path: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(path).ok()?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}

/// Bytes of all files below a folder. Files that go away meanwhile count for nothing.
pub(crate) fn used_bytes(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let each = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => used_bytes(&entry.path()),
        Ok(found) => found.len(),
        Err(_) => 0,
    };
    entries.map(each).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_the_sum_of_its_files() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("inner")).unwrap();
        std::fs::write(dir.path().join("a"), [0; 10]).unwrap();
        std::fs::write(dir.path().join("inner/b"), [0; 7]).unwrap();
        assert_eq!(used_bytes(dir.path()), 17);
        assert!(free_bytes(dir.path()).is_some_and(|free| free > 0));
    }
}
