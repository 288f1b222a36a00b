//! Settings that `gradus.yaml` has and no plan yet: what they are, and from when on they count.

use crate::config::{Config, changes};
use crate::domain::Iteration;
use crate::domain::plan::SettingChange;
use crate::view::{RunView, Shared};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::{Arc, Mutex, PoisonError};

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
        SettingsToCome::made_of(changes(view.settings.as_ref()?, config), view)
    }

    fn made_of(changes: Vec<SettingChange>, view: &RunView) -> Option<SettingsToCome> {
        let open = view.open().map(|(iteration, _)| iteration);
        let (from, _) = view.next_iteration();
        (!changes.is_empty()).then_some(SettingsToCome { from, open, changes })
    }
}

/// The settings of a runtime beside those that the last plan was made of. They are compared once for
/// each plan, however often somebody asks.
pub(super) struct ComparedSettings {
    config: Arc<Config>,
    last: Mutex<Option<(Shared<Value>, Vec<SettingChange>)>>,
}

impl ComparedSettings {
    pub(super) fn of(config: Arc<Config>) -> ComparedSettings {
        ComparedSettings { config, last: Mutex::default() }
    }

    /// What of them no plan has yet; `None` when there is nothing.
    pub(super) fn to_come(&self, view: &RunView) -> Option<SettingsToCome> {
        let recorded = view.settings.as_ref()?;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let changes = match last.take() {
            Some((before, changes)) if before == *recorded => changes,
            _ => changes(recorded, &self.config),
        };
        *last = Some((recorded.clone(), changes.clone()));
        SettingsToCome::made_of(changes, view)
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
