//! What the handlers share.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use pipeline::engine::FlowFigures;
use pipeline::spec::{ByteSize, FlowSpec};
use pipeline::webhook::Caller;
use pipeline::{FlowName, Lane, PayloadKind, Spans, Transport, TransportError};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::identity::Identity;
use crate::limit::{ClassLimits, ClientLimit, Counts};
use crate::memory::MemoryBudget;
use crate::openapi;
use crate::pace::Pace;
use crate::probes::Readiness;
use crate::problem::Problem;
use crate::router;
use crate::spec::{AUTH, Classes, LimitsSpec, RouteSpec, ServiceSpec};
use crate::tails::Tails;

/// Live figures of the flows that run in this process.
pub type Figures = Arc<dyn Fn() -> Vec<FlowFigures> + Send + Sync>;

/// Whether one part of the service is usable; the error says what is wrong, for the log.
pub type Check = Arc<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// Renders all metrics of the process as Prometheus text.
pub type RenderMetrics = Arc<dyn Fn() -> String + Send + Sync>;

/// Memory for bodies where nobody divided a budget.
const BODIES: ByteSize = ByteSize::mib(96);

/// How long a body that waits in memory waits for its share.
const MEMORY_PATIENCE: Duration = Duration::from_secs(10);

/// Histories that are read at once.
const HISTORIES: usize = 4;

/// What the gateway must know of a flow.
#[derive(Clone, Debug)]
pub struct FlowEntry {
    /// Its name.
    pub name: FlowName,
    /// As the config describes it.
    pub about: String,
    /// Whether `POST /v1/flows/{name}` is served.
    pub open: bool,
    /// How long a request stays worth doing; `None` for ever.
    pub deadline: Option<Duration>,
    /// Whether its first stage takes JSON documents.
    pub takes_json: bool,
    /// Events that each of its lanes may hold.
    pub backlog: u32,
    /// The later parts of it, in order, that durable edges cut off; each is an entry of its own.
    pub then: Vec<FlowName>,
}

impl FlowEntry {
    /// The entries of flows that are cut into parts. Only first parts are reached from outside.
    #[must_use]
    pub fn of(parts: &[FlowSpec]) -> Vec<Self> {
        let entry = |spec: &FlowSpec| {
            let takes = spec.stages.first().map(|stage| stage.operator.ends().takes).unwrap_or_default();
            let settings = &spec.settings;
            let is_first = spec.name == spec.whole;
            let of_same = parts.iter().filter(|part| is_first && part.whole == spec.whole && part.name != spec.name);
            Self {
                name: spec.name.clone(),
                about: settings.about.clone(),
                open: settings.open && is_first,
                deadline: (settings.deadline_ms > 0).then(|| Duration::from_millis(settings.deadline_ms)),
                takes_json: takes.contains(&PayloadKind::Json),
                backlog: settings.backlog.events,
                then: of_same.map(|part| part.name.clone()).collect(),
            }
        };
        parts.iter().map(entry).collect()
    }
}

/// Everything the gateway is built from.
pub struct Gateway {
    /// Where events go and results come from.
    pub transport: Arc<dyn Transport>,
    /// `[service]`.
    pub service: ServiceSpec,
    /// `[auth]`, with its secrets read.
    pub identity: Identity,
    /// `[limits]`.
    pub limits: LimitsSpec,
    /// The routes, checked by [`GatewaySpec::check`](crate::spec::GatewaySpec::check).
    pub routes: Vec<RouteSpec>,
    /// Every declared flow, run here or elsewhere.
    pub flows: Vec<FlowEntry>,
    /// Takes a span of every request; `None` where nobody traces.
    pub spans: Option<Arc<dyn Spans>>,
    /// Calls webhooks; `None` where another process does.
    pub caller: Option<Arc<dyn Caller>>,
    /// Live figures of the flows that run here.
    pub figures: Figures,
    /// What `/ready` asks, by the name it shows.
    pub checks: Vec<(String, Check)>,
    /// What `/metrics` answers.
    pub render_metrics: RenderMetrics,
}

