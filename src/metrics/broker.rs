//! Metrics that the broker is asked for at each scrape: backlog, disk, dead letters.

use std::time::Duration;

use metrics::gauge;
use nats::JetStream;
use pipeline::{FlowName, Lane, Transport, TransportError};

/// A scrape must not wait longer for a broker that does not answer.
const LIMIT: Duration = Duration::from_secs(2);

/// The broker, and the flows whose queues it holds.
pub struct BrokerMetrics {
    /// The connection.
    pub jetstream: std::sync::Arc<JetStream>,
    /// Every flow part with a queue of its own.
    pub flows: Vec<FlowName>,
}

impl BrokerMetrics {
    /// Updates the gauges. If the broker does not answer, they keep their last values and `caudal_broker_reachable` is 0.
    pub async fn update(&self) {
        for (stream, writable) in self.jetstream.streams() {
            gauge!("caudal_broker_stream_writable", "stream" => stream).set(f64::from(u8::from(writable)));
        }
        let answered = matches!(tokio::time::timeout(LIMIT, self.read()).await, Ok(Ok(())));
        gauge!("caudal_broker_reachable").set(f64::from(u8::from(answered)));
    }

    async fn read(&self) -> Result<(), TransportError> {
        for flow in &self.flows {
            let backlog = self.jetstream.backlog(flow).await?;
            for (lane, events) in [(Lane::Interactive, backlog.interactive), (Lane::Bulk, backlog.bulk)] {
                let labels = [("flow", flow.to_string()), ("lane", lane.as_str().to_owned())];
                gauge!("caudal_flow_backlog_events", &labels).set(events as f64);
            }
        }
        let storage = self.jetstream.storage().await?;
        gauge!("caudal_broker_storage_bytes").set(storage.used as f64);
        if let Some(limit) = storage.limit {
            gauge!("caudal_broker_storage_limit_bytes").set(limit as f64);
        }
        let dead_letters = self.jetstream.dead_letter_counts().await?;
        for flow in &self.flows {
            let count = dead_letters.get(flow).copied().unwrap_or_default();
            gauge!("caudal_dead_letters", "flow" => flow.to_string()).set(count as f64);
        }
        Ok(())
    }
}
