//! What all requests have in common: which model, how it draws, and that nothing of them is passed over.

use super::super::failure::Failure;
use super::super::state::HttpState;
use crate::domain::{Message, Role};
use crate::runtime::{AnswerSettings, ServedPolicy};
use serde::Deserialize;
use serde_json::{Map, Value};

/// Answers to one request, at most.
const ANSWERS_MAX: usize = 64;
/// Texts that end an answer, at most.
const STOPS_MAX: usize = 16;
/// Tokens of an answer where a request does not say.
const TOKENS_USUAL: usize = 1024;

/// Fields that say nothing of the answer, for whoever sends them.
const ABOUT_OTHERS: [&str; 7] = [
    "user",
    "metadata",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "service_tier",
    "parallel_tool_calls",
];

/// How answers are drawn.
#[derive(Default, Deserialize)]
pub(super) struct HowDrawn {
    pub model: Option<String>,
    pub temperature: Option<f64>,
    pub top_p: Option<f64>,
    pub n: Option<usize>,
    pub seed: Option<i64>,
    pub stop: Option<OneOrMany>,
    #[serde(default)]
    pub stream: bool,
}

/// A text or several.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    pub fn all(self) -> Vec<String> {
        match self {
            OneOrMany::One(text) => vec![text],
            OneOrMany::Many(texts) => texts,
        }
    }
}

/// Refuses the fields that are left, but those that ask for nothing.
pub(super) fn nothing_else(rest: &Map<String, Value>) -> Result<(), Failure> {
    let asks = |(name, value): &(&String, &Value)| {
        !ABOUT_OTHERS.contains(&name.as_str()) && !asks_for_nothing(name, value)
    };
    match rest.iter().find(asks) {
        None => Ok(()),
        Some((name, value)) => {
            let shown: String = value.to_string().chars().take(60).collect();
            Err(Failure::field(
                name,
                format!(
                    "{name}: {shown} is not offered here, and is not passed over: leave it out"
                ),
            ))
        }
    }
}

/// A value that is what would be without it.
fn asks_for_nothing(name: &str, value: &Value) -> bool {
    let empty = match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(all) => all.is_empty(),
        Value::Object(all) => all.is_empty(),
        _ => false,
    };
    let word = value.as_str().or_else(|| value.get("type").and_then(Value::as_str));
    empty
        || match name {
            "frequency_penalty" | "presence_penalty" | "top_logprobs" => {
                value.as_f64() == Some(0.0)
            }
            "best_of" => value.as_u64() == Some(1),
            "tool_choice" | "function_call" => matches!(word, Some("none" | "auto")),
            "response_format" => word == Some("text"),
            "text" => value.get("format").and_then(|f| f.get("type")) == Some(&"text".into()),
            "truncation" => word == Some("disabled"),
            "modalities" => value == &serde_json::json!(["text"]),
            // It is not kept to be fetched by id; whether a prompt is made of it the settings say.
            "store" => true,
            _ => false,
        }
}

/// A number that must lie between two.
fn within(name: &str, value: f64, (low, high): (f64, f64)) -> Result<f64, Failure> {
    match (low..=high).contains(&value) {
        true => Ok(value),
        false => Err(Failure::field(
            name,
            format!("{name} is {value}, and must be from {low} to {high}"),
        )),
    }
}

/// Takes a chat in where the run's settings say so and the request does not say otherwise.
pub(super) async fn take_in(
    state: &HttpState,
    messages: &[Message],
    rest: &Map<String, Value>,
) -> Result<(), Failure> {
    if rest.get("store") != Some(&Value::Bool(false)) {
        state.handle.take_in(messages).await?;
    }
    Ok(())
}

/// A policy with how it shall answer.
pub(super) struct OpenedRequest {
    pub policy: ServedPolicy,
    pub settings: AnswerSettings,
    pub stream: bool,
}

impl HowDrawn {
    /// Finds the policy; `most`: the request's bound on tokens.
    pub async fn open(
        self,
        state: &HttpState,
        (most_name, most): (&str, Option<usize>),
    ) -> Result<OpenedRequest, Failure> {
        let answers = self.n.unwrap_or(1);
        if !(1..=ANSWERS_MAX).contains(&answers) {
            return Err(Failure::field(
                "n",
                format!("n is {answers}, and must be from 1 to {ANSWERS_MAX}"),
            ));
        }
        if most == Some(0) {
            return Err(Failure::field(
                most_name,
                format!("{most_name} is 0, and must be at least 1"),
            ));
        }
        let stop = self.stop.map(OneOrMany::all).unwrap_or_default();
        if stop.len() > STOPS_MAX || stop.iter().any(String::is_empty) {
            let message = format!("stop must be at most {STOPS_MAX} texts, and none of them empty");
            return Err(Failure::field("stop", message));
        }
        let temperature =
            self.temperature.map(|value| within("temperature", value, (0.0, 2.0))).transpose()?;
        let top_p = self.top_p.map(|value| within("top_p", value, (1e-6, 1.0))).transpose()?;
        let policy = state.policy(self.model.as_deref().unwrap_or("latest"), answers).await?;
        let usual = policy.settings();
        let settings = usual
            .clone()
            .temperature(temperature.unwrap_or(usual.temperature))
            .top_p(top_p.unwrap_or(usual.top_p))
            .max_new_tokens(most.unwrap_or(TOKENS_USUAL))
            .seed(match self.seed {
                Some(seed) => seed as u64,
                None => random()?,
            })
            .stop(stop)
            .answers(answers);
        Ok(OpenedRequest { policy, settings, stream: self.stream })
    }
}

