//! Who compares two policies on held-out prompts: the rubrics that judge the iteration, or those that
//! `evaluate.rubrics` names, so that a loop is not measured by what trained it.

use crate::codes::Code;
use crate::domain::{Panel, PanelMember, RubricId};
use crate::view::RunView;
use serde::Serialize;

/// Why the rubrics that are named cannot referee.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NoReferee {
    /// Why, for programs.
    pub code: Code,
    /// Which name it is, and what to do.
    pub message: String,
}

/// The panel of rubrics that are named, each with the same weight; `None` when none is.
///
/// # Errors
/// Which name is no installed rubric, or why they make no panel, and what to do.
pub fn named(names: &[String], view: &RunView) -> Result<Option<Panel>, NoReferee> {
    if names.is_empty() {
        return Ok(None);
    }
    let members = names.iter().map(|name| Ok(PanelMember::plain(one(name, view)?)));
    let panel = Panel::new(members.collect::<Result<_, NoReferee>>()?);
    panel.map(Some).map_err(|error| NoReferee {
        code: error.code(),
        message: format!("evaluate.rubrics: {error}"),
    })
}

fn one(name: &str, view: &RunView) -> Result<RubricId, NoReferee> {
    let found = view.rubrics_named(name);
    if let [only] = found.as_slice() {
        return Ok((*only).clone());
    }
    let (what, code) = match found.is_empty() {
        true => ("no", Code::RubricUnknown),
        false => ("more than one", Code::RubricAmbiguous),
    };
    let known = view.rubrics.installed.iter();
    let known: Vec<String> = known
        .map(|(id, facts)| format!("{}@{} ({})", facts.name, facts.version, id.short()))
        .collect();
    let message = format!(
        "evaluate.rubrics names {name:?}, and {what} installed rubric has that name; installed are \
         {}. Install it, or take the name out of evaluate.rubrics",
        known.join(", ")
    );
    Err(NoReferee { code, message })
}
