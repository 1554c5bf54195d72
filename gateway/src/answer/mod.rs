//! Answers: the terminal result as the client asked for it, or the word that it comes later.

pub mod sse;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use pipeline::{Content, FlowName, Lane, Outcome, OutcomeKind, Rejection, RequestId};
use serde_json::json;
use tokio::time::Instant;

use crate::follow::Follower;
use crate::problem::Problem;
use crate::requests;
use crate::state::GatewayState;

/// Pieces in which a file leaves, in bytes.
const PIECE_BYTES: usize = 64 << 10;

/// Types that a browser shows without running anything in them; others are offered for saving.
const INERT: [&str; 8] = [
    "application/json",
    "application/problem+json",
    "application/pdf",
    "text/plain",
    "image/jpeg",
    "image/png",
    "image/webp",
    "image/gif",
];

/// What each stage took, for the answer to say.
#[derive(Clone)]
pub struct Worked(pub Vec<(Arc<str>, Duration)>);

/// A client that waits for its request.
pub struct Waiting<'a> {
    pub state: &'a GatewayState,
    pub id: &'a RequestId,
    pub flow: &'a FlowName,
    pub lane: Lane,
}

impl Waiting<'_> {
    /// The terminal result if it comes within `longest`, else 202.
    pub async fn wait(
        &self,
        mut follower: Follower,
        longest: Duration,
        status: StatusCode,
    ) -> Result<Response, Problem> {
        let until = Instant::now() + longest;
        let mut seen = requests::QUEUED;
        loop {
            let outcome = tokio::select! {
                biased;
                outcome = follower.next() => outcome,
                () = tokio::time::sleep_until(until) => return Ok(self.later(seen, false).await),
                () = half_grace_over(self.state) => return Ok(self.later(seen, false).await),
            };
            match outcome {
                Ok(Some(outcome)) if outcome.kind.is_terminal() => {
                    let mut response = terminal(self.state, &outcome, status).await?;
                    response.extensions_mut().insert(Worked(outcome.worked));
                    return Ok(response);
                }
                Ok(Some(outcome)) => seen = requests::status_of(outcome.kind),
                Ok(None) => return Err(Problem::internal()),
                Err(error) => {
                    // The request is kept; only its result cannot be watched from here.
                    tracing::warn!(request = %self.id, %error, "result cannot be watched");
                    return Ok(self.later(seen, false).await);
                }
            }
        }
    }

    /// 202: where the request stands and where to ask. `preferred` says that the client wanted it so.
    pub async fn later(&self, status: &'static str, preferred: bool) -> Response {
        let outlook = self.state.pace.outlook(self.flow, self.lane).await;
        let expected = outlook.and_then(|outlook| outlook.wait);
        let expected = expected.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        let body = json!({
            "id": self.id,
            "status": status,
            "position": outlook.map(|outlook| outlook.position),
            "expected_wait_ms": expected,
        });
        let mut response = (StatusCode::ACCEPTED, Json(body)).into_response();
        let headers = response.headers_mut();
        let location = format!("/v1/requests/{}", self.id);
        headers.insert(header::LOCATION, HeaderValue::from_str(&location).expect("a token is header text"));
        if preferred {
            let applied = HeaderName::from_static("preference-applied");
            headers.insert(applied, HeaderValue::from_static("respond-async"));
        }
        response
    }
}

/// Resolves when a shutdown has taken half of its grace: the other half is for the answers.
async fn half_grace_over(state: &GatewayState) {
    state.closing.cancelled().await;
    tokio::time::sleep(state.service.grace() / 2).await;
}

/// A terminal result as an answer of its own.
pub async fn terminal(state: &GatewayState, outcome: &Outcome, status: StatusCode) -> Result<Response, Problem> {
    match outcome.kind {
        OutcomeKind::Done => file(state, &outcome.content, status).await,
        _ => Err(problem_of(outcome)),
    }
}

/// The problem that a terminal other than `done` stands for.
pub fn problem_of(outcome: &Outcome) -> Problem {
    if outcome.kind == OutcomeKind::Cancelled {
        return Problem::new(StatusCode::CONFLICT, "cancelled", "the request was cancelled before it was done");
    }
    let rejection = match &outcome.content.body {
        pipeline::Body::Inline(bytes) => serde_json::from_slice::<Rejection>(bytes).ok(),
        pipeline::Body::Claim(_) => None,
    };
    rejection.map_or_else(Problem::internal, Problem::from)
}

/// Content with its media type. What must be fetched is held under the memory budget until the client has it.
pub async fn file(state: &GatewayState, content: &Content, status: StatusCode) -> Result<Response, Problem> {
    let body = match &content.body {
        pipeline::Body::Inline(bytes) => Body::from(bytes.clone()),
        pipeline::Body::Claim(claim) => {
            let reserved = state.memory.reserve(claim.length).await?;
            let bytes = state.transport.get_claim(claim).await?;
            Body::from_stream(stream::unfold((bytes, reserved), |(mut bytes, reserved)| async move {
                let piece: Bytes = bytes.split_to(bytes.len().min(PIECE_BYTES));
                (!piece.is_empty()).then_some((Ok::<_, Infallible>(piece), (bytes, reserved)))
            }))
        }
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    let media_type = HeaderValue::from_str(&content.media_type).ok();
    let media_type = media_type.unwrap_or(HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_TYPE, media_type);
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(content.length()));
    let essence = content.media_type.split(';').next().unwrap_or_default().trim();
    if !INERT.contains(&essence) {
        headers.insert(header::CONTENT_DISPOSITION, HeaderValue::from_static("attachment"));
    }
    Ok(response)
}
