//! HTTP: a run for programs and people that are not in its process. An OpenAI-compatible endpoint for
//! every policy of the run, its commands and queries, its events as they come, its figures. One more door
//! to the surface (`runtime/surface.rs`): it has no powers that a
//! [`Handle`](crate::Handle) lacks.
//!
//! [`router`] is what a host mounts in its own axum application, under any path; [`serve`] is a whole
//! server with timeouts, a bound on connections and an end that waits for answers in hand.
//!
//! | path | what |
//! | --- | --- |
//! | `/v1/models`, `/v1/chat/completions`, `/v1/completions`, `/v1/responses` | OpenAI's, for each policy |
//! | `/v1/feedback` | votes |
//! | `/api/status`, `/api/policies`, `/api/rubrics`, `/api/report`, `/api/votes` | queries |
//! | `/api/commands` | every command, as JSON |
//! | `/api/openapi.json` | all of these, for programs |
//! | `/api/events` | the log as server-sent events |
//! | `/healthz`, `/readyz`, `/metrics` | for supervisors |
//! | `/` | a page for people |
//!
//! Files, from the bottom to the top (each uses only those above it in this list):
//!
//! - `failure`: what is answered when something is wrong
//! - `state`: what every request sees of the run
//! - `access`: who may do what
//! - `body`: requests as JSON
//! - `answered_chats`: what was answered lately, for votes
//! - `openai`: the endpoint that OpenAI's clients know
//! - `feedback`: votes
//! - `api`: commands and queries
//! - `events`: the log as it grows
//! - `openapi`: what can be asked, for programs
//! - `metrics`: figures for Prometheus
//! - `page`: what a browser shows
//! - `routes`: which path is whose
//! - `server`: connections

mod access;
mod answered_chats;
mod api;
mod body;
mod events;
mod failure;
mod feedback;
mod metrics;
mod openai;
mod openapi;
mod page;
mod routes;
mod server;
mod state;

pub use access::{HttpAccess, Token};
pub use routes::router;
pub use server::{Listening, ServerSettings, serve};
pub use state::HttpSettings;
