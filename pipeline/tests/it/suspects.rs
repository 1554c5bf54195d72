//! A crash delivers the neighbours of its cause again too: they must not pay for it.

use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use pipeline::testing::{MemoryTransport, PATIENCE};
use pipeline::{
    Batching, Body, BoxError, Emits, Event, Fault, Lane, Operator, OperatorKind, OperatorSpec, OutcomeKind, Output,
    Payload, PayloadKind, Services, StageTypes, Transport,
};
use serde::Deserialize;

use crate::support::{event, eventually, start_on, terminal};

static DEATHS: AtomicUsize = AtomicUsize::new(0);

#[derive(Deserialize)]
struct LethalSpec {}

/// Never comes back from a batch that holds poison; the test then drops the whole engine, as a crash would.
struct Lethal;

impl OperatorSpec for LethalSpec {
    fn types(&self) -> StageTypes {
        StageTypes { takes: &[PayloadKind::Bytes], gives: Emits::Same }
    }
    fn batching(&self) -> Batching {
        Batching::greedy(8)
    }
    fn build(&self, _: &Services) -> Result<Box<dyn Operator>, BoxError> {
        Ok(Box::new(Lethal))
    }
}

fn is_poison(event: &Event) -> bool {
    let Payload::Bytes(content) = &event.payload else { return false };
    matches!(&content.body, Body::Inline(bytes) if bytes.as_ref() == b"poison")
}

#[async_trait]
impl Operator for Lethal {
    async fn process(&mut self, batch: Vec<Event>, out: &mut Output) -> Result<(), Fault> {
        if batch.iter().any(is_poison) {
            DEATHS.fetch_add(1, Ordering::SeqCst);
            std::future::pending::<()>().await;
        }
        for event in batch {
            out.forward(event).await?;
        }
        Ok(())
    }
}

const LETHAL: OperatorKind = OperatorKind::of::<LethalSpec>("lethal", "dies of poison");

#[tokio::test]
async fn the_neighbours_of_a_poison_are_done_and_it_alone_is_given_up() {
    let transport = MemoryTransport::with_flows([("test", 100)]);
    for id in ["near1", "poison", "near2", "near3"] {
        transport.submit(event(id, Lane::Interactive, id)).await.unwrap();
    }
    let mut rounds = 0;
    while transport.letters().is_empty() {
        rounds += 1;
        assert!(rounds < 20, "the poison is never given up");
        let deaths = DEATHS.load(Ordering::SeqCst);
        let running = start_on(&transport, "[[flow.test.stage]]\nuse = \"lethal\"\n", &[LETHAL]).await;
        eventually("it dies, or the poison is given up", async || {
            DEATHS.load(Ordering::SeqCst) > deaths || !transport.letters().is_empty()
        })
        .await;
        drop(running);
    }
    let letters = transport.letters();
    assert_eq!(letters[0].envelope.id.as_str(), "poison");
    assert_eq!(letters[0].cause.code, "never_settled");
    let running = start_on(&transport, "[[flow.test.stage]]\nuse = \"lethal\"\n", &[LETHAL]).await;
    for id in ["near1", "near2", "near3"] {
        assert_eq!(terminal(&transport, id).await.kind, OutcomeKind::Done, "{id}");
    }
    assert_eq!(terminal(&transport, "poison").await.kind, OutcomeKind::Failed);
    running.drain(PATIENCE).await.unwrap();
    assert_eq!(transport.letters().len(), 1);
}
