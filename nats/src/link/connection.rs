//! One connection to the broker, and how it behaves when the broker goes away.
//!
//! A connection is one task of the client library, so every kind of traffic has its own: a burst of large bodies delays
//! no acknowledgement. Reconnecting never gives up; the pauses grow from about 10 ms to 2 s.

use std::path::PathBuf;
use std::time::Duration;

use async_nats::jetstream::Context;
use async_nats::jetstream::context::ContextBuilder;
use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event};
use rand::Rng;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::ConnectError;

/// Where the broker is and who we are to it.
#[derive(Clone, Debug)]
pub struct Access {
    /// For example `nats://127.0.0.1:4222`; several, separated by commas.
    pub url: String,
    /// What proves who we are.
    pub auth: Auth,
}

impl Access {
    /// The address without what proves who we are.
    fn shown(&self) -> String {
        let servers = self.url.split(',').map(|server| match (server.split_once("://"), server.rsplit_once('@')) {
            (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
            _ => server.to_owned(),
        });
        servers.collect::<Vec<_>>().join(",")
    }
}

/// What proves who we are.
#[derive(Clone, Debug)]
pub enum Auth {
    /// Nothing, or what the URL holds.
    None,
    /// A file with the seed of an nkey user.
    NkeySeed(PathBuf),
    /// A credentials file: JWT and seed.
    Credentials(PathBuf),
}

/// Acknowledgements of publishes that may be outstanding per connection.
const MAX_ACKS_IN_FLIGHT: usize = 2048;
/// How long one acknowledgement or answer of the broker is awaited.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// Messages that may wait in the client for a subscription to be read; beyond, the client drops.
const SUBSCRIPTION_CAPACITY: usize = 16_384;
/// Inboxes of our own, so that other users of the broker can be denied them.
pub const INBOX_PREFIX: &str = "_INBOX_caudal";

/// A connection with its JetStream context, and the count of times it came up. A clone is the same connection.
#[derive(Clone)]
pub struct Connection {
    /// Publishes and asks.
    pub context: Context,
    /// Grows each time the connection is established again.
    pub up: watch::Receiver<u64>,
}

impl Connection {
    /// Connects, trying again until `limit` has passed unless the broker refuses who we are. Once `stop` is cancelled, losing
    /// the connection is no news.
    pub async fn open(
        access: &Access,
        role: &'static str,
        limit: Duration,
        stop: &CancellationToken,
    ) -> Result<Self, ConnectError> {
        let deadline = Instant::now() + limit;
        let (up, came_up) = watch::channel(0);
        let client = loop {
            let attempt = options(&access.auth, role, up.clone(), stop.clone()).await?.connect(access.url.clone());
            let error = match tokio::time::timeout_at(deadline, attempt).await {
                Ok(Ok(client)) => break client,
                Ok(Err(error)) => error,
                Err(_) => return Err(ConnectError::TimedOut { url: access.shown(), limit }),
            };
            let refused = matches!(
                error.kind(),
                ConnectErrorKind::Authentication
                    | ConnectErrorKind::AuthorizationViolation
                    | ConnectErrorKind::ServerParse
            );
            if refused || Instant::now() + RETRY_PAUSE >= deadline {
                return Err(ConnectError::Refused { url: access.shown(), source: error.into() });
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        };
        let context = ContextBuilder::new().timeout(ANSWER_LIMIT).max_ack_inflight(MAX_ACKS_IN_FLIGHT).build(client);
        Ok(Self { context, up: came_up })
    }

    /// The connection itself.
    pub fn client(&self) -> Client {
        self.context.client()
    }
}

const RETRY_PAUSE: Duration = Duration::from_millis(100);

async fn options(
    auth: &Auth,
    role: &'static str,
    up: watch::Sender<u64>,
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
        .request_timeout(Some(ANSWER_LIMIT))
        .subscription_capacity(SUBSCRIPTION_CAPACITY)
        .reconnect_delay_callback(reconnect_delay)
        .event_callback(move |event| {
            match event {
                Event::Disconnected if stop.is_cancelled() => tracing::debug!(role, "the broker is gone as well"),
                event => note(role, &event, &up),
            }
            std::future::ready(())
        }))
}

/// Doubles from 8 ms to 2 s, with a quarter of jitter so that many clients do not come back in step.
fn reconnect_delay(attempts: usize) -> Duration {
    let millis = 8_u64.saturating_mul(1 << attempts.min(8)).min(2_000);
    Duration::from_millis(millis - rand::rng().random_range(0..=millis / 4))
}

/// The broker tells of refused permissions and dropped messages only here.
fn note(role: &'static str, event: &Event, up: &watch::Sender<u64>) {
    match event {
        Event::Connected => {
            tracing::debug!(role, "connected to the broker");
            up.send_modify(|times| *times += 1);
        }
        Event::Disconnected => {
            metrics::counter!("caudal_broker_disconnects_total", "connection" => role).increment(1);
            tracing::warn!(role, "disconnected from the broker");
        }
        Event::SlowConsumer(_) => {
            metrics::counter!("caudal_broker_dropped_messages_total", "connection" => role).increment(1);
            tracing::error!(role, "the client dropped messages it could not hold");
        }
        Event::ServerError(error) => tracing::error!(role, %error, "the broker refused something"),
        Event::ClientError(error) => tracing::warn!(role, %error, "broker client"),
        Event::LameDuckMode | Event::Draining | Event::Closed => tracing::info!(role, %event, "broker connection"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_shows_no_password() {
        let access = Access { url: "nats://me:secret@a:1,nats://b:2".into(), auth: Auth::None };
        assert_eq!(access.shown(), "nats://a:1,nats://b:2");
    }

    #[test]
    fn reconnecting_starts_fast_and_stays_bounded() {
        assert!(reconnect_delay(1) <= Duration::from_millis(16));
        assert!((1_500..=2_000).contains(&reconnect_delay(1_000).as_millis()));
    }
}
