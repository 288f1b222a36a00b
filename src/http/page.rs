//! THE PAGE that a browser shows: files that are inside the binary, and that ask the same routes as
//! everybody. Nothing is fetched from elsewhere, and nothing runs that is not one of these files.

use super::failure::Failure;
use crate::error::Code;
use axum::extract::{OriginalUri, Path};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};

/// What a browser may do with the page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A file of the page: name, kind, text.
const FILES: [(&str, &str, &str); 4] = [
    ("index.html", "text/html; charset=utf-8", include_str!("../../assets/page/index.html")),
    ("app.js", "text/javascript; charset=utf-8", include_str!("../../assets/page/app.js")),
    ("report.css", "text/css; charset=utf-8", include_str!("../report/style.css")),
    ("style.css", "text/css; charset=utf-8", include_str!("../../assets/page/style.css")),
];

fn sent(name: &str) -> Result<Response, Failure> {
    let file = FILES.iter().find(|(known, ..)| *known == name);
    let (_, kind, text) = file.ok_or_else(|| {
        let message = format!("the page has no file {name:?}");
        Failure::of(StatusCode::NOT_FOUND, Code::RequestRefused, message)
    })?;
    let headers = [
        (header::CONTENT_TYPE, *kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    Ok((headers, *text).into_response())
}

/// The page. Its files lie beside it, so its path ends with a slash, wherever a host mounts it.
pub(super) async fn index(OriginalUri(uri): OriginalUri) -> Result<Response, Failure> {
    match uri.path().ends_with('/') {
        true => sent("index.html"),
        false => Ok(Redirect::permanent(&format!("{}/", uri.path())).into_response()),
    }
}

/// A file of it.
pub(super) async fn file(Path(name): Path<String>) -> Result<Response, Failure> {
    sent(&name)
}
