//! Events of a flow as they are submitted: a plain subscription beside the stream, for people who watch.
//!
//! It costs the stream nothing, and nothing at all while nobody watches. What a slow reader misses is lost; what cannot be
//! read is passed over, the source deals with it.

use async_nats::Message;
use futures_util::StreamExt;
use pipeline::{FlowName, Lane, Submission, TransportError};
use tokio::sync::mpsc;

use crate::codec::{self, Arrival, Seen};
use crate::jetstream::{Flow, Inner};
use crate::names;

/// Events that may wait for their reader; further ones are lost.
const WAITING: usize = 64;

/// Listens from now on.
pub async fn listen(inner: &Inner, flow: &FlowName) -> Result<mpsc::Receiver<Submission>, TransportError> {
    let flow = inner.flow(flow)?;
    let client = inner.live.client();
    let filter = names::work_filter(&flow.name);
    let mut messages = client.subscribe(filter).await.map_err(TransportError::unavailable)?;
    // A subscription is in force once the server has seen what was sent after it.
    client.flush().await.map_err(TransportError::unavailable)?;
    let (heard, events) = mpsc::channel(WAITING);
    let stop = inner.stop.clone();
    inner.tasks.spawn(async move {
        loop {
            let message = tokio::select! {
                message = messages.next() => message,
                () = heard.closed() => return,
                () = stop.cancelled() => return,
            };
            let Some(message) = message else { return };
            if let Some(event) = read(&flow, &message)
                && heard.try_send(event).is_err()
            {
                metrics::counter!("caudal_tail_events_lost_total").increment(1);
            }
        }
    });
    Ok(events)
}

fn read(flow: &Flow, message: &Message) -> Option<Submission> {
    let lane = message.subject.split('.').nth(2)?;
    let lane = Lane::ALL.into_iter().find(|known| known.as_str() == lane)?;
    let arrival = Arrival { flow: &flow.name, lane, answers: flow.declared.answers, attempt: 1, sequence: 0 };
    let (envelope, payload) = codec::decode(message, &arrival, &mut Seen::default()).ok()?;
    Some(Submission { envelope, payload })
}
