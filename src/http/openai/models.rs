//! `/v1/models`: which policies there are.

use super::super::failure::Failure;
use super::super::state::HttpShared;
use crate::error::{Code, Error};
use crate::runtime::{PolicyRow, Query, Reply};
use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};

/// A policy as OpenAI's clients know models, and what else is known of it.
fn row(id: &str, policy: &PolicyRow) -> Value {
    json!({
        "id": id,
        "object": "model",
        // The log has no time of birth for each; clients want a number.
        "created": 0,
        "owned_by": "gradus",
        "policy": policy.name,
        "hash": policy.policy.id(),
        "acts": policy.acts,
        "pinned": policy.pinned,
        "rejected": policy.rejected,
    })
}

async fn rows(state: &HttpShared) -> Result<Vec<Value>, Failure> {
    let Reply::Policies { policies } = state.handle.query(Query::Policies).await? else {
        return Err(Failure::from(Error::refused(Code::Defect, "no policies were told")));
    };
    let latest = policies.iter().filter(|policy| policy.acts).map(|policy| row("latest", policy));
    Ok(latest.chain(policies.iter().map(|policy| row(&policy.name, policy))).collect())
}

/// All of them; `latest` is the one that acts.
pub(in super::super) async fn models(
    State(state): State<HttpShared>,
) -> Result<Json<Value>, Failure> {
    Ok(Json(json!({"object": "list", "data": rows(&state).await?})))
}

/// One of them.
pub(in super::super) async fn model(
    State(state): State<HttpShared>,
    Path(id): Path<String>,
) -> Result<Json<Value>, Failure> {
    let all = rows(&state).await?;
    let named =
        |row: &&Value| row["id"].as_str().is_some_and(|known| known.eq_ignore_ascii_case(&id));
    match all.iter().find(named) {
        Some(row) => Ok(Json(row.clone())),
        None => {
            let known: Vec<&str> = all.iter().filter_map(|row| row["id"].as_str()).collect();
            let message = format!("the run has no policy {id:?}; it has {}", known.join(", "));
            Err(Failure::from(Error::refused(Code::PolicyUnknown, message)))
        }
    }
}
