//! Settings that `gradus.yaml` has and no plan yet: what they are, and from when on they count.

use crate::config::{Config, changes};
use crate::domain::Iteration;
use crate::domain::plan::SettingChange;
use crate::view::RunView;
use serde::{Deserialize, Serialize};

/// Settings that count from the next iteration on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SettingsToCome {
    /// The iteration that is opened with them.
    pub from: Iteration,
    /// The one that is open and goes on under its own plan, if one is.
    pub open: Option<Iteration>,
    /// What is another than when the last plan was made.
    pub changes: Vec<SettingChange>,
}

impl SettingsToCome {
    /// What of these settings no plan has yet; `None` when there is nothing.
    pub fn of(config: &Config, view: &RunView) -> Option<SettingsToCome> {
        let changes = changes(view.settings.as_ref()?, config);
        let open = view.open().map(|(iteration, _)| iteration);
        let (from, _) = view.next_iteration();
        (!changes.is_empty()).then_some(SettingsToCome { from, open, changes })
    }
}

impl std::fmt::Display for SettingsToCome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let SettingsToCome { from, open, changes } = self;
        write!(f, "from iteration {from} on: ")?;
        let all: Vec<String> = changes.iter().map(ToString::to_string).collect();
        f.write_str(&all.join("; "))?;
        match open {
            Some(open) => {
                write!(
                    f,
                    ". Iteration {open} is open and goes on under the plan that it began with"
                )
            }
            None => Ok(()),
        }
    }
}
