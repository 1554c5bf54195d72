//! Queues of flows that the config does not declare (any more): they are kept while they hold events.
//!
//! A queue is removed only while it takes no events, so that none is lost that arrives meanwhile. Our own broker is used by
//! the processes of one service, so empty queues are removed there at the start; on another broker they may be those of
//! another service.

use async_nats::jetstream::Context;
use async_nats::jetstream::stream::Info;
use pipeline::spec::ByteSize;
use pipeline::{BoxError, FlowName};
use tokio_util::sync::CancellationToken;

use crate::access::Access;
use crate::error::ConnectError;
use crate::link::connection::{ANSWER_TIMEOUT, Connection};
use crate::link::ensure;
use crate::queue::workers;
use crate::topology::FlowTopology;
use crate::wire::subjects;

/// The queue of a flow that is not declared.
#[derive(Clone, Debug)]
pub struct UndeclaredQueue {
    /// The flow, or the part of one behind a durable edge.
    pub flow: FlowName,
    /// Events that wait.
    pub events: u64,
    /// Disk that it reserves.
    pub reserved: ByteSize,
    stream: Info,
}

/// What became of a queue that was to be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// It is gone, with this many events.
    Removed(u64),
    /// It holds this many events.
    Kept(u64),
    /// A process works on it: another config declares it.
    InUse,
}

/// Looks at the queues of a broker that no config declares, for `caudal prune`. Creates and changes nothing by itself.
pub struct UndeclaredQueues {
    connection: Connection,
}

impl UndeclaredQueues {
    /// Connects.
    ///
    /// # Errors
    /// If the broker cannot be reached, or refuses the credentials.
    pub async fn open(access: &Access) -> Result<Self, ConnectError> {
        let stop = CancellationToken::new();
        Ok(Self { connection: Connection::open(access, "prune", ANSWER_TIMEOUT * 5, &stop).await? })
    }

    /// All of them, by name.
    ///
    /// # Errors
    /// If the broker does not answer.
    pub async fn list(&self, declared: &[FlowTopology]) -> Result<Vec<UndeclaredQueue>, ConnectError> {
        list(&self.connection.context, declared).await
    }

    /// Removes a queue that holds no events, or also its events.
    ///
    /// # Errors
    /// If the broker does not answer.
    pub async fn remove(&self, queue: &UndeclaredQueue, with_events: bool) -> Result<Removal, BoxError> {
        remove(&self.connection.context, queue, with_events).await
    }
}

/// Logs the queues that are not declared. `removes`: those without events are removed.
pub async fn report(context: &Context, declared: &[FlowTopology], removes: bool) -> Result<(), ConnectError> {
    for queue in list(context, declared).await? {
        let UndeclaredQueue { flow, events, reserved, .. } = &queue;
        if removes && *events == 0 {
            match remove(context, &queue, false).await {
                Ok(Removal::Removed(_)) => {
                    tracing::info!(%flow, "removed the empty queue of a flow that is not declared")
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%flow, error, "the queue of a flow that is not declared cannot be removed")
                }
            }
        } else if removes {
            tracing::warn!(
                %flow, events, %reserved,
                "events wait for a flow that is not declared; declare it to process them, or remove them with \
                 `caudal prune`"
            );
        } else {
            tracing::info!(%flow, events, %reserved, "the broker has the queue of a flow that is not declared here");
        }
    }
    Ok(())
}

async fn list(context: &Context, declared: &[FlowTopology]) -> Result<Vec<UndeclaredQueue>, ConnectError> {
    let streams = ensure::all(context).await?;
    let mut queues: Vec<UndeclaredQueue> = streams
        .into_iter()
        .filter_map(|stream| {
            let flow = queue_of(&stream).filter(|flow| declared.iter().all(|declared| declared.name != *flow))?;
            let reserved = ByteSize(u64::try_from(stream.config.max_bytes).unwrap_or(0));
            Some(UndeclaredQueue { flow, events: stream.state.messages, reserved, stream })
        })
        .collect();
    queues.sort_by(|a, b| a.flow.cmp(&b.flow));
    Ok(queues)
}

/// The flow whose queue a stream is; `None` for streams that only have a similar name.
fn queue_of(stream: &Info) -> Option<FlowName> {
    let name = &stream.config.name;
    let flow = subjects::parse_work_stream(name)?;
    let (own, closed) = (format!("ev.{flow}."), subjects::closed_subject(name));
    stream.config.subjects.iter().all(|subject| subject.starts_with(&own) || *subject == closed).then_some(flow)
}

async fn remove(context: &Context, queue: &UndeclaredQueue, with_events: bool) -> Result<Removal, BoxError> {
    if workers::is_worked_on(context, &queue.flow).await? {
        return Ok(Removal::InUse);
    }
    let before = &queue.stream.config;
    let events = ensure::close(context, before).await?.state.messages;
    if events > 0 && !with_events {
        context.update_stream(before).await?;
        return Ok(Removal::Kept(events));
    }
    context.delete_stream(&before.name).await?;
    Ok(Removal::Removed(events))
}
