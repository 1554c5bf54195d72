//! Which processes live: each that is announced answers on `alive.<process>`, and nothing is stored.
//!
//! If nobody listens there, the broker says so at once. A process that lost its connection listens again after at most
//! [`LONGEST_RECONNECT_PAUSE`], so one is gone only if nobody has listened for longer than that.

use std::time::Duration;

use async_nats::client::RequestErrorKind;
use bytes::Bytes;
use futures_util::StreamExt;
use pipeline::{Announcement, Token, TransportError};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::link::broker::Broker;
use crate::link::connection::LONGEST_RECONNECT_PAUSE;
use crate::wire::subjects;

/// How long nobody may listen before a process is gone.
const GONE_AFTER: Duration = LONGEST_RECONNECT_PAUSE.saturating_add(Duration::from_secs(1));
/// Pause between two questions.
const PAUSE: Duration = Duration::from_millis(250);

/// Answers for `process` until the announcement is dropped or the transport is closed.
pub async fn announce(broker: &Broker, process: &Token) -> Result<Announcement, TransportError> {
    let client = broker.results.client();
    let mut questions =
        client.subscribe(subjects::alive_subject(process)).await.map_err(TransportError::unavailable)?;
    // The subscription is in force once the server has answered what was sent after it.
    client.flush().await.map_err(TransportError::unavailable)?;
    let (stop, dropped) = (broker.stop.clone(), CancellationToken::new());
    let announcement = dropped.clone().drop_guard();
    broker.tasks.spawn(async move {
        loop {
            let question = tokio::select! {
                question = questions.next() => question,
                () = dropped.cancelled() => return,
                () = stop.cancelled() => return,
            };
            let Some(question) = question else { return };
            if let Some(reply) = question.reply
                && let Err(error) = client.publish(reply, Bytes::new()).await
            {
                tracing::debug!(%error, "not answered that this process lives");
            }
        }
    });
    Ok(Box::new(announcement))
}

/// Whether somebody answers for `process`, or at least listens.
pub async fn is_alive(broker: &Broker, process: &Token) -> Result<bool, TransportError> {
    let (client, gone_at) = (broker.results.client(), Instant::now() + GONE_AFTER);
    loop {
        let asked = client.request(subjects::alive_subject(process), Bytes::new()).await;
        match asked.map_err(|error| error.kind()) {
            // Without an answer in time there is still somebody who listens: it may be paused.
            Ok(_) | Err(RequestErrorKind::TimedOut) => return Ok(true),
            Err(RequestErrorKind::NoResponders) if Instant::now() >= gone_at => return Ok(false),
            Err(RequestErrorKind::NoResponders) => tokio::time::sleep(PAUSE).await,
            Err(kind) => return Err(TransportError::unavailable(format!("not asked whether a process lives: {kind}"))),
        }
    }
}
