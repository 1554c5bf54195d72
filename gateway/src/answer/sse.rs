//! Results as server-sent events, written byte by byte.
//!
//! `id` is the result's ordinal, `event` its kind, `data` one line of JSON; a blank line ends an event and appears
//! nowhere else. A heartbeat is the comment `: hb` with a single newline: clients in the field take a blank line after it
//! for an event without data, and fail. The stream is pulled by the client's reading: a slow one has nothing buffered for
//! it but one event and what its watch bounds, and catches up from the history.

use std::fmt::Write;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use pipeline::{Content, Outcome, OutcomeKind};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::problem_of;
use crate::follow::Follower;
use crate::identity::caller::{Caller, Client};
use crate::limit::Counted;
use crate::meter::StreamMeter;
use crate::problem::Problem;
use crate::requests::CancelOnDrop;
use crate::state::GatewayState;

/// Keeps the connection from being taken for dead.
pub const HEARTBEAT: Bytes = Bytes::from_static(b": hb\n");

/// Milliseconds after which a client resumes that a shutdown sent away.
const RETRY_MS: std::ops::Range<u32> = 200..2_000;

/// A place among the streams that may be open at once.
pub struct Slot {
    _place: OwnedSemaphorePermit,
    _counted: Counted,
}

/// A place for a stream of this caller.
///
/// # Errors
/// 429 if the caller has too many open, 503 if all are taken.
pub fn slot(state: &GatewayState, caller: &Caller) -> Result<Slot, Problem> {
    let by_address = (Client::of_address(caller.address), state.limits.streams_per_address);
    let by_subject = caller.principal.as_ref().map(|_| (caller.client(), state.limits.streams_per_client));
    let counted = state.stream_counts.open(by_subject.into_iter().chain([by_address]).collect())?;
    let place = Arc::clone(&state.streams).try_acquire_owned().map_err(|_| {
        let most = state.limits.streams;
        Problem::unavailable(
            "streams_full",
            format!("all {most} event streams are in use: ask /v1/requests/{{id}} instead"),
        )
    })?;
    Ok(Slot { _place: place, _counted: counted })
}

/// Streams results until the terminal, or until the service shuts down: the client then resumes elsewhere.
pub fn stream(state: &GatewayState, follower: Follower, slot: Slot, ends: Ends) -> Response {
    let heartbeat = Duration::from_millis(state.limits.heartbeat_ms.max(1));
    let state = state.clone();
    let events = Box::new(Events { state, follower, heartbeat, ends, _slot: slot, _meter: StreamMeter::begin() });
    let body = Body::from_stream(stream::unfold(Some(events), |events| async move { events?.next().await }));
    response(body)
}

/// An answer that is a stream of events.
pub fn response(body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Asks proxies not to collect events into larger pieces.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

/// How long a stream goes on after the token that opened it has expired.
const EXPIRED_FOR: Duration = Duration::from_secs(30);

/// What ends a stream beside its request, and what its end entails.
#[derive(Default)]
pub struct Ends {
    /// Cancels the request of a client that leaves.
    pub leaving: Option<CancelOnDrop>,
    /// When the client is no longer let in.
    pub until: Option<Instant>,
}

impl Ends {
    /// A stream that its client may read for as long as they are let in.
    pub fn of(caller: &Caller) -> Self {
        let expires = caller.principal.as_ref().and_then(|principal| principal.expires);
        let left = expires.map(|expires| {
            let left = expires + EXPIRED_FOR - OffsetDateTime::now_utc();
            Duration::try_from(left).unwrap_or_default().min(LONGEST)
        });
        Self { leaving: None, until: left.map(|left| Instant::now() + left) }
    }
}

/// Longer than any stream.
const LONGEST: Duration = Duration::from_secs(365 * 86_400);

/// Resolves when the time has come; never, where there is none.
pub async fn over(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
    }
}

struct Events {
    state: GatewayState,
    follower: Follower,
    heartbeat: Duration,
    ends: Ends,
    _slot: Slot,
    _meter: StreamMeter,
}

/// The next bytes, and the stream if more may follow. On the heap: a step has room for it three times otherwise, and
/// thousands of streams wait in one.
type Step = Option<(io::Result<Bytes>, Option<Box<Events>>)>;

