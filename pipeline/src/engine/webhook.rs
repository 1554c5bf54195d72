//! Hands the result of a request that came with a webhook to the flow that tells it.
//!
//! That is an event of its own, with an id that follows from the request's, submitted before the result is published: a
//! crash in between submits it again, and it is known. From then on the webhook is told however this flow fares.

use serde_json::{Value, json};

use super::flow_shared::FlowShared;
use crate::claims;
use crate::event::{Envelope, Root, TENANT_PARAM};
use crate::fault::Rejection;
use crate::payload::{Content, Payload};
use crate::transport::{BodyOf, Submission, Submitted, Transport, TransportError};
use crate::webhook::{FAILED_PARAM, WEBHOOK_PARAM};

/// How a request ended.
pub enum Told<'r> {
    Done(&'r Content),
    Failed(&'r Rejection),
}

/// Submits the event, where the request came with a webhook and the flow has somebody who tells it.
pub async fn submit(
    flow: &FlowShared,
    transport: &dyn Transport,
    root: &Root,
    told: Told<'_>,
) -> Result<(), TransportError> {
    let (Some(teller), Some(webhook)) = (&flow.webhooks, root.envelope.params.get(WEBHOOK_PARAM)) else {
        return Ok(());
    };
    let mut envelope = Envelope::new(teller.clone(), root.envelope.id.child(WEBHOOK_PARAM, 0));
    envelope.kind = format!("caudal.{teller}").into();
    envelope.traceparent.clone_from(&root.envelope.traceparent);
    // Nobody waits for its answer; the webhook is told whose it is.
    let mut webhook = webhook.clone();
    if let Some(webhook) = webhook.as_object_mut() {
        webhook.insert("request".into(), json!(root.envelope.request));
    }
    envelope.params.insert(WEBHOOK_PARAM.into(), webhook);
    if let Some(tenant) = root.envelope.tenant() {
        envelope.params.insert(TENANT_PARAM.into(), Value::from(tenant));
    }
    let payload = match told {
        Told::Done(content) => {
            let bytes = claims::fetch(transport, content).await?;
            let of = BodyOf::Event(teller);
            Payload::Bytes(claims::keep_bytes(transport, of, &content.media_type, bytes).await?)
        }
        Told::Failed(cause) => {
            envelope.params.insert(FAILED_PARAM.into(), json!(cause));
            Payload::json(json!({}))
        }
    };
    let claims = payload.claims();
    let submitted = transport.submit(Submission { envelope, payload }).await;
    // Without an answer the event may be stored, and then needs its body.
    if !matches!(submitted, Ok(Submitted::Stored) | Err(TransportError::Unavailable(_))) {
        for claim in claims {
            transport.drop_claim(&claim).await?;
        }
    }
    submitted.map(drop)
}
