//! The broker refuses some of what is written for a while: events wait, and end as if nothing had happened.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use pipeline::testing::{MemoryTransport, PATIENCE, TransportWrapper};
use pipeline::{
    BodyOwner, BoxError, Claim, Content, DeadLetter, Emits, Entry, Event, Fault, INLINE_LIMIT, Lane, Operator,
    OperatorKind, OperatorSpec, Outcome, OutcomeKind, Output, PayloadKind, RequestId, ResultAck, Services, StageTypes,
    Submission, SubmitAck, Token, Transport, TransportError,
};
use serde::Deserialize;

use crate::support::{event, eventually, start_through, terminal, token};

/// Something that is written behind the submit.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Write {
    Result,
    Ledger,
    DeadLetter,
    Edge,
    Claim,
    Record,
}

/// Refuses one kind of write while it is away.
struct Refusing {
    within: MemoryTransport,
    what: Write,
    away: AtomicBool,
    refused: AtomicUsize,
}

impl Refusing {
    fn check(&self, what: Write) -> Result<(), TransportError> {
        if what != self.what || !self.away.load(Ordering::SeqCst) {
            return Ok(());
        }
        self.refused.fetch_add(1, Ordering::SeqCst);
        Err(TransportError::unavailable("no space left on device"))
    }
}

#[async_trait]
impl TransportWrapper for Refusing {
    fn within(&self) -> &dyn Transport {
        &self.within
    }

    async fn submit(&self, submission: Submission) -> Result<SubmitAck, TransportError> {
        self.check(Write::Edge)?;
        self.within.submit(submission).await
    }

    async fn publish_outcome(&self, request: &RequestId, outcome: &Outcome) -> Result<ResultAck, TransportError> {
        self.check(Write::Result)?;
        self.within.publish_outcome(request, outcome).await
    }

    async fn put_claim(
        &self,
        of: BodyOwner<'_>,
        body: BoxStream<'_, Result<Bytes, BoxError>>,
    ) -> Result<Claim, TransportError> {
        self.check(Write::Claim)?;
        self.within.put_claim(of, body).await
    }

    async fn dead_letter(&self, letter: DeadLetter) -> Result<(), TransportError> {
        self.check(Write::DeadLetter)?;
        self.within.dead_letter(letter).await
    }

    async fn note_ended(&self, entries: &[Entry]) -> Result<(), TransportError> {
        self.check(Write::Ledger)?;
        self.within.note_ended(entries).await
    }

    async fn replace_record(
        &self,
        store: &Token,
        key: &Token,
        revision: u64,
        value: Bytes,
    ) -> Result<bool, TransportError> {
        self.check(Write::Record)?;
        self.within.replace_record(store, key, revision, value).await
    }
}

#[derive(Deserialize)]
struct LongSpec {}

/// Gives an answer that is too long to be inline.
struct Long;

impl OperatorSpec for LongSpec {
    fn types(&self) -> StageTypes {
        StageTypes { takes: &[PayloadKind::Bytes], gives: Emits::Nothing }
    }
    fn answers(&self) -> bool {
        true
    }
    fn build(&self, _: &Services) -> Result<Box<dyn Operator>, BoxError> {
        Ok(Box::new(Long))
    }
}

#[async_trait]
impl Operator for Long {
    async fn process(&mut self, batch: Vec<Event>, out: &mut Output) -> Result<(), Fault> {
        for event in batch {
            out.respond(&event, Content::inline("text/plain", vec![b'x'; INLINE_LIMIT + 1]));
        }
        Ok(())
    }
}

const LONG: OperatorKind = OperatorKind::of::<LongSpec>("long", "answers at length");

const PLAIN: &str = "[flow.test]\nretry = { attempts = 1 }\n[[flow.test.stage]]\nuse = \"noop\"\n";
const FAILS: &str = "[flow.test]\nretry = { attempts = 1 }\n[[flow.test.stage]]\nuse = \"failing\"\nmarker = \"x\"\n";
const LONG_ANSWER: &str = "[flow.test]\nretry = { attempts = 1 }\n[[flow.test.stage]]\nuse = \"long\"\n";
const CUT: &str = "[flow.test]\nretry = { attempts = 1 }\n[[flow.test.stage]]\nuse = \"noop\"\n\
                   [[flow.test.stage]]\nuse = \"noop\"\nname = \"b\"\ndurable = true\n";

fn refusing(what: Write) -> Arc<Refusing> {
    let within = MemoryTransport::with_flows([("test", 100), ("test--b", 100)]);
    Arc::new(Refusing { within, what, away: AtomicBool::new(true), refused: AtomicUsize::new(0) })
}

