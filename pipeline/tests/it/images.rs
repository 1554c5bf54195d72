//! The memory of images across durable edges: room on both sides, and no deadlock when the budget is full.

use std::sync::Arc;

use async_trait::async_trait;
use pipeline::spec::ByteSize;
use pipeline::testing::{MemoryTransport, PATIENCE};
use pipeline::{
    Body, BoxError, Content, Digest, Emits, Event, Fault, Image, Lane, Operator, OperatorKind, OperatorSpec,
    OutcomeKind, Output, Payload, PayloadKind, PixelBudget, ProcessResources, Services, StageTypes, Transport,
    take_kind,
};
use serde::Deserialize;

use crate::support::{event, eventually, read_flows, start_flows_with, terminal, token};

/// Bytes of the image that `paint` makes.
const IMAGE: usize = 300 << 10;

#[derive(Deserialize)]
struct PaintSpec {}

/// Makes an image of every text, after it has waited for room, as `decode` does.
struct Paint(PixelBudget);

impl OperatorSpec for PaintSpec {
    fn types(&self) -> StageTypes {
        StageTypes { takes: &[PayloadKind::Bytes], gives: Emits::Kind(PayloadKind::Image) }
    }
    fn build(&self, services: &Services) -> Result<Box<dyn Operator>, BoxError> {
        Ok(Box::new(Paint(services.process.pixels.clone())))
    }
}

#[async_trait]
impl Operator for Paint {
    async fn process(&mut self, batch: Vec<Event>, out: &mut Output) -> Result<(), Fault> {
        for event in batch {
            let room = self.0.reserve(event.envelope.lane, IMAGE as u64).await.map_err(Fault::fatal)?;
            let (width, height) = (1 << 10, 100);
            let image = Image { width, height, pixels: vec![7; IMAGE], sha256: Digest([1; 32]), room: Some(room) };
            out.emit(&event, Payload::Image(image.into())).await?;
        }
        Ok(())
    }
}

#[derive(Deserialize)]
struct InvertSpec {}

/// Makes an image of an image.
struct Invert;

impl OperatorSpec for InvertSpec {
    fn types(&self) -> StageTypes {
        StageTypes { takes: &[PayloadKind::Image], gives: Emits::Kind(PayloadKind::Image) }
    }
    fn build(&self, _: &Services) -> Result<Box<dyn Operator>, BoxError> {
        Ok(Box::new(Invert))
    }
}

#[async_trait]
impl Operator for Invert {
    async fn process(&mut self, batch: Vec<Event>, out: &mut Output) -> Result<(), Fault> {
        for (event, image) in take_kind(batch, out, image_of) {
            let pixels = image.pixels.iter().map(|value| 255 - value).collect();
            let inverted = image.derive("invert", (image.width, image.height), pixels).map_err(Fault::fatal)?;
            out.emit(&event, Payload::Image(inverted.into())).await?;
        }
        Ok(())
    }
}

#[derive(Deserialize)]
struct WeighSpec {}

/// Answers with the bytes of the budget that are in use.
struct Weigh(PixelBudget);

impl OperatorSpec for WeighSpec {
    fn types(&self) -> StageTypes {
        StageTypes { takes: &[PayloadKind::Image], gives: Emits::Nothing }
    }
    fn batching(&self) -> pipeline::Batching {
        pipeline::Batching::greedy(16)
    }
    fn answers(&self) -> bool {
        true
    }
    fn build(&self, services: &Services) -> Result<Box<dyn Operator>, BoxError> {
        Ok(Box::new(Weigh(services.process.pixels.clone())))
    }
}

#[async_trait]
impl Operator for Weigh {
    async fn process(&mut self, batch: Vec<Event>, out: &mut Output) -> Result<(), Fault> {
        for (event, image) in take_kind(batch, out, image_of) {
            assert!(image.room.is_some(), "an image without room");
            out.respond(&event, Content::json(&self.0.taken().into()));
        }
        Ok(())
    }
}

fn image_of(payload: &Payload) -> Option<Arc<Image>> {
    match payload {
        Payload::Image(image) => Some(Arc::clone(image)),
        _ => None,
    }
}

const KINDS: [OperatorKind; 3] = [
    OperatorKind::of::<PaintSpec>("paint", "paints"),
    OperatorKind::of::<InvertSpec>("invert", "inverts"),
    OperatorKind::of::<WeighSpec>("weigh", "weighs"),
];

/// Runs `flow` on ten texts with room for `images` images at once, until all have their answer; the most memory that was in
/// use when an image was weighed.
async fn run(flow: &str, parts: &[(&str, usize)], images: usize, lane: Lane) -> u64 {
    let transport = MemoryTransport::with_flows(parts.iter().copied());
    let pixels = PixelBudget::new(ByteSize((images * IMAGE) as u64));
    let process = ProcessResources { pixels: pixels.clone(), ..ProcessResources::default() };
    let parts = read_flows(flow, &KINDS).unwrap().remove(0).into_parts();
    for id in 0..10 {
        transport.submit(event(&format!("e{id}"), lane, "x")).await.unwrap();
    }
    let running = start_flows_with(Services::new(process), Arc::new(transport.clone()), parts).await;
    let mut most = 0;
    for id in 0..10 {
        let outcome = terminal(&transport, &format!("e{id}")).await;
        assert_eq!(outcome.kind, OutcomeKind::Done);
        let Body::Inline(answer) = &outcome.content.body else { panic!("an answer is short") };
        most = most.max(serde_json::from_slice(answer).unwrap());
    }
    eventually("all room is given back", async || pixels.taken() == 0).await;
    eventually("no body is left", async || transport.claim_count() == 0).await;
    running.drain(PATIENCE).await.unwrap();
    assert!(transport.backlog(&token("test")).await.unwrap().is_empty());
    most
}

const EDGE: &str = "[[flow.test.stage]]\nuse = \"paint\"\n[[flow.test.stage]]\nuse = \"weigh\"\ndurable = true\n";

#[tokio::test]
async fn a_batch_larger_than_the_budget_is_worked_on_in_parts() {
    let most = run(EDGE, &[("test", 10), ("test--weigh", 10)], 2, Lane::Interactive).await;
    // The budget, and one image that passes it behind the edge.
    assert!(most <= 3 * IMAGE as u64, "{most}");
}

#[tokio::test]
async fn a_full_budget_before_an_edge_lets_images_behind_it_through() {
    // One event may wait behind the edge, so that images with all the room wait before it.
    run(EDGE, &[("test", 10), ("test--weigh", 1)], 1, Lane::Interactive).await;
}

#[tokio::test]
async fn bulk_images_cross_an_edge_with_half_the_budget() {
    run(EDGE, &[("test", 10), ("test--weigh", 1)], 2, Lane::Bulk).await;
}

#[tokio::test]
async fn images_are_made_of_images_before_and_behind_an_edge_with_room_for_one() {
    let invert = "[[flow.test.stage]]\nuse = \"invert\"\n";
    let again = "[[flow.test.stage]]\nuse = \"invert\"\nname = \"again\"\n";
    let (paint, weigh) =
        ("[[flow.test.stage]]\nuse = \"paint\"\n", "[[flow.test.stage]]\nuse = \"weigh\"\ndurable = true\n");
    let flow = format!("{paint}{invert}{again}durable = true\n{weigh}");
    run(&flow, &[("test", 10), ("test--again", 1), ("test--weigh", 1)], 1, Lane::Interactive).await;
}
