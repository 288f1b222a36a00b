//! Which installed rubric somebody means.

use super::{RubricFacts, RunView};
use crate::domain::RubricId;

impl RunView {
    /// The installed rubrics that `wanted` may mean: the newest of that name, the one that is
    /// `name@version`, or else all whose hash begins so (four characters or more). One is the
    /// answer; none or several are not.
    pub fn rubrics_named(&self, wanted: &str) -> Vec<&RubricId> {
        let all = &self.rubrics.installed;
        let (name, version) = match wanted.split_once('@') {
            Some((name, version)) => (name, Some(version)),
            None => (wanted, None),
        };
        let named = |facts: &RubricFacts| {
            facts.name == name && version.is_none_or(|version| facts.version == version)
        };
        let newest = all.iter().filter(|(_, facts)| named(facts)).max_by_key(|(_, f)| f.serial);
        match newest {
            Some((id, _)) => vec![id],
            None => {
                let hashed = |id: &&RubricId| wanted.len() >= 4 && id.0.starts_with(wanted);
                all.keys().filter(hashed).collect()
            }
        }
    }
}
