//! A web service with a run inside: it adds prompts, answers with the policy that acts, and says what
//! the run is doing, while the run works. The run lies in the folder given; `gradus init` makes one.
//!
//! ```text
//! cargo run --release --example embed -- DIR
//! curl -d '"Name three colours."' -H 'content-type: application/json' localhost:8000/answer
//! ```

use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use gradus::prelude::*;

/// The service's routes over a run; a handle is all they need.
pub fn routes(run: Handle) -> Router {
    Router::new()
        .route("/prompts", post(add))
        .route("/answer", post(answer))
        .route("/status", get(status))
        .with_state(run)
}

type Told<T> = Result<Json<T>, String>;

async fn add(State(run): State<Handle>, Json(texts): Json<Vec<String>>) -> Told<usize> {
    let prompts = texts.into_iter().map(|text| Prompt::user(text, PromptOrigin::Given));
    let added = run.submit(prompts.collect()).await.map_err(|error| error.to_string())?;
    Ok(Json(added.admitted.len()))
}

async fn answer(State(run): State<Handle>, Json(question): Json<String>) -> Told<String> {
    let policy = run.policy().await.map_err(|error| error.to_string())?;
    let answer = policy.answer(vec![Message::user(question)]).await;
    answer.map(|answer| Json(answer.text)).map_err(|error| error.to_string())
}

async fn status(State(run): State<Handle>) -> Told<Status> {
    run.status().await.map(Json).map_err(|error| error.to_string())
}

#[tokio::main]
#[allow(dead_code, reason = "a test takes the routes alone")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::args().nth(1).ok_or("give the run's folder")?;
    let runtime = Runtime::builder(dir).start().await?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:8000").await?;
    axum::serve(listener, routes(runtime.handle())).await?;
    Ok(runtime.shutdown().await?)
}
