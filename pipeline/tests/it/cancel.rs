//! Work that nobody wants any more is not begun, and what was begun can break off.

use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use pipeline::testing::PATIENCE;
use pipeline::{
    BoxError, Content, Emits, Event, Fault, FlowName, Lane, Operator, OperatorKind, OperatorSpec, Outcome, OutcomeKind,
    Output, PayloadKind, ResultAck, Services, StageTypes, Transport,
};
use serde::Deserialize;

use crate::support::{event, eventually, start, token};

static BEGUN: AtomicUsize = AtomicUsize::new(0);

#[derive(Deserialize)]
struct PatientSpec {}

/// Works on an event until it is cancelled.
struct Patient;

impl OperatorSpec for PatientSpec {
    fn types(&self) -> StageTypes {
        StageTypes { takes: &[PayloadKind::Bytes], gives: Emits::Same }
    }
    fn build(&self, _: &Services) -> Result<Box<dyn Operator>, BoxError> {
        Ok(Box::new(Patient))
    }
}

#[async_trait]
impl Operator for Patient {
    async fn process(&mut self, batch: Vec<Event>, out: &mut Output) -> Result<(), Fault> {
        for event in batch {
            BEGUN.fetch_add(1, Ordering::SeqCst);
            event.cancelled().await;
            out.forward(event).await?;
        }
        Ok(())
    }
}

const PATIENT: OperatorKind = OperatorKind::of::<PatientSpec>("patient", "works until it is cancelled");

#[tokio::test]
async fn a_cancelled_request_is_not_begun_and_a_running_one_hears_of_it() {
    let (transport, running) = start("[[flow.test.stage]]\nuse = \"patient\"\n", &[PATIENT], 100).await;
    for id in ["running", "waiting"] {
        transport.submit(event(id, Lane::Interactive, "x")).await.unwrap();
    }
    eventually("one is at work, one waits", async || {
        BEGUN.load(Ordering::SeqCst) == 1 && running.engine().stats()[0].stages[0].queued == 1
    })
    .await;
    // The words are heard in this order, so the second is heeded before the first event ends.
    for id in ["waiting", "running"] {
        let flow = FlowName::new("test").unwrap();
        let outcome = Outcome::new(OutcomeKind::Cancelled, 1, flow, Content::json(&serde_json::json!({})));
        assert_eq!(transport.publish_outcome(&token(id), &outcome).await.unwrap(), ResultAck::Stored);
    }
    eventually("both are settled", async || transport.backlog(&token("test")).await.unwrap().is_empty()).await;
    assert_eq!(BEGUN.load(Ordering::SeqCst), 1, "the waiting one was never begun");
    for id in ["running", "waiting"] {
        let outcomes = transport.outcomes(&token(id)).await.unwrap();
        let kinds: Vec<OutcomeKind> = outcomes.iter().map(|outcome| outcome.kind).collect();
        assert_eq!(kinds, [OutcomeKind::Cancelled], "one visible end");
    }
    running.drain(PATIENCE).await.unwrap();
    assert!(transport.letters().is_empty());
}
