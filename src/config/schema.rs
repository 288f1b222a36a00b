//! The settings as a JSON Schema, for editors that check and complete `gradus.yaml`.

use super::describe::{Declaration, ValueKind};
use super::groups::declarations;
use super::span::Span;
use serde_json::{Map, Value, json};

/// JSON Schema, draft 2020-12, of `gradus.yaml`: `docs/gradus.schema.json`.
pub fn schema() -> Value {
    let mut whole = object(json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Settings of a gradus run (gradus.yaml)",
    }));
    whole.extend(group("", &declarations()));
    Value::Object(whole)
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        other => [("const".to_owned(), other)].into_iter().collect(),
    }
}

/// The settings right below a key, those of old included: a file that has them is read.
fn group(key: &str, all: &[Declaration]) -> Map<String, Value> {
    let below = |one: &&Declaration| {
        let parent = one.key.rsplit_once('.').map_or("", |(parent, _)| parent);
        // A group stands once by itself, without a value.
        let itself = one.kind == ValueKind::Group && one.default.is_null();
        parent == key && !one.key.is_empty() && !itself
    };
    let mut properties = Map::new();
    for one in all.iter().filter(below) {
        let name = one.key.rsplit('.').next().unwrap_or_default();
        let mut own = match one.kind {
            ValueKind::Group => group(one.key, all),
            _ => setting(one),
        };
        own.insert("description".to_owned(), json!(one.about));
        if one.of_old {
            own.insert("deprecated".to_owned(), json!(true));
        }
        for old in &one.old_names {
            let about = format!("Another name of {name}. {}", one.about);
            let mut under_it = own.clone();
            under_it.extend(object(json!({"deprecated": true, "description": about})));
            properties.insert((*old).to_owned(), Value::Object(under_it));
        }
        properties.insert(name.to_owned(), Value::Object(own));
    }
    object(json!({"type": "object", "additionalProperties": false, "properties": properties}))
}

fn setting(one: &Declaration) -> Map<String, Value> {
    let mut own = object(kind(&one.kind));
    own.extend(object(match one.span {
        Some(Span::Within(least, most)) => {
            json!({"minimum": bound(least), "maximum": bound(most)})
        }
        Some(Span::AboveZero(most)) if most < f64::MAX => {
            json!({"exclusiveMinimum": 0, "maximum": bound(most)})
        }
        Some(Span::AboveZero(_)) => json!({"exclusiveMinimum": 0}),
        Some(Span::NotNegative) => json!({"minimum": 0}),
        None => json!({}),
    }));
    match own.get("type").filter(|_| one.default.is_null()).cloned() {
        // What may be nothing is nothing by default.
        Some(kind) => own.insert("type".to_owned(), json!([kind, "null"])),
        None => own.insert("default".to_owned(), one.default.clone()),
    };
    own
}

/// A whole one without a point.
fn bound(value: f64) -> Value {
    match value.fract() == 0.0 && value.abs() < 1e15 {
        true => json!(value as i64),
        false => json!(value),
    }
}

fn kind(kind: &ValueKind) -> Value {
    match kind {
        ValueKind::Whole => json!({"type": "integer", "minimum": 0}),
        ValueKind::Real => json!({"type": "number"}),
        ValueKind::Switch => json!({"type": "boolean"}),
        ValueKind::Text => json!({"type": "string"}),
        ValueKind::Words(words) => json!({"enum": words}),
        ValueKind::List(_) => json!({"type": "array", "items": {"type": "string"}}),
        ValueKind::Named => json!({"type": "object", "additionalProperties": {"type": "object"}}),
        ValueKind::Group => json!({"type": "object"}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn it_knows_every_key_its_type_and_its_bounds() {
        let schema = schema();
        let at = |path: &str| {
            let path = path.split('.').map(|part| format!("/properties/{part}"));
            schema.pointer(&path.collect::<String>()).unwrap_or(&Value::Null).clone()
        };
        assert_eq!(at("seed")["type"], "integer");
        assert_eq!(
            (&at("iterations")["minimum"], &at("iterations")["maximum"]),
            (&json!(1), &json!(100_000))
        );
        let beta = at("train.dpo.beta");
        assert_eq!((&beta["exclusiveMinimum"], &beta["default"]), (&json!(0), &json!(0.1)));
        assert_eq!(at("judge.readout")["enum"], json!(["expected", "parsed", "forced"]));
        assert_eq!(at("judge.engine")["type"], json!(["string", "null"]));
        assert_eq!(at("train.segment_steps")["deprecated"], true);
        assert_eq!(at("prompts.writer")["deprecated"], true);
        assert_eq!(at("train.dpo")["additionalProperties"], false);
    }

    /// Nothing that a file of settings holds is unknown to it.
    #[test]
    fn it_allows_what_is_written() {
        fn walk(value: &Value, schema: &Value, path: &str) {
            let Value::Object(map) = value else { return };
            for (key, value) in map {
                let known = &schema["properties"][key];
                assert!(!known.is_null(), "{path}.{key}");
                walk(value, known, &format!("{path}.{key}"));
            }
        }
        for preset in ["recommended", "paper", "tiny", "verifiable", "demo"] {
            walk(&Config::preset(preset).unwrap().as_json(), &schema(), "");
        }
    }

    #[test]
    fn the_file_is_the_declaration() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/gradus.schema.json");
        let file: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let made = "gradus config schema > docs/gradus.schema.json";
        assert!(
            file == schema(),
            "docs/gradus.schema.json is not the declaration's. Make it: {made}"
        );
    }
}
