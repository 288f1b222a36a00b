//! WHAT SETTINGS THERE ARE, for people and editors: `gradus config`, the page of settings, the schema.
//! Everything is read from the one declaration ([`super::groups`]): the words from its comments, the
//! types from how they are read, so that nothing is said twice and nothing can be said wrongly.

use super::groups::declarations;
use super::presets::NAMES;
use super::span::Span;
use super::{Config, ConfigError};
use serde::de::value::Error as ReadError;
use serde::de::{DeserializeOwned, Deserializer, Error as _, Visitor};
use serde::{Serialize, forward_to_deserialize_any};
use serde_json::Value;
use std::cell::RefCell;

/// What kind of value a setting takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "is", content = "of", rename_all = "snake_case")]
#[non_exhaustive]
pub enum ValueKind {
    /// A whole number from 0.
    Whole,
    /// A number.
    Real,
    /// True or false.
    Switch,
    /// Text.
    Text,
    /// One of these words.
    Words(Vec<String>),
    /// A list of such.
    List(Box<ValueKind>),
    /// Names that the user gives, each with settings of its own.
    Named,
    /// Settings below it.
    Group,
}

/// A setting as it is declared.
pub(super) struct Declaration {
    pub key: &'static str,
    pub about: String,
    pub kind: ValueKind,
    pub default: Value,
    pub span: Option<Span>,
    /// What the last part of its key was called before.
    pub old_names: Vec<&'static str>,
    /// Read from files of old, and never written.
    pub of_old: bool,
}

/// A key without the dot that one at the top begins with.
pub(super) fn key(path: &'static str) -> &'static str {
    path.strip_prefix('.').unwrap_or(path)
}

/// The lines of a doc comment as one text.
pub(super) fn words_of(lines: &[&str]) -> String {
    lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}

/// The other names under which a setting is read, and whether it is never written, by its serde
/// attributes.
pub(super) fn attributes(all: &[&'static str]) -> (Vec<&'static str>, bool) {
    let parts = || all.iter().flat_map(|one| one.split(',')).map(str::trim);
    let alias = |part: &'static str| {
        let (name, value) = part.split_once('=')?;
        (name.trim() == "alias").then(|| value.trim().trim_matches('"'))
    };
    (parts().filter_map(alias).collect(), parts().any(|part| part == "skip_serializing"))
}

/// What a type is read from.
pub(super) fn kind_of<T: DeserializeOwned + Serialize>() -> ValueKind {
    let seen = RefCell::new(None);
    // It ends in an error, always: only what is asked for counts.
    let _ = T::deserialize(AskedFor(&seen));
    match seen.into_inner() {
        // Names of old read as a value that is written otherwise.
        Some(ValueKind::Words(names)) => {
            ValueKind::Words(names.into_iter().filter(|name| is_written::<T>(name)).collect())
        }
        Some(kind) => kind,
        None => ValueKind::Text,
    }
}

/// Whether a word reads as a value that is written as this word.
fn is_written<T: DeserializeOwned + Serialize>(word: &str) -> bool {
    let word = Value::String(word.to_owned());
    let read = serde_json::from_value::<T>(word.clone()).and_then(serde_json::to_value);
    read.is_ok_and(|written| written == word)
}

/// Notes what a type asks for, and gives nothing.
#[derive(Clone, Copy)]
struct AskedFor<'a>(&'a RefCell<Option<ValueKind>>);

impl AskedFor<'_> {
    fn note<T>(self, kind: ValueKind) -> Result<T, ReadError> {
        *self.0.borrow_mut() = Some(kind);
        Err(ReadError::custom("only what is asked for counts"))
    }
}

macro_rules! asked_for {
    ($($method:ident => $kind:ident),+ $(,)?) => {$(
        fn $method<V: Visitor<'de>>(self, _: V) -> Result<V::Value, ReadError> {
            self.note(ValueKind::$kind)
        }
    )+};
}

impl<'de> Deserializer<'de> for AskedFor<'_> {
    type Error = ReadError;

    asked_for! {
        deserialize_any => Text,
        deserialize_bool => Switch,
        deserialize_u32 => Whole,
        deserialize_u64 => Whole,
        deserialize_f64 => Real,
        deserialize_map => Named,
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, ReadError> {
        self.note(ValueKind::Group)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, ReadError> {
        self.note(ValueKind::Words(variants.iter().map(|name| (*name).to_owned()).collect()))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        visitor.visit_some(self)
    }

    /// Lists are of words here.
    fn deserialize_seq<V: Visitor<'de>>(self, _: V) -> Result<V::Value, ReadError> {
        self.note(ValueKind::List(Box::new(ValueKind::Text)))
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u128 f32 char str string bytes byte_buf unit unit_struct
        newtype_struct tuple tuple_struct identifier ignored_any
    }
}

