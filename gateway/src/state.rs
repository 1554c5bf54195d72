//! What the handlers share. Data only: it builds no router and no document, starts nothing and knows no handler.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use pipeline::engine::FlowStats;
use pipeline::spec::ByteSize;
use pipeline::webhook::WebhookCaller;
use pipeline::{BoxError, FlowName, Spans, Transport};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::capacity::drain_rate::DrainRates;
use crate::capacity::memory_budget::MemoryBudget;
use crate::capacity::open_counts::OpenCounts;
use crate::flow_entry::FlowEntry;
use crate::identity::Identity;
use crate::spec::{LimitsSpec, RouteSpec, ServiceSpec};

/// Live metrics of the flows that run in this process.
pub type StatsReader = Arc<dyn Fn() -> Vec<FlowStats> + Send + Sync>;

/// Whether one component of the service is ready; the error says what is wrong, for the log.
pub type ReadinessCheck = Arc<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;
/// Checks with the names by which `/ready` tells of them.
pub type ReadinessChecks = Vec<(String, ReadinessCheck)>;

/// Renders all metrics of the process as Prometheus text.
pub type RenderMetrics = Arc<dyn Fn() -> BoxFuture<'static, Result<String, BoxError>> + Send + Sync>;

/// Memory for bodies if the config sets none.
const DEFAULT_MEMORY: ByteSize = ByteSize::mib(96);

/// How long a request waits for its share of the memory budget.
const MEMORY_TIMEOUT: Duration = Duration::from_secs(10);

/// Histories of requests that are read at once.
const CONCURRENT_HISTORIES: usize = 4;

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
    /// Every declared flow, whether it runs here or elsewhere.
    pub flows: Vec<FlowEntry>,
    /// Takes a span of every request; `None` if traces are off.
    pub spans: Option<Arc<dyn Spans>>,
    /// Calls webhooks; `None` if another process does.
    pub webhook_caller: Option<Arc<dyn WebhookCaller>>,
    /// Live metrics of the flows that run here.
    pub flow_stats: StatsReader,
    /// The components that `/ready` checks, by name.
    pub checks: ReadinessChecks,
    /// Renders the answer of `/metrics`.
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
    pub(crate) webhook_caller: Option<Arc<dyn WebhookCaller>>,
    pub(crate) flow_stats: StatsReader,
    pub(crate) checks: ReadinessChecks,
    pub(crate) render_metrics: RenderMetrics,
    pub(crate) drain_rates: DrainRates,
    pub(crate) memory: MemoryBudget,
    /// Event streams by client.
    pub(crate) stream_counts: Arc<OpenCounts>,
    /// One permit per event stream.
    pub(crate) streams: Arc<Semaphore>,
    /// One permit per history of a request that is being read.
    pub(crate) histories: Semaphore,
    /// Tasks that outlive their connection; a shutdown waits for them.
    pub(crate) tasks: TaskTracker,
    /// Cancelled when a shutdown begins: streams end, requests that wait for their result are answered 202.
    pub(crate) closing: CancellationToken,
}

/// How long after a shutdown began new requests are still taken: they were sent before their client could know.
const LAST_REQUESTS: Duration = Duration::from_millis(250);

impl GatewayState {
    /// Resolves a moment after a shutdown began, when no request is on its way any more that was sent before. At most a
    /// quarter of the grace, so that these can be answered.
    pub(crate) async fn last_requests_taken(&self) {
        self.closing.cancelled().await;
        tokio::time::sleep(LAST_REQUESTS.min(self.service.grace() / 4)).await;
    }

    /// The state of a gateway that is not served yet.
    #[must_use]
    pub fn new(gateway: Gateway) -> Self {
        Self(Arc::new(Shared {
            drain_rates: DrainRates::new(Arc::clone(&gateway.transport), &gateway.flows),
            memory: MemoryBudget::new(gateway.limits.memory.unwrap_or(DEFAULT_MEMORY).0, MEMORY_TIMEOUT),
            stream_counts: Arc::default(),
            streams: Arc::new(Semaphore::new(gateway.limits.streams.min(Semaphore::MAX_PERMITS))),
            histories: Semaphore::new(CONCURRENT_HISTORIES),
            flows: gateway.flows.into_iter().map(|flow| (flow.name.clone(), flow)).collect(),
            transport: gateway.transport,
            service: gateway.service,
            identity: Arc::new(gateway.identity),
            limits: gateway.limits,
            routes: gateway.routes,
            spans: gateway.spans,
            webhook_caller: gateway.webhook_caller,
            flow_stats: gateway.flow_stats,
            checks: gateway.checks,
            render_metrics: gateway.render_metrics,
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
        }))
    }
}

impl Deref for GatewayState {
    type Target = Shared;
    fn deref(&self) -> &Shared {
        &self.0
    }
}
