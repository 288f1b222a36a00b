//! WHAT CAN BE ASKED, as OpenAPI 3.1: `/api/openapi.json`, and `docs/openapi.json`, which a test holds to
//! be the same. Of OpenAI's requests it has the fields that are honoured.

use super::access::{Power, power};
use axum::Json;
use axum::http::Method;
use serde_json::{Map, Value, json};

/// A route: method, path, what it is for, its request (none: no body), its answer.
pub(super) struct Route {
    pub method: Method,
    pub path: &'static str,
    pub about: &'static str,
    /// Name of the schema of its body.
    pub body: Option<&'static str>,
    /// Its parameters in the address.
    pub asks: &'static [(&'static str, &'static str)],
    /// What kind of text it answers with.
    pub answers: &'static str,
}

const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream";

fn read(path: &'static str, about: &'static str) -> Route {
    Route { method: Method::GET, path, about, body: None, asks: &[], answers: JSON }
}

fn post(path: &'static str, about: &'static str, body: &'static str) -> Route {
    Route { method: Method::POST, path, about, body: Some(body), asks: &[], answers: JSON }
}

/// Every route but the page.
pub(super) fn routes() -> Vec<Route> {
    vec![
        read("/v1/models", "The run's policies; latest is the one that acts."),
        Route { asks: &[("id", "string")], ..read("/v1/models/{id}", "One of them.") },
        post("/v1/chat/completions", "Answers a conversation.", "ChatRequest"),
        post("/v1/completions", "Goes on with a text.", "TextRequest"),
        post("/v1/responses", "Answers; nothing is stored.", "ResponsesRequest"),
        post("/v1/feedback", "Keeps a vote on an answer.", "Feedback"),
        read("/api/status", "What the run is doing."),
        read("/api/policies", "Its policies, and which of them acts."),
        read("/api/rubrics", "Its rubrics, and which of them judge."),
        read("/api/report", "What came of it, as docs/report.schema.json has it."),
        read("/api/figures", "Its figures as HTML with SVG."),
        Route {
            asks: &[("from", "integer"), ("limit", "integer")],
            ..read("/api/votes", "Votes in the order in which they were given.")
        },
        Route {
            asks: &[("from", "integer"), ("kind", "string")],
            answers: EVENTS,
            ..read("/api/events", "The log as it grows; Last-Event-ID goes on where that was.")
        },
        post("/api/commands", "Does what is asked of the run.", "Command"),
        read("/api/openapi.json", "This."),
        read("/healthz", "That the process lives."),
        read("/readyz", "That a policy acts and the log takes events."),
        Route { answers: "text/plain", ..read("/metrics", "Figures for Prometheus.") },
    ]
}

/// Something with fields; those of `must` have to be there.
fn object(must: &[&str], fields: Value) -> Value {
    json!({"type": "object", "required": must, "properties": fields})
}

fn schemas() -> Value {
    let text = json!({"type": "string"});
    let messages =
        json!({"type": "array", "minItems": 1, "items": {"$ref": "#/components/schemas/Message"}});
    let drawn = json!({
        "model": {"type": "string", "default": "latest",
            "description": "latest, M0, M1, or the beginning of a policy's hash"},
        "temperature": {"type": "number", "minimum": 0, "maximum": 2},
        "top_p": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
        "seed": {"type": "integer"},
        "stop": {"anyOf": [text, {"type": "array", "maxItems": 16, "items": text}]},
        "stream": {"type": "boolean", "default": false},
    });
    let count = json!({"type": "integer", "minimum": 1, "maximum": 64, "default": 1});
    let tokens = json!({"type": "integer", "minimum": 1});
    let usage = object(&[], json!({"include_usage": {"type": "boolean"}}));
    let with = |more: Value| {
        let mut fields = drawn.as_object().cloned().unwrap_or_default();
        fields.extend(more.as_object().cloned().unwrap_or_default());
        Value::Object(fields)
    };
    let given = json!({"anyOf": [text, object(&["completion_id"],
        json!({"completion_id": text, "index": {"type": "integer", "minimum": 0}}))]});
    json!({
        "Message": object(&["role", "content"],
            json!({"role": {"enum": ["system", "developer", "user", "assistant"]}, "content": text})),
        "ChatRequest": object(&["messages"], with(json!({
            "messages": messages, "n": count, "max_tokens": tokens, "max_completion_tokens": tokens,
            "logprobs": {"type": "boolean"}, "stream_options": usage, "store": {"type": "boolean"},
        }))),
        "TextRequest": object(&["prompt"], with(json!({
            "prompt": text, "n": count, "max_tokens": tokens, "stream_options": usage,
        }))),
        "ResponsesRequest": object(&["input"], with(json!({
            "input": {"anyOf": [text, messages]}, "instructions": text, "max_output_tokens": tokens,
            "store": {"type": "boolean"},
        }))),
        "Feedback": object(&[], json!({
            "completion_id": text, "index": {"type": "integer", "minimum": 0},
            "messages": messages, "answer": text,
            "rating": {"enum": ["up", "down", "good", "bad", 1, -1, true, false]},
            "better_than": given, "better_than_text": text, "correction": text, "comment": text, "by": text,
        })),
        "Command": commands(),
        "Error": object(&["error"], json!({"error": object(&["message", "type", "code"], json!({
            "message": text, "type": text, "param": {"type": ["string", "null"]}, "code": text,
        }))})),
    })
}

