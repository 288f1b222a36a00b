//! Compiled components, kept between processes: a Python rubric takes seconds to compile and
//! milliseconds to load again.
//!
//! What is in such a file is run as it is, outside the sandbox: whoever can write it can do anything
//! that this process may. So the cache is one folder for each person, never a part of a run (which
//! may come from elsewhere): made by us with mode 0700, and used only as long as it is ours, no link,
//! and closed to everybody else. A file is named by the component's hash below a folder named by
//! wasmtime's version and all settings that compiled code depends on, and begins with a hash of
//! itself, for a disk that lies. Whatever is not as it should be is compiled again.

use crate::atomic_file::{Access, AtomicFile};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use wasmtime::Engine;
use wasmtime::component::Component;

/// Above this the files that were written first go.
const BYTES_MAX: u64 = 1 << 30;
const HASH_BYTES: usize = 32;

/// A person's cache, for one engine.
#[derive(Clone, Debug)]
pub(super) struct Cache(PathBuf);

/// Where a person's cache is: `GRADUS_CACHE` (`off`: nowhere), else `gradus` in `XDG_CACHE_HOME` or
/// in `~/.cache`.
pub(super) fn of_this_person() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    match set("GRADUS_CACHE") {
        Some(off) if off == "off" => None,
        Some(dir) => Some(PathBuf::from(dir)),
        None => {
            let home = || Some(PathBuf::from(set("HOME")?).join(".cache"));
            Some(set("XDG_CACHE_HOME").map(PathBuf::from).or_else(home)?.join("gradus"))
        }
    }
    .filter(|dir| dir.is_absolute())
}

/// Whether a folder is ours alone.
fn is_ours(dir: &Path) -> bool {
    let ours = rustix::process::geteuid().as_raw();
    std::fs::symlink_metadata(dir)
        .is_ok_and(|found| found.is_dir() && found.uid() == ours && found.mode() & 0o077 == 0)
}

impl Cache {
    /// The cache in the folder `dir`, made if need be; none where it cannot be ours alone.
    pub fn open(dir: &Path, engine: &Engine) -> Option<Cache> {
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        let key = format!("{:016x}", hasher.finish());
        let dirs = [dir.to_owned(), dir.join("rubrics"), dir.join("rubrics").join(key)];
        if let Some(parent) = dir.parent() {
            std::fs::create_dir_all(parent).ok()?;
        }
        for dir in &dirs {
            let made = std::fs::DirBuilder::new().mode(0o700).create(dir);
            if made.is_err() && !is_ours(dir) {
                let why = "compiled rubrics are not kept: the folder is not ours alone (mode 0700)";
                tracing::warn!(dir = %dir.display(), "{why}");
                return None;
            }
        }
        let [.., last] = dirs;
        is_ours(&last).then_some(Cache(last))
    }

    fn path(&self, id: &str) -> PathBuf {
        self.0.join(format!("{id}.cwasm"))
    }

    /// A compiled component, if it is there and whole.
    pub fn get(&self, engine: &Engine, id: &str) -> Option<Component> {
        if !is_ours(&self.0) {
            return None;
        }
        let path = self.path(id);
        let file = std::fs::read(&path).ok()?;
        let (hash, code) = file.split_at_checked(HASH_BYTES)?;
        let found = if hash == blake3::hash(code).as_bytes() { load(engine, code) } else { None };
        if found.is_none() {
            tracing::warn!(path = %path.display(), "a compiled rubric is damaged; it is made again");
            let _ = std::fs::remove_file(&path);
        }
        found
    }

    /// Keeps a compiled component. That it cannot be kept is nobody's failure.
    pub fn put(&self, id: &str, component: &Component) {
        let kept = component
            .serialize()
            .map_err(|error| format!("{error:#}"))
            .and_then(|code| self.write(&self.path(id), &code).map_err(|error| error.to_string()));
        match kept {
            Ok(()) => self.trim(),
            Err(reason) => tracing::debug!(reason, "a compiled rubric is not kept"),
        }
    }

    fn write(&self, path: &Path, code: &[u8]) -> std::io::Result<()> {
        let mut file = AtomicFile::create(path, Access::Private)?;
        file.write_all(blake3::hash(code).as_bytes())?;
        file.write_all(code)?;
        file.commit()
    }