/// A setting, for whoever wants to know of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct SettingInfo {
    /// `train.dpo.beta`; a group's is `train.dpo`.
    pub key: String,
    /// What it means.
    pub about: String,
    /// What it takes.
    pub kind: ValueKind,
    /// Of a number, what it may be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed: Option<String>,
    /// What it is where nobody says otherwise.
    pub default: Value,
    /// What each preset sets it to, where they differ.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub presets: Vec<(String, Value)>,
    /// Other names that are read: those it had before, and those that other tools have for it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub other_names: Vec<String>,
}

/// The value of a key.
pub(super) fn at<'v>(settings: &'v Value, key: &str) -> Option<&'v Value> {
    settings.pointer(&format!("/{}", key.replace('.', "/")))
}

/// What every preset sets a key to, where not all say the same.
fn presets(key: &str, default: &Value) -> Vec<(String, Value)> {
    let value = |name: &&str| {
        let settings = Config::preset(name).ok()?.as_json();
        // What is not written is the default.
        Some(((*name).to_owned(), at(&settings, key).unwrap_or(default).clone()))
    };
    let all: Vec<_> = NAMES.iter().filter_map(value).collect();
    match all.iter().all(|(_, value)| value == default) {
        true => Vec::new(),
        false => all,
    }
}

impl SettingInfo {
    fn of(declared: Declaration) -> SettingInfo {
        let Declaration { key, about, kind, default, span, old_names, .. } = declared;
        let presets = match kind {
            ValueKind::Group => Vec::new(),
            _ => presets(key, &default),
        };
        SettingInfo {
            key: key.to_owned(),
            about,
            kind,
            allowed: span.map(|span| span.words()),
            default,
            presets,
            other_names: old_names.into_iter().map(str::to_owned).collect(),
        }
    }

    /// All settings and groups that a file may have, group after group; not those that are only read
    /// from files of old.
    pub fn all() -> Vec<SettingInfo> {
        // A group is declared twice: as a setting of the one above it, and with its own words.
        let twice = |one: &Declaration| one.kind == ValueKind::Group && one.default != Value::Null;
        let declared = declarations().into_iter();
        let wanted = declared.filter(|one| !one.of_old && !one.key.is_empty() && !twice(one));
        wanted.map(SettingInfo::of).collect()
    }

    /// The setting or group with a key, under its own or another name.
    ///
    /// # Errors
    /// [`ConfigError::UnknownKey`] with the one that may have been meant.
    pub fn find(key: &str) -> Result<SettingInfo, ConfigError> {
        let current = current_key(key);
        let all = SettingInfo::all();
        let found = all.into_iter().find(|one| one.key == current);
        found.ok_or_else(|| ConfigError::unknown_key(key))
    }

    /// What it takes, in words: `a number, above 0, at most 1000000`.
    pub fn takes(&self) -> String {
        let kind = kind_words(&self.kind);
        match &self.allowed {
            Some(allowed) => format!("{kind}, {allowed}"),
            None => kind,
        }
    }
}

fn kind_words(kind: &ValueKind) -> String {
    match kind {
        ValueKind::Whole => "a whole number".to_owned(),
        ValueKind::Real => "a number".to_owned(),
        ValueKind::Switch => "true or false".to_owned(),
        ValueKind::Text => "text".to_owned(),
        ValueKind::Words(words) => words.join(" | "),
        ValueKind::List(_) => "a list of names".to_owned(),
        ValueKind::Named => "names, each with settings of its own".to_owned(),
        ValueKind::Group => "settings below it".to_owned(),
    }
}

/// A key with the name that it has now in the place of another that it is read under.
pub(super) fn current_key(key: &str) -> String {
    let (group, name) = key.rsplit_once('.').unwrap_or(("", key));
    let is = |one: &Declaration| {
        let own = one.key.rsplit_once('.').map_or("", |(group, _)| group);
        own == group && one.old_names.contains(&name)
    };
    let found = declarations().into_iter().find(is);
    found.map_or_else(|| key.to_owned(), |one| one.key.to_owned())
}

/// Recorded settings under the names that settings have now. Where both are there, the newer was set
/// later.
pub(super) fn with_current_names(recorded: &Value) -> Value {
    let mut settings = recorded.clone();
    for one in declarations().iter().filter(|one| !one.old_names.is_empty()) {
        let (group, name) = one.key.rsplit_once('.').unwrap_or(("", one.key));
        let pointer =
            if group.is_empty() { String::new() } else { format!("/{}", group.replace('.', "/")) };
        let Some(Value::Object(place)) = settings.pointer_mut(&pointer) else { continue };
        for old in &one.old_names {
            if let Some(value) = place.shift_remove(*old) {
                place.entry(name).or_insert(value);
            }
        }
    }
    settings
}

/// All settings as a page of Markdown: `docs/settings.md`.
pub fn settings_page() -> String {
    let mut page = "# Settings\n\n\
        Everything that `gradus.yaml` may say, made by `gradus config explain --markdown` of the one \
        declaration in the source (a test holds this page to it). Training keys have TRL's names where TRL \
        has the setting; names of old are read, too. One key by itself: `gradus config explain KEY`; for \
        editors: [gradus.schema.json](gradus.schema.json), which `gradus config schema` prints.\n"
        .to_owned();
    for one in SettingInfo::all() {
        if one.kind == ValueKind::Group {
            page.push_str(&format!("\n## {}\n\n{}\n\n", one.key, one.about));
            page.push_str("| key | what it is | takes | by default |\n| --- | --- | --- | --- |\n");
            continue;
        }
        if one.key == "seed" {
            page.push_str("\n## At the top\n\n");
            page.push_str("| key | what it is | takes | by default |\n| --- | --- | --- | --- |\n");
        }
        page.push_str(&row(&one));
    }
    page
}

