//! Submits the follow-up of a request that has ended, before its result is published.
//!
//! The id of the event follows from the request's: a crash in between submits it again, and the copy is dropped. Once it is
//! stored it has a flow of its own, and does not depend on this one any more.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use super::flow_shared::FlowShared;
use crate::claims;
use crate::completion::{Completion, FollowUp};
use crate::envelope::{Envelope, TENANT_PARAM};
use crate::event::Root;
use crate::storage_outage::StorageOutage;
use crate::transport::{Submission, SubmitAck, Transport, TransportError};

/// The event, where the flow names a flow for it and the hook makes one of this request. Its body is not stored yet.
pub fn event(flow: &FlowShared, root: &Root, completion: Completion<'_>) -> Option<Submission> {
    let (to, hook) = flow.follow_ups.as_ref()?;
    let FollowUp { params, payload } = hook.follow_up(&root.envelope, completion)?;
    // No request: nobody waits for an answer of this event.
    let mut envelope = Envelope::new(to.clone(), root.envelope.id.child(hook.name(), 0));
    envelope.kind = format!("caudal.{to}").into();
    envelope.traceparent.clone_from(&root.envelope.traceparent);
    envelope.params = params;
    if let Some(tenant) = root.envelope.tenant() {
        envelope.params.insert(TENANT_PARAM.into(), Value::from(tenant));
    }
    Some(Submission { envelope, payload })
}

/// Stores the body of the event once, and submits the event; repeats each of the two until it is stored.
pub async fn submit(
    storage: &StorageOutage,
    transport: &dyn Transport,
    event: Submission,
) -> Result<(), TransportError> {
    let Submission { envelope, payload } = event;
    let payload = storage.wait_out(1, || claims::storable(transport, &envelope.flow, &payload)).await?;
    let may_be_stored = AtomicBool::new(false);
    let submit = async || {
        let submission = Submission { envelope: envelope.clone(), payload: payload.clone() };
        let submitted = transport.submit(submission).await;
        may_be_stored.fetch_or(matches!(submitted, Err(TransportError::Unavailable(_))), Ordering::Relaxed);
        submitted
    };
    let submitted = storage.wait_out(1, submit).await;
    // After a failure the event may be stored, and then needs its body; what the broker knows then may be this very event.
    if !matches!(submitted, Ok(SubmitAck::Stored)) && !may_be_stored.into_inner() {
        claims::drop_all(transport, &payload).await;
    }
    submitted.map(drop)
}
