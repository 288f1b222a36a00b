//! FOLD: what a log comes to.

use crate::domain::Offset;
use crate::error::Error;
use crate::log::Log;
use crate::view::{FOLD_RECORDS, RunView};

/// Folds a whole log.
///
/// # Errors
/// What the log says.
pub fn fold(log: &dyn Log) -> Result<RunView, Error> {
    fold_until(log, Offset(u64::MAX))
}

/// Folds the records of a log before `until`.
pub(crate) fn fold_until(log: &dyn Log, until: Offset) -> Result<RunView, Error> {
    let mut view = RunView::at_the_floor(log)?;
    loop {
        let left = until.0.saturating_sub(view.next.0).min(FOLD_RECORDS as u64) as usize;
        if left == 0 || view.follow(log, left, |_| {})? == 0 {
            return Ok(view);
        }
    }
}
