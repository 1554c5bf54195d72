//! A running engine: starts flows, waits for a task that breaks, and drains.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use tokio::time::Instant;

use super::flow::{Busy, Flow, FlowView, RunningFlow, Signals};
use super::flow_metrics::FlowStats;
use super::tasks::Tasks;
use super::{cancellation_listener, ledger_reader};
use crate::fault::BoxError;

/// Reads the metrics of a running engine; cheap to clone.
#[derive(Clone, Default)]
pub struct Engine {
    flows: Arc<Vec<FlowView>>,
}

impl Engine {
    /// The metrics of every flow now, in order of the config.
    #[must_use]
    pub fn stats(&self) -> Vec<FlowStats> {
        self.flows.iter().map(FlowView::stats).collect()
    }
}

/// Where an engine is between its start and its end.
///
/// ```text
/// Running ──begin_drain──▶ Draining ──finish──▶ Drained
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Events are pulled and worked on.
    Running,
    /// No event is pulled; events in flight are finished, stage by stage.
    Draining { since: Instant },
    /// No event is in flight, every task has ended.
    Drained { took: Duration },
}

impl Phase {
    /// No more events are pulled from now on. Without effect unless running.
    fn begin_drain(&mut self, now: Instant) {
        if *self == Self::Running {
            *self = Self::Draining { since: now };
        }
    }

    /// The last task has ended. Without effect unless draining.
    fn finish(&mut self, now: Instant) {
        if let Self::Draining { since } = *self {
            *self = Self::Drained { took: now - since };
        }
    }
}

/// Flows that run.
pub struct Running {
    flows: Vec<RunningFlow>,
    tasks: Tasks,
    signals: Signals,
    phase: Phase,
}

impl Running {
    /// Starts flows that were built.
    #[must_use]
    pub fn start(flows: Vec<Flow>) -> Self {
        let signals = Signals::default();
        let mut tasks = Tasks::default();
        if let Some(first) = flows.first() {
            let (transport, shared, stop) = (&first.transport, &first.shared, &signals.stop);
            let cancellations = Arc::clone(&shared.cancellations);
            let listening = cancellation_listener::run(Arc::clone(transport), cancellations, stop.clone());
            tasks.spawn("cancellations".into(), listening.map(Ok));
            let (ledger, read) = (Arc::clone(&shared.ledger), signals.ledger_read.clone());
            let reading = ledger_reader::run(Arc::clone(transport), ledger, read, stop.clone());
            tasks.spawn("ledger".into(), reading.map(Ok));
        }
        let flows = flows.into_iter().map(|flow| flow.start(&signals, &mut tasks)).collect();
        Self { flows, tasks, signals, phase: Phase::Running }
    }

    /// A reader of the metrics.
    #[must_use]
    pub fn engine(&self) -> Engine {
        Engine { flows: Arc::new(self.flows.iter().map(|flow| flow.view.clone()).collect()) }
    }

    /// Waits until a task ends on its own, which only a broken operator makes it do.
    ///
    /// # Errors
    /// Names the stage and why it broke.
    pub async fn ended(&mut self) -> Result<(), BoxError> {
        while let Some(ended) = self.tasks.next_end().await {
            ended?;
        }
        Ok(())
    }

    /// Stops the sources and lets every stage finish, for at most `grace`. Events that are not done by then are not
    /// acknowledged, and are redelivered.
    ///
    /// # Errors
    /// Names the stages that were still busy.
    pub async fn drain(mut self, grace: Duration) -> Result<(), Vec<Busy>> {
        self.begin_drain();
        if tokio::time::timeout(grace, self.finish()).await.is_err() {
            let busy = self.flows.iter().flat_map(RunningFlow::busy).collect();
            join_all(self.flows.iter().map(RunningFlow::withdraw_note)).await;
            return Err(busy);
        }
        Ok(())
    }

    fn begin_drain(&mut self) {
        self.phase.begin_drain(Instant::now());
        self.signals.stop.cancel();
        self.flows.iter().for_each(|flow| flow.view.shared.draining.cancel());
        tracing::info!("draining: no more events are pulled, those in flight are finished");
    }

    /// Waits until every flow is drained and every task has ended.
    async fn finish(&mut self) {
        join_all(self.flows.iter_mut().map(RunningFlow::drain)).await;
        // Broken operators were reported by `ended`; here only the end counts.
        while self.tasks.next_end().await.is_some() {}
        self.phase.finish(Instant::now());
        if let Phase::Drained { took } = self.phase {
            tracing::info!(?took, "drained");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_drain_begins_once() {
        let (mut phase, now) = (Phase::Running, Instant::now());
        phase.begin_drain(now);
        phase.begin_drain(now + SECOND);
        assert_eq!(phase, Phase::Draining { since: now });
    }

    #[test]
    fn its_end_tells_how_long_it_took() {
        let now = Instant::now();
        let mut phase = Phase::Draining { since: now };
        phase.finish(now + SECOND);
        assert_eq!(phase, Phase::Drained { took: SECOND });
    }

    #[test]
    fn without_a_drain_nothing_is_drained() {
        let mut phase = Phase::Running;
        phase.finish(Instant::now());
        assert_eq!(phase, Phase::Running);
    }

    #[test]
    fn a_drained_engine_stays_drained() {
        let mut phase = Phase::Drained { took: SECOND };
        phase.begin_drain(Instant::now());
        phase.finish(Instant::now());
        assert_eq!(phase, Phase::Drained { took: SECOND });
    }

    #[tokio::test(start_paused = true)]
    async fn an_engine_without_flows_drains_at_once() {
        assert_eq!(Running::start(Vec::new()).drain(Duration::ZERO).await, Ok(()));
    }
}
