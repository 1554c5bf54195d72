//! `use = "publish"`: publishes the event into another flow.
//!
//! The new event's id is derived from this event's id, so that a repeat within the broker's deduplication window is
//! stored once. It has no request and no deadline: the client gets the response of this flow. The events of a batch are
//! submitted concurrently; the batch is done when the broker has stored all of them.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::try_join_all;
use pipeline::{
    Batching, Body, BodyOwner, BoxError, Content, DeclaredNames, Emits, Envelope, Event, Fault, FlowName, KeyProblem,
    Lane, Operator, OperatorKind, OperatorSpec, Output, Payload, PayloadKind, Services, StageTypes, Submission,
    SubmitAck, Transport, TransportError, claims, take_kind,
};
use serde::Deserialize;

use super::vector_json::vector_content;

/// `use = "publish"`.
pub const KIND: OperatorKind = OperatorKind::of::<PublishSpec>("publish", "publishes every event into another flow");

/// Default number of events in flight to the broker: enough to hide the round trip.
const DEFAULT_BATCH: usize = 256;

/// The keys of a `publish` stage.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishSpec {
    /// The flow to publish into.
    flow: FlowName,
    /// `interactive` or `bulk`; by default `bulk`, because no client waits for it.
    #[serde(default = "default_lane")]
    lane: Lane,
}

fn default_lane() -> Lane {
    Lane::Bulk
}

impl OperatorSpec for PublishSpec {
    fn types(&self) -> StageTypes {
        StageTypes { takes: &[PayloadKind::Bytes, PayloadKind::Json, PayloadKind::Vector], gives: Emits::Nothing }
    }

    fn batching(&self) -> Batching {
        Batching::greedy(DEFAULT_BATCH)
    }

    fn submits_to(&self) -> Option<&FlowName> {
        Some(&self.flow)
    }

    fn check(&self, names: &DeclaredNames) -> Vec<KeyProblem> {
        KeyProblem::unless_declared("flow", "flow", self.flow.as_str(), &names.flows).into_iter().collect()
    }

    fn build(&self, services: &Services) -> Result<Box<dyn Operator>, BoxError> {
        let transport = services.transport()?;
        Ok(Box::new(Publish { spec: self.clone(), transport }))
    }
}

/// Shares the transport with the engine.
struct Publish {
    spec: PublishSpec,
    transport: Arc<dyn Transport>,
}

#[async_trait]
impl Operator for Publish {
    async fn process(&mut self, batch: Vec<Event>, out: &mut Output) -> Result<(), Fault> {
        let events = take_kind(batch, out, submittable);
        let submissions = events.into_iter().map(|(event, payload)| self.submit(event, payload));
        try_join_all(submissions).await.map(|_| ()).map_err(fault)
    }
}

impl Publish {
    async fn submit(&self, event: Event, payload: Payload) -> Result<(), TransportError> {
        let parent = &event.envelope;
        let envelope = Envelope {
            lane: self.spec.lane,
            kind: Arc::clone(&parent.kind),
            source: Arc::clone(&parent.source),
            time: parent.time,
            traceparent: parent.traceparent.clone(),
            params: parent.params.clone(),
            ..Envelope::new(self.spec.flow.clone(), event.child_id(self.spec.flow.as_str()))
        };
        let payload = match payload {
            // Bytes too long to be sent inside an event get a new claim: this event's claim is deleted with its flow.
            Payload::Bytes(Content { media_type, body: Body::Inline(bytes) }) => Payload::Bytes(
                claims::store_bytes(self.transport.as_ref(), BodyOwner::Event(&self.spec.flow), &media_type, bytes)
                    .await?,
            ),
            other => other,
        };
        let claims = payload.claims();
        if self.transport.submit(Submission { envelope, payload }).await? == SubmitAck::Duplicate {
            // The event stored by an earlier attempt has a claim of its own.
            for claim in claims {
                self.transport.drop_claim(&claim).await?;
            }
        }
        Ok(())
    }
}

