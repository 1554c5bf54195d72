//! Cancellations: a word on `cancel.<id>` to whoever works on a request, beside the terminal that is stored.
//!
//! Not stored and not confirmed. Whoever misses it works in vain, and its result is refused.

use futures_util::StreamExt;
use pipeline::{RequestId, TransportError};
use tokio::sync::mpsc;

use crate::jetstream::Inner;
use crate::names;

/// Words that may wait to be heeded; further ones are lost.
const WAITING: usize = 1_024;

/// Tells every process.
pub async fn announce(inner: &Inner, request: &RequestId) {
    let client = inner.results.client();
    if let Err(error) = client.publish(names::cancel_subject(request), bytes::Bytes::new()).await {
        tracing::warn!(%request, %error, "cancellation not announced, the work may be done in vain");
    }
}

/// Listens from now on.
pub async fn listen(inner: &Inner) -> Result<mpsc::Receiver<RequestId>, TransportError> {
    let client = inner.results.client();
    let mut words = client.subscribe(names::CANCELLATIONS).await.map_err(TransportError::unavailable)?;
    // A subscription is in force once the server has seen what was sent after it.
    client.flush().await.map_err(TransportError::unavailable)?;
    let (heard, given_up) = mpsc::channel(WAITING);
    let stop = inner.stop.clone();
    inner.tasks.spawn(async move {
        loop {
            let word = tokio::select! {
                word = words.next() => word,
                () = heard.closed() => return,
                () = stop.cancelled() => return,
            };
            let Some(word) = word else { return };
            if let Some(request) = names::cancelled_request(&word.subject)
                && heard.try_send(request).is_err()
            {
                tracing::debug!("a cancellation was not heeded in time");
            }
        }
    });
    Ok(given_up)
}
