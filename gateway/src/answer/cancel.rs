//! Cancels requests: on demand, and when their client disconnects.

use pipeline::{Content, FlowName, Outcome, OutcomeKind, RequestId, ResultAck, Transport, TransportError};
use serde_json::json;

use super::status::decisive;
use crate::state::GatewayState;

/// Attempts of a cancellation whose ordinal another result takes each time.
const ATTEMPTS: usize = 16;

/// The outcome of a cancellation.
pub enum Cancellation {
    /// The request is cancelled.
    Stored,
    /// It had a terminal result already.
    AlreadyEnded(OutcomeKind),
}

/// Stores the terminal result `cancelled`, unless the request has a terminal result.
pub async fn publish_cancelled(
    transport: &dyn Transport,
    flow: &FlowName,
    request: &RequestId,
) -> Result<Cancellation, TransportError> {
    for _ in 0..ATTEMPTS {
        let outcomes = transport.outcomes(request).await?;
        if let Some(last) = decisive(&outcomes).filter(|last| last.kind.is_terminal()) {
            return Ok(Cancellation::AlreadyEnded(last.kind));
        }
        // Ordinal 0 is reserved for `accepted`, which may still be on its way.
        let ordinal = outcomes.last().map_or(1, |last| last.ordinal + 1);
        let outcome = Outcome::new(OutcomeKind::Cancelled, ordinal, flow.clone(), Content::json(&json!({})));
        if transport.publish_outcome(request, &outcome).await? == ResultAck::Stored {
            return Ok(Cancellation::Stored);
        }
    }
    Err(TransportError::unavailable("every ordinal was taken before the cancellation"))
}

/// Cancels a request when dropped, for routes with `cancel_on_disconnect`: its client has left.
pub struct CancelOnDrop {
    target: Option<(GatewayState, FlowName, RequestId)>,
}

impl CancelOnDrop {
    pub fn new(state: &GatewayState, flow: &FlowName, request: &RequestId) -> Self {
        Self { target: Some((state.clone(), flow.clone(), request.clone())) }
    }

    /// The client got its answer: cancels nothing.
    pub fn disarm(mut self) {
        self.target = None;
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        let Some((state, flow, request)) = self.target.take() else { return };
        let tasks = state.tasks.clone();
        tasks.spawn(async move {
            if let Err(error) = publish_cancelled(&*state.transport, &flow, &request).await {
                tracing::warn!(%request, %error, "request of a disconnected client not cancelled");
            }
        });
    }
}
