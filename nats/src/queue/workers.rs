//! Whether a process works on a flow: one has asked for events, or has events that it has not settled.
//!
//! A busy worker asks for nothing, but has events. A worker that was killed with events in hand counts until these are
//! delivered to another: the broker cannot tell it from one that is busy.

use async_nats::jetstream::Context;
use futures_util::future::try_join_all;
use pipeline::{BoxError, FlowName, TransportError};
use serde::Deserialize;

use crate::link::broker::Broker;
use crate::wire::subjects;

/// The part of the answer that is needed. A flow has at most 16 consumers, which one page holds.
#[derive(Deserialize)]
struct ConsumerList {
    consumers: Option<Vec<ConsumerInfo>>,
}

#[derive(Clone, Copy, Deserialize)]
struct ConsumerInfo {
    /// Pulls that are open.
    #[serde(default)]
    num_waiting: u64,
    /// Events that were delivered and are not settled.
    #[serde(default)]
    num_ack_pending: u64,
}

impl ConsumerInfo {
    fn is_used(self) -> bool {
        self.num_waiting > 0 || self.num_ack_pending > 0
    }
}

/// The declared flows on which no process works.
pub async fn flows_without_worker(broker: &Broker) -> Result<Vec<FlowName>, TransportError> {
    let context = &broker.publishing.context;
    let asked = broker.flows.keys().map(|flow| async move {
        let worked_on = is_worked_on(context, flow).await.map_err(TransportError::Unavailable)?;
        Ok((!worked_on).then(|| flow.clone()))
    });
    let mut without: Vec<FlowName> = try_join_all(asked).await?.into_iter().flatten().collect();
    without.sort();
    Ok(without)
}

/// Whether a process works on the flow.
pub async fn is_worked_on(context: &Context, flow: &FlowName) -> Result<bool, BoxError> {
    let subject = format!("CONSUMER.LIST.{}", subjects::work_stream(flow));
    let list: ConsumerList = context.request(subject, &serde_json::json!({})).await?;
    let consumers = list.consumers.ok_or("the queue's consumers cannot be listed")?;
    Ok(consumers.into_iter().any(ConsumerInfo::is_used))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_asks_for_events_or_has_some_uses_a_consumer() {
        for (num_waiting, num_ack_pending, used) in [(0, 0, false), (1, 0, true), (0, 1, true)] {
            assert_eq!(ConsumerInfo { num_waiting, num_ack_pending }.is_used(), used);
        }
    }
}