fn row(one: &SettingInfo) -> String {
    let cell = |text: &str| text.replace('|', "\\|");
    let name = one.key.rsplit('.').next().unwrap_or_default();
    let mut about = one.about.clone();
    if !one.presets.is_empty() {
        let differing = one.presets.iter().filter(|(_, value)| *value != one.default);
        let each: Vec<String> =
            differing.map(|(preset, value)| format!("{preset} {value}")).collect();
        about.push_str(&format!(" Presets: {}.", each.join(", ")));
    }
    if !one.other_names.is_empty() {
        about.push_str(&format!(" Read as {}, too.", one.other_names.join(", ")));
    }
    let default = serde_json::to_string(&one.default).unwrap_or_default();
    format!("| `{name}` | {} | {} | `{default}` |\n", cell(&about), cell(&one.takes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{GateMode, LossType};

    #[test]
    fn a_kind_is_what_is_read() {
        assert_eq!(kind_of::<u32>(), ValueKind::Whole);
        assert_eq!(kind_of::<Option<f64>>(), ValueKind::Real);
        assert_eq!(kind_of::<bool>(), ValueKind::Switch);
        assert_eq!(kind_of::<Option<String>>(), ValueKind::Text);
        assert_eq!(kind_of::<Vec<String>>(), ValueKind::List(Box::new(ValueKind::Text)));
        assert_eq!(kind_of::<crate::config::TrainConfig>(), ValueKind::Group);
        let words = |kind| match kind {
            ValueKind::Words(words) => words,
            other => panic!("{other:?}"),
        };
        assert_eq!(words(kind_of::<LossType>()), ["sigmoid", "robust", "ipo", "hinge"]);
        // Names of old are read and not shown.
        assert_eq!(words(kind_of::<GateMode>()), ["paper", "not_worse", "better"]);
    }

    /// Every key that a file of settings is written with is told of, with its default.
    #[test]
    fn everything_that_is_written_is_declared() {
        fn walk(value: &Value, path: &str, keys: &mut Vec<(String, Value)>) {
            match value {
                Value::Object(map) => map.iter().for_each(|(key, value)| {
                    let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    walk(value, &path, keys);
                }),
                other => keys.push((path.to_owned(), other.clone())),
            }
        }
        let mut written = Vec::new();
        walk(&Config::default().as_json(), "", &mut written);
        let all = SettingInfo::all();
        for (key, value) in &written {
            let found: Vec<_> = all.iter().filter(|one| one.key == *key).collect();
            assert_eq!(found.len(), 1, "{key}");
            assert_eq!(found[0].default, *value, "{key}");
            assert!(found[0].about.len() > 12, "{key}: {}", found[0].about);
        }
        let hidden = ["sampling.weight_bits", "judge.comparisons_max", "prompts.reuse"];
        assert!(hidden.iter().all(|key| all.iter().any(|one| one.key == *key)));
        assert!(all.iter().all(|one| one.key != "prompts.writer"), "of old");
        assert_eq!(all.iter().filter(|one| one.key == "train.dpo").count(), 1);
    }

    #[test]
    fn one_is_found_under_each_of_its_names() {
        for key in ["train.dpo.per_device_train_batch_size", "train.dpo.train_batch_size"] {
            let found = SettingInfo::find(key).unwrap();
            assert_eq!(found.key, "train.dpo.per_device_train_batch_size");
            assert_eq!(found.takes(), "a whole number, 1 to 65536");
            assert!(found.presets.contains(&("tiny".to_owned(), 8.into())));
        }
        let error = SettingInfo::find("train.dpo.betta").unwrap_err().to_string();
        assert!(error.contains("Did you mean train.dpo.beta?"), "{error}");
    }

    #[test]
    fn settings_of_old_get_the_names_of_now() {
        let of_old =
            serde_json::json!({"train": {"segment_steps": 7, "dpo": {"final_ratio": 0.5}}});
        let now = serde_json::json!({"train": {"dpo": {"min_lr_rate": 0.5}, "save_steps": 7}});
        assert_eq!(with_current_names(&of_old), now);
        let both = serde_json::json!({"train": {"segment_steps": 7, "save_steps": 9}});
        assert_eq!(with_current_names(&both), serde_json::json!({"train": {"save_steps": 9}}));
    }

    #[test]
    fn the_page_is_the_declaration() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/settings.md");
        let page = std::fs::read_to_string(path).unwrap();
        let made = "gradus config explain --markdown > docs/settings.md";
        assert!(
            page == settings_page(),
            "docs/settings.md is not the declaration's. Make it: {made}"
        );
    }
}
