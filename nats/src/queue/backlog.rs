//! What waits in the queue of a flow, by what its stream counts for each subject.

use std::collections::HashMap;

use async_nats::jetstream::Context;
use pipeline::{Backlog, BoxError, FlowName, Lane, TransportError};
use serde::Deserialize;

use crate::ConnectError;
use crate::jetstream::Flow;
use crate::names;
use crate::topology::FlowTopology;

/// The part of a stream's info that counts messages.
#[derive(Deserialize)]
struct Info {
    state: Option<State>,
}

#[derive(Deserialize)]
struct State {
    messages: u64,
    last_seq: u64,
    #[serde(default)]
    subjects: HashMap<String, u64>,
}

async fn state(context: &Context, flow: &FlowName) -> Result<State, BoxError> {
    let subject = format!("STREAM.INFO.{}", names::work_stream(flow));
    let filter = serde_json::json!({ "subjects_filter": names::work_filter(flow) });
    let info: Info = context.request(subject, &filter).await?;
    info.state.ok_or_else(|| "the queue's stream is missing".into())
}

/// What waits in a flow.
pub async fn of(context: &Context, flow: &Flow) -> Result<Backlog, TransportError> {
    let state = state(context, &flow.name).await.map_err(TransportError::Unavailable)?;
    let ended = state.last_seq.saturating_sub(state.messages);
    // A lane may be cut into partitions, each with a subject below its own.
    let count = |lane| {
        let lane = flow.subject(lane).as_str();
        let of_lane =
            |subject: &str| subject.strip_prefix(lane).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        state.subjects.iter().filter(|(subject, _)| of_lane(subject)).map(|(_, count)| count).sum()
    };
    Ok(Backlog { interactive: count(Lane::Interactive), bulk: count(Lane::Bulk), ended })
}

/// Refuses a queue that holds events which no consumer of the flow as it is declared now would deliver: those of a flow that
/// got an order, or lost it.
pub async fn check_order(context: &Context, flow: &FlowTopology) -> Result<(), ConnectError> {
    let stream = names::work_stream(&flow.name);
    let failed = |remedy, source| ConnectError::Stream { stream: stream.clone(), remedy, source };
    let state = state(context, &flow.name).await.map_err(|error| failed("it cannot be read", error))?;
    let is_ours = |subject: &str| (subject.split('.').count() > 3) == flow.order_by.is_some();
    let stranded: u64 = state.subjects.iter().filter(|(subject, _)| !is_ours(subject)).map(|(_, count)| count).sum();
    if stranded == 0 {
        return Ok(());
    }
    let why = format!("{stranded} events of flow {} wait from before order_by was changed", flow.name);
    Err(failed("run once with order_by as it was, until they are done", why.into()))
}
