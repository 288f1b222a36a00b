//! Which path is whose.

use super::access::guard;
use super::state::{HttpSettings, HttpShared, HttpState};
use super::{api, events, feedback, metrics, openai, openapi, page};
use crate::runtime::Handle;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};

/// Bytes of a request, at most.
const BODY_BYTES_MAX: usize = 4 << 20;
/// The same for commands: a component of 64 MiB as base64 fits.
const COMMAND_BYTES_MAX: usize = 96 << 20;

fn openai() -> Router<HttpShared> {
    Router::new()
        .route("/models", get(openai::models))
        .route("/models/{id}", get(openai::model))
        .route("/chat/completions", post(openai::chat))
        .route("/completions", post(openai::text))
        .route("/responses", post(openai::responses))
        .route("/feedback", post(feedback::vote))
}

fn surface() -> Router<HttpShared> {
    Router::new()
        .route("/status", get(api::status))
        .route("/policies", get(api::policies))
        .route("/rubrics", get(api::rubrics))
        .route("/report", get(api::report))
        .route("/figures", get(api::figures))
        .route("/votes", get(feedback::votes))
        .route("/events", get(events::events))
        .route("/openapi.json", get(openapi::openapi))
        .route("/commands", post(api::command).layer(DefaultBodyLimit::max(COMMAND_BYTES_MAX)))
}

/// A run over HTTP, to be mounted under any path of an axum application.
pub fn router(handle: Handle, settings: HttpSettings) -> Router {
    let state = HttpState::new(handle, settings);
    Router::new()
        .nest("/v1", openai())
        .nest("/api", surface())
        .route("/healthz", get(api::alive))
        .route("/readyz", get(api::ready))
        .route("/metrics", get(metrics::metrics))
        .route("/", get(page::index))
        .route("/page/{file}", get(page::file))
        .fallback(api::nothing)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(from_fn_with_state(state.clone(), guard))
        .layer(from_fn_with_state(state.clone(), metrics::count))
        .with_state(state)
}
