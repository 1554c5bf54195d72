//! A terminal result as a response: a file with its media type, or a problem.

use std::convert::Infallible;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use pipeline::{Content, Outcome, OutcomeKind, Rejection};

use crate::problem::Problem;
use crate::state::GatewayState;

/// Chunks in which a file is sent, in bytes.
const CHUNK_BYTES: usize = 64 << 10;

/// Types that a browser shows without running anything in them; others are offered as a download.
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

/// A terminal result as a response of its own; `status` is that of a success.
pub async fn terminal(state: &GatewayState, outcome: &Outcome, status: StatusCode) -> Result<Response, Problem> {
    match outcome.kind {
        OutcomeKind::Done => file(state, &outcome.content, status).await,
        _ => Err(problem_of(outcome)),
    }
}

/// The problem that a terminal result other than `done` stands for.
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

/// Content with its media type. What must be fetched has a share of the memory budget until the client has it.
async fn file(state: &GatewayState, content: &Content, status: StatusCode) -> Result<Response, Problem> {
    let body = match &content.body {
        pipeline::Body::Inline(bytes) => Body::from(bytes.clone()),
        pipeline::Body::Claim(claim) => {
            let reserved = state.memory.reserve(claim.length).await?;
            let bytes = state.transport.get_claim(claim).await?;
            Body::from_stream(stream::unfold((bytes, reserved), |(mut bytes, reserved)| async move {
                let chunk: Bytes = bytes.split_to(bytes.len().min(CHUNK_BYTES));
                (!chunk.is_empty()).then_some((Ok::<_, Infallible>(chunk), (bytes, reserved)))
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
