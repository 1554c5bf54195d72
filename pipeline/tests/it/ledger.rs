//! An event that has ended is not done again, however it comes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use pipeline::testing::{MemoryTransport, PATIENCE, TransportWrapper};
use pipeline::{Body, BodyOwner, Content, Entry, Lane, OutcomeKind, Payload, Submission, Transport, TransportError};

use crate::support::{event, eventually, start_on, terminal, token};

const NOOP: &str = "[[flow.test.stage]]\nuse = \"noop\"\n";
const FAILING: &str =
    "[flow.test]\nretry = { attempts = 1 }\n[[flow.test.stage]]\nuse = \"failing\"\nmarker = \"bad\"\n";

async fn submit(transport: &MemoryTransport, id: &str, body: &str) {
    transport.submit(event(id, Lane::Interactive, body)).await.unwrap();
}

async fn is_empty(transport: &MemoryTransport) -> bool {
    transport.backlog(&token("test")).await.unwrap().is_empty()
}

#[tokio::test]
async fn a_copy_that_the_broker_no_longer_knows_is_acknowledged_without_work() {
    let transport = MemoryTransport::with_flows([("test", 10)]);
    let running = start_on(&transport, NOOP, &[]).await;
    submit(&transport, "e", "x").await;
    terminal(&transport, "e").await;
    eventually("it is acknowledged", async || is_empty(&transport).await).await;
    transport.forget_ids();
    submit(&transport, "e", "x").await;
    eventually("the copy is acknowledged", async || is_empty(&transport).await).await;
    let stats = running.engine().stats().remove(0);
    assert_eq!((stats.delivered, stats.repeated), (1, 1));
    running.drain(PATIENCE).await.unwrap();

    // Another process has read it.
    let running = start_on(&transport, NOOP, &[]).await;
    transport.forget_ids();
    submit(&transport, "e", "x").await;
    eventually("the copy is acknowledged", async || is_empty(&transport).await).await;
    let stats = running.engine().stats().remove(0);
    assert_eq!((stats.delivered, stats.repeated), (0, 1));
    running.drain(PATIENCE).await.unwrap();
}

fn claimed(id: &str, content: &Content) -> Submission {
    Submission { payload: Payload::Bytes(content.clone()), ..event(id, Lane::Interactive, "") }
}

#[tokio::test]
async fn the_bodies_of_a_copy_go_unless_a_dead_letter_needs_them() {
    let transport = MemoryTransport::with_flows([("test", 10)]);
    let long = |byte| vec![byte; pipeline::INLINE_LIMIT + 1];
    let keep = async |byte| {
        let flow = token("test");
        pipeline::claims::store_bytes(&transport, BodyOwner::Event(&flow), "x/y", long(byte).into()).await.unwrap()
    };
    let running = start_on(&transport, NOOP, &[]).await;
    transport.submit(claimed("e", &keep(1).await)).await.unwrap();
    terminal(&transport, "e").await;
    eventually("its body goes", async || transport.claim_count() == 0).await;
    transport.forget_ids();
    transport.submit(claimed("e", &keep(2).await)).await.unwrap();
    eventually("the copy's body goes", async || is_empty(&transport).await && transport.claim_count() == 0).await;
    running.drain(PATIENCE).await.unwrap();

    let marker = String::from_utf8(long(b'b')).unwrap();
    let failing = FAILING.replace("bad", &marker);
    let running = start_on(&transport, &failing, &[]).await;
    let content = keep(b'b').await;
    let Body::Claim(claim) = &content.body else { panic!("short enough to be inline") };
    transport.submit(claimed("bad", &content)).await.unwrap();
    assert_eq!(terminal(&transport, "bad").await.kind, OutcomeKind::Failed);
    eventually("it is acknowledged", async || is_empty(&transport).await).await;
    transport.forget_ids();
    transport.submit(claimed("bad", &content)).await.unwrap();
    eventually("the copy is acknowledged", async || is_empty(&transport).await).await;
    assert!(transport.get_claim(claim).await.is_ok(), "the dead letter has its body");
    running.drain(PATIENCE).await.unwrap();
}

/// A broker that refuses to note the first end.
struct Forgetful {
    within: MemoryTransport,
    refused: AtomicUsize,
}

#[async_trait]
impl TransportWrapper for Forgetful {
    fn within(&self) -> &dyn Transport {
        &self.within
    }

    async fn note_ended(&self, entries: &[Entry]) -> Result<(), TransportError> {
        if self.refused.fetch_add(1, Ordering::SeqCst) == 0 {
            return Err(TransportError::unavailable("not now"));
        }
        self.within.note_ended(entries).await
    }
}

#[tokio::test]
async fn an_end_that_cannot_be_noted_at_first_is_noted_later_without_another_delivery() {
    let within = MemoryTransport::with_flows([("test", 10)]);
    let forgetful = Arc::new(Forgetful { within: within.clone(), refused: AtomicUsize::new(0) });
    let running = crate::support::start_through(forgetful, NOOP, &[]).await;
    submit(&within, "e", "x").await;
    eventually("it ends", async || is_empty(&within).await && running.engine().stats()[0].done == 1).await;
    let stats = running.engine().stats().remove(0);
    assert_eq!((stats.delivered, stats.retried, stats.refused), (1, 0, 0));
    assert!(within.retry_reasons().is_empty());
    running.drain(PATIENCE).await.unwrap();
}
