//! A whole small agent service around a run: its own route on top, its own key in front of everything, and
//! below `/learning` all that `gradus serve` has: chat for OpenAI's clients, votes, commands (rubrics too),
//! events, figures, the page.
//!
//! ```sh
//! cargo run --release --example agent_service -- DIR KEY
//! curl -H 'x-key: KEY' -d '{"task": "Name a fruit."}' -H 'content-type: application/json' localhost:8766/agent
//! ```

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use gradus::http::{HttpAccess, HttpSettings, Listening, ServerSettings, router, serve};
use gradus::prelude::*;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What a caller wants done.
#[derive(Deserialize)]
struct AgentTask {
    task: String,
}

/// What came of it.
#[derive(Serialize)]
struct AgentResult {
    result: String,
    /// The policy that worked on it: it gets better while the service runs.
    by: String,
}

struct AgentError(Error);

impl IntoResponse for AgentError {
    fn into_response(self) -> Response {
        let status = match self.0.is_retryable() {
            true => StatusCode::SERVICE_UNAVAILABLE,
            false => StatusCode::BAD_REQUEST,
        };
        (status, self.0.to_string()).into_response()
    }
}

impl From<Error> for AgentError {
    fn from(error: Error) -> AgentError {
        AgentError(error)
    }
}

/// Two turns with the policy that acts: a draft, and the draft made better.
async fn agent(
    State(run): State<Handle>,
    Json(AgentTask { task }): Json<AgentTask>,
) -> Result<Json<AgentResult>, AgentError> {
    let policy = run.policy().await?;
    let asked = [Message::user(task)];
    let mut chat = asked.to_vec();
    let draft = policy.answer(chat.clone()).await?;
    chat.extend([Message::assistant(draft.text), Message::user("Say it better.")]);
    let better = policy.answer(chat.clone()).await?;
    // What the agent is asked, the run may learn from: where its settings say so (intake).
    run.take_in(&asked).await?;
    Ok(Json(AgentResult { result: better.text, by: policy.name().to_owned() }))
}

/// The host's own way of saying who may ask.
async fn key_in_front(State(key): State<Arc<str>>, request: Request, next: Next) -> Response {
    match request.headers().get("x-key").is_some_and(|given| given.as_bytes() == key.as_bytes()) {
        true => next.run(request).await,
        false => (StatusCode::UNAUTHORIZED, "x-key").into_response(),
    }
}

/// Everything that the service answers.
pub fn app(run: Handle, key: &str) -> Router {
    let learning = router(run.clone(), HttpSettings::new(HttpAccess::Open));
    Router::new()
        .route("/agent", post(agent))
        .with_state(run)
        .nest_service("/learning", learning)
        .layer(from_fn_with_state(Arc::from(key), key_in_front))
}

#[tokio::main]
#[allow(dead_code, reason = "a test takes the routes alone")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [dir, key] = arguments.as_slice() else { return Err("agent_service DIR KEY".into()) };
    let runtime = Runtime::builder(dir).start().await?;
    let listening = Listening::tcp(([127, 0, 0, 1], 8766).into()).await?;
    let stop = Cancel::default();
    let at_the_end = stop.clone();
    let served = tokio::spawn(serve(
        app(runtime.handle(), key),
        listening,
        ServerSettings::default(),
        stop.clone(),
    ));
    tokio::task::spawn_blocking(move || {
        println!("Enter ends it");
        let _ = std::io::stdin().read_line(&mut String::new());
        at_the_end.cancel();
    });
    served.await?;
    runtime.shutdown().await?;
    Ok(())
}
