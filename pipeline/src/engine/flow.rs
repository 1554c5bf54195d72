//! A flow at work: its sources, stages and settler, from build to drain.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use metrics::Histogram;
use tokio::sync::mpsc;
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::edge::Edge;
use super::faults::Faults;
use super::feed::{Feed, Permits};
use super::image_admission::ImageAdmission;
use super::meter::{FlowFigures, FlowMeter, StageFigures, StageLabel, StageMeter};
use super::outage::Outage;
use super::stage::{Build, Stage, Worker};
use super::{Cancellations, Queue, Root, Sink, bookkeeper, settle};
use crate::completion::CompletionHook;
use crate::event::Lane;
use crate::fault::BoxError;
use crate::ledger::Ledger;
use crate::names::FlowName;
use crate::registry::Services;
use crate::spec::{FlowSpec, RetrySpec};
use crate::trace::Spans;
use crate::transport::{Settlement, Source, SourceBounds, Transport};

/// The flow that gets follow-ups, and what makes them.
type FollowUps = (FlowName, Arc<dyn CompletionHook>);

/// What every task of a flow needs.
pub struct FlowShared {
    pub name: FlowName,
    /// Whose results it makes: its own name, or for a later part of a flow the flow's.
    pub answers_for: FlowName,
    /// Events that have ended, of all flows.
    pub ledger: Arc<Ledger>,
    pub about: String,
    pub open: bool,
    /// Where follow-ups of requests go, and what makes them.
    pub follow_ups: Option<FollowUps>,
    pub retry: RetrySpec,
    pub meter: FlowMeter,
    /// Faults of the events that will come again.
    pub faults: Faults,
    /// Requests that were given up.
    pub cancellations: Arc<Cancellations>,
    /// Takes the spans of what was settled; `None` where nobody traces.
    pub spans: Option<Arc<dyn Spans>>,
    /// Panics caught.
    pub panics: AtomicU64,
    /// From delivery to settlement, in seconds.
    pub duration: Histogram,
}