fn commands() -> Value {
    let text = json!({"type": "string"});
    let command = |name: &str, must: &[&str], fields: Value| {
        let mut all = fields.as_object().cloned().unwrap_or_default();
        all.insert("command".to_owned(), json!({"const": name}));
        object(&[&["command"], must].concat(), Value::Object(all))
    };
    let wanted = object(
        &["rubric", "weight", "tags"],
        json!({
            "rubric": text, "weight": {"type": "number"}, "tags": {"type": "array", "items": text},
        }),
    );
    json!({"oneOf": [
        command("pause", &[], json!({})),
        command("resume", &[], json!({})),
        command("stop", &[], json!({})),
        command("raise_iterations", &["total"], json!({"total": {"type": "integer", "minimum": 1}})),
        command("choose_policy", &["policy", "pin", "reason"],
            json!({"policy": text, "pin": {"type": "boolean"}, "reason": text})),
        command("roll_back_policy", &["reason"], json!({"reason": text})),
        command("unpin_policy", &["reason"], json!({"reason": text})),
        command("add_prompts", &["prompts"],
            json!({"prompts": {"type": "array", "items": {"type": "object"}}})),
        command("install_rubric", &["component"],
            json!({"component": {"type": "string", "contentEncoding": "base64"}})),
        command("activate_rubrics", &["wanted", "when", "again"], json!({
            "wanted": {"type": "array", "items": wanted},
            "when": {"enum": ["next_iteration", "immediately"]},
            "again": {"enum": ["refuse", "allow"]}, "if_current": text,
        })),
        command("shadow_rubrics", &["rubrics"], json!({"rubrics": {"type": "array", "items": text}})),
        command("roll_back_rubric", &["reason"], json!({"rubric": text, "reason": text})),
        command("vote", &["vote"], json!({"vote": {"type": "object"}})),
    ]})
}

fn operation(route: &Route) -> Value {
    let error = json!({
        "description": "Why not.",
        "content": {JSON: {"schema": {"$ref": "#/components/schemas/Error"}}},
    });
    let mut said = json!({
        "summary": route.about,
        "responses": {
            "200": {"description": "Done.", "content": {route.answers: {}}},
            "4XX": error, "5XX": error,
        },
    });
    let parameter = |(name, kind): &(&str, &str)| {
        let path = route.path.contains(&format!("{{{name}}}"));
        let schema = match *kind {
            "integer" => json!({"type": kind, "minimum": 0}),
            _ => json!({"type": kind}),
        };
        let place = if path { "path" } else { "query" };
        json!({"name": name, "in": place, "required": path, "schema": schema})
    };
    let Some(fields) = said.as_object_mut() else { return said };
    if !route.asks.is_empty() {
        fields.insert("parameters".to_owned(), route.asks.iter().map(parameter).collect());
    }
    if let Some(body) = route.body {
        let schema = json!({"$ref": format!("#/components/schemas/{body}")});
        let content = json!({"required": true, "content": {JSON: {"schema": schema}}});
        fields.insert("requestBody".to_owned(), content);
    }
    if power(&route.method, route.path) == Power::Change {
        fields.insert("security".to_owned(), json!([{"token": []}]));
    }
    said
}

/// The whole document.
pub(super) fn document() -> Value {
    let mut paths = Map::new();
    for route in routes() {
        let method = route.method.as_str().to_lowercase();
        paths.insert(route.path.to_owned(), json!({method: operation(&route)}));
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "gradus serve",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "A run over HTTP: docs/serve.md",
        },
        "paths": paths,
        "components": {
            "schemas": schemas(),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    })
}

/// Tells it.
pub(super) async fn openapi() -> Json<Value> {
    Json(document())
}