impl Events {
    async fn next(mut self: Box<Self>) -> Step {
        let outcome = tokio::select! {
            biased;
            outcome = self.follower.next() => outcome,
            () = self.state.closing.cancelled() => {
                self.ends.leaving.into_iter().for_each(CancelOnDrop::disarm);
                return Some((Ok(come_again()), None));
            }
            () = over(self.ends.until) => return self.broken("the token that opened this stream has expired").await,
            () = tokio::time::sleep(self.heartbeat) => return Some((Ok(HEARTBEAT), Some(self))),
        };
        match outcome {
            Ok(Some(outcome)) => {
                let event = event(&outcome);
                if !outcome.kind.is_terminal() {
                    return Some((Ok(event), Some(self)));
                }
                self.ends.leaving.into_iter().for_each(CancelOnDrop::disarm);
                Some((Ok(event), None))
            }
            Ok(None) => None,
            Err(error) => {
                tracing::warn!(%error, "event stream broken off");
                self.broken("results cannot be read").await
            }
        }
    }

    /// Breaks the stream off rather than ending it, so that no client takes it for the whole: a clean end only follows a
    /// terminal, or the word of when to come again. The client has not left, so nothing is cancelled.
    async fn broken(self: Box<Self>, why: &'static str) -> Step {
        self.ends.leaving.into_iter().for_each(CancelOnDrop::disarm);
        // The server writes what it has while it waits, and throws it away when it meets an error.
        tokio::task::yield_now().await;
        Some((Err(io::Error::other(why)), None))
    }
}

/// When a client may resume elsewhere: not all of them at once. One newline, for the reason that a heartbeat has one; the
/// line holds without the end of an event.
fn come_again() -> Bytes {
    Bytes::from(format!("retry: {}\n", rand::random_range(RETRY_MS)))
}

/// One result as an event.
fn event(outcome: &Outcome) -> Bytes {
    let data = match outcome.kind {
        OutcomeKind::Failed | OutcomeKind::Cancelled => problem_of(outcome).to_json().to_string(),
        _ => data(&outcome.content),
    };
    let mut text = String::with_capacity(data.len() + 48);
    write!(text, "id: {}\nevent: {}\ndata: {data}\n\n", outcome.ordinal, outcome.kind.as_str())
        .expect("writing to a string does not fail");
    Bytes::from(text)
}

/// Content as one line of JSON: JSON as it is, text as a JSON string, anything else by type and length.
fn data(content: &Content) -> String {
    let pipeline::Body::Inline(bytes) = &content.body else { return described(content) };
    if content.media_type.starts_with("text/") {
        return Value::from(String::from_utf8_lossy(bytes)).to_string();
    }
    if bytes.iter().any(|byte| matches!(byte, b'\r' | b'\n')) {
        return serde_json::from_slice::<Value>(bytes).map_or_else(|_| described(content), |value| value.to_string());
    }
    serde_json::from_slice::<&RawValue>(bytes).map_or_else(|_| described(content), |raw| raw.get().to_owned())
}

/// What is known of content that is no JSON, or too long for a line: it is fetched under the request's `/result`.
fn described(content: &Content) -> String {
    json!({ "type": &*content.media_type, "length": content.length() }).to_string()
}

#[cfg(test)]
mod tests {
    use pipeline::FlowName;

    use super::*;

    fn written(kind: OutcomeKind, content: Content) -> String {
        let outcome = Outcome::new(kind, 7, FlowName::new("f").unwrap(), content);
        String::from_utf8(event(&outcome).to_vec()).unwrap()
    }

    #[test]
    fn whatever_the_content_it_is_one_event_with_one_line_of_json() {
        let hostile = "a\rdata: x\n\nevent: done\u{2028}";
        let contents = [
            Content::json(&json!({ "token": hostile })),
            Content::inline("application/json", "{\n  \"a\": 1\r\n}"),
            Content::inline("text/plain", hostile),
            Content::inline("image/png", b"\x89PNG\r\n\r\n".to_vec()),
            Content::inline("application/json", "no json\n\nid: 9"),
            Content::inline("application/json", ""),
        ];
        for content in contents {
            let text = written(OutcomeKind::Data, content);
            assert!(text.ends_with("\n\n"), "{text:?}");
            let lines: Vec<&str> = text.trim_end_matches('\n').split(['\n', '\r']).collect();
            assert_eq!(lines.len(), 3, "{text:?}");
            assert_eq!(&lines[..2], ["id: 7", "event: data"]);
            serde_json::from_str::<Value>(lines[2].strip_prefix("data: ").unwrap()).unwrap();
        }
    }

    #[test]
    fn a_failure_carries_its_problem() {
        let rejection = pipeline::Rejection::unusable("no_pixels", "empty");
        let text = written(OutcomeKind::Failed, Content::json(&serde_json::to_value(rejection).unwrap()));
        assert!(text.contains("\"code\":\"no_pixels\"") && text.contains("\"status\":422"), "{text}");
    }
}
