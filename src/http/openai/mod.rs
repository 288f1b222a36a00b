//! THE ENDPOINT THAT OPENAI'S CLIENTS KNOW, for every policy of a run. What of it is not offered is
//! refused by name, never passed over.
//!
//! - `asked`: what all requests have in common
//! - `models`: which policies there are
//! - `answered`: answers as they come, or whole
//! - `chat`: `/v1/chat/completions`
//! - `text`: `/v1/completions`
//! - `responses`: `/v1/responses`

mod answered;
mod asked;
mod chat;
mod models;
mod responses;
mod text;

pub(super) use chat::chat;
pub(super) use models::{model, models};
pub(super) use responses::responses;
pub(super) use text::text;
