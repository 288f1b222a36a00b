//! The shapes of prompt files, and reading one row of each.

use super::{PromptsError, Row, ifeval};
use crate::domain::{Message, Notes, Role};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::Path;

/// What the lines of a file are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `{"messages": [{"role", "content"}]}`
    Messages,
    /// `{"prompt": text or messages, "completion"?}`
    Prompt,
    /// `{"instruction", "input", "output"}`
    Alpaca,
    /// `{"conversations": [{"from", "value"}]}`
    ShareGpt,
    /// `{"instruction", "instances": [{"input", "output"}]}`
    SelfInstruct,
    /// `"text"`
    JsonString,
    /// Plain text.
    Text,
}

/// A value and its line number, from 1.
type ReadLine = Result<(usize, Value), PromptsError>;

/// The values of a file with their line numbers, one at a time, for a file may be large and a value
/// takes several times its text; blank lines are left out.
pub(super) fn lines<'t>(
    path: &'t Path,
    text: &'t str,
) -> Result<Box<dyn Iterator<Item = ReadLine> + 't>, PromptsError> {
    let bad = |line: usize, error: serde_json::Error| PromptsError::Line {
        path: path.to_owned(),
        line,
        reason: format!("not valid JSON: {error}"),
    };
    let text = text.trim_start_matches('\u{feff}');
    let trimmed = text.trim();
    if trimmed.starts_with('[') {
        let all: Vec<&RawValue> = serde_json::from_str(trimmed).map_err(|e| bad(e.line(), e))?;
        let value = move |(at, raw): (usize, &RawValue)| {
            let value = serde_json::from_str(raw.get());
            value.map(|value| (at + 1, value)).map_err(|error| bad(at + 1, error))
        };
        return Ok(Box::new(all.into_iter().enumerate().map(value)));
    }
    let json = trimmed.starts_with('{') || trimmed.starts_with('"');
    let lines = text.lines().map(str::trim).enumerate().filter(|(_, line)| !line.is_empty());
    Ok(Box::new(lines.map(move |(at, line)| {
        let value = match json {
            true => serde_json::from_str(line).map_err(|error| bad(at + 1, error))?,
            false => Value::Array(vec![Value::String(line.to_owned())]),
        };
        Ok((at + 1, value))
    })))
}

fn text(object: &Map<String, Value>, key: &str) -> Result<String, String> {
    match object.get(key) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err(format!("{key} is not text")),
        None => Err(format!("{key} is missing")),
    }
}

fn optional(object: &Map<String, Value>, key: &str) -> Option<String> {
    text(object, key).ok().filter(|text| !text.trim().is_empty())
}

fn turns(value: &Value, role: &str, content: &str) -> Result<Vec<Message>, String> {
    let list = value.as_array().ok_or("the turns are not a list")?;
    let mut messages = Vec::new();
    for turn in list {
        let turn = turn.as_object().ok_or("a turn is not an object")?;
        let speaker = match text(turn, role)?.as_str() {
            "system" => Role::System,
            "user" | "human" => Role::User,
            "assistant" | "gpt" | "model" => Role::Assistant,
            other => return Err(format!("unknown speaker {other:?}")),
        };
        messages.push(Message { role: speaker, content: text(turn, content)? });
    }
    Ok(messages)
}

/// Turns that end with the model's: that one is the answer.
fn split(mut messages: Vec<Message>) -> Row {
    let answered = messages.last().is_some_and(|m| m.role == Role::Assistant);
    let completion = if answered { messages.pop().map(|m| m.content) } else { None };
    Row { messages, completion, notes: Notes::default() }
}

/// What a row of any shape brings for rubrics: `tags`, `reference`, `fields`, and IFEval's instructions.
fn notes(object: &Map<String, Value>) -> Result<Notes, String> {
    let read = |key: &str| object.get(key).cloned().unwrap_or(Value::Null);
    let wrong = |key: &str, wanted: &str| format!("{key} is not {wanted}");
    let none = |value: &Value| value.is_null();
    let tags = Some(read("tags")).filter(|v| !none(v)).map(serde_json::from_value).transpose();
    let fields = Some(read("fields")).filter(|v| !none(v)).map(serde_json::from_value).transpose();
    let reference = match object.contains_key("reference") && !none(&read("reference")) {
        true => Some(text(object, "reference")?),
        false => None,
    };
    let own: Option<BTreeMap<String, String>> =
        fields.map_err(|_| wrong("fields", "an object of texts"))?;
    let mut fields = ifeval::fields(object)?;
    fields.extend(own.unwrap_or_default());
    Ok(Notes {
        reference,
        tags: tags.map_err(|_| wrong("tags", "a list of texts"))?.unwrap_or_default(),
        fields,
    })
}

