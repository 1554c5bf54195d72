//! Durable edges: a flow cut in parts that the broker joins.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use pipeline::testing::{MemoryTransport, PATIENCE, TransportWrapper};
use pipeline::{
    Body, BoxError, Content, Digest, Emits, Event, Fault, Image, Lane, Operator, OperatorKind, OperatorSpec,
    OutcomeKind, Output, Payload, PayloadKind, Services, StageTypes, Submission, SubmitAck, Transport, TransportError,
    take_kind,
};
use serde::Deserialize;

use crate::support::{event, eventually, read_flows, start_flows, start_on, start_through, terminal, token};

#[derive(Deserialize)]
struct PaintSpec {}

/// Makes a picture of every text, as wide as the text is long.
struct Paint;

#[derive(Deserialize)]
struct ReadSpec {}

/// Answers with the width of the picture, and with the length of the vector where it gets one.
struct Read;

impl OperatorSpec for PaintSpec {
    fn types(&self) -> StageTypes {
        StageTypes { takes: &[PayloadKind::Bytes], gives: Emits::Kind(PayloadKind::Image) }
    }
    fn build(&self, _: &Services) -> Result<Box<dyn Operator>, BoxError> {
        Ok(Box::new(Paint))
    }
}

impl OperatorSpec for ReadSpec {
    fn types(&self) -> StageTypes {
        StageTypes { takes: &[PayloadKind::Image, PayloadKind::Vector], gives: Emits::Nothing }
    }
    fn answers(&self) -> bool {
        true
    }
    fn build(&self, _: &Services) -> Result<Box<dyn Operator>, BoxError> {
        Ok(Box::new(Read))
    }
}

/// Wide enough to travel as a claim.
const HEIGHT: u32 = 100_000;

