//! The state that all tasks of a flow share.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use metrics::Histogram;
use tokio_util::sync::CancellationToken;

use super::fault_counts::FaultCounts;
use super::flow_metrics::{FlowMetrics, FlowStats, StageStats};
use super::suspects;
use crate::completion::CompletionHook;
use crate::event::{Cancellations, Root};
use crate::fault::BoxError;
use crate::incarnation::Incarnation;
use crate::ledger::Ledger;
use crate::names::{EventId, FlowName};
use crate::registry::Services;
use crate::spec::{FlowSpec, RetrySpec};
use crate::storage_outage::StorageOutage;
use crate::trace::Spans;
use crate::transport::{Settlement, Transport, TransportError};

/// The flow that gets the follow-ups of requests, and what makes them.
pub type FollowUps = (FlowName, Arc<dyn CompletionHook>);

/// Shared by the tasks of one flow, or of one part of a flow.
pub struct FlowShared {
    pub name: FlowName,
    /// The flow under whose name results are published: its own, or for a later part that of the whole flow.
    pub answers_for: FlowName,
    /// Whether requesters wait for answers. If not, a failure is told by its dead letter.
    pub is_awaited: bool,
    /// Events that have ended, of all flows.
    pub ledger: Arc<Ledger>,
    pub about: String,
    pub open: bool,
    /// `None` if the flow has none.
    pub follow_ups: Option<FollowUps>,
    pub retry: RetrySpec,
    pub metrics: FlowMetrics,
    /// Cancelled when the drain begins: whoever waits for a dependency hands its events back.
    pub draining: CancellationToken,
    /// Writes that wait until they are stored.
    pub storage: Arc<StorageOutage>,
    /// The suspect that is processed alone, whose note names this process.
    pub suspect: Mutex<Option<EventId>>,
    /// This process, as the notes about suspects name it.
    pub incarnation: Arc<Incarnation>,
    /// Faults of the events that will be redelivered.
    pub faults: FaultCounts,
    /// Cancelled requests, of all flows.
    pub cancellations: Arc<Cancellations>,
    /// Receives the spans of settled events; `None` if nothing is traced.
    pub spans: Option<Arc<dyn Spans>>,
    /// Panics caught.
    pub panics: AtomicU64,
    /// From delivery to settlement, in seconds.
    pub duration: Histogram,
}

fn follow_ups(spec: &FlowSpec, services: &Services) -> Result<Option<FollowUps>, BoxError> {
    let Some(to) = &spec.settings.follow_ups else { return Ok(None) };
    let hook =
        services.process.completion_hook.clone().ok_or("the flow has webhooks, and nothing makes their events")?;
    Ok(Some((to.clone(), hook)))
}

impl FlowShared {
    /// The state of a flow that has not begun.
    ///
    /// # Errors
    /// If the flow has follow-ups and nothing makes them.
    pub fn new(spec: &FlowSpec, services: &Services) -> Result<Self, BoxError> {
        let process = &services.process;
        Ok(Self {
            name: spec.name.clone(),
            answers_for: spec.whole.clone(),
            is_awaited: spec.is_awaited,
            ledger: Arc::clone(&process.ledger),
            about: spec.settings.about.clone(),
            open: spec.settings.open,
            follow_ups: follow_ups(spec, services)?,
            retry: spec.settings.retry.clone(),
            metrics: FlowMetrics::default(),
            draining: CancellationToken::new(),
            storage: Arc::new(StorageOutage::new(spec.name.clone())),
            suspect: Mutex::default(),
            incarnation: Arc::clone(&process.incarnation),
            faults: FaultCounts::default(),
            cancellations: Arc::clone(&process.cancellations),
            spans: process.spans.clone(),
            panics: AtomicU64::new(0),
            duration: metrics::histogram!("caudal_event_duration_seconds", "flow" => spec.name.to_string()),
        })
    }

    /// Counts the end of a root; returns whether it is now a dead letter.
    pub fn count(&self, settlement: &Settlement, root: &Root) -> bool {
        if let Some(request) = &root.envelope.request {
            self.cancellations.end(request);
        }
        if !matches!(settlement, Settlement::Retry(..)) {
            self.faults.forget(&root.envelope.id);
        }
        let failed = root.failed.load(Ordering::Relaxed);
        let counter = match settlement {
            Settlement::Retry(..) => &self.metrics.retried,
            _ if failed => &self.metrics.failed,
            Settlement::Done | Settlement::DoneConfirmed => &self.metrics.done,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        self.metrics.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.duration.record(root.begun.elapsed().as_secs_f64());
        root.dead.load(Ordering::Relaxed)
    }

    /// Remembers a suspect that is begun alone.
    pub fn begin_suspect(&self, event: &EventId) {
        *self.suspect.lock().unwrap_or_else(PoisonError::into_inner) = Some(event.clone());
    }

    /// Withdraws the note about the suspect that this process has begun, if there is one.
    ///
    /// # Errors
    /// If the broker did not confirm it.
    pub async fn withdraw_note(&self, transport: &dyn Transport) -> Result<(), TransportError> {
        let begun = self.suspect.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(event) = begun else { return Ok(()) };
        suspects::withdraw(transport, &self.incarnation, &event).await?;
        *self.suspect.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(())
    }

    /// The metrics now, with those of its stages.
    pub fn stats(&self, stages: Vec<StageStats>) -> FlowStats {
        let now = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        FlowStats {
            name: self.name.to_string(),
            about: self.about.clone(),
            open: self.open,
            delivered: now(&self.metrics.delivered),
            done: now(&self.metrics.done),
            failed: now(&self.metrics.failed),
            retried: now(&self.metrics.retried),
            refused: now(&self.metrics.refused),
            repeated: now(&self.metrics.repeated),
            in_flight: now(&self.metrics.in_flight),
            waits_for_storage: self.storage.waiting(),
            stages,
        }
    }
}