/// The shared state of a gateway; cloning shares it.
#[derive(Clone)]
pub struct GatewayState(Arc<Shared>);

/// See [`GatewayState`].
pub struct Shared {
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) service: ServiceSpec,
    pub(crate) identity: Arc<Identity>,
    pub(crate) limits: LimitsSpec,
    pub(crate) routes: Vec<RouteSpec>,
    pub(crate) flows: HashMap<FlowName, FlowEntry>,
    pub(crate) spans: Option<Arc<dyn Spans>>,
    pub(crate) caller: Option<Arc<dyn Caller>>,
    pub(crate) figures: Figures,
    pub(crate) render_metrics: RenderMetrics,
    /// The document at `/openapi.json`.
    pub(crate) openapi: Bytes,
    pub(crate) readiness: Readiness,
    pub(crate) pace: Pace,
    pub(crate) memory: MemoryBudget,
    pub(crate) classes: ClassLimits,
    /// Identity checks that failed, by address.
    pub(crate) failures: ClientLimit,
    pub(crate) stream_counts: Arc<Counts>,
    /// One permit per event stream.
    pub(crate) streams: Arc<Semaphore>,
    /// One permit per history of a request that is being read.
    pub(crate) histories: Semaphore,
    /// Submissions that outlive their connection; a shutdown waits for them.
    pub(crate) tasks: TaskTracker,
    pub(crate) tails: Tails,
    /// Cancelled when a shutdown begins: streams end, waiting answers turn into 202.
    pub(crate) closing: CancellationToken,
}

impl GatewayState {
    /// Starts nothing.
    #[must_use]
    pub fn new(gateway: Gateway) -> Self {
        let mut shared = Shared {
            openapi: Bytes::new(),
            pace: Pace::new(Arc::clone(&gateway.transport), &gateway.flows),
            readiness: Readiness::new(gateway.checks),
            memory: MemoryBudget::new(gateway.limits.memory.unwrap_or(BODIES).0, MEMORY_PATIENCE),
            classes: ClassLimits::new(&gateway.limits.classes),
            failures: failures(&gateway.limits),
            stream_counts: Arc::default(),
            streams: Arc::new(Semaphore::new(gateway.limits.streams.min(Semaphore::MAX_PERMITS))),
            histories: Semaphore::new(HISTORIES),
            flows: gateway.flows.into_iter().map(|flow| (flow.name.clone(), flow)).collect(),
            transport: gateway.transport,
            service: gateway.service,
            identity: Arc::new(gateway.identity),
            limits: gateway.limits,
            routes: gateway.routes,
            spans: gateway.spans,
            caller: gateway.caller,
            figures: gateway.figures,
            render_metrics: gateway.render_metrics,
            tasks: TaskTracker::new(),
            tails: Tails::default(),
            closing: CancellationToken::new(),
        };
        shared.openapi = Bytes::from(openapi::document(&shared, &router::open_routes(&shared)).to_string());
        Self(Arc::new(shared))
    }
}

/// The limit of identity checks that fail.
fn failures(limits: &LimitsSpec) -> ClientLimit {
    let rate = limits.classes.rate(AUTH).or_else(|| Classes::default().rate(AUTH));
    ClientLimit::new(AUTH, rate.expect("the class is built in"))
}

impl Deref for GatewayState {
    type Target = Shared;
    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl Shared {
    /// The problem of a submission that the broker refused, with a measured `Retry-After` where the flow is full.
    pub(crate) async fn refusal(&self, error: TransportError, lane: Lane) -> Problem {
        let full = match &error {
            TransportError::Full { flow } => Some(flow.clone()),
            _ => None,
        };
        let problem = Problem::from(error);
        let Some(flow) = full else { return problem };
        self.pace.refused(&flow, lane);
        problem.with_retry_after(self.pace.retry_after(&flow))
    }
}