#[async_trait]
impl Operator for Paint {
    async fn process(&mut self, batch: Vec<Event>, out: &mut Output) -> Result<(), Fault> {
        for event in batch {
            let width = u32::try_from(event.payload.resident_bytes() - 256).unwrap();
            let pixels = vec![7; (width * HEIGHT * 3) as usize];
            let image = Image { width, height: HEIGHT, pixels, sha256: Digest([1; 32]), room: None };
            out.emit(&event, Payload::Image(image.into())).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl Operator for Read {
    async fn process(&mut self, batch: Vec<Event>, out: &mut Output) -> Result<(), Fault> {
        let read = |payload: &Payload| match payload {
            Payload::Image(image) if image.pixels.iter().all(|value| *value == 7) => Some(image.width),
            Payload::Vector(vector) => u32::try_from(vector.values.len()).ok(),
            _ => None,
        };
        for (event, width) in take_kind(batch, out, read) {
            out.respond(&event, Content::inline("text/plain", width.to_string()));
        }
        Ok(())
    }
}

const KINDS: [OperatorKind; 2] =
    [OperatorKind::of::<PaintSpec>("paint", "paints"), OperatorKind::of::<ReadSpec>("read", "reads")];

const FLOW: &str = "[[flow.test.stage]]\nuse = \"paint\"\n[[flow.test.stage]]\nuse = \"read\"\ndurable = true\n";

fn answer(outcome: &pipeline::Outcome) -> String {
    let Body::Inline(bytes) = &outcome.content.body else { panic!("an answer is short") };
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn a_picture_crosses_the_edge_and_the_last_part_answers_once() {
    let transport = MemoryTransport::with_flows([("test", 10), ("test--read", 1)]);
    let running = start_on(&transport, FLOW, &KINDS).await;
    for (id, body) in [("a", "x"), ("b", "xx"), ("c", "xxx")] {
        transport.submit(event(id, Lane::Interactive, body)).await.unwrap();
    }
    for (id, width) in [("a", "1"), ("b", "2"), ("c", "3")] {
        let outcome = terminal(&transport, id).await;
        assert_eq!(
            (outcome.kind, answer(&outcome).as_str(), outcome.flow.as_str()),
            (OutcomeKind::Done, width, "test")
        );
    }
    eventually("everything is acknowledged", async || {
        let (first, second) = (transport.backlog(&token("test")).await, transport.backlog(&token("test--read")).await);
        first.unwrap().is_empty() && second.unwrap().is_empty() && transport.claim_count() == 0
    })
    .await;
    let stats = running.engine().stats();
    assert_eq!(
        stats.iter().map(|flow| (flow.name.as_str(), flow.done)).collect::<Vec<_>>(),
        [("test", 3), ("test--read", 3)]
    );
    running.drain(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn a_repeat_of_the_first_part_is_stored_once_and_leaves_no_body() {
    let transport = MemoryTransport::with_flows([("test", 10), ("test--read", 10)]);
    for _ in 0..2 {
        // As after a crash between the edge and the ledger.
        transport.forget_ledger();
        let first = read_flows(FLOW, &KINDS).unwrap().remove(0).into_parts().remove(0);
        let running = start_flows(Arc::new(transport.clone()), vec![first]).await;
        transport.submit(event("a", Lane::Interactive, "x")).await.unwrap();
        let done = async || running.engine().stats()[0].done == 1;
        eventually("the first part is done", done).await;
        running.drain(PATIENCE).await.unwrap();
        transport.forget_ids_of(&token("test"));
    }
    assert_eq!(transport.backlog(&token("test--read")).await.unwrap().interactive, 1);
    assert_eq!(transport.claim_count(), 1);
}

/// Stores what crosses the edge, and once says that it did not.
struct Unconfirmed {
    within: MemoryTransport,
    lost: AtomicUsize,
}

#[async_trait]
impl TransportWrapper for Unconfirmed {
    fn within(&self) -> &dyn Transport {
        &self.within
    }

    async fn submit(&self, submission: Submission) -> Result<SubmitAck, TransportError> {
        let crosses = submission.envelope.flow == token("test--read");
        let submitted = self.within.submit(submission).await?;
        match crosses && self.lost.fetch_add(1, Ordering::SeqCst) == 0 {
            true => Err(TransportError::unavailable("no answer came")),
            false => Ok(submitted),
        }
    }
}

#[tokio::test]
async fn a_body_stays_whose_event_may_have_crossed() {
    let transport = MemoryTransport::with_flows([("test", 10), ("test--read", 10)]);
    let unconfirmed = Arc::new(Unconfirmed { within: transport.clone(), lost: AtomicUsize::new(0) });
    let retry = format!("[flow.test]\nretry = {{ backoff_ms = [1] }}\n{FLOW}");
    let running = start_through(Arc::clone(&unconfirmed) as Arc<dyn Transport>, &retry, &KINDS).await;
    transport.submit(event("a", Lane::Interactive, "x")).await.unwrap();
    let outcome = terminal(&transport, "a").await;
    assert_eq!((outcome.kind, answer(&outcome).as_str()), (OutcomeKind::Done, "1"));
    let ended = async || transport.claim_count() == 0 && transport.backlog(&token("test")).await.unwrap().is_empty();
    eventually("both parts have ended and no body is left", ended).await;
    assert_eq!(unconfirmed.lost.load(Ordering::SeqCst), 2, "the child was submitted twice");
    running.drain(PATIENCE).await.unwrap();
}

#[test]
fn what_an_edge_cannot_do_is_said_at_load() {
    #[derive(Deserialize)]
    struct TwiceSpec {}
    impl OperatorSpec for TwiceSpec {
        fn types(&self) -> StageTypes {
            StageTypes { takes: &[PayloadKind::Bytes], gives: Emits::Same }
        }
        fn multiplies(&self) -> bool {
            true
        }
        fn build(&self, _: &Services) -> Result<Box<dyn Operator>, BoxError> {
            Err("never built".into())
        }
    }
    let kinds = [OperatorKind::of::<TwiceSpec>("twice", "doubles")];
    let twice = "[[flow.f.stage]]\nuse = \"twice\"\n[[flow.f.stage]]\nuse = \"twice\"\nname = \"b\"\ndurable = true\n";
    let problems = read_flows(twice, &kinds).err().unwrap();
    assert!(problems.contains("nobody could tell when all of them have ended"), "{problems}");
    assert!(problems.contains("test.toml:6:"), "{problems}");
    let named = "[[flow.\"a--b\".stage]]\nuse = \"twice\"\n";
    assert!(read_flows(named, &kinds).err().unwrap().contains("stands before the parts of a flow"));
    let orders = "[[flow.f.stage]]\nuse = \"twice\"\norder_by = \"a\"\n[[flow.f.stage]]\nuse = \"twice\"\nname = \"b\"\norder_by = \"b\"\n";
    assert!(read_flows(orders, &kinds).err().unwrap().contains("keep one order in a flow"));
}
