//! A disk that can be filled.

use std::path::Path;
use std::process::Command;

/// A small file system in memory, gone when dropped.
pub struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None` where nothing can be mounted.
    pub fn mount(megabytes: u32) -> Option<SmallDisk> {
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={megabytes}m");
        let mut mount = Command::new("mount");
        let mount = mount.args(["-t", "tmpfs", "-o", &size, "none"]).arg(dir.path()).output();
        let mounted = mount.is_ok_and(|out| out.status.success());
        if !mounted {
            println!("SKIPPED: no file system can be mounted here");
        }
        mounted.then(|| SmallDisk(dir))
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes space away until almost nothing is left.
    pub fn fill(&self) {
        let mut bytes = 1 << 20;
        for n in 0.. {
            let file = self.path().join(format!("filler {n} {bytes}"));
            if !file.exists() && std::fs::write(&file, vec![1; bytes]).is_err() {
                let _ = std::fs::remove_file(&file);
                bytes /= 2;
            }
            if bytes < 4096 {
                return;
            }
        }
    }

    /// Takes space away until only so many bytes are left, or a little less.
    pub fn fill_but(&self, bytes: u64) {
        let found = rustix::fs::statvfs(self.path()).unwrap();
        let free = found.f_bavail * found.f_frsize;
        let filler = self.path().join("filler but");
        std::fs::write(filler, vec![1; free.saturating_sub(bytes) as usize]).unwrap();
    }

    /// Gives it back.
    pub fn free(&self) {
        for entry in std::fs::read_dir(self.path()).unwrap().flatten() {
            if entry.file_name().to_string_lossy().starts_with("filler") {
                std::fs::remove_file(entry.path()).unwrap();
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}