fn joined(instruction: String, input: Option<String>) -> Vec<Message> {
    let content = match input {
        Some(input) => format!("{instruction}\n\n{input}"),
        None => instruction,
    };
    vec![Message::user(content)]
}

impl Shape {
    /// The shape of a value.
    pub(super) fn of(value: &Value) -> Result<Shape, String> {
        let object = match value {
            Value::String(_) => return Ok(Shape::JsonString),
            Value::Array(_) => return Ok(Shape::Text),
            Value::Object(object) => object,
            _ => return Err("neither text nor an object".to_owned()),
        };
        let has = |key: &str| object.contains_key(key);
        Ok(match () {
            () if has("messages") => Shape::Messages,
            () if has("prompt") => Shape::Prompt,
            () if has("conversations") => Shape::ShareGpt,
            () if has("instruction") && has("instances") => Shape::SelfInstruct,
            () if has("instruction") => Shape::Alpaca,
            () => {
                return Err(format!(
                    "has keys {}; expected messages, prompt, instruction or conversations",
                    keys(object)
                ));
            }
        })
    }

    /// Its name for people.
    pub fn describe(self) -> &'static str {
        match self {
            Shape::Messages => "chat messages",
            Shape::Prompt => "prompt and completion",
            Shape::Alpaca => "alpaca: instruction, input, output",
            Shape::ShareGpt => "ShareGPT conversations",
            Shape::SelfInstruct => "self-instruct tasks",
            Shape::JsonString => "JSON strings",
            Shape::Text => "text lines",
        }
    }

    /// Reads one value of this shape.
    pub(super) fn row(self, value: Value) -> Result<Row, String> {
        let found = Shape::of(&value);
        if found != Ok(self) {
            let found = match (found, &value) {
                (_, Value::Object(object)) => format!("has keys {}", keys(object)),
                (Ok(shape), _) => format!("holds {}", shape.describe()),
                (Err(reason), _) => reason,
            };
            let ours = self.describe();
            return Err(format!(
                "{found}; the lines before hold {ours}. Bring it into the same shape or remove it"
            ));
        }
        match value {
            Value::String(text) => Ok(split(vec![Message::user(text)])),
            Value::Array(list) => {
                let text = list.first().and_then(Value::as_str).unwrap_or_default();
                Ok(split(vec![Message::user(text)]))
            }
            Value::Object(object) => {
                Ok(Row { notes: notes(&object)?, ..self.object_row(&object)? })
            }
            _ => Err("neither text nor an object".to_owned()),
        }
    }

    fn object_row(self, object: &Map<String, Value>) -> Result<Row, String> {
        let none = Value::Null;
        match self {
            Shape::Messages => {
                Ok(split(turns(object.get("messages").unwrap_or(&none), "role", "content")?))
            }
            Shape::ShareGpt => {
                Ok(split(turns(object.get("conversations").unwrap_or(&none), "from", "value")?))
            }
            Shape::Prompt => {
                let messages = match object.get("prompt") {
                    Some(Value::String(text)) => vec![Message::user(text.clone())],
                    Some(list) => turns(list, "role", "content")?,
                    None => return Err("prompt is missing".to_owned()),
                };
                Ok(Row {
                    messages,
                    completion: optional(object, "completion"),
                    notes: Notes::default(),
                })
            }
            Shape::SelfInstruct => {
                let instances = object.get("instances").and_then(Value::as_array);
                let first = instances.and_then(|list| list.first()).and_then(Value::as_object);
                let input = first.and_then(|instance| optional(instance, "input"));
                Ok(Row {
                    messages: joined(text(object, "instruction")?, input),
                    completion: first.and_then(|instance| optional(instance, "output")),
                    notes: Notes::default(),
                })
            }
            Shape::Alpaca | Shape::JsonString | Shape::Text => Ok(Row {
                messages: joined(text(object, "instruction")?, optional(object, "input")),
                completion: optional(object, "output"),
                notes: Notes::default(),
            }),
        }
    }
}

fn keys(object: &Map<String, Value>) -> String {
    object.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
}
