//! THE LOG AS IT GROWS, as server-sent events: the id is the record's offset, so that whoever was cut off
//! goes on where that was, and the kind is the event's. Pings keep the connection open; whoever reads
//! slowly holds nobody up.

use super::failure::Failure;
use super::state::HttpShared;
use crate::domain::Offset;
use crate::error::Error;
use crate::log::Recorded;
use crate::runtime::{Delivered, Subscription};
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::unfold;
use serde::Deserialize;
use serde_json::json;
use std::convert::Infallible;

/// What somebody wants to hear of.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WantedEvents {
    /// From which record on; where neither this nor `Last-Event-ID` says so, from now on.
    from: Option<u64>,
    /// Kinds of events with commas between; all where it is not said.
    kind: Option<String>,
}

/// Tells of what happens.
pub(super) async fn events(
    State(state): State<HttpShared>,
    Query(wanted): Query<WantedEvents>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let last = last.and_then(|id| id.parse::<u64>().ok()).map(|id| id + 1);
    let from = match last.or(wanted.from) {
        Some(from) => Offset(from),
        None => state.handle.view()?.next,
    };
    let kinds: Vec<String> = wanted
        .kind
        .iter()
        .flat_map(|kinds| kinds.split(','))
        .map(|kind| kind.trim().to_owned())
        .collect();
    let subscription = state.handle.subscribe(from)?;
    let stream = unfold(Some((subscription, kinds)), |following| async move {
        let (mut subscription, kinds) = following?;
        match next(&mut subscription, &kinds).await {
            Ok(event) => Some((Ok::<_, Infallible>(event), Some((subscription, kinds)))),
            Err(Error::Closed) => None,
            Err(error) => {
                let event =
                    Event::default().event("error").data(Failure::from(error).json().to_string());
                Some((Ok(event), None))
            }
        }
    });
    Ok(Sse::new(stream).keep_alive(KeepAlive::default()).into_response())
}

async fn next(subscription: &mut Subscription, kinds: &[String]) -> Result<Event, Error> {
    loop {
        match subscription.next().await? {
            Delivered::Record(record) => {
                let kind = record.event.kind();
                if kinds.is_empty() || kinds.iter().any(|wanted| wanted == kind) {
                    return told(&record);
                }
            }
            Delivered::Compacted { from, to } => {
                let data = json!({"from": from, "to": to}).to_string();
                return Ok(Event::default().event("compacted").data(data));
            }
        }
    }
}

fn told(record: &Recorded) -> Result<Event, Error> {
    let Recorded { offset, at_ms, key, event } = record;
    let kind = event.kind();
    let event = serde_json::to_value(event).map_err(|error| Error::not_json("an event", &error))?;
    let data = json!({"offset": offset, "at_ms": at_ms, "key": key, "event": event});
    Ok(Event::default().id(offset.0.to_string()).event(kind).data(data.to_string()))
}
