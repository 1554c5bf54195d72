//! Records that a request's event is stored, as the request's first result.

use pipeline::{Content, FlowName, Outcome, OutcomeKind, RequestId, Transport};
use serde_json::json;

use crate::answer::status::QUEUED;

/// Stores the result `accepted` of a request; whether that succeeded.
pub async fn record(transport: &dyn Transport, request: &RequestId, flow: &FlowName) -> bool {
    let content = Content::json(&json!({ "id": request, "flow": flow, "status": QUEUED }));
    let outcome = Outcome::new(OutcomeKind::Accepted, 0, flow.clone(), content);
    if let Err(error) = transport.publish_outcome(request, &outcome).await {
        // The event is stored and will end in a terminal result all the same.
        tracing::warn!(%request, %error, "acceptance not recorded");
        return false;
    }
    true
}
