//! Requests as JSON: read whole, and every field that is not honoured is refused by name.

use super::failure::Failure;
use crate::error::Code;
use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{StatusCode, header};
use serde::de::DeserializeOwned;

/// A request's JSON.
pub(super) struct JsonBody<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<JsonBody<T>, Failure> {
        let kind = request.headers().get(header::CONTENT_TYPE);
        let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        // A page of another site can send other kinds without being asked first.
        if kind.split(';').next().map(str::trim) != Some("application/json") {
            let message =
                format!("the body must be JSON (Content-Type: application/json), not {kind:?}");
            return Err(Failure::of(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                Code::RequestRefused,
                message,
            ));
        }
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| {
            Failure::of(rejection.status(), Code::RequestRefused, rejection.body_text())
        })?;
        match serde_json::from_slice(&bytes) {
            Ok(value) => Ok(JsonBody(value)),
            Err(error) => Err(Failure::request(format!("the body cannot be read: {error}"))),
        }
    }
}
