//! Runs one operator on one batch and returns what it emitted, rejected and answered.

use std::num::NonZeroUsize;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::mpsc;

use crate::engine::{Cancellations, Output, Place, Queue, Root, Sink};
use crate::event::{Envelope, Event, Params};
use crate::fault::{Fault, Rejection};
use crate::names::Token;
use crate::operator::{Batching, Operator};
use crate::payload::{Content, Payload};
use crate::spec::{ByteSize, QueueSpec};
use crate::transport::{Acknowledge, Delivery, Settlement};

/// Capacity for what one batch of a test emits.
const ROOM: usize = 4096;

/// What an operator did with a batch; events are named by their position in it.
#[derive(Debug)]
pub struct Ran {
    /// Payloads that were emitted, in order, with the position of the parent.
    pub emitted: Vec<(usize, Payload)>,
    /// Events that were rejected.
    pub rejected: Vec<(usize, Rejection)>,
    /// Answers to requesters.
    pub responded: Vec<(usize, Content)>,
    /// The fault of the whole batch, if it failed.
    pub fault: Option<Fault>,
}

struct Nobody;

#[async_trait]
impl Acknowledge for Nobody {
    async fn settle(self: Box<Self>, _: Settlement) -> bool {
        true
    }
}

/// Runs `operator` on one event for each payload, with the same parameters.
pub async fn run(operator: &mut dyn Operator, params: Params, payloads: Vec<Payload>) -> Ran {
    run_events(operator, payloads.into_iter().map(|payload| (params.clone(), payload)).collect()).await
}

/// Runs `operator` on one batch of events with the given parameters and payloads. Each event is its own root.
///
/// # Panics
/// If the constant names of the test were not tokens.
pub async fn run_events(operator: &mut dyn Operator, events: Vec<(Params, Payload)>) -> Ran {
    let (settler, _finished) = mpsc::channel(ROOM);
    let room = NonZeroUsize::new(ROOM).expect("a constant");
    let spec = QueueSpec { events: room, bytes: Some(ByteSize(u64::MAX >> 8)), ..QueueSpec::default() };
    let queue = Arc::new(Queue::new("next".into(), &spec, 1));
    let cancellations = Cancellations::default();
    let flow = Token::new("test").expect("a constant");
    let begin = |(index, (params, payload)): (usize, (Params, Payload))| {
        let id = Token::new(&format!("event-{index}")).expect("a constant and a number");
        let envelope = Envelope { params, request: Some(id.clone()), ..Envelope::new(flow.clone(), id) };
        let event = Root::begin(
            Delivery { envelope, payload, ack: Box::new(Nobody) },
            Place::default(),
            settler.clone(),
            &cancellations,
        );
        // One more in work, so that nothing is settled while the test looks.
        event.root.add();
        event
    };
    let batch: Vec<Event> = events.into_iter().enumerate().map(begin).collect();
    let mut out = Output::new("test".into(), Sink::Queue(Arc::clone(&queue)), None);
    let fault = operator.process(batch.clone(), &mut out).await.err();

    let position = |event: &Event| batch.iter().position(|parent| Arc::ptr_eq(&parent.root, &event.root));
    let mut emitted = Vec::new();
    while queue.len() > 0 {
        let Some(mut taken) = queue.pop(Batching::greedy(ROOM), ROOM).await else { break };
        emitted.extend(
            std::mem::take(&mut taken.events).into_iter().filter_map(|event| Some((position(&event)?, event.payload))),
        );
    }
    let mut rejected = Vec::new();
    let mut responded = Vec::new();
    for (index, event) in batch.iter().enumerate() {
        let Some(settling) = event.root.take_settling() else { continue };
        rejected.extend(settling.verdict.rejection.map(|(_, why)| (index, why)));
        responded.extend(settling.verdict.responses.into_iter().map(|response| (index, response.content)));
    }
    Ran { emitted, rejected, responded, fault }
}