impl FlowShared {
    /// Counts the end of a root; whether it is now a dead letter.
    pub fn count(&self, settlement: &Settlement, root: &Root) -> bool {
        if let Some(request) = &root.envelope.request {
            self.cancellations.end(request);
        }
        if !matches!(settlement, Settlement::Retry(..)) {
            self.faults.forget(&root.envelope.id);
        }
        let failed = root.failed.load(Ordering::Relaxed);
        let counter = match settlement {
            Settlement::Retry(..) => &self.meter.retried,
            _ if failed => &self.meter.failed,
            Settlement::Done | Settlement::DoneForSure => &self.meter.done,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        self.meter.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.duration.record(root.begun.elapsed().as_secs_f64());
        root.dead.load(Ordering::Relaxed)
    }
}

/// Deliveries after which the broker's side gives up, whatever the engine thinks.
const NET_DELIVERIES: u32 = 10_000;

/// A flow that was built and not started.
pub struct Flow {
    shared: Arc<FlowShared>,
    stages: Vec<Arc<Stage>>,
    workers: Vec<Worker>,
    sources: Vec<(Lane, Box<dyn Source>)>,
    in_flight: usize,
    transport: Arc<dyn Transport>,
}

impl Flow {
    /// Builds every operator and opens the pulls; starts nothing.
    ///
    /// # Errors
    /// If an operator cannot be built or the broker refuses the pull.
    pub async fn build(
        spec: FlowSpec,
        services: &Arc<Services>,
        transport: Arc<dyn Transport>,
    ) -> Result<Self, BoxError> {
        let in_flight = spec.in_flight();
        let bounds = SourceBounds {
            events: in_flight,
            bytes: spec.delivery_bytes.as_usize(),
            ordered: spec.order_by().is_some(),
            ack_wait: Duration::from_millis(spec.settings.ack_wait_ms),
            // The engine counts faults itself and works on suspects alone; this is a net under both.
            max_deliver: NET_DELIVERIES,
        };
        let shared = Arc::new(FlowShared {
            name: spec.name.clone(),
            answers_for: spec.whole.clone(),
            ledger: Arc::clone(&services.process.ledger),
            about: spec.settings.about.clone(),
            open: spec.settings.open,
            follow_ups: follow_ups(&spec, services)?,
            retry: spec.settings.retry.clone(),
            meter: FlowMeter::default(),
            cancellations: Arc::clone(&services.process.cancellations),
            faults: Faults::default(),
            spans: services.process.spans.clone(),
            panics: AtomicU64::new(0),
            duration: metrics::histogram!("caudal_event_duration_seconds", "flow" => spec.name.to_string()),
        });
        let next = spec.next.clone().map(|next| Edge::new(Arc::clone(&transport), next));
        let stages = connect(spec, next.map_or(Sink::End, |edge| Sink::Edge(Arc::new(edge))), services);
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

    fn start(self, signals: &Signals, tasks: &mut JoinSet<Ended>, names: &mut HashMap<Id, String>) -> Live {
        let name = self.shared.name.clone();
        let (settler, finished) = mpsc::channel(self.in_flight);
        let settling = settle::run(Arc::clone(&self.shared), Arc::clone(&self.transport), finished);
        let handle = tasks.spawn(async move {
            settling.await;
            Ok(())
        });
        names.insert(handle.id(), format!("{name}/settle"));
        for worker in self.workers {
            let label = format!("{name}/{}", worker.stage.name);
            let at_work = worker.stage.at_work.clone();
            names.insert(tasks.spawn(at_work.track_future(worker.run())).id(), label);
        }
        let permits = Permits::new(self.in_flight);
        let mut feeding = JoinSet::new();
        for (lane, source) in self.sources {
            let feed = Feed {
                lane,
                source,
                permits: permits.clone(),
                queue: Arc::clone(&self.stages[0].queue),
                flow: Arc::clone(&self.shared),
                transport: Arc::clone(&self.transport),
                settler: settler.clone(),
                stop: signals.stop.clone(),
                ledger_read: signals.ledger_read.clone(),
            };
            feeding.spawn(feed.run());
        }
        Live { shared: self.shared, stages: self.stages, feeding }
    }
}

/// The flow that gets the follow-ups of this one, with what makes them.
fn follow_ups(spec: &FlowSpec, services: &Services) -> Result<Option<FollowUps>, BoxError> {
    let Some(to) = &spec.settings.follow_ups else { return Ok(None) };
    let hook =
        services.process.completion_hook.clone().ok_or("the flow has webhooks, and nothing makes their events")?;
    Ok(Some((to.clone(), hook)))
}

/// Makes the stages, each with its queue, linked to the next; the last one to `end`.
fn connect(spec: FlowSpec, end: Sink, services: &Arc<Services>) -> Vec<Arc<Stage>> {
    let flow_name = spec.name.clone();
    let mut stages = Vec::with_capacity(spec.stages.len());
    let mut sink = end;
    for declared in spec.stages.into_iter().rev() {
        let settings = &declared.settings;
        let queue = Arc::new(Queue::new(declared.name.as_str().into(), &settings.queue, settings.workers.get()));
        let batching = declared.batching();
        let images = ImageAdmission::new(services.process.pixels.clone());
        let (services, operator) = (Arc::clone(services), declared.operator);
        let build: Build = Arc::new(move || operator.build(&services));
        let stage = Stage {
            meter: StageMeter::new(&flow_name, &declared.name),
            name: declared.name.into(),
            kind: declared.kind,
            workers: declared.settings.workers.get(),
            batching,
            timeout: Duration::from_millis(declared.settings.timeout_ms),
            queue: Arc::clone(&queue),
            sink,
            outage: Outage::default(),
            images,
            at_work: TaskTracker::new(),
            build,
        };
        sink = Sink::Queue(queue);
        stages.push(Arc::new(stage));
    }
    stages.reverse();
    stages
}

/// Pause before cancellations are listened to again after the broker refused.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);

/// Passes on which requests are given up, until the process stops.
async fn listen(transport: Arc<dyn Transport>, cancellations: Arc<Cancellations>, stop: CancellationToken) -> Ended {
    let listening = async {
        loop {
            match transport.cancellations().await {
                Ok(mut given_up) => {
                    while let Some(request) = given_up.recv().await {
                        cancellations.cancel(request);
                    }
                }
                Err(error) => tracing::warn!(%error, "cancellations are not heard, cancelled work may be done in vain"),
            }
            tokio::time::sleep(LISTEN_AGAIN).await;
        }
    };
    // Nothing is held across these awaits: a word that is lost costs work done in vain.
    tokio::select! {
        () = listening => Ok(()),
        () = stop.cancelled() => Ok(()),
    }
}

type Ended = Result<(), BoxError>;

/// What every source listens to.
#[derive(Clone, Default)]
struct Signals {
    stop: CancellationToken,
    /// Cancelled once the ledger has been read.
    ledger_read: CancellationToken,
}

struct Live {
    shared: Arc<FlowShared>,
    stages: Vec<Arc<Stage>>,
    feeding: JoinSet<()>,
}

impl Live {
    /// Lets every stage finish what it has, in order of the flow.
    async fn drain(&mut self) {
        while self.feeding.join_next().await.is_some() {}
        for stage in &self.stages {
            stage.queue.close();
            stage.at_work.close();
            stage.at_work.wait().await;
        }
    }

