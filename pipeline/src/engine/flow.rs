//! A flow: built with its operators and sources, then started as source readers, workers and a settler, then drained.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::flow_metrics::FlowStats;
use super::flow_shared::FlowShared;
use super::in_flight_limit::InFlightLimit;
use super::settler;
use super::source_reader::SourceReader;
use super::stage::{Stage, connect};
use super::tasks::Tasks;
use super::worker::Worker;
use crate::edges::{Downstream, DurableEdge};
use crate::envelope::Lane;
use crate::fault::BoxError;
use crate::registry::Services;
use crate::spec::FlowSpec;
use crate::transport::{Source, SourceBounds, Transport};

/// Deliveries after which the broker stops delivering: a safety limit under the engine's own counts.
const MAX_DELIVERIES: u32 = 10_000;

/// How long the withdrawal of a note may take after the deadline of a drain.
const WITHDRAWAL_TIMEOUT: Duration = Duration::from_secs(1);

/// A flow that was built and not started.
pub struct Flow {
    pub(super) shared: Arc<FlowShared>,
    stages: Vec<Arc<Stage>>,
    workers: Vec<Worker>,
    sources: Vec<(Lane, Box<dyn Source>)>,
    in_flight: usize,
    pub(super) transport: Arc<dyn Transport>,
}

/// Signals from the engine to every source reader.
#[derive(Clone, Default)]
pub struct Signals {
    /// Cancelled when the drain begins.
    pub stop: CancellationToken,
    /// Cancelled once the ledger has been read.
    pub ledger_read: CancellationToken,
}

impl Flow {
    /// Builds every operator and opens the sources; starts nothing.
    ///
    /// # Errors
    /// If an operator cannot be built, the broker refuses a source, or the flow has `webhooks` and there is no completion hook.
    pub async fn build(
        spec: FlowSpec,
        services: &Arc<Services>,
        transport: Arc<dyn Transport>,
    ) -> Result<Self, BoxError> {
        let in_flight = spec.in_flight();
        let bounds = source_bounds(&spec);
        let shared = Arc::new(FlowShared::new(&spec, services)?);
        let next =
            spec.next.clone().map(|next| DurableEdge::new(Arc::clone(&transport), next, Arc::clone(&shared.storage)));
        let end = next.map_or(Downstream::End, |edge| Downstream::Edge(Arc::new(edge)));
        let stages = connect(spec, end, services);
        let mut workers = Vec::new();
        for stage in &stages {
            for _ in 0..stage.workers {
                let operator = (stage.build)()?;
                let (stage, flow, transport) = (Arc::clone(stage), Arc::clone(&shared), Arc::clone(&transport));
                workers.push(Worker { stage, flow, transport, operator });
            }
        }
        let mut sources = Vec::new();
        for lane in Lane::ALL {
            sources.push((lane, transport.source(&shared.name, lane, bounds).await?));
        }
        Ok(Self { shared, stages, workers, sources, in_flight, transport })
    }

    /// Starts the settler and the workers as `tasks`, and the source readers, which end at `signals.stop`.
    pub(super) fn start(self, signals: &Signals, tasks: &mut Tasks) -> RunningFlow {
        let name = self.shared.name.clone();
        // Room for every event that can be in flight: `Root::finish` relies on it.
        let (settler, finished) = mpsc::channel(self.in_flight);
        let settling = settler::run(Arc::clone(&self.shared), Arc::clone(&self.transport), finished);
        tasks.spawn(format!("{name}/settle"), settling.map(Ok));
        for worker in self.workers {
            let label = format!("{name}/{}", worker.stage.name);
            let running = worker.stage.running.clone();
            tasks.spawn(label, running.track_future(worker.run()));
        }
        let limit = InFlightLimit::new(self.in_flight);
        let mut readers = JoinSet::new();
        for (lane, source) in self.sources {
            let reader = SourceReader {
                ledger_read: signals.ledger_read.clone(),
                lane,
                source,
                limit: limit.clone(),
                queue: Arc::clone(&self.stages[0].queue),
                flow: Arc::clone(&self.shared),
                transport: Arc::clone(&self.transport),
                settler: settler.clone(),
                stop: signals.stop.clone(),
            };
            readers.spawn(reader.run());
        }
        let stop_waiting = self.shared.storage.stop_on_drop();
        let view = FlowView { shared: self.shared, stages: self.stages };
        RunningFlow { view, readers, transport: self.transport, _stop_waiting: stop_waiting }
    }
}

fn source_bounds(spec: &FlowSpec) -> SourceBounds {
    SourceBounds {
        events: spec.in_flight(),
        bytes: spec.delivery_bytes.as_usize(),
        ordered: spec.order_by().is_some(),
        ack_wait: Duration::from_millis(spec.settings.ack_wait_ms),
        max_deliver: MAX_DELIVERIES,
    }
}

/// A flow that runs.
pub struct RunningFlow {
    pub view: FlowView,
    /// They hold the only senders to the settler beside the roots: when both are gone, the settler ends.
    readers: JoinSet<()>,
    transport: Arc<dyn Transport>,
    /// Dropped, no write waits until it is stored any longer.
    _stop_waiting: DropGuard,
}

impl RunningFlow {
    /// Lets every stage finish, in order of the flow. The source readers must have been told to stop.
    pub async fn drain(&mut self) {
        // First the readers: they alone send to the first stage. Then each stage, which alone sends to the next.
        while self.readers.join_next().await.is_some() {}
        for stage in &self.view.stages {
            stage.drain().await;
        }
    }

    /// Withdraws the note about a suspect that is not done: this process stops, it does not die.
    pub async fn withdraw_note(&self) {
        let withdrawn = self.view.shared.withdraw_note(&*self.transport);
        if !matches!(tokio::time::timeout(WITHDRAWAL_TIMEOUT, withdrawn).await, Ok(Ok(()))) {
            tracing::warn!(flow = %self.view.shared.name, "the note about a suspect was not withdrawn");
        }
    }

    /// The stages that have events, and the settler if events wait to be stored.
    pub fn busy(&self) -> impl Iterator<Item = Busy> + '_ {
        let stages = self.view.stages.iter().map(|stage| (&*stage.name, stage.events()));
        let storing = ("settle", self.view.shared.storage.waiting() as u64);
        stages.chain([storing]).filter(|(_, events)| *events > 0).map(|(stage, events)| {
            let stage = format!("{}/{stage}", self.view.shared.name);
            Busy { stage, events }
        })
    }
}

/// A stage that still had work when the deadline of a drain passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Busy {
    /// `flow/stage`.
    pub stage: String,
    /// Events waiting or in work; they are redelivered.
    pub events: u64,
}

/// A flow and its stages, for reading their metrics.
#[derive(Clone)]
pub struct FlowView {
    pub shared: Arc<FlowShared>,
    /// In order of the flow.
    pub stages: Vec<Arc<Stage>>,
}

impl FlowView {
    /// The metrics now.
    pub fn stats(&self) -> FlowStats {
        let stages = self.stages.iter().map(|stage| stage.stats()).collect();
        self.shared.stats(stages)
    }
}