/// Sends five events through a flow while one kind of write is refused for 75 s; all end as `kind`, in one delivery each.
async fn end_through_refusal(what: Write, toml: &str, kind: OutcomeKind) {
    const EVENTS: u64 = 5;
    let transport = refusing(what);
    let running = start_through(Arc::clone(&transport) as Arc<dyn Transport>, toml, &[LONG]).await;
    let ids: Vec<String> = (0..EVENTS).map(|number| format!("e{number}")).collect();
    for id in &ids {
        transport.within.submit(event(id, Lane::Interactive, "x")).await.unwrap();
    }
    let engine = running.engine();
    tokio::time::sleep(Duration::from_secs(75)).await;
    let stats = engine.stats().remove(0);
    assert_eq!((stats.delivered, stats.in_flight), (EVENTS, EVENTS), "every event keeps its place");
    assert!((1..=EVENTS as usize).contains(&stats.waits_for_storage), "{}", stats.waits_for_storage);
    assert!(transport.refused.load(Ordering::SeqCst) > EVENTS as usize, "it was really refused");
    transport.away.store(false, Ordering::SeqCst);
    for id in &ids {
        assert_eq!(terminal(&transport.within, id).await.kind, kind, "{id}");
    }
    eventually("nothing waits", async || engine.stats()[0].waits_for_storage == 0).await;
    running.drain(PATIENCE).await.unwrap();
    let stats = engine.stats().remove(0);
    assert_eq!((stats.delivered, stats.retried, stats.refused, stats.in_flight), (EVENTS, 0, 0, 0));
    let letters = if kind == OutcomeKind::Failed { EVENTS as usize } else { 0 };
    assert_eq!(transport.within.letters().len(), letters);
}

#[tokio::test(start_paused = true)]
async fn results_that_are_refused_are_waited_out() {
    end_through_refusal(Write::Result, PLAIN, OutcomeKind::Done).await;
}

#[tokio::test(start_paused = true)]
async fn a_ledger_that_is_refused_is_waited_out() {
    end_through_refusal(Write::Ledger, PLAIN, OutcomeKind::Done).await;
}

#[tokio::test(start_paused = true)]
async fn dead_letters_that_are_refused_are_waited_out() {
    end_through_refusal(Write::DeadLetter, FAILS, OutcomeKind::Failed).await;
}

#[tokio::test(start_paused = true)]
async fn claims_that_are_refused_are_waited_out() {
    end_through_refusal(Write::Claim, LONG_ANSWER, OutcomeKind::Done).await;
}

#[tokio::test(start_paused = true)]
async fn an_edge_that_is_refused_is_waited_out() {
    end_through_refusal(Write::Edge, CUT, OutcomeKind::Done).await;
}

/// How often an event was delivered, as the broker counts: as a suspect is.
async fn make_suspect(transport: &MemoryTransport, id: &str) {
    transport.submit(event(id, Lane::Interactive, "x")).await.unwrap();
    for _ in 0..10 {
        let (flow, bounds) = (
            token("test"),
            pipeline::SourceBounds {
                events: 1,
                bytes: 1,
                ordered: false,
                ack_wait: Duration::from_secs(1),
                max_deliver: 1_000,
            },
        );
        let mut source = transport.source(&flow, Lane::Interactive, bounds).await.unwrap();
        drop(source.next().await.unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn a_suspect_whose_note_is_refused_waits_and_is_done() {
    let transport = refusing(Write::Record);
    make_suspect(&transport.within, "e").await;
    let running = start_through(Arc::clone(&transport) as Arc<dyn Transport>, PLAIN, &[]).await;
    tokio::time::sleep(Duration::from_secs(75)).await;
    assert!((2..=60).contains(&transport.refused.load(Ordering::SeqCst)), "it is tried now and then");
    assert_eq!(running.engine().stats()[0].delivered, 0);
    transport.away.store(false, Ordering::SeqCst);
    assert_eq!(terminal(&transport.within, "e").await.kind, OutcomeKind::Done);
    running.drain(PATIENCE).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_is_not_stored_when_the_service_stops_is_done_by_the_next_one() {
    let transport = refusing(Write::Edge);
    transport.within.submit(event("e", Lane::Interactive, "x")).await.unwrap();
    for _ in 0..10 {
        let running = start_through(Arc::clone(&transport) as Arc<dyn Transport>, CUT, &[]).await;
        let engine = running.engine();
        eventually("the event waits", async || engine.stats()[0].waits_for_storage == 1).await;
        let busy = running.drain(Duration::from_secs(1)).await.unwrap_err();
        assert_eq!((busy.len(), busy[0].stage.as_str(), busy[0].events), (1, "test/settle", 1));
        eventually("it is handed back", async || engine.stats()[0].waits_for_storage == 0).await;
    }
    transport.away.store(false, Ordering::SeqCst);
    let running = start_through(Arc::clone(&transport) as Arc<dyn Transport>, CUT, &[]).await;
    assert_eq!(terminal(&transport.within, "e").await.kind, OutcomeKind::Done);
    assert!(transport.within.letters().is_empty());
    running.drain(PATIENCE).await.unwrap();
}
