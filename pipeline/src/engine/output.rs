//! What a stage may do with an event: hand something on, answer, or reject.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt;
use serde_json::Value;
use tokio::time::Instant;

use super::edge::Edge;
use super::{Queue, Response, Root};
use crate::event::Event;
use crate::fault::{Fault, Rejection};
use crate::names::{EventId, FlowName};
use crate::outcome::{Outcome, OutcomeKind};
use crate::payload::{Content, Payload};
use crate::transport::Transport;

/// Where a stage's output goes.
#[derive(Clone)]
pub enum Sink {
    /// To the next stage.
    Queue(Arc<Queue>),
    /// To the flow's next part, through the broker.
    Edge(Arc<Edge>),
    /// Nowhere: this is the last stage.
    End,
}

/// How long a word about progress may take: whoever works does not wait for a broker that is busy.
const TELLING: Duration = Duration::from_millis(250);

/// Tells requesters how far their request is.
#[derive(Clone)]
pub struct Teller {
    pub transport: Arc<dyn Transport>,
    /// Whose results these are.
    pub flow: FlowName,
}

/// The way out of a stage, for one batch.
pub struct Output {
    stage: Arc<str>,
    /// `None` where nobody could hear.
    teller: Option<Teller>,
    sink: Sink,
    ordinals: HashMap<EventId, u32>,
    failed: HashSet<EventId>,
    blocked: Duration,
    /// When the batch was taken.
    begun: Instant,
}

impl Output {
    pub(crate) fn new(stage: Arc<str>, sink: Sink, teller: Option<Teller>) -> Self {
        let begun = Instant::now();
        Self { stage, teller, sink, ordinals: HashMap::new(), failed: HashSet::new(), blocked: Duration::ZERO, begun }
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

    /// Tells the requester how far the request is, for example `{"step": "converting"}`. Best effort: where the broker is
    /// slow or gone, or a repeat has told it before, it is left out.
    pub async fn progress(&self, event: &Event, about: Value) {
        let (Some(teller), Some(request)) = (&self.teller, &event.envelope.request) else { return };
        let ordinal = event.root.next_ordinal.fetch_add(1, Ordering::Relaxed);
        let outcome = Outcome::new(OutcomeKind::Progress, ordinal, teller.flow.clone(), Content::json(&about));
        let told = tokio::time::timeout(TELLING, teller.transport.publish_outcome(request, &outcome)).await;
        if !matches!(told, Ok(Ok(_))) {
            tracing::debug!(%request, "progress not told");
        }
    }

    /// Gives up one event for good, with the reason the requester will read; its neighbours go on.
    pub fn reject(&mut self, event: &Event, why: Rejection) {
        self.failed.insert(event.id.clone());
        event.root.reject(&self.stage, why);
    }

    /// Begins a batch.
    pub(crate) fn begin_batch(&mut self, now: Instant) {
        self.begun = now;
    }

    /// The stage is done with an event.
    pub(crate) fn finish(&self, event: &Event) {
        event.root.note_worked(&self.stage, self.begun);
        event.root.finish();
    }

    /// Time spent waiting for room downstream since the last call.
    pub(crate) fn take_blocked(&mut self) -> Duration {
        std::mem::take(&mut self.blocked)
    }

    /// Notes that an event is handed back.
    pub(crate) fn hand_back(&mut self, event: &Event) {
        self.failed.insert(event.id.clone());
    }

    /// Begins an attempt: children get the ids they would have had in any other.
    pub(crate) fn begin_attempt(&mut self) {
        self.ordinals.clear();
    }

    /// Number of events rejected or handed back since the last call.
    pub(crate) fn take_failed(&mut self) -> usize {
        std::mem::take(&mut self.failed).len()
    }

    async fn push(&mut self, event: Event) -> Result<(), Fault> {
        let queue = match &self.sink {
            Sink::Queue(queue) => queue,
            Sink::Edge(edge) => return edge.send(&self.stage, event).await,
            Sink::End => return Ok(()),
        };
        // Taken back if the push fails or is given up half-way, as by a stage's timeout.
        let pending = Pending::add(&event.root);
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
        match pushed {
            Ok(()) => {
                pending.keep();
                Ok(())
            }
            Err(_) => Err(Fault::retry("the flow is stopping")),
        }
    }
}

/// One more event of a root in work, for as long as it is not clear that the event was taken over.
struct Pending(Option<Arc<Root>>);

impl Pending {
    fn add(root: &Arc<Root>) -> Self {
        root.add();
        Self(Some(Arc::clone(root)))
    }

    /// The event was taken over: whoever has it settles it.
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(root) = &self.0 {
            root.finish();
        }
    }
}
