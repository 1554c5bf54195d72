//! Metrics that only the broker knows: backlog, disk, dead letters. Scrapes ask for them, but not more than once in
//! [`MIN_AGE`], so that scraping cannot burden the broker.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join_all, join3};
use metrics::gauge;
use nats::JetStream;
use pipeline::{FlowName, Lane, Transport, TransportError};
use tokio::sync::Mutex;
use tokio::time::Instant;

/// A scrape does not wait longer for a broker that does not answer.
const LIMIT: Duration = Duration::from_secs(1);

/// Values younger than this are not asked for again.
const MIN_AGE: Duration = Duration::from_secs(5);

/// Asks the broker, and sets the gauges.
pub struct BrokerMetrics {
    jetstream: Arc<JetStream>,
    /// Every flow part with a queue of its own.
    flows: Vec<FlowName>,
    /// When the broker was last asked; held while it is, so that one scrape at a time asks.
    asked: Mutex<Option<Instant>>,
}

impl BrokerMetrics {
    /// For the queues of these flows. Asks nothing yet.
    pub fn new(jetstream: Arc<JetStream>, flows: Vec<FlowName>) -> Self {
        Self { jetstream, flows, asked: Mutex::new(None) }
    }

    /// Updates the gauges, unless that was done just now. What the broker does not answer keeps its last value, and
    /// `caudal_broker_reachable` is 0.
    pub async fn update(&self) {
        for (stream, writable) in self.jetstream.streams() {
            gauge!("caudal_broker_stream_writable", "stream" => stream).set(f64::from(u8::from(writable)));
        }
        let mut asked = self.asked.lock().await;
        if asked.is_some_and(|asked| asked.elapsed() < MIN_AGE) {
            return;
        }
        let all =
            join3(join_all(self.flows.iter().map(|flow| self.backlog(flow))), self.storage(), self.dead_letters());
        let answered = match tokio::time::timeout(LIMIT, all).await {
            Ok((backlogs, storage, dead_letters)) => {
                backlogs.into_iter().chain([storage, dead_letters]).all(|answer| answer.is_ok())
            }
            Err(_) => false,
        };
        *asked = Some(Instant::now());
        gauge!("caudal_broker_reachable").set(f64::from(u8::from(answered)));
    }

    async fn backlog(&self, flow: &FlowName) -> Result<(), TransportError> {
        let backlog = self.jetstream.backlog(flow).await?;
        for (lane, events) in [(Lane::Interactive, backlog.interactive), (Lane::Bulk, backlog.bulk)] {
            let labels = [("flow", flow.to_string()), ("lane", lane.as_str().to_owned())];
            gauge!("caudal_flow_backlog_events", &labels).set(events as f64);
        }
        Ok(())
    }

    async fn storage(&self) -> Result<(), TransportError> {
        let storage = self.jetstream.storage().await?;
        gauge!("caudal_broker_storage_bytes").set(storage.used as f64);
        if let Some(limit) = storage.limit {
            gauge!("caudal_broker_storage_limit_bytes").set(limit as f64);
        }
        Ok(())
    }

    async fn dead_letters(&self) -> Result<(), TransportError> {
        let counts = self.jetstream.dead_letter_counts().await?;
        for flow in &self.flows {
            let count = counts.get(flow).copied().unwrap_or_default();
            gauge!("caudal_dead_letters", "flow" => flow.to_string()).set(count as f64);
        }
        Ok(())
    }
}