    /// Drops what was written first while there is too much.
    fn trim(&self) {
        let Ok(entries) = std::fs::read_dir(&self.0) else { return };
        let mut files: Vec<(SystemTime, u64, PathBuf)> = entries
            .filter_map(|entry| {
                let entry = entry.ok()?;
                let found = entry.metadata().ok()?;
                Some((found.modified().ok()?, found.len(), entry.path()))
            })
            .collect();
        files.sort();
        let mut bytes: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
        for (_, len, path) in files {
            if bytes <= BYTES_MAX {
                break;
            }
            bytes -= len;
            let _ = std::fs::remove_file(path);
        }
    }
}

#[expect(unsafe_code, reason = "compiled code is run as it is; see the head of this file")]
fn load(engine: &Engine, code: &[u8]) -> Option<Component> {
    // SAFETY: the bytes are those that `Component::serialize` gave an engine of the same version
    // and settings: they lie in a folder that only this user and nobody else can write, under a
    // name of this engine, and hash to what was written beside them. wasmtime checks version and
    // settings again.
    unsafe { Component::deserialize(engine, code) }.ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rubric::{Rubric, RubricEngine, bundled};
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn files(dir: &Path) -> Vec<PathBuf> {
        let Ok(keys) = std::fs::read_dir(dir.join("rubrics")) else { return Vec::new() };
        let all = keys.flat_map(|key| std::fs::read_dir(key.unwrap().path()).unwrap());
        all.map(|file| file.unwrap().path()).collect()
    }

    fn load(dir: &Path) -> Rubric {
        let engine = RubricEngine::with_cache(dir).unwrap();
        Rubric::load(&engine, bundled::SKELETON).unwrap()
    }

    #[test]
    fn what_was_compiled_is_loaded_again() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("cache");
        let fresh = load(&dir);
        let [file] = files(&dir).try_into().unwrap();
        let before = std::fs::metadata(&file).unwrap();
        assert_eq!(before.mode() & 0o777, 0o600);
        assert_eq!(std::fs::metadata(&dir).unwrap().mode() & 0o777, 0o700);
        let again = load(&dir);
        assert_eq!(again.info(), fresh.info());
        let after = std::fs::metadata(&file).unwrap();
        assert_eq!(after.modified().unwrap(), before.modified().unwrap(), "not written again");

        // A byte of it rots: it is noticed, and compiled again.
        let whole = std::fs::read(&file).unwrap();
        let mut bytes = whole.clone();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&file, bytes).unwrap();
        assert_eq!(load(&dir).info(), fresh.info());
        assert_eq!(std::fs::read(&file).unwrap(), whole);
        std::fs::write(&file, b"short").unwrap();
        assert_eq!(load(&dir).info(), fresh.info());
        assert_eq!(std::fs::read(&file).unwrap(), whole);
    }

    #[test]
    fn a_folder_that_others_may_write_is_not_used() {
        let root = tempfile::tempdir().unwrap();
        let (open, link) = (root.path().join("open"), root.path().join("link"));
        std::fs::create_dir(&open).unwrap();
        std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o777)).unwrap();
        load(&open);
        assert!(files(&open).is_empty());
        std::fs::create_dir(root.path().join("theirs")).unwrap();
        symlink(root.path().join("theirs"), &link).unwrap();
        load(&link);
        assert!(files(&link).is_empty());

        // One that was ours and is opened later.
        let dir = root.path().join("cache");
        load(&dir);
        let [file] = files(&dir).try_into().unwrap();
        let engine = RubricEngine::with_cache(&dir).unwrap();
        let key = file.parent().unwrap();
        std::fs::set_permissions(key, std::fs::Permissions::from_mode(0o770)).unwrap();
        let id = file.file_stem().unwrap().to_str().unwrap();
        assert!(RubricEngine::with_cache(&dir).unwrap().cache.is_none());
        let cache = Cache(key.to_owned());
        assert!(cache.get(&engine.engine, id).is_none());
        std::fs::set_permissions(key, std::fs::Permissions::from_mode(0o700)).unwrap();
        assert!(cache.get(&engine.engine, id).is_some());
    }
}
