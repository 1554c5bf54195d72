//! Cancellations: a message on `cancel.<id>` to every process, in addition to the terminal result that is stored.
//!
//! The message is neither stored nor acknowledged. A worker that misses it finishes the work, and the broker refuses
//! the result.

use futures_util::StreamExt;
use pipeline::{RequestId, TransportError};
use tokio::sync::mpsc;

use crate::link::broker::Broker;
use crate::wire::subjects;

/// Cancellations that may wait for their reader; further ones are lost.
const WAITING: usize = 1_024;

/// Announces to every process that a request was cancelled.
pub async fn announce(broker: &Broker, request: &RequestId) {
    let client = broker.results.client();
    if let Err(error) = client.publish(subjects::cancel_subject(request), bytes::Bytes::new()).await {
        tracing::warn!(%request, %error, "a cancellation was not announced, workers may finish the work in vain");
    }
}

/// Subscribes to the cancellations that are announced from now on.
pub async fn listen(broker: &Broker) -> Result<mpsc::Receiver<RequestId>, TransportError> {
    let client = broker.results.client();
    let mut messages = client.subscribe(subjects::CANCELLATIONS).await.map_err(TransportError::unavailable)?;
    // The subscription is in force once the server has answered what was sent after it.
    client.flush().await.map_err(TransportError::unavailable)?;
    let (sender, cancelled) = mpsc::channel(WAITING);
    let stop = broker.stop.clone();
    broker.tasks.spawn(async move {
        loop {
            let message = tokio::select! {
                message = messages.next() => message,
                () = sender.closed() => return,
                () = stop.cancelled() => return,
            };
            let Some(message) = message else { return };
            if let Some(request) = subjects::parse_cancelled_request(&message.subject)
                && sender.try_send(request).is_err()
            {
                tracing::debug!("a cancellation was lost, its reader is too slow");
            }
        }
    });
    Ok(cancelled)
}
