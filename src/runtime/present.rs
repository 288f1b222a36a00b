//! Whether the rubrics that a run needs are there, asked when it starts and not when it judges.

use super::Folder;
use crate::config::Config;
use crate::domain::{Panel, RubricId};
use crate::error::Error;
use crate::rubric::{Rubric, RubricRegistry, bundled};
use crate::stage::judge::referee;
use crate::view::RunView;
use std::collections::BTreeSet;

/// Checks those that judge, that judge beside the panel, and that referee.
///
/// # Errors
/// [`Error::Usage`] with the name of one whose component is not there, why, and how it comes back.
pub(super) fn check(
    config: &Config,
    view: &RunView,
    registry: &RubricRegistry,
    folder: &Folder,
) -> Result<(), Error> {
    // One that is not named rightly is refused with its own words.
    let referees = referee::named(&config.evaluate.rubrics, view).unwrap_or_default();
    let open = view.open().map(|(_, open)| &open.panel);
    let panels = view.panel.iter().chain(open).chain(&referees);
    let members = panels.flat_map(Panel::members).map(|member| &member.rubric);
    let needed: BTreeSet<&RubricId> = members.chain(&view.rubrics.shadows).collect();
    match needed.into_iter().find(|id| registry.get(id).is_none()) {
        None => Ok(()),
        Some(id) => Err(missing(id, view, registry, folder)),
    }
}

fn missing(id: &RubricId, view: &RunView, registry: &RubricRegistry, folder: &Folder) -> Error {
    let facts = view.rubrics.installed.get(id);
    let name = facts.map_or_else(String::new, |f| format!("{}@{} ", f.name, f.version));
    let ours = bundled::ALL.iter().find(|(_, bytes)| Rubric::id_of(bytes) == *id);
    let file = ours.map_or("FILE.wasm", |(name, _)| name);
    Error::Usage(format!(
        "GRADUS0513 the run needs the rubric {name}({}), which is not there: {}. Put it back (the \
         sha256 of its file is {id}): gradus rubric install {} {file}",
        id.short(),
        registry.why_not(id),
        folder.path().display()
    ))
}
