//! Results as server-sent events.
//!
//! `id` is the result's ordinal, `event` its kind, `data` one line of JSON; a blank line ends an event and appears
//! nowhere else. A heartbeat is the comment `: hb` with a single newline: some clients take a blank line after it for
//! an event without data, and fail. The client's reading pulls the stream: for a slow client only one event and its
//! bounded watch are buffered, and it catches up from the history.

use std::fmt::Write;
use std::io;
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
use tokio::time::Instant;

use super::cancel::CancelOnDrop;
use super::follower::Follower;
use super::result::problem_of;
use super::stream_slot::StreamSlot;
use crate::door::metrics::OpenStreamGauge;
use crate::identity::caller::Caller;
use crate::state::GatewayState;

/// Shows clients and proxies that the connection is alive.
pub const HEARTBEAT: Bytes = Bytes::from_static(b": hb\n");

/// Milliseconds after which a client resumes whose stream a shutdown ended.
const RETRY_MS: std::ops::Range<u32> = 200..2_000;

/// Streams results from `accepted` to the terminal one, or until the service shuts down: the client then resumes
/// elsewhere.
pub fn stream(state: &GatewayState, follower: Follower, slot: StreamSlot, lifetime: StreamLifetime) -> Response {
    let heartbeat = Duration::from_millis(state.limits.heartbeat_ms.max(1));
    let (state, follower) = (state.clone(), follower.accepted_first());
    let gauge = OpenStreamGauge::begin();
    let events = Box::new(Events { state, follower, heartbeat, lifetime, _slot: slot, _gauge: gauge });
    let body = Body::from_stream(stream::unfold(Some(events), |events| async move { events?.next().await }));
    response(body)
}

/// A response that is a stream of events.
pub fn response(body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Asks proxies not to collect events into larger pieces.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

/// How long a stream continues after its token has expired.
const EXPIRY_GRACE: Duration = Duration::from_secs(30);

/// What ends a stream besides its request, and what happens then.
#[derive(Default)]
pub struct StreamLifetime {
    /// Cancels the request if the client disconnects.
    pub on_disconnect: Option<CancelOnDrop>,
    /// When the client's credential no longer opens the stream.
    pub expires: Option<Instant>,
}

impl StreamLifetime {
    /// A stream that its client may read while its credential is valid.
    pub fn of(caller: &Caller) -> Self {
        let expires = caller.principal.as_ref().and_then(|principal| principal.expires);
        let left = expires.map(|expires| {
            let left = expires + EXPIRY_GRACE - OffsetDateTime::now_utc();
            Duration::try_from(left).unwrap_or_default().min(LONGEST)
        });
        Self { on_disconnect: None, expires: left.map(|left| Instant::now() + left) }
    }
}

/// Longer than any stream.
const LONGEST: Duration = Duration::from_secs(365 * 86_400);

/// Resolves at the given time; never if there is none.
pub async fn expired(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
    }
}

struct Events {
    state: GatewayState,
    follower: Follower,
    heartbeat: Duration,
    lifetime: StreamLifetime,
    _slot: StreamSlot,
    _gauge: OpenStreamGauge,
}

/// The next bytes, and the stream if more may follow. On the heap: the future of a step would reserve its size three
/// times otherwise, and thousands of streams wait in one.
type Step = Option<(io::Result<Bytes>, Option<Box<Events>>)>;

impl Events {
    async fn next(mut self: Box<Self>) -> Step {
        let outcome = tokio::select! {
            biased;
            outcome = self.follower.next() => outcome,
            () = self.state.closing.cancelled() => {
                self.lifetime.on_disconnect.into_iter().for_each(CancelOnDrop::disarm);
                return Some((Ok(resume_later()), None));
            }
            () = expired(self.lifetime.expires) => return self.abort("the token of this stream has expired").await,
            () = tokio::time::sleep(self.heartbeat) => return Some((Ok(HEARTBEAT), Some(self))),
        };
        match outcome {
            Ok(Some(outcome)) => {
                let event = event(&outcome);
                if !outcome.kind.is_terminal() {
                    return Some((Ok(event), Some(self)));
                }
                self.lifetime.on_disconnect.into_iter().for_each(CancelOnDrop::disarm);
                Some((Ok(event), None))
            }
            Ok(None) => None,
            Err(error) => {
                tracing::warn!(%error, "event stream aborted");
                self.abort("results cannot be read").await
            }
        }
    }

    /// Aborts the stream instead of ending it, so that no client takes it for complete: a clean end only follows a
    /// terminal result, or a `retry` line. The client has not disconnected, so nothing is cancelled.
    async fn abort(self: Box<Self>, why: &'static str) -> Step {
        self.lifetime.on_disconnect.into_iter().for_each(CancelOnDrop::disarm);
        // The server writes what it has buffered while it waits, and drops it when it meets an error.
        tokio::task::yield_now().await;
        Some((Err(io::Error::other(why)), None))
    }
}

/// A `retry` line: when the client resumes elsewhere, at random so that not all of them do at once. It has a single
/// newline for the same reason as a heartbeat; the line counts without the end of an event.
fn resume_later() -> Bytes {
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

/// Content as one line of JSON: JSON as it is, text as a JSON string, anything else as its type and length.
fn data(content: &Content) -> String {
    let pipeline::Body::Inline(bytes) = &content.body else { return summary(content) };
    if content.media_type.starts_with("text/") {
        return Value::from(String::from_utf8_lossy(bytes)).to_string();
    }
    if bytes.iter().any(|byte| matches!(byte, b'\r' | b'\n')) {
        return serde_json::from_slice::<Value>(bytes).map_or_else(|_| summary(content), |value| value.to_string());
    }
    serde_json::from_slice::<&RawValue>(bytes).map_or_else(|_| summary(content), |raw| raw.get().to_owned())
}

/// Type and length of content that is not JSON, or too long for a line: the client fetches it at the request's
/// `/result`.
fn summary(content: &Content) -> String {
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
    fn any_content_is_one_event_with_one_line_of_json() {
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