/// The payload as it is stored; `None` for kinds that cannot be.
fn submittable(payload: &Payload) -> Option<Payload> {
    match payload {
        Payload::Bytes(_) | Payload::Json(_) => Some(payload.clone()),
        Payload::Vector(vector) => Some(Payload::Bytes(vector_content(vector))),
        Payload::Image(_) | Payload::Parts(_) => None,
    }
}

fn fault(error: TransportError) -> Fault {
    match error {
        TransportError::NoFlow(_) => Fault::fatal(error),
        TransportError::Full { .. } | TransportError::Unavailable(_) => Fault::unavailable(error),
        _ => Fault::retry(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_doubles::vector;
    use pipeline::testing::{MemoryTransport, run};
    use pipeline::{INLINE_LIMIT, Params, ProcessResources, Source, SourceBounds};
    use serde_json::json;
    use std::time::Duration;

    fn operator(transport: &MemoryTransport) -> Box<dyn Operator> {
        let transport = Some(Arc::new(transport.clone()) as _);
        let services = Services::new(ProcessResources { transport, ..ProcessResources::default() });
        let spec: PublishSpec = serde_json::from_value(json!({"flow": "other"})).unwrap();
        spec.build(&services).unwrap()
    }

    async fn source(transport: &MemoryTransport) -> Box<dyn Source> {
        let bounds = SourceBounds {
            events: 64,
            bytes: 1 << 20,
            ordered: false,
            ack_wait: Duration::from_secs(15),
            max_deliver: 3,
        };
        transport.source(&FlowName::new("other").unwrap(), Lane::Bulk, bounds).await.unwrap()
    }

    #[tokio::test]
    async fn a_repeat_is_stored_once_and_keeps_id_and_params() {
        let transport = MemoryTransport::with_flows([("other", 10)]);
        let params: Params = [("report_id".to_owned(), json!("r1"))].into();
        let batch = vec![Payload::json(json!({"n": 1})), Payload::Vector(Arc::new(vector(&[1.0])))];
        for _ in 0..2 {
            let ran = run(operator(&transport).as_mut(), params.clone(), batch.clone()).await;
            assert!(ran.fault.is_none() && ran.rejected.is_empty() && ran.emitted.is_empty());
        }
        let backlog = transport.backlog(&FlowName::new("other").unwrap()).await.unwrap();
        assert_eq!((backlog.interactive, backlog.bulk), (0, 2));
        let first = source(&transport).await.next().await.unwrap();
        assert_ne!(first.envelope.id.as_str(), "event-0", "two flows must not answer one request");
        assert_eq!(first.envelope.text_param("report_id"), Some("r1"));
        assert!(first.envelope.request.is_none() && first.envelope.deadline.is_none());
    }

    #[tokio::test]
    async fn a_full_or_unavailable_broker_retries_the_batch() {
        let transport = MemoryTransport::with_flows([("other", 1)]);
        let batch: Vec<Payload> = (0..3).map(|n| Payload::json(json!(n))).collect();
        let ran = run(operator(&transport).as_mut(), Params::new(), batch.clone()).await;
        assert!(matches!(ran.fault, Some(Fault::Unavailable(_))));
        transport.set_down(true);
        let ran = run(operator(&transport).as_mut(), Params::new(), batch).await;
        assert!(matches!(ran.fault, Some(Fault::Unavailable(_))));
    }

    #[tokio::test]
    async fn long_bytes_travel_as_a_claim_of_their_own() {
        let transport = MemoryTransport::with_flows([("other", 10)]);
        let long = Payload::Bytes(Content::inline("image/jpeg", vec![7; INLINE_LIMIT + 1]));
        run(operator(&transport).as_mut(), Params::new(), vec![long]).await;
        assert_eq!(transport.claim_count(), 1);
        let Payload::Bytes(content) = source(&transport).await.next().await.unwrap().payload else { panic!() };
        assert!(content.claim().is_some());
    }

    #[test]
    fn an_undeclared_flow_is_a_problem() {
        let spec: PublishSpec = serde_json::from_value(json!({"flow": "other"})).unwrap();
        assert_eq!(spec.check(&DeclaredNames::default())[0].key, "flow");
    }
}