    fn busy(&self) -> impl Iterator<Item = Busy> + '_ {
        self.stages.iter().filter_map(|stage| {
            let events = stage.queue.len() as u64 + stage.meter.in_flight();
            let stage = format!("{}/{}", self.shared.name, stage.name);
            (events > 0).then_some(Busy { stage, events })
        })
    }
}

/// A stage that still had work when the deadline of a drain passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Busy {
    /// `flow/stage`.
    pub stage: String,
    /// Events waiting or in work; they come again.
    pub events: u64,
}

/// A flow and its stages, for whoever reads their figures.
type Watched = (Arc<FlowShared>, Vec<Arc<Stage>>);

/// Reads the live figures of a running engine; cheap to clone.
#[derive(Clone, Default)]
pub struct Engine {
    flows: Arc<Vec<Watched>>,
}

impl Engine {
    /// The figures of every flow now, in order of the config.
    #[must_use]
    pub fn figures(&self) -> Vec<FlowFigures> {
        self.flows.iter().map(|(flow, stages)| figures(flow, stages)).collect()
    }
}

fn figures(flow: &FlowShared, stages: &[Arc<Stage>]) -> FlowFigures {
    let stage_figures = |stage: &Arc<Stage>| {
        let label = StageLabel { name: Arc::clone(&stage.name), kind: stage.kind, workers: stage.workers };
        StageFigures { waits: stage.outage.lasts(), ..stage.meter.figures(&label, &stage.queue) }
    };
    FlowFigures {
        name: flow.name.to_string(),
        about: flow.about.clone(),
        open: flow.open,
        delivered: flow.meter.delivered.load(Ordering::Relaxed),
        done: flow.meter.done.load(Ordering::Relaxed),
        failed: flow.meter.failed.load(Ordering::Relaxed),
        retried: flow.meter.retried.load(Ordering::Relaxed),
        refused: flow.meter.refused.load(Ordering::Relaxed),
        repeated: flow.meter.repeated.load(Ordering::Relaxed),
        in_flight: flow.meter.in_flight.load(Ordering::Relaxed),
        stages: stages.iter().map(stage_figures).collect(),
    }
}

/// Flows at work.
pub struct Running {
    live: Vec<Live>,
    tasks: JoinSet<Ended>,
    names: HashMap<Id, String>,
    stop: CancellationToken,
}

impl Running {
    /// Starts flows that were built.
    #[must_use]
    pub fn start(flows: Vec<Flow>) -> Self {
        let signals = Signals::default();
        let mut tasks = JoinSet::new();
        let mut names = HashMap::new();
        if let Some(first) = flows.first() {
            let (transport, shared, stop) = (&first.transport, &first.shared, &signals.stop);
            let listening = listen(Arc::clone(transport), Arc::clone(&shared.cancellations), stop.clone());
            names.insert(tasks.spawn(listening).id(), "cancellations".to_owned());
            let (ledger, read) = (Arc::clone(&shared.ledger), signals.ledger_read.clone());
            let reading = bookkeeper::run(Arc::clone(transport), ledger, read, stop.clone());
            names.insert(tasks.spawn(reading.map(Ok)).id(), "ledger".to_owned());
        }
        let live = flows.into_iter().map(|flow| flow.start(&signals, &mut tasks, &mut names)).collect();
        Self { live, tasks, names, stop: signals.stop }
    }

    /// A reader of the live figures.
    #[must_use]
    pub fn engine(&self) -> Engine {
        let flows = self.live.iter().map(|live| (Arc::clone(&live.shared), live.stages.clone())).collect();
        Engine { flows: Arc::new(flows) }
    }

    /// Waits until a task ends on its own, which only a broken operator makes it do.
    ///
    /// # Errors
    /// Names the stage and why it broke.
    pub async fn ended(&mut self) -> Result<(), BoxError> {
        while let Some(ended) = self.tasks.join_next_with_id().await {
            let (id, result) = match ended {
                Ok((id, result)) => (id, result),
                Err(error) => (error.id(), Err(error.into())),
            };
            let name = self.names.get(&id).map_or("a task", String::as_str);
            result.map_err(|error| format!("{name} stopped: {error}"))?;
        }
        Ok(())
    }

    /// Stops the sources and lets every stage finish, for at most `grace`. What is not done by then is not
    /// acknowledged, and comes again.
    ///
    /// # Errors
    /// Names the stages that were still busy.
    pub async fn drain(mut self, grace: Duration) -> Result<(), Vec<Busy>> {
        self.stop.cancel();
        let finish = async {
            for live in &mut self.live {
                live.drain().await;
            }
            while self.tasks.join_next().await.is_some() {}
        };
        match tokio::time::timeout(grace, finish).await {
            Ok(()) => Ok(()),
            Err(_) => Err(self.live.iter().flat_map(Live::busy).collect()),
        }
    }
}