/// A number that nobody knows.
pub(super) fn random() -> Result<u64, Failure> {
    let mut bytes = [0; 8];
    let drawn = getrandom::fill(&mut bytes).map_err(std::io::Error::other);
    drawn.map_err(|error| Failure::from(crate::Error::io("random numbers", error)))?;
    Ok(u64::from_le_bytes(bytes))
}

/// `chatcmpl-0f3a...`: an id that no other answer has.
pub(super) fn new_id(prefix: &str) -> Result<String, Failure> {
    Ok(format!("{prefix}-{:016x}{:016x}", random()?, random()?))
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map(|now| now.as_secs()).unwrap_or_default()
}

/// A turn as clients write it.
#[derive(Deserialize)]
pub(super) struct WrittenTurn {
    pub role: String,
    pub content: Option<Content>,
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// What is said in a turn.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Content {
    Text(String),
    Parts(Vec<ContentPart>),
}

/// A part of what is said.
#[derive(Deserialize)]
pub(super) struct ContentPart {
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub text: String,
}

impl Content {
    fn text(self, place: &str) -> Result<String, Failure> {
        let parts = match self {
            Content::Text(text) => return Ok(text),
            Content::Parts(parts) => parts,
        };
        let other = |part: &&ContentPart| {
            !matches!(part.kind.as_str(), "text" | "input_text" | "output_text")
        };
        if let Some(part) = parts.iter().find(other) {
            let message =
                format!("{place} has a part of type {:?}; only texts are read", part.kind);
            return Err(Failure::field(place, message));
        }
        Ok(parts.into_iter().map(|part| part.text).collect::<Vec<_>>().join("\n"))
    }
}

/// The turns of a conversation.
pub(super) fn messages(turns: Vec<WrittenTurn>, field: &str) -> Result<Vec<Message>, Failure> {
    if turns.is_empty() {
        return Err(Failure::field(field, format!("{field} is empty: there is nothing to answer")));
    }
    let message = |(at, turn): (usize, WrittenTurn)| {
        let place = format!("{field}[{at}]");
        let role = match turn.role.as_str() {
            "system" | "developer" => Role::System,
            "user" => Role::User,
            "assistant" => Role::Assistant,
            other => {
                let message =
                    format!("{place} has the role {other:?}; there are system, user and assistant");
                return Err(Failure::field(&place, message));
            }
        };
        // Responses' items say what they are, and those that were answered carry their ids.
        let told = |(name, value): &(&String, &Value)| {
            !matches!(name.as_str(), "type" | "id" | "status" | "annotations" | "refusal")
                && !asks_for_nothing(name, value)
        };
        if let Some((name, _)) = turn.rest.iter().find(told) {
            return Err(Failure::field(
                &place,
                format!("{place}.{name} is not offered here: leave it out"),
            ));
        }
        let content = turn
            .content
            .ok_or_else(|| Failure::field(&place, format!("{place} has no content")))?;
        Ok(Message { role, content: content.text(&place)? })
    };
    turns.into_iter().enumerate().map(message).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_not_offered_is_refused_by_name() {
        let rest = |value: Value| value.as_object().unwrap().clone();
        for good in [
            json!({}),
            json!({"frequency_penalty": 0, "tools": [], "logit_bias": {}, "user": "me"}),
            json!({"response_format": {"type": "text"}, "tool_choice": "none", "best_of": 1}),
            json!({"store": true, "modalities": ["text"], "suffix": null}),
        ] {
            assert!(nothing_else(&rest(good.clone())).is_ok(), "{good}");
        }
        for (name, value) in [
            ("frequency_penalty", json!(0.5)),
            ("tools", json!([{"type": "function"}])),
            ("response_format", json!({"type": "json_object"})),
            ("top_k", json!(5)),
            ("best_of", json!(2)),
        ] {
            let failure = nothing_else(&rest(json!({name: value}))).unwrap_err().json();
            assert_eq!(failure["error"]["param"], name);
            assert!(failure["error"]["message"].as_str().unwrap().contains(name), "{failure}");
        }
    }

    #[test]
    fn turns_are_texts_of_known_speakers() {
        let read = |value: Value| messages(serde_json::from_value(value).unwrap(), "messages");
        let both = json!([
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        ]);
        assert_eq!(read(both).unwrap(), [Message::system("Be brief."), Message::user("a\nb")]);
        for (bad, place) in [
            (json!([]), "messages"),
            (json!([{"role": "tool", "content": "a"}]), "messages[0]"),
            (json!([{"role": "user", "content": null}]), "messages[0]"),
            (json!([{"role": "user", "content": "a", "name": "b"}]), "messages[0]"),
            (json!([{"role": "user", "content": [{"type": "image_url"}]}]), "messages[0]"),
        ] {
            let failure = read(bad.clone()).unwrap_err().json();
            assert_eq!(failure["error"]["param"], place, "{bad}");
        }
    }
}
