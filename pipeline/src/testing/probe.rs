//! Runs one operator on one batch and returns what it did.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;

use crate::edges::{BatchLimits, Downstream, Output, Overflow, Queue, QueueLimits};
use crate::envelope::{Envelope, Params};
use crate::event::{Cancellations, Event, Place};
use crate::fault::{Fault, Rejection};
use crate::names::Token;
use crate::operator::Operator;
use crate::payload::{Content, Payload};
use crate::transport::{Acknowledge, Delivery, Settlement};

/// Room for whatever one batch of a test emits.
const ROOM: usize = 4096;

/// The result of running an operator on a batch; events are named by their position in it.
#[derive(Debug)]
pub struct ProbeResult {
    /// Payloads handed to the next stage, in order, with the parent's position.
    pub emitted: Vec<(usize, Payload)>,
    /// Rejections.
    pub rejected: Vec<(usize, Rejection)>,
    /// Answers.
    pub responded: Vec<(usize, Content)>,
    /// The fault of the whole batch.
    pub fault: Option<Fault>,
}

/// The handle of a delivery that no broker made.
struct NoBroker;

#[async_trait]
impl Acknowledge for NoBroker {
    async fn settle(self: Box<Self>, _: Settlement) -> bool {
        true
    }
}

/// Runs `operator` on one event for each payload, with the same parameters.
pub async fn run(operator: &mut dyn Operator, params: Params, payloads: Vec<Payload>) -> ProbeResult {
    run_events(operator, payloads.into_iter().map(|payload| (params.clone(), payload)).collect()).await
}

/// Runs `operator` on one batch of events with the given parameters and payloads. Each event is a root of its own.
///
/// # Panics
/// Never: the names it makes are valid tokens.
pub async fn run_events(operator: &mut dyn Operator, events: Vec<(Params, Payload)>) -> ProbeResult {
    let (settler, _finished) = mpsc::channel(ROOM);
    let limits = QueueLimits { events: ROOM, bytes: usize::MAX >> 8, overflow: Overflow::Block };
    let queue = Arc::new(Queue::new("next".into(), limits, 1));
    let cancellations = Cancellations::default();
    let flow = Token::new("test").expect("a constant");
    let begin = |(index, (params, payload)): (usize, (Params, Payload))| {
        let id = Token::new(&format!("event-{index}")).expect("a constant and a number");
        let envelope = Envelope { params, request: Some(id.clone()), ..Envelope::new(flow.clone(), id) };
        let delivery = Delivery { envelope, payload, ack: Box::new(NoBroker) };
        let event = Event::begin(delivery, Place::default(), settler.clone(), &cancellations);
        // One more in work, so that nothing is settled while the test looks.
        event.root.add();
        event
    };
    let batch: Vec<Event> = events.into_iter().enumerate().map(begin).collect();
    let mut out = Output::new("test".into(), Downstream::Queue(Arc::clone(&queue)), None);
    let fault = operator.process(batch.clone(), &mut out).await.err();

    let position = |event: &Event| batch.iter().position(|parent| Arc::ptr_eq(&parent.root, &event.root));
    let mut emitted = Vec::new();
    let limits = BatchLimits { events: ROOM, bulk_events: ROOM, linger: Duration::ZERO };
    queue.close();
    while let Some(mut output) = queue.recv(limits).await {
        let events = std::mem::take(&mut output.events).into_iter();
        emitted.extend(events.filter_map(|event| Some((position(&event)?, event.payload))));
    }
    let mut rejected = Vec::new();
    let mut responded = Vec::new();
    for (index, event) in batch.iter().enumerate() {
        let Some(unsettled) = event.root.take_unsettled() else { continue };
        rejected.extend(unsettled.verdict.rejection.map(|(_, why)| (index, why)));
        responded.extend(unsettled.verdict.responses.into_iter().map(|response| (index, response.content)));
    }
    ProbeResult { emitted, rejected, responded, fault }
}
