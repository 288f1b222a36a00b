//! Who compares two policies on held-out prompts: the rubrics that judge the iteration, or those that
//! `evaluate.rubrics` names, so that a loop is not measured by what trained it.

use crate::domain::{Panel, PanelMember, RubricId};
use crate::view::RunView;

/// The panel of rubrics that are named, each with the same weight; `None` when none is.
///
/// # Errors
/// Which name is no installed rubric, or why they make no panel, and what to do.
pub fn named(names: &[String], view: &RunView) -> Result<Option<Panel>, String> {
    if names.is_empty() {
        return Ok(None);
    }
    let members = names.iter().map(|name| Ok(PanelMember::plain(one(name, view)?)));
    let panel = Panel::new(members.collect::<Result<_, String>>()?);
    panel.map(Some).map_err(|error| format!("evaluate.rubrics: {error}"))
}

fn one(name: &str, view: &RunView) -> Result<RubricId, String> {
    let found = view.rubrics_named(name);
    if let [only] = found.as_slice() {
        return Ok((*only).clone());
    }
    let what = if found.is_empty() { "no" } else { "more than one" };
    let known = view.rubrics.installed.iter();
    let known: Vec<String> = known
        .map(|(id, facts)| format!("{}@{} ({})", facts.name, facts.version, id.short()))
        .collect();
    Err(format!(
        "GRADUS0508 evaluate.rubrics names {name:?}, and {what} installed rubric has that name; \
         installed are {}. Install it: gradus rubric install DIR FILE (or the name of a bundled one), \
         or take the name out of evaluate.rubrics",
        known.join(", ")
    ))
}
