//! COMPONENT FOLDER: the watched folder in which components appear. Each is read whole and told apart by its
//! hash, so a file that is written twice, renamed or only touched does nothing, and one that is half
//! written is refused now and taken when it is whole. One that disappears changes nothing.

use super::rubrics::Rubrics;
use crate::domain::When;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::SystemTime;

/// A file's length and time, by which an unchanged one is not read again.
type Looks = (u64, Option<SystemTime>);

pub(super) struct ComponentFolder {
    dir: PathBuf,
    rubrics: Rubrics,
    when: When,
    seen: BTreeMap<PathBuf, Looks>,
    taken: BTreeSet<[u8; 32]>,
}

impl ComponentFolder {
    pub fn new(dir: PathBuf, rubrics: Rubrics, when: When) -> ComponentFolder {
        ComponentFolder { dir, rubrics, when, seen: BTreeMap::new(), taken: BTreeSet::new() }
    }

    /// Takes what is new.
    pub fn look(&mut self) {
        let Ok(entries) = std::fs::read_dir(&self.dir) else { return };
        let mut paths: Vec<PathBuf> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|e| e == "wasm"))
            .collect();
        paths.sort();
        for path in paths {
            let Ok(file) = std::fs::metadata(&path) else { continue };
            let looks = (file.len(), file.modified().ok());
            if !file.is_file() || self.seen.insert(path.clone(), looks) == Some(looks) {
                continue;
            }
            let Ok(bytes) = std::fs::read(&path) else { continue };
            if !self.taken.insert(*blake3::hash(&bytes).as_bytes()) {
                continue;
            }
            if let Err(error) = self.rubrics.take(&path, &bytes, self.when) {
                // The disk may be full: it is looked at again.
                self.seen.remove(&path);
                self.taken.remove(blake3::hash(&bytes).as_bytes());
                tracing::warn!(%error, "a component in the watched folder was not taken");
            }
        }
    }
}
