//! WHAT CANNOT CHANGE in a run: its seed, its base, and the files that say how texts become tokens and
//! what the network is like. They are in its first records, by hash; a run whose folder says
//! otherwise does not go on, for it would be another run under the same name.
//!
//! The base's weights are a blob, which is checked whenever it is read.

use super::folder::Folder;
use crate::config::Config;
use crate::domain::{AdapterShape, BlobHash, Event, Seed, TaskKey};
use crate::error::{Code, Error};
use crate::lm::model_files::ModelFiles;
use crate::log::{Batch, Log};
use crate::view::RunView;
use std::collections::BTreeMap;

/// Refuses settings or a model of another run. A run of an older gradus has not recorded its model:
/// it is what it is now.
///
/// # Errors
/// [`Error::Refused`] with what is another, and what to do.
pub(super) fn check(
    config: &Config,
    model: &ModelFiles,
    folder: &Folder,
    log: &dyn Log,
    view: &mut RunView,
) -> Result<(), Error> {
    check_seed(config, folder, view)?;
    if view.seed.is_some() && view.model_files.is_empty() {
        let of_old = view.has_adapters_of_old().then(|| config.train.adapter());
        log.append(pin(model, of_old))?;
        view.catch_up(log)?;
    }
    check_model(view, model, folder)
}

/// The hashes of the model's texts, by file name.
fn hashes(model: &ModelFiles) -> BTreeMap<String, BlobHash> {
    model.hashes().into_iter().map(|(name, hash)| (name, BlobHash(hash))).collect()
}

/// The record of a run's model, and of what its adapters are that schema 1 did not describe.
pub(super) fn pin(model: &ModelFiles, adapters_of_old: Option<AdapterShape>) -> Batch {
    let event = Event::ModelPinned { files: hashes(model), adapters_of_old };
    Batch { key: Some(TaskKey::of("model", &[])), events: vec![event], cursor: None }
}

/// What adapters of schema 1 are, as the run recorded it when it was first gone on with; before, as
/// the settings say, which is what schema 1 went by.
pub fn adapters_of_old(view: &RunView, config: &Config) -> AdapterShape {
    view.adapters_of_old.clone().unwrap_or_else(|| config.train.adapter())
}

fn check_seed(config: &Config, folder: &Folder, view: &RunView) -> Result<(), Error> {
    let Some(root) = view.seed.filter(|root| *root != Seed::root(config.seed)) else {
        return Ok(());
    };
    let recorded = view.settings.as_ref().and_then(|settings| settings.get("seed")?.as_u64());
    let recorded = recorded.filter(|seed| Seed::root(*seed) == root);
    let began = recorded.map_or_else(|| "another".to_owned(), |seed| seed.to_string());
    Err(Error::refused(
        Code::SeedChanged,
        format!(
            "{} says seed: {}, and the run began with {began}. A run keeps its seed, for every \
         draw comes of it: put it back, or make another run with this one",
            folder.config().display(),
            config.seed
        ),
    ))
}

/// Refuses a model whose files are not those that the run began with.
///
/// # Errors
/// [`Error::Refused`] with the file, and what to do.
pub fn check_model(view: &RunView, model: &ModelFiles, folder: &Folder) -> Result<(), Error> {
    if view.model_files.is_empty() {
        return Ok(());
    }
    let found = hashes(model);
    let names = view.model_files.keys().chain(found.keys());
    let Some(name) = names.into_iter().find(|n| view.model_files.get(*n) != found.get(*n)) else {
        return Ok(());
    };
    let path = folder.model().join(name);
    let what = match (view.model_files.get(name), found.get(name)) {
        (Some(began), Some(now)) => format!(
            "is not the file that the run began with (BLAKE3 {}, now {})",
            began.short(),
            now.short()
        ),
        (Some(_), None) => "is gone, and the run began with it".to_owned(),
        (None, _) => "is new; the run began without it".to_owned(),
    };
    Err(Error::refused(
        Code::ModelChanged,
        format!(
            "{} {what}. It says how texts become tokens or what the network is like, so all that \
         was recorded would mean something else: restore the folder's model files from a copy, or make \
         another run",
            path.display()
        ),
    ))
}
