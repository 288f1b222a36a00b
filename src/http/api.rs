//! Commands and queries: the surface as JSON.

use super::body::JsonBody;
use super::failure::Failure;
use super::state::HttpShared;
use crate::report::{FullReport, Report, ReportEvidence, figures as figures_of, svg};
use crate::runtime::{Answer, Command, Query, Reply};
use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

/// What the run is doing.
pub(super) async fn status(state: State<HttpShared>) -> Result<Json<Value>, Failure> {
    told(state, Query::Status).await
}

/// Its policies, and which of them acts.
pub(super) async fn policies(state: State<HttpShared>) -> Result<Json<Value>, Failure> {
    told(state, Query::Policies).await
}

/// Its rubrics, and which of them judge.
pub(super) async fn rubrics(state: State<HttpShared>) -> Result<Json<Value>, Failure> {
    told(state, Query::Rubrics).await
}

async fn told(State(state): State<HttpShared>, query: Query) -> Result<Json<Value>, Failure> {
    let reply = state.handle.query(query).await?;
    json(match reply {
        Reply::Status(status) => serde_json::to_value(status),
        reply => serde_json::to_value(reply),
    })
}

fn json(value: Result<Value, serde_json::Error>) -> Result<Json<Value>, Failure> {
    let lost = |error| Failure::from(crate::Error::not_json("an answer", &error));
    value.map(Json).map_err(lost)
}

/// What came of the run, of its whole log.
async fn reported(state: &HttpShared) -> Result<FullReport, Failure> {
    let handle = state.handle.clone();
    let folded = tokio::task::spawn_blocking(move || handle.history()).await;
    let view = folded.map_err(|_| Failure::from(crate::Error::Closed))??;
    Ok(FullReport::of(Report::of(&view), Vec::new(), ReportEvidence::default()))
}

/// The same as `docs/report.schema.json` has it; its evidence is what `gradus report` reads for it.
pub(super) async fn report(State(state): State<HttpShared>) -> Result<Json<Value>, Failure> {
    json(serde_json::to_value(reported(&state).await?))
}

/// Its figures, as HTML with SVG.
pub(super) async fn figures(State(state): State<HttpShared>) -> Result<Json<Value>, Failure> {
    let full = reported(&state).await?;
    let drawn: Vec<String> = figures_of(&full).iter().map(svg).collect();
    Ok(Json(json!({"figures": drawn})))
}

/// Does what is asked. Stopping ends the process, as a signal would.
pub(super) async fn command(
    State(state): State<HttpShared>,
    JsonBody(command): JsonBody<Command>,
) -> Result<Json<Answer>, Failure> {
    Ok(Json(state.handle.command(command).await?))
}

/// What is answered where there is nothing.
pub(super) async fn nothing(request: axum::extract::Request) -> Failure {
    Failure::of(
        axum::http::StatusCode::NOT_FOUND,
        crate::Code::RequestRefused,
        format!("there is no {} {} here", request.method(), request.uri().path()),
    )
}

/// That the process lives.
pub(super) async fn alive() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

/// That it answers: a policy acts, and the log takes events.
pub(super) async fn ready(State(state): State<HttpShared>) -> Result<Json<Value>, Failure> {
    let status = state.handle.status().await?;
    match (status.policy.is_empty(), &status.log) {
        (false, crate::log::Health::Sound) => {
            Ok(Json(json!({"status": "ok", "policy": status.policy})))
        }
        (true, _) => Err(unready("no policy acts yet")),
        (false, crate::log::Health::Full { reason } | crate::log::Health::Lost { reason }) => {
            Err(unready(&format!("the log takes no events: {reason}")))
        }
    }
}

fn unready(why: &str) -> Failure {
    let status = axum::http::StatusCode::SERVICE_UNAVAILABLE;
    Failure::of(status, crate::Code::RunNotBegun, why)
}
