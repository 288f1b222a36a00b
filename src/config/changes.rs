//! What differs between the settings that a run has recorded and those of its file now.

use super::Config;
use super::describe::with_current_names;
use crate::domain::plan::SettingChange;
use serde_json::Value;

/// Every setting of `now` that is another than in `recorded`, by key. A setting that `recorded` says
/// nothing of, for it is younger than the record, was its default.
pub fn changes(recorded: &Value, now: &Config) -> Vec<SettingChange> {
    let recorded = with_current_names(recorded);
    let before: Option<Config> = serde_json::from_value(recorded.clone()).ok();
    let before = before.map_or(recorded, |config| config.recorded());
    let mut all = Vec::new();
    walk("", Some(&before), Some(&now.recorded()), &mut all);
    all.retain(|change| !is_of_no_plan(&change.key));
    all
}

/// Every setting that differs between two, by key.
pub fn differences(before: &Config, now: &Config) -> Vec<SettingChange> {
    let mut all = Vec::new();
    walk("", Some(&before.as_json()), Some(&now.as_json()), &mut all);
    all
}

/// How long a run goes on, when it waits, and what it takes of the machine: nothing that an iteration
/// does depends on it.
fn is_of_no_plan(key: &str) -> bool {
    let group = key.split('.').next().unwrap_or_default();
    ["intake", "iterations", "on_failure", "storage", "supervision"].contains(&group)
        || ["rubrics.watch", "rubrics.watch_when"].contains(&key)
}

fn walk(key: &str, from: Option<&Value>, to: Option<&Value>, all: &mut Vec<SettingChange>) {
    if from == to {
        return;
    }
    if let (Some(Value::Object(old)), Some(Value::Object(new))) = (from, to) {
        let gone = old.keys().filter(|name| !new.contains_key(*name));
        for name in new.keys().chain(gone) {
            let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
            walk(&key, old.get(name), new.get(name), all);
        }
        return;
    }
    let value = |side: Option<&Value>| side.cloned().unwrap_or(Value::Null);
    all.push(SettingChange { key: key.to_owned(), from: value(from), to: value(to) });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ReferenceRule;

    fn said(recorded: &Value, now: &Config) -> Vec<String> {
        changes(recorded, now).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn only_what_differs_is_a_change() {
        let before = Config::default();
        let mut now = before.clone();
        assert!(said(&before.recorded(), &now).is_empty());
        now.train.dpo.beta = 0.2;
        now.evaluate.rubrics = vec!["strict".to_owned()];
        now.train.dpo.reference = ReferenceRule::Initial;
        now.device = crate::config::DeviceChoice::Cpu;
        now.storage.keep_iterations = 3;
        now.iterations = 9;
        let wanted = [
            "train.dpo.beta: 0.1 -> 0.2",
            "train.dpo.reference: \"previous\" -> \"initial\"",
            r#"evaluate.rubrics: [] -> ["strict"]"#,
        ];
        assert_eq!(said(&before.recorded(), &now), wanted);
    }

    #[test]
    fn a_setting_that_a_record_of_old_does_not_know_was_its_default() {
        let mut of_old = Config::default().recorded();
        of_old["pairs"].as_object_mut().unwrap().shift_remove("noise");
        assert!(said(&of_old, &Config::default()).is_empty());
        let mut now = Config::default();
        now.pairs.noise = 2.0;
        assert_eq!(said(&of_old, &now), ["pairs.noise: 1.0 -> 2.0"]);
    }

    #[test]
    fn a_setting_under_a_name_of_old_is_the_same_setting() {
        let mut of_old = Config::default().recorded();
        let train = of_old["train"].as_object_mut().unwrap();
        let steps = train.shift_remove("save_steps").unwrap();
        train.insert("segment_steps".to_owned(), steps);
        assert!(said(&of_old, &Config::default()).is_empty());
        // A change that was recorded since has the name of now.
        of_old["train"]["save_steps"] = 7.into();
        let mut now = Config::default();
        now.train.save_steps = 9;
        assert_eq!(said(&of_old, &now), ["train.save_steps: 7 -> 9"]);
    }
}
