//! A stage at work: what its workers share.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::TaskTracker;

use super::flow_metrics::{StageLabel, StageMetrics, StageStats};
use super::image_admission::ImageAdmission;
use super::outage::Outage;
use crate::edges::{Downstream, Queue};
use crate::fault::BoxError;
use crate::names::FlowName;
use crate::operator::{Batching, Operator};
use crate::registry::Services;
use crate::spec::{FlowSpec, StageSpec};

/// Builds an operator for one worker; called again after a panic.
pub type BuildOperator = Arc<dyn Fn() -> Result<Box<dyn Operator>, BoxError> + Send + Sync>;

/// What the workers of one stage share.
pub struct Stage {
    /// Unique within the flow.
    pub name: Arc<str>,
    /// The operator's kind.
    pub kind: &'static str,
    /// Workers side by side; fixed.
    pub workers: usize,
    pub batching: Batching,
    /// Longest time of one attempt at a batch.
    pub timeout: Duration,
    /// Before the stage.
    pub queue: Arc<Queue>,
    /// Behind the stage.
    pub downstream: Downstream,
    pub metrics: StageMetrics,
    /// Outages of what the stage depends on.
    pub outage: Outage,
    /// Room for images that come over a durable edge.
    pub images: ImageAdmission,
    /// The workers that run, so that a drain can wait for the last one.
    pub running: TaskTracker,
    pub build: BuildOperator,
}

impl Stage {
    fn new(flow: &FlowName, spec: StageSpec, downstream: Downstream, services: &Arc<Services>) -> Self {
        let name: Arc<str> = spec.name.as_str().into();
        let (batching, workers) = (spec.batching(), spec.settings.workers.get());
        let (services, operator) = (Arc::clone(services), spec.operator);
        Self {
            kind: spec.kind,
            workers,
            batching,
            timeout: Duration::from_millis(spec.settings.timeout_ms),
            queue: Arc::new(Queue::new(Arc::clone(&name), spec.settings.queue.limits(), workers)),
            downstream,
            metrics: StageMetrics::new(flow, &name),
            outage: Outage::new(flow.clone(), Arc::clone(&name)),
            images: ImageAdmission::new(services.process.pixels.clone()),
            running: TaskTracker::new(),
            build: Arc::new(move || operator.build(&services)),
            name,
        }
    }

    /// Events that wait before the stage or are in the hands of its workers.
    pub fn events(&self) -> u64 {
        self.queue.len() as u64 + self.metrics.in_flight()
    }

    /// The metrics now.
    pub fn stats(&self) -> StageStats {
        let label = StageLabel { name: Arc::clone(&self.name), kind: self.kind, workers: self.workers };
        StageStats { waits: self.outage.is_waiting(), ..self.metrics.stats(&label, &self.queue) }
    }

    /// Waits until every event of the queue is done and every worker has ended. Nothing may be sent to it any more.
    pub async fn drain(&self) {
        self.queue.close();
        self.running.close();
        self.running.wait().await;
    }
}

/// Makes the stages of a flow in order, each linked to the next; the last one to `end`.
pub fn connect(spec: FlowSpec, end: Downstream, services: &Arc<Services>) -> Vec<Arc<Stage>> {
    let mut stages = Vec::with_capacity(spec.stages.len());
    let mut downstream = end;
    for declared in spec.stages.into_iter().rev() {
        let stage = Arc::new(Stage::new(&spec.name, declared, downstream, services));
        downstream = Downstream::Queue(Arc::clone(&stage.queue));
        stages.push(stage);
    }
    stages.reverse();
    stages
}
