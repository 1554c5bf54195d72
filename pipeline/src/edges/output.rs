//! The output of a stage: emit a child, forward, answer, report progress, or reject.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt;
use serde_json::Value;
use tokio::time::Instant;

use super::blocked_time::BlockedTime;
use super::{DurableEdge, Queue};
use crate::event::{Event, Response, Root};
use crate::fault::{Fault, Rejection};
use crate::names::{EventId, FlowName};
use crate::outcome::{Outcome, OutcomeKind};
use crate::payload::{Content, Payload};
use crate::transport::Transport;

/// Where a stage's output goes.
#[derive(Clone)]
pub enum Downstream {
    /// To the next stage.
    Queue(Arc<Queue>),
    /// To the flow's next part, through the broker.
    Edge(Arc<DurableEdge>),
    /// Nowhere: this is the last stage.
    End,
}

/// How long a progress report may take: a worker does not wait for a busy broker.
const PROGRESS_TIMEOUT: Duration = Duration::from_millis(250);

/// Publishes how far a request is.
#[derive(Clone)]
pub struct ProgressReporter {
    pub transport: Arc<dyn Transport>,
    /// The flow under whose name the results are published.
    pub flow: FlowName,
}

/// The output of one worker of a stage, used for one batch after another.
pub struct Output {
    stage: Arc<str>,
    /// `None` in tests of an operator alone.
    progress: Option<ProgressReporter>,
    downstream: Downstream,
    /// Children emitted in this attempt, by parent: the next child's ordinal.
    ordinals: HashMap<EventId, u32>,
    /// Events of this batch that were rejected or handed back.
    failed: HashSet<EventId>,
    /// Time of this batch spent waiting for room downstream.
    blocked: BlockedTime,
    /// When the batch was taken.
    begun: Instant,
}

impl Output {
    pub(crate) fn new(stage: Arc<str>, downstream: Downstream, progress: Option<ProgressReporter>) -> Self {
        Self {
            stage,
            progress,
            downstream,
            ordinals: HashMap::new(),
            failed: HashSet::new(),
            blocked: BlockedTime::default(),
            begun: Instant::now(),
        }
    }

    /// Hands `payload` to the next stage as a child of `parent`; waits for room. The child's id follows from the parent,
    /// the stage and how many children the parent had in this attempt, so that a repeat makes the same ids. Children of
    /// one stage reach the next in the order of the calls, except through a durable edge.
    ///
    /// # Errors
    /// If the flow is being stopped: return it, the events are redelivered.
    pub async fn emit(&mut self, parent: &Event, payload: Payload) -> Result<(), Fault> {
        let ordinal = self.ordinals.entry(parent.id.clone()).or_default();
        let child = parent.child(&self.stage, *ordinal, payload);
        *ordinal += 1;
        self.send(child).await
    }

    /// Hands the event itself to the next stage, for operators that inspect but do not change; waits for room.
    ///
    /// # Errors
    /// As [`emit`](Self::emit).
    pub async fn forward(&mut self, event: Event) -> Result<(), Fault> {
        self.send(event).await
    }

    /// Answers the requester; one answer an event. The answer becomes visible when every event of the root is settled.
    pub fn respond(&mut self, event: &Event, content: Content) {
        event.root.respond(Response { order: event.order, event: event.id.clone(), content });
    }

    /// Reports progress to the requester, for example `{"step": "converting"}`. Best effort: left out if the broker is slow
    /// or gone, or if an earlier attempt has reported the same step.
    pub async fn progress(&self, event: &Event, about: Value) {
        let (Some(progress), Some(request)) = (&self.progress, &event.envelope.request) else { return };
        let ordinal = event.root.next_ordinal.fetch_add(1, Ordering::Relaxed);
        let outcome = Outcome::new(OutcomeKind::Progress, ordinal, progress.flow.clone(), Content::json(&about));
        let publishing = progress.transport.publish_outcome(request, &outcome);
        if !matches!(tokio::time::timeout(PROGRESS_TIMEOUT, publishing).await, Ok(Ok(_))) {
            tracing::debug!(%request, "progress not reported");
        }
    }

    /// Rejects one event for good, with the reason the requester will read; its neighbours go on.
    pub fn reject(&mut self, event: &Event, why: Rejection) {
        self.failed.insert(event.id.clone());
        event.root.reject(&self.stage, why);
    }

    /// Begins a batch that was taken at `now`.
    pub(crate) fn begin_batch(&mut self, now: Instant) {
        self.begun = now;
    }

    /// Ends this stage's work on an event: records its time and settles it.
    pub(crate) fn finish(&self, event: &Event) {
        event.root.record_stage_time(&self.stage, self.begun);
        event.root.finish();
    }

    /// Returns the time spent waiting for room downstream since the last call.
    pub(crate) fn take_blocked(&mut self) -> Duration {
        self.blocked.take()
    }

    /// The clock of the time spent waiting for room downstream.
    pub(crate) fn blocked_time(&self) -> BlockedTime {
        self.blocked.clone()
    }

    /// Counts an event as failed that is handed back for another attempt.
    pub(crate) fn hand_back(&mut self, event: &Event) {
        self.failed.insert(event.id.clone());
    }

    /// Begins an attempt: children get the same ids as in every other attempt.
    pub(crate) fn begin_attempt(&mut self) {
        self.ordinals.clear();
    }

    /// Returns the number of events rejected or handed back since the last call.
    pub(crate) fn take_failed(&mut self) -> usize {
        std::mem::take(&mut self.failed).len()
    }

    async fn send(&mut self, event: Event) -> Result<(), Fault> {
        let queue = match &self.downstream {
            Downstream::Queue(queue) => queue,
            Downstream::Edge(edge) => {
                let _blocked = self.blocked.begin();
                return edge.send(&self.stage, event).await;
            }
            Downstream::End => return Ok(()),
        };
        // Added before the event is sent: the next stage may settle it before `send` returns.
        let pending = PendingChild::add(&event.root);
        // Polled once without a clock: most of the time there is room.
        let mut sending = std::pin::pin!(queue.send(event));
        let sent = match sending.as_mut().now_or_never() {
            Some(sent) => sent,
            None => {
                let _blocked = self.blocked.begin();
                sending.await
            }
        };
        match sent {
            Ok(()) => {
                pending.hand_over();
                Ok(())
            }
            Err(_) => Err(Fault::retry("the flow is stopping")),
        }
    }
}

/// One more event of a root in work, taken back when dropped: if sending fails or is cancelled midway, as by a stage's
/// timeout.
struct PendingChild(Option<Arc<Root>>);

impl PendingChild {
    fn add(root: &Arc<Root>) -> Self {
        root.add();
        Self(Some(Arc::clone(root)))
    }

    /// The next stage has the event and will settle it.
    fn hand_over(mut self) {
        self.0 = None;
    }
}

impl Drop for PendingChild {
    fn drop(&mut self) {
        if let Some(root) = &self.0 {
            root.finish();
        }
    }
}
