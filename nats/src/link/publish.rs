//! Publishing with confirmation: one message id, at most two attempts, and what a refusal means.
//!
//! A publish whose confirmation does not come is *unknown*: it may be stored, or be stored later. It is sent once more
//! under the same message id, which the broker recognises. Every wait is bounded: at most about 8 s in all.

use std::error::Error;
use std::time::Duration;

use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::{self, Context};
use async_nats::{HeaderMap, Subject};
use bytes::Bytes;
use pipeline::{BoxError, FlowName, TransportError};

use crate::bounded::bounded;
use crate::codec::refused;

/// Sends of one message, the first included.
const ATTEMPTS: u32 = 2;
/// How long a message may wait for its turn in the client, behind others whose confirmation is outstanding.
const TURN_LIMIT: Duration = Duration::from_secs(2);

/// A message to be stored.
pub struct Outgoing {
    pub subject: Subject,
    pub headers: HeaderMap,
    pub payload: Bytes,
}

/// A confirmed publish.
#[derive(Clone, Copy, Debug)]
pub struct Confirmed {
    /// Where it is in its stream.
    pub sequence: u64,
    /// The broker had stored a message of this id before.
    pub duplicate: bool,
    /// The first send was not confirmed, so that a duplicate may be our own.
    pub repeated: bool,
}

/// Why nothing was stored, as far as known.
#[derive(Debug)]
pub enum Failure {
    /// The stream is full.
    Full,
    /// The expectation about earlier messages does not hold. `repeated`: an earlier send of ours may be the cause.
    Fenced {
        /// The first send was not confirmed.
        repeated: bool,
    },
    /// The message cannot be stored, now or later.
    Refused(TransportError),
    /// Unknown.
    Unavailable(BoxError),
}

impl Failure {
    /// As the transport says it; `flow` is whose queue is full.
    pub fn of_flow(self, flow: &FlowName) -> TransportError {
        match self {
            Self::Full => TransportError::Full { flow: flow.clone() },
            other => other.of_store("queue"),
        }
    }

    /// As the transport says it, where no flow is concerned.
    pub fn of_store(self, store: &'static str) -> TransportError {
        match self {
            Self::Full => {
                TransportError::unavailable(format!("the store of {store} is full: raise its bytes in [nats]"))
            }
            Self::Fenced { .. } => TransportError::unavailable("the broker expected another message before"),
            Self::Refused(why) => why,
            Self::Unavailable(why) => TransportError::Unavailable(why),
        }
    }
}

/// Publishes what `build` makes and waits for the confirmation. `build` is called once per send.
pub async fn publish(
    context: &Context,
    build: impl Fn() -> Result<Outgoing, TransportError>,
) -> Result<Confirmed, Failure> {
    let mut sends = 0;
    loop {
        sends += 1;
        let repeated = sends > 1;
        let message = build().map_err(Failure::Refused)?;
        let error = match send(context, message).await {
            Ok(ack) => return Ok(Confirmed { sequence: ack.sequence, duplicate: ack.duplicate, repeated }),
            Err(error) => error,
        };
        match judge(error, repeated) {
            Failure::Unavailable(error) if sends < ATTEMPTS => {
                tracing::debug!(%error, "publish not confirmed, sent again");
            }
            failure => return Err(failure),
        }
    }
}

/// Queues a message and waits for its confirmation.
async fn send(context: &Context, message: Outgoing) -> Result<jetstream::publish::PublishAck, PublishError> {
    queue(context, message).await?.await
}

/// Queues a message; the future it gives is the confirmation and must be kept.
pub async fn queue(context: &Context, message: Outgoing) -> Result<jetstream::context::PublishAckFuture, PublishError> {
    let Outgoing { subject, headers, payload } = message;
    let publish = PublishMessage::build().headers(headers).payload(payload);
    bounded(TURN_LIMIT, context.send_publish(subject, publish))
        .await
        .unwrap_or_else(|_| Err(PublishError::new(PublishErrorKind::TimedOut)))
}

/// What a failed publish means.
pub fn judge(error: PublishError, repeated: bool) -> Failure {
    match error.kind() {
        PublishErrorKind::WrongLastSequence => Failure::Fenced { repeated },
        PublishErrorKind::MaxPayloadExceeded => {
            Failure::Refused(refused("the message is larger than the broker takes".into()))
        }
        PublishErrorKind::Other => match api_code(&error) {
            Some(10_077) => Failure::Full,
            // The stream's own inbound queue is full: the same to a client, only shorter.
            Some(10_167) => Failure::Full,
            // What a clustered stream says instead of 10071.
            Some(10_164) => Failure::Fenced { repeated },
            Some(10_054) => Failure::Refused(refused("the message is larger than its stream takes".into())),
            _ => Failure::Unavailable(error.into()),
        },
        _ => Failure::Unavailable(error.into()),
    }
}

/// JetStream's own error code, which [`PublishErrorKind::Other`] hides.
fn api_code(error: &PublishError) -> Option<u64> {
    Some(error.source()?.downcast_ref::<jetstream::Error>()?.error_code().0)
}
