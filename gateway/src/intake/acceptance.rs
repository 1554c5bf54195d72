//! Records that a request's event is stored, as the request's first result: from then on `/v1/requests/{id}` knows it.

use std::time::Duration;

use pipeline::{Content, FlowName, Outcome, OutcomeKind, RequestId, Transport};
use serde_json::json;
use tokio::time::Instant;

use crate::answer::status::QUEUED;
use crate::problem::Problem;

/// How long recording is tried. A client waits for it, and most interruptions of the broker are shorter.
const PATIENCE: Duration = Duration::from_secs(3);

/// The first pause between two tries; each next one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// Stores the result `accepted` of a request, unless it has one.
///
/// # Errors
/// 503 if the broker does not store it in time. The event is stored all the same, and will end in a terminal result.
pub async fn record(transport: &dyn Transport, request: &RequestId, flow: &FlowName) -> Result<(), Problem> {
    let content = Content::json(&json!({ "id": request, "flow": flow, "status": QUEUED }));
    let outcome = Outcome::new(OutcomeKind::Accepted, 0, flow.clone(), content);
    let until = Instant::now() + PATIENCE;
    let mut pause = FIRST_PAUSE;
    loop {
        match tokio::time::timeout_at(until, transport.publish_outcome(request, &outcome)).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => tracing::debug!(%request, %error, "acceptance not recorded yet"),
            Err(_) => {}
        }
        if Instant::now() + pause >= until {
            return Err(not_recorded(request));
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
}

fn not_recorded(request: &RequestId) -> Problem {
    let detail = format!(
        "request {request} is stored and will be processed, but this could not be recorded within {} s: ask for \
         /v1/requests/{request} after Retry-After, or repeat the request with its Idempotency-Key; without a key a \
         repeat is a second request",
        PATIENCE.as_secs()
    );
    Problem::unavailable("acceptance_not_recorded", detail).with_request(request)
}
