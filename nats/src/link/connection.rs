//! One connection to the broker, and what it does when the broker goes away.
//!
//! The client library runs each connection in one task, so every kind of traffic has a connection of its own: a burst
//! of large bodies delays no acknowledgement. Reconnecting never gives up; the pauses grow from about 10 ms to 2 s.

use std::path::PathBuf;
use std::time::Duration;

use async_nats::jetstream::Context;
use async_nats::jetstream::context::ContextBuilder;
use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event};
use rand::Rng;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::access::{Access, Auth};
use crate::error::ConnectError;
use crate::wire::subjects::INBOX_PREFIX;

/// Acknowledgements of publishes that may be outstanding per connection.
const MAX_ACKS_IN_FLIGHT: usize = 2048;
/// Timeout for one acknowledgement or answer of the broker.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Messages that may wait in the client until a subscription is read; further ones are dropped by the client.
const SUBSCRIPTION_CAPACITY: usize = 16_384;
/// The longest pause between two attempts to connect again.
pub const LONGEST_RECONNECT_PAUSE: Duration = Duration::from_secs(2);
/// Pause between attempts to connect for the first time.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// A connection with its JetStream context and the number of times it was established. A clone is the same connection.
#[derive(Clone)]
pub struct Connection {
    /// The JetStream API on this connection.
    pub context: Context,
    /// Incremented each time the connection is established.
    pub established: watch::Receiver<u64>,
}

impl Connection {
    /// Connects. Tries again until `limit` has passed, unless the broker refuses our credentials. Once `stop` is
    /// cancelled, losing the connection is expected and logged at debug level only.
    pub async fn open(
        access: &Access,
        role: &'static str,
        limit: Duration,
        stop: &CancellationToken,
    ) -> Result<Self, ConnectError> {
        let deadline = Instant::now() + limit;
        let (establishing, established) = watch::channel(0);
        let client = loop {
            let options = options(&access.auth, role, establishing.clone(), stop.clone()).await?;
            let attempt = options.connect(access.url.clone());
            let error = match tokio::time::timeout_at(deadline, attempt).await {
                Ok(Ok(client)) => break client,
                Ok(Err(error)) => error,
                Err(_) => return Err(ConnectError::TimedOut { url: access.url_without_credentials(), limit }),
            };
            if is_final(error.kind()) || Instant::now() + RETRY_PAUSE >= deadline {
                return Err(ConnectError::Refused { url: access.url_without_credentials(), source: error.into() });
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        };
        let context = ContextBuilder::new().timeout(ANSWER_TIMEOUT).max_ack_inflight(MAX_ACKS_IN_FLIGHT).build(client);
        Ok(Self { context, established })
    }

    /// The client of this connection, for plain NATS.
    pub fn client(&self) -> Client {
        self.context.client()
    }
}

/// Whether connecting again would fail for the same reason.
fn is_final(kind: ConnectErrorKind) -> bool {
    matches!(
        kind,
        ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::ServerParse
    )
}

async fn options(
    auth: &Auth,
    role: &'static str,
    establishing: watch::Sender<u64>,
    stop: CancellationToken,
) -> Result<ConnectOptions, ConnectError> {
    let unreadable = |file: &PathBuf, source| ConnectError::Key { file: file.clone(), source };
    let options = match auth {
        Auth::None => ConnectOptions::new(),
        Auth::NkeySeed(file) => {
            let seed = tokio::fs::read_to_string(file).await.map_err(|error| unreadable(file, error))?;
            ConnectOptions::with_nkey(seed.trim().to_owned())
        }
        Auth::Credentials(file) => {
            ConnectOptions::with_credentials_file(file).await.map_err(|error| unreadable(file, error))?
        }
    };
    Ok(options
        .name(format!("caudal-{role}"))
        .custom_inbox_prefix(INBOX_PREFIX)
        .ping_interval(Duration::from_secs(10))
        .request_timeout(Some(ANSWER_TIMEOUT))
        .subscription_capacity(SUBSCRIPTION_CAPACITY)
        .reconnect_delay_callback(reconnect_delay)
        .event_callback(move |event| {
            match event {
                Event::Disconnected if stop.is_cancelled() => {
                    tracing::debug!(role, "disconnected from the broker while closing")
                }
                event => record_event(role, &event, &establishing),
            }
            std::future::ready(())
        }))
}

/// Doubles from 8 ms to 2 s, with up to a quarter of jitter so that many clients do not reconnect at the same moment.
fn reconnect_delay(attempts: usize) -> Duration {
    let longest = LONGEST_RECONNECT_PAUSE.as_millis() as u64;
    let millis = 8_u64.saturating_mul(1 << attempts.min(8)).min(longest);
    Duration::from_millis(millis - rand::rng().random_range(0..=millis / 4))
}

/// Logs and counts what happens to the connection. Refused permissions and dropped messages are reported only by these
/// events.
fn record_event(role: &'static str, event: &Event, establishing: &watch::Sender<u64>) {
    match event {
        Event::Connected => {
            tracing::debug!(role, "connected to the broker");
            establishing.send_modify(|times| *times += 1);
        }
        Event::Disconnected => {
            metrics::counter!("caudal_broker_disconnects_total", "connection" => role).increment(1);
            tracing::warn!(role, "disconnected from the broker");
        }
        Event::SlowConsumer(_) => {
            metrics::counter!("caudal_broker_dropped_messages_total", "connection" => role).increment(1);
            tracing::error!(role, "the client dropped messages, a subscription is read too slowly");
        }
        Event::ServerError(error) => tracing::error!(role, %error, "the broker reported an error"),
        Event::ClientError(error) => tracing::warn!(role, %error, "the client of the broker reported an error"),
        Event::LameDuckMode | Event::Draining | Event::Closed => {
            tracing::info!(role, %event, "the connection to the broker changed")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_reconnect_is_fast() {
        assert!(reconnect_delay(1) <= Duration::from_millis(16));
    }

    #[test]
    fn the_pause_between_reconnects_stays_bounded() {
        assert!((1_500..=2_000).contains(&reconnect_delay(1_000).as_millis()));
    }

    #[test]
    fn refused_credentials_are_final_and_an_absent_server_is_not() {
        assert!(is_final(ConnectErrorKind::AuthorizationViolation));
        assert!(!is_final(ConnectErrorKind::Io));
    }
}
