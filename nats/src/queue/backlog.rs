//! The backlog of a flow: how many events wait, from the counts that its stream has for each subject.

use std::collections::HashMap;

use async_nats::jetstream::Context;
use futures_util::future::try_join_all;
use pipeline::{Backlog, BoxError, FlowName, Lane, TransportError};
use serde::Deserialize;

use crate::error::ConnectError;
use crate::link::flow::DeclaredFlow;
use crate::topology::FlowTopology;
use crate::wire::subjects;

/// The part of a stream's info that counts messages.
#[derive(Deserialize)]
struct StreamInfo {
    state: Option<StreamState>,
}

#[derive(Deserialize)]
struct StreamState {
    messages: u64,
    last_seq: u64,
    #[serde(default)]
    subjects: HashMap<String, u64>,
}

impl StreamState {
    /// Events whose subject matches.
    fn count(&self, matches: impl Fn(&str) -> bool) -> u64 {
        self.subjects.iter().filter(|(subject, _)| matches(subject)).map(|(_, count)| count).sum()
    }

    fn backlog(&self, flow: &DeclaredFlow) -> Backlog {
        // A lane may have partitions, each with a subject below that of the lane.
        let count = |lane| {
            let lane = flow.subject(lane).as_str();
            self.count(|subject| {
                subject.strip_prefix(lane).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            })
        };
        let ended = self.last_seq.saturating_sub(self.messages);
        Backlog { interactive: count(Lane::Interactive), bulk: count(Lane::Bulk), ended }
    }

    /// Events that no consumer of the flow as it is declared now would deliver: those from before it got an order, or
    /// lost it.
    fn stranded(&self, flow: &FlowTopology) -> u64 {
        self.count(|subject| (subject.split('.').count() > 3) != flow.order_by.is_some())
    }
}

/// Number of events that wait in a flow, and that ended.
pub async fn of(context: &Context, flow: &DeclaredFlow) -> Result<Backlog, TransportError> {
    let state = state(context, &flow.name).await.map_err(TransportError::Unavailable)?;
    Ok(state.backlog(flow))
}

/// Refuses flows with queued events that no consumer would deliver, because `order_by` was added or removed.
pub async fn check_order(context: &Context, flows: &[FlowTopology]) -> Result<(), ConnectError> {
    try_join_all(flows.iter().map(|flow| check_order_of(context, flow))).await?;
    Ok(())
}

async fn check_order_of(context: &Context, flow: &FlowTopology) -> Result<(), ConnectError> {
    let stream = subjects::work_stream(&flow.name);
    let failed = |remedy, source| ConnectError::Stream { stream: stream.clone(), remedy, source };
    let state = state(context, &flow.name).await.map_err(|error| failed("it cannot be read", error))?;
    let stranded = state.stranded(flow);
    if stranded == 0 {
        return Ok(());
    }
    let why = format!("{stranded} events of flow {} wait from before order_by was changed", flow.name);
    Err(failed("run once with order_by as it was, until they are done", why.into()))
}

async fn state(context: &Context, flow: &FlowName) -> Result<StreamState, BoxError> {
    let subject = format!("STREAM.INFO.{}", subjects::work_stream(flow));
    let filter = serde_json::json!({ "subjects_filter": subjects::work_filter(flow) });
    let info: StreamInfo = context.request(subject, &filter).await?;
    info.state.ok_or_else(|| "the queue's stream is missing".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use pipeline::spec::{BacklogSpec, ByteSize};

    fn flow(order_by: Option<&str>) -> FlowTopology {
        let backlog = BacklogSpec { events: 10, bytes: ByteSize::mib(1) };
        let order_by = order_by.map(str::to_owned);
        FlowTopology { name: FlowName::new("f").unwrap(), backlog, answers: false, order_by }
    }

    fn state(subjects: &[(&str, u64)]) -> StreamState {
        let subjects: HashMap<String, u64> = subjects.iter().map(|(name, count)| ((*name).into(), *count)).collect();
        let messages = subjects.values().sum();
        StreamState { messages, last_seq: messages + 5, subjects }
    }

    #[test]
    fn each_lane_is_counted_with_its_partitions() {
        let state = state(&[("ev.f.interactive.0", 2), ("ev.f.interactive.7", 1), ("ev.f.bulk.3", 4)]);
        let backlog = state.backlog(&DeclaredFlow::new(flow(Some("device"))));
        assert_eq!((backlog.interactive, backlog.bulk), (3, 4));
    }

    #[test]
    fn events_that_left_the_queue_have_ended() {
        let backlog = state(&[("ev.f.bulk", 4)]).backlog(&DeclaredFlow::new(flow(None)));
        assert_eq!((backlog.bulk, backlog.ended), (4, 5));
    }

    #[test]
    fn events_without_a_key_are_stranded_once_the_flow_has_an_order() {
        let state = state(&[("ev.f.bulk", 4), ("ev.f.bulk.3", 1)]);
        assert_eq!(state.stranded(&flow(Some("device"))), 4);
    }

    #[test]
    fn events_with_a_key_are_stranded_once_the_flow_has_no_order() {
        let state = state(&[("ev.f.bulk", 4), ("ev.f.bulk.3", 1)]);
        assert_eq!(state.stranded(&flow(None)), 1);
    }
}
