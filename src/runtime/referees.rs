//! Whether the rubrics that `evaluate.rubrics` names can referee, asked when a run starts and not
//! when its first evaluation fails.

use crate::config::Config;
use crate::error::{Code, Error};
use crate::rubric::{RubricRegistry, Subject};
use crate::stage::judge::referee;
use crate::view::RunView;

/// Checks them.
///
/// # Errors
/// [`Error::Refused`] with the name of one that is not installed or judges no answers, and what to do.
pub(super) fn check(
    config: &Config,
    view: &RunView,
    registry: &RubricRegistry,
) -> Result<(), Error> {
    let panel = referee::named(&config.evaluate.rubrics, view)
        .map_err(|why| Error::refused(why.code, why.message))?;
    for member in panel.iter().flat_map(|panel| panel.members()) {
        let missing = || {
            Error::refused(
                Code::RubricMissing,
                format!("rubric {} is not installed", member.rubric.short()),
            )
        };
        let rubric = registry.get(&member.rubric).ok_or_else(missing)?;
        if rubric.info().subject == Subject::Judgment {
            return Err(Error::refused(
                Code::RubricJudgesJudgments,
                format!(
                    "evaluate.rubrics names {}, which judges judgments, not answers: it cannot \
                 compare policies. Take it out",
                    rubric.info().name
                ),
            ));
        }
    }
    Ok(())
}
