//! What a stage may do with an event: hand something on, answer, or reject.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::Instant;

use super::{Queue, Response};
use crate::event::Event;
use crate::fault::{Fault, Rejection};
use crate::names::EventId;
use crate::payload::{Content, Payload};

/// Where a stage's output goes.
#[derive(Clone)]
pub enum Sink {
    /// To the next stage.
    Queue(Arc<Queue>),
    /// Nowhere: this is the last stage.
    End,
}

/// The way out of a stage, for one batch.
pub struct Output {
    stage: Arc<str>,
    sink: Sink,
    ordinals: HashMap<EventId, u32>,
    rejected: Vec<EventId>,
    blocked: Duration,
}

impl Output {
    pub(crate) fn new(stage: Arc<str>, sink: Sink) -> Self {
        Self { stage, sink, ordinals: HashMap::new(), rejected: Vec::new(), blocked: Duration::ZERO }
    }

    /// Hands `payload` to the next stage as a child of `parent`; waits for room. The child's id follows from the parent,
    /// the stage and how many children the parent had in this batch, so that a repeat makes the same ids.
    ///
    /// # Errors
    /// If the flow is being stopped: return it, the events come again.
    pub async fn emit(&mut self, parent: &Event, payload: Payload) -> Result<(), Fault> {
        let ordinal = self.ordinals.entry(parent.id.clone()).or_default();
        let child = parent.child(&self.stage, *ordinal, payload);
        *ordinal += 1;
        self.push(child).await
    }

    /// Hands the event itself to the next stage, for operators that look but do not change.
    ///
    /// # Errors
    /// As [`emit`](Self::emit).
    pub async fn forward(&mut self, event: Event) -> Result<(), Fault> {
        self.push(event).await
    }

    /// Answers the requester. The answer becomes visible when every event of the root is settled.
    pub fn respond(&mut self, event: &Event, content: Content) {
        event.root.respond(Response { order: event.order, event: event.id.clone(), content });
    }

    /// Gives up one event for good, with the reason the requester will read; its neighbours go on.
    pub fn reject(&mut self, event: &Event, why: Rejection) {
        self.rejected.push(event.id.clone());
        event.root.reject(&self.stage, why);
    }

    /// Time spent waiting for room downstream since the last call.
    pub(crate) fn take_blocked(&mut self) -> Duration {
        std::mem::take(&mut self.blocked)
    }

    /// Number of events rejected since the last call, and readiness for the next batch.
    pub(crate) fn next_batch(&mut self) -> usize {
        self.ordinals.clear();
        std::mem::take(&mut self.rejected).len()
    }

    async fn push(&mut self, event: Event) -> Result<(), Fault> {
        let Sink::Queue(queue) = &self.sink else { return Ok(()) };
        let root = Arc::clone(&event.root);
        root.add();
        // Polled once without a clock: most of the time there is room.
        let mut pushing = std::pin::pin!(queue.offer(event));
        let pushed = match pushing.as_mut().now_or_never() {
            Some(pushed) => pushed,
            None => {
                let begun = Instant::now();
                let pushed = pushing.await;
                self.blocked += begun.elapsed();
                pushed
            }
        };
        pushed.map_err(|_| {
            root.finish();
            Fault::retry("the flow is stopping")
        })
    }
}
