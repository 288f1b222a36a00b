//! The rubric sandbox from outside: what the bundled rubrics read and ask, and that no component,
//! however hostile, does more than fail.

mod bundle;
mod checks;
mod golden;
pub mod guest;
mod hostile;
mod places;
mod refused;
mod uploads;

use gradus::rubric::{ParsedReply, Rubric, RubricEngine, RubricError, RubricInput};

/// Loads a component into an engine of its own.
fn try_load(bytes: &[u8]) -> Result<Rubric, RubricError> {
    Rubric::load(&RubricEngine::without_cache().expect("an engine"), bytes)
}

fn load(bytes: &[u8]) -> Rubric {
    try_load(bytes).expect("a rubric that loads")
}

/// A task with one completion.
fn item(task: &str, completion: &str) -> RubricInput {
    RubricInput {
        task: task.to_owned(),
        candidates: vec![completion.to_owned()],
        ..RubricInput::default()
    }
}

fn score(reading: &ParsedReply) -> Option<f64> {
    match reading {
        ParsedReply::Verdict { scores, .. } => scores.first().copied(),
        ParsedReply::Missing { .. } | ParsedReply::Unparsed { .. } => None,
    }
}
