//! WHO MAY DO WHAT. Whoever has the token may do everything. Without it, callers on this machine may
//! read and chat; callers elsewhere may do nothing. A page of another site that a browser on this machine
//! shows is not on this machine: it has another `Host` or `Origin`, and is refused.

use super::failure::Failure;
use super::state::HttpShared;
use crate::error::Code;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::fmt;

/// What allows everything.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// A token that somebody chose: at least 16 visible ASCII characters.
    pub fn new(text: &str) -> Option<Token> {
        let text = text.trim();
        let good = text.len() >= 16 && text.bytes().all(|byte| byte.is_ascii_graphic());
        good.then(|| Token(text.to_owned()))
    }

    /// A new one.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn random() -> std::io::Result<Token> {
        let mut bytes = [0; 24];
        getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
        Ok(Token(bytes.iter().map(|byte| format!("{byte:02x}")).collect()))
    }

    /// Its text.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// Whether it is this text; it takes as long whatever the text is.
    fn is(&self, text: &str) -> bool {
        let ours = blake3::hash(self.0.as_bytes());
        // Hashes compare in constant time.
        ours == blake3::hash(text.as_bytes())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// Who may do what.
#[derive(Clone, Debug)]
pub enum HttpAccess {
    /// Reading and chatting for callers on this machine, everything for who has the token.
    Local(Token),
    /// Nothing for who has no token.
    Token(Token),
    /// Everything for callers on this machine.
    LocalWithoutToken,
    /// Everything for everybody: the host in front has looked already.
    Open,
}

impl HttpAccess {
    fn token(&self) -> Option<&Token> {
        match self {
            HttpAccess::Local(token) | HttpAccess::Token(token) => Some(token),
            HttpAccess::LocalWithoutToken | HttpAccess::Open => None,
        }
    }
}

/// What a route does to a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Power {
    /// It tells something.
    Read,
    /// It computes an answer.
    Chat,
    /// It changes the run.
    Change,
}

/// What a path and method do. What is not known changes something.
pub(super) fn power(method: &Method, path: &str) -> Power {
    let chats = ["/v1/chat/completions", "/v1/completions", "/v1/responses"];
    match *method {
        Method::GET | Method::HEAD => Power::Read,
        Method::POST if chats.iter().any(|chat| path.ends_with(chat)) => Power::Chat,
        _ => Power::Change,
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Whether an address as a browser writes it is on this machine: `127.0.0.1:8765`, `[::1]`.
fn is_local(authority: &str) -> bool {
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.rsplit_once(':').map_or(authority, |(host, _)| host),
    };
    let ip = host.parse::<std::net::IpAddr>();
    host.eq_ignore_ascii_case("localhost") || ip.is_ok_and(|ip| ip.is_loopback())
}

/// Whether the caller is on this machine, as far as a browser says: no other site's page.
fn from_here(headers: &HeaderMap) -> bool {
    let texts = |name| headers.get_all(name).iter().map(|value| value.to_str().unwrap_or("?"));
    let origin =
        |origin: &str| origin.split_once("://").is_some_and(|(_, authority)| is_local(authority));
    texts(header::HOST).all(is_local) && texts(header::ORIGIN).all(origin)
}

/// Lets a request through, or says why not.
pub(super) async fn guard(
    State(state): State<HttpShared>,
    request: Request,
    next: Next,
) -> Response {
    let power = power(request.method(), request.uri().path());
    match allowed(&state.settings.access, power, request.headers()) {
        Ok(()) => next.run(request).await,
        Err(failure) => failure.into_response(),
    }
}

fn allowed(access: &HttpAccess, power: Power, headers: &HeaderMap) -> Result<(), Failure> {
    let token = access.token().zip(bearer(headers));
    if matches!(access, HttpAccess::Open) || token.is_some_and(|(ours, given)| ours.is(given)) {
        return Ok(());
    }
    if !matches!(access, HttpAccess::Token(_)) && !from_here(headers) {
        return Err(Failure::of(
            StatusCode::FORBIDDEN,
            Code::NotAllowed,
            "this comes from another site or under another name than this machine's; with the token \
             it would be answered (Authorization: Bearer TOKEN)",
        ));
    }
    let free = match access {
        HttpAccess::LocalWithoutToken | HttpAccess::Open => true,
        HttpAccess::Local(_) => power != Power::Change,
        HttpAccess::Token(_) => false,
    };
    if free {
        return Ok(());
    }
    let what = match power {
        Power::Change => "this changes the run",
        Power::Read | Power::Chat => "this is not public",
    };
    let given = match bearer(headers) {
        Some(_) => "the token that came with it is another",
        None => "none came with it",
    };
    Err(Failure::of(
        StatusCode::UNAUTHORIZED,
        Code::NotAllowed,
        format!("{what}, which takes the token (Authorization: Bearer TOKEN), and {given}"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderName;

    fn headers(all: &[(HeaderName, &str)]) -> HeaderMap {
        all.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    #[test]
    fn without_the_token_callers_here_read_and_chat_and_others_do_nothing() {
        let token = Token::new("0123456789abcdef").unwrap();
        let here = headers(&[(header::HOST, "127.0.0.1:8765")]);
        let ours = headers(&[(header::AUTHORIZATION, "Bearer 0123456789abcdef")]);
        let wrong = headers(&[(header::AUTHORIZATION, "Bearer 0123456789abcdeg")]);
        let rebound = headers(&[(header::HOST, "evil.example")]);
        let site =
            headers(&[(header::HOST, "localhost"), (header::ORIGIN, "https://evil.example")]);
        let local = HttpAccess::Local(token.clone());
        for (access, power, headers, wanted) in [
            (&local, Power::Read, &here, true),
            (&local, Power::Chat, &wrong, true),
            (&local, Power::Change, &here, false),
            (&local, Power::Change, &wrong, false),
            (&local, Power::Change, &ours, true),
            (&local, Power::Read, &rebound, false),
            (&local, Power::Chat, &site, false),
            (&HttpAccess::Token(token), Power::Read, &here, false),
            (&HttpAccess::LocalWithoutToken, Power::Change, &here, true),
            (&HttpAccess::LocalWithoutToken, Power::Change, &site, false),
            (&HttpAccess::LocalWithoutToken, Power::Change, &rebound, false),
            (&HttpAccess::Open, Power::Change, &rebound, true),
        ] {
            let found = allowed(access, power, headers).is_ok();
            assert_eq!(found, wanted, "{access:?} {power:?} {headers:?}");
        }
    }

    #[test]
    fn a_token_is_long_and_visible() {
        assert!(Token::new("short").is_none() && Token::new("with a space in it").is_none());
        let (one, two) = (Token::random().unwrap(), Token::random().unwrap());
        assert!(one != two && Token::new(one.text()) == Some(one.clone()));
        assert_eq!(format!("{one:?}"), "Token(..)");
    }

    #[test]
    fn names_of_this_machine() {
        for name in ["localhost", "LOCALHOST:1", "127.0.0.1:80", "127.1.2.3", "[::1]:8765"] {
            assert!(is_local(name), "{name}");
        }
        for name in ["localhost.evil.example", "10.0.0.1", "evil:80", "", "[::2]:1"] {
            assert!(!is_local(name), "{name}");
        }
    }
}
