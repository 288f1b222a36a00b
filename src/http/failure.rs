//! What is answered when something is wrong: OpenAI's form of an error, with our code.

use crate::error::{Code, Error};
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// A request that got no answer, and why.
#[derive(Debug)]
pub(super) struct Failure {
    status: StatusCode,
    code: String,
    message: String,
    param: Option<String>,
}

impl Failure {
    /// A request that is not written as it must be, or asks for what there is not.
    pub fn request(message: impl Into<String>) -> Failure {
        Failure::of(StatusCode::BAD_REQUEST, Code::RequestRefused, message)
    }

    /// The same, of a field of it.
    pub fn field(name: &str, message: impl Into<String>) -> Failure {
        Failure { param: Some(name.to_owned()), ..Failure::request(message) }
    }

    /// With a status of its own.
    pub fn of(status: StatusCode, code: Code, message: impl Into<String>) -> Failure {
        Failure { status, code: code.to_string(), message: message.into(), param: None }
    }

    /// As it is sent.
    pub fn json(&self) -> Value {
        let kind = match self.status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => "authentication_error",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_client_error() => "invalid_request_error",
            _ => "server_error",
        };
        let Failure { code, message, param, .. } = self;
        json!({"error": {"message": message, "type": kind, "param": param, "code": code}})
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let code = error.code();
        let status = match code {
            Code::PolicyUnknown | Code::RubricUnknown | Code::RecordBeyondLog => {
                StatusCode::NOT_FOUND
            }
            Code::TooManyAnswers => StatusCode::TOO_MANY_REQUESTS,
            Code::RunNotBegun | Code::RunClosed => StatusCode::SERVICE_UNAVAILABLE,
            Code::RecordsDropped | Code::LogDropped | Code::PolicyGone => StatusCode::GONE,
            Code::PanelChanged => StatusCode::CONFLICT,
            _ if error.is_retryable() => StatusCode::SERVICE_UNAVAILABLE,
            _ => match error {
                Error::Refused { .. } | Error::Panel(_) | Error::Rubric(_) => {
                    StatusCode::BAD_REQUEST
                }
                Error::Model(_) if !matches!(code, Code::DeviceLost | Code::Cancelled) => {
                    StatusCode::BAD_REQUEST
                }
                _ => StatusCode::INTERNAL_SERVER_ERROR,
            },
        };
        let failure = Failure::of(status, code, error.message());
        match code {
            // What OpenAI's clients look for.
            Code::PromptTooLong => {
                Failure { code: "context_length_exceeded".to_owned(), ..failure }
            }
            Code::PolicyUnknown => Failure { param: Some("model".to_owned()), ..failure },
            _ => failure,
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        if self.status.is_server_error() {
            tracing::warn!(code = self.code, message = self.message, "a request failed");
        }
        let later = [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE];
        let again = later.contains(&self.status);
        let unknown = self.status == StatusCode::UNAUTHORIZED;
        let mut response = (self.status, Json(self.json())).into_response();
        if again {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if unknown {
            let bearer = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, bearer);
        }
        response
    }
}
