//! Installed rubrics by id. Readers never wait: a judgment takes its rubric once and keeps it to
//! the end, whatever is installed meanwhile.

use super::component::Rubric;
use crate::domain::RubricId;
use arc_swap::ArcSwap;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Installed rubrics.
#[derive(Default)]
pub struct RubricRegistry(ArcSwap<BTreeMap<RubricId, Rubric>>);

impl RubricRegistry {
    /// Adds a rubric; which one judges is decided by events, not here.
    pub fn install(&self, rubric: Rubric) {
        self.0.rcu(|known| {
            let mut known = BTreeMap::clone(known);
            known.insert(rubric.id().clone(), rubric.clone());
            Arc::new(known)
        });
    }

    /// The rubric with an id.
    pub fn get(&self, id: &RubricId) -> Option<Rubric> {
        self.0.load().get(id).cloned()
    }
}
