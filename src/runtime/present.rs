//! Whether the rubrics that a run needs are there, asked when it starts and not when it judges.

use crate::config::Config;
use crate::domain::{Panel, RubricId};
use crate::error::{Code, Error};
use crate::rubric::{Rubric, RubricRegistry, bundled};
use crate::stage::judge::referee;
use crate::view::RunView;
use std::collections::BTreeSet;

/// Checks those that judge, that judge beside the panel, and that referee.
///
/// # Errors
/// [`Error::Refused`] with the name of one whose component is not there, why, and how it comes back.
pub(super) fn check(
    config: &Config,
    view: &RunView,
    registry: &RubricRegistry,
) -> Result<(), Error> {
    // One that is not named rightly is refused with its own words.
    let referees = referee::named(&config.evaluate.rubrics, view).ok().flatten();
    let open = view.open().map(|(_, open)| &open.panel);
    let panels = view.panel.iter().chain(open).chain(&referees);
    let members = panels.flat_map(Panel::members).map(|member| &member.rubric);
    let needed: BTreeSet<&RubricId> = members.chain(&view.rubrics.shadows).collect();
    match needed.into_iter().find(|id| registry.get(id).is_none()) {
        None => Ok(()),
        Some(id) => Err(missing(id, view, registry)),
    }
}

fn missing(id: &RubricId, view: &RunView, registry: &RubricRegistry) -> Error {
    let facts = view.rubrics.installed.get(id);
    let name = facts.map_or_else(String::new, |f| format!("{}@{} ", f.name, f.version));
    let ours = bundled::ALL.iter().find(|(_, bytes)| Rubric::id_of(bytes) == *id);
    let file = ours
        .map_or_else(|| "its file".to_owned(), |(name, _)| format!("the bundled rubric {name}"));
    Error::refused(
        Code::RubricMissing,
        format!(
            "the run needs the rubric {name}({}), which is not there: {}. Install it again \
         from {file} (sha256 {id})",
            id.short(),
            registry.why_not(id),
        ),
    )
}
