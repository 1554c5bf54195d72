//! Tail of a flow: its events as they are submitted, from a plain subscription beside the stream, for people who watch.
//!
//! It costs the stream nothing, and nothing at all without a subscriber. Events for which the reader is too slow are
//! lost; events that cannot be decoded are left out, the source dead-letters them.

use async_nats::Message;
use futures_util::StreamExt;
use pipeline::{FlowName, Lane, Submission, TransportError};
use tokio::sync::mpsc;

use crate::link::broker::Broker;
use crate::link::flow::DeclaredFlow;
use crate::wire::cloud_event::{self, Arrival, AttributeCache};
use crate::wire::subjects;

/// Events that may wait for their reader; further ones are lost.
const WAITING: usize = 64;

/// Subscribes to the events that are submitted from now on.
pub async fn listen(broker: &Broker, flow: &FlowName) -> Result<mpsc::Receiver<Submission>, TransportError> {
    let flow = broker.flow(flow)?;
    let client = broker.live.client();
    let filter = subjects::work_filter(&flow.name);
    let mut messages = client.subscribe(filter).await.map_err(TransportError::unavailable)?;
    // The subscription is in force once the server has answered what was sent after it.
    client.flush().await.map_err(TransportError::unavailable)?;
    let (sender, events) = mpsc::channel(WAITING);
    let stop = broker.stop.clone();
    broker.tasks.spawn(async move {
        loop {
            let message = tokio::select! {
                message = messages.next() => message,
                () = sender.closed() => return,
                () = stop.cancelled() => return,
            };
            let Some(message) = message else { return };
            if let Some(event) = decode(&flow, &message)
                && sender.try_send(event).is_err()
            {
                metrics::counter!("caudal_tail_events_lost_total").increment(1);
            }
        }
    });
    Ok(events)
}

fn decode(flow: &DeclaredFlow, message: &Message) -> Option<Submission> {
    let lane = message.subject.split('.').nth(2)?;
    let lane = Lane::ALL.into_iter().find(|known| known.as_str() == lane)?;
    let arrival = Arrival { flow: &flow.name, lane, answers: flow.topology.answers, attempt: 1, sequence: 0 };
    let (envelope, payload) = cloud_event::decode(message, &arrival, &mut AttributeCache::default()).ok()?;
    Some(Submission { envelope, payload })
}
