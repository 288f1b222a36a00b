//! Installed rubrics by id. Readers never wait: a judgment takes its rubric once and keeps it to
//! the end, whatever is installed meanwhile.

use super::component::Rubric;
use crate::domain::RubricId;
use arc_swap::ArcSwap;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// A file that lies among the installed rubrics and is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnusableFile {
    /// Which.
    pub file: PathBuf,
    /// Why.
    pub reason: String,
}

/// Installed rubrics.
#[derive(Default)]
pub struct RubricRegistry {
    known: ArcSwap<BTreeMap<RubricId, Rubric>>,
    left_out: Vec<UnusableFile>,
}

impl RubricRegistry {
    /// Adds a rubric; which one judges is decided by events, not here.
    pub fn install(&self, rubric: Rubric) {
        self.known.rcu(|known| {
            let mut known = BTreeMap::clone(known);
            known.insert(rubric.id().clone(), rubric.clone());
            Arc::new(known)
        });
    }

    /// The rubric with an id.
    pub fn get(&self, id: &RubricId) -> Option<Rubric> {
        self.known.load().get(id).cloned()
    }

    /// Remembers a file that could not be installed.
    pub(crate) fn leave_out(&mut self, file: UnusableFile) {
        self.left_out.push(file);
    }

    /// Files that lie among the rubrics and could not be installed.
    pub fn left_out(&self) -> &[UnusableFile] {
        &self.left_out
    }

    /// Why a rubric is not there, for people.
    pub fn why_not(&self, id: &RubricId) -> String {
        let name = format!("{id}.wasm");
        let file =
            self.left_out.iter().find(|left| left.file.file_name().is_some_and(|n| *n == *name));
        match file {
            Some(UnusableFile { file, reason }) => format!("{}: {reason}", file.display()),
            None => format!("there is no file {name} among the run's rubrics"),
        }
    }
}
