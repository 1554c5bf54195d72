//! Submits the follow-up of a request that has ended, before its result is published.
//!
//! The id of the event follows from the request's: a crash in between submits it again, and the copy is dropped. Once it is
//! stored it has a flow of its own, and does not depend on this one any more.

use serde_json::Value;

use super::flow_shared::FlowShared;
use crate::claims;
use crate::completion::{Completion, FollowUp};
use crate::envelope::{Envelope, TENANT_PARAM};
use crate::event::Root;
use crate::transport::{Submission, SubmitAck, Transport, TransportError};

/// Submits the event, where the flow names a flow for it and the hook makes one of this request.
pub async fn submit(
    flow: &FlowShared,
    transport: &dyn Transport,
    root: &Root,
    completion: Completion<'_>,
) -> Result<(), TransportError> {
    let Some((to, hook)) = &flow.follow_ups else { return Ok(()) };
    let Some(FollowUp { params, payload }) = hook.follow_up(&root.envelope, completion) else { return Ok(()) };
    // No request: nobody waits for an answer of this event.
    let mut envelope = Envelope::new(to.clone(), root.envelope.id.child(hook.name(), 0));
    envelope.kind = format!("caudal.{to}").into();
    envelope.traceparent.clone_from(&root.envelope.traceparent);
    envelope.params = params;
    if let Some(tenant) = root.envelope.tenant() {
        envelope.params.insert(TENANT_PARAM.into(), Value::from(tenant));
    }
    let payload = claims::storable(transport, to, &payload).await?;
    let claims = payload.claims();
    let submitted = transport.submit(Submission { envelope, payload }).await;
    // Without an answer the event may be stored, and then needs its body.
    if !matches!(submitted, Ok(SubmitAck::Stored) | Err(TransportError::Unavailable(_))) {
        for claim in claims {
            transport.drop_claim(&claim).await?;
        }
    }
    submitted.map(drop)
}
