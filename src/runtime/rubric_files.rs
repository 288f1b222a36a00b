//! RUBRIC FILES: installed components, each kept under its hash.

use crate::atomic_file::{self, Access};
use crate::domain::RubricId;
use crate::error::Error;
use crate::rubric::{Rubric, RubricEngine, RubricRegistry, UnusableFile};
use std::path::{Path, PathBuf};

/// Keeps a component's bytes under their hash: whole, or not at all.
pub(crate) fn keep(dir: &Path, id: &RubricId, bytes: &[u8]) -> Result<(), Error> {
    let path = kept_at(dir, id);
    atomic_file::write(&path, bytes, Access::Private).map_err(|error| Error::io(path, error))
}

/// Where a component is kept in a folder of them.
pub(super) fn kept_at(dir: &Path, id: &RubricId) -> PathBuf {
    dir.join(format!("{id}.wasm"))
}

/// Loads every rubric that is kept in a folder. A file that cannot be read or is not the component
/// that its name says is named and left out ([`RubricRegistry::left_out`]), and stays where it is.
///
/// # Errors
/// When the folder cannot be listed.
pub(super) fn load_all(dir: &Path, engine: &RubricEngine) -> Result<RubricRegistry, Error> {
    let mut registry = RubricRegistry::default();
    let entries = std::fs::read_dir(dir).map_err(|e| Error::io(dir, e))?;
    for entry in entries {
        let file = entry.map_err(|e| Error::io(dir, e))?.path();
        if file.extension().is_none_or(|e| e != "wasm") {
            continue;
        }
        match load_kept(engine, &file) {
            Ok(rubric) => registry.install(rubric),
            Err(reason) => {
                let path = file.display();
                tracing::warn!("{path} is no installed rubric and is left out: {reason}");
                registry.leave_out(UnusableFile { file, reason });
            }
        }
    }
    Ok(registry)
}

/// A component that lies under its hash.
fn load_kept(engine: &RubricEngine, file: &Path) -> Result<Rubric, String> {
    let bytes = std::fs::read(file).map_err(|error| error.to_string())?;
    let id = Rubric::id_of(&bytes);
    if file.file_stem().is_none_or(|name| *name != *id.0) {
        return Err(format!("its bytes hash to {id}, which is not its name"));
    }
    Rubric::load(engine, &bytes).map_err(|error| error.to_string())
}
