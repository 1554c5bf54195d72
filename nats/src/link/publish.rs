//! Confirmation publishing: one message id, at most two sends, and what a refusal means.
//!
//! If no acknowledgement arrives, the outcome is *unknown*: the message may be stored, now or later. It is sent once
//! more with the same message id, so that the broker detects the duplicate. Every wait has a timeout: about 8 s at most
//! in all.

use std::error::Error;
use std::time::Duration;

use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::{self, Context};
use async_nats::{HeaderMap, Subject};
use bytes::Bytes;
use pipeline::{BoxError, FlowName, TransportError};

use crate::link::timeout::timeout_if_pending;
use crate::wire::headers::refused;

/// Sends of one message, the first included.
const SENDS: u32 = 2;
/// How long a message may wait in the client behind others whose acknowledgement is outstanding.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(2);

/// A message to be stored.
pub struct OutgoingMessage {
    pub subject: Subject,
    pub headers: HeaderMap,
    pub payload: Bytes,
}

/// The broker's acknowledgement of a publish.
#[derive(Clone, Copy, Debug)]
pub struct Confirmation {
    /// Position of the message in its stream.
    pub sequence: u64,
    /// The broker had stored a message with this id before.
    pub duplicate: bool,
    /// The first send was not confirmed, so a duplicate may be our own first send.
    pub repeated: bool,
}

/// Why a publish was not confirmed.
#[derive(Debug)]
pub enum PublishFailure {
    /// The stream is full; nothing was stored.
    Full,
    /// The expected sequence of the subject does not match; this message was not stored.
    Fenced {
        /// The first send was not confirmed, so our own first send may be the cause.
        repeated: bool,
    },
    /// The message cannot be stored, neither now nor later.
    Refused(TransportError),
    /// Whether the message was stored is unknown.
    Unavailable(BoxError),
}

impl PublishFailure {
    /// As an error of the transport, for a publish to the queue of `flow`.
    pub fn of_flow(self, flow: &FlowName) -> TransportError {
        match self {
            Self::Full => TransportError::Full { flow: flow.clone() },
            other => other.of_store("queue"),
        }
    }

    /// As an error of the transport, for a publish to a store that all flows share.
    pub fn of_store(self, store: &'static str) -> TransportError {
        match self {
            Self::Full => {
                TransportError::unavailable(format!("the store of {store} is full: raise its bytes in [nats]"))
            }
            Self::Fenced { .. } => TransportError::unavailable("another message was stored before this one"),
            Self::Refused(why) => why,
            Self::Unavailable(why) => TransportError::Unavailable(why),
        }
    }
}

/// Publishes the message that `build` makes and waits for the acknowledgement. `build` is called once per send.
pub async fn publish(
    context: &Context,
    build: impl Fn() -> Result<OutgoingMessage, TransportError>,
) -> Result<Confirmation, PublishFailure> {
    let mut sends = 0;
    loop {
        sends += 1;
        let repeated = sends > 1;
        let message = build().map_err(PublishFailure::Refused)?;
        let error = match send(context, message).await {
            Ok(ack) => return Ok(Confirmation { sequence: ack.sequence, duplicate: ack.duplicate, repeated }),
            Err(error) => error,
        };
        match classify(error, repeated) {
            PublishFailure::Unavailable(error) if sends < SENDS => {
                tracing::debug!(%error, "a publish was not confirmed, sending again");
            }
            failure => return Err(failure),
        }
    }
}

/// Queues a message and waits for its acknowledgement.
async fn send(context: &Context, message: OutgoingMessage) -> Result<jetstream::publish::PublishAck, PublishError> {
    queue(context, message).await?.await
}

/// Queues a message. The returned future resolves to the acknowledgement; if it is dropped, the error is lost.
pub async fn queue(
    context: &Context,
    message: OutgoingMessage,
) -> Result<jetstream::context::PublishAckFuture, PublishError> {
    let OutgoingMessage { subject, headers, payload } = message;
    let publish = PublishMessage::build().headers(headers).payload(payload);
    timeout_if_pending(QUEUE_TIMEOUT, context.send_publish(subject, publish))
        .await
        .unwrap_or_else(|_| Err(PublishError::new(PublishErrorKind::TimedOut)))
}

/// What a failed publish means. `repeated`: an earlier send of the same message was not confirmed.
pub fn classify(error: PublishError, repeated: bool) -> PublishFailure {
    match error.kind() {
        PublishErrorKind::WrongLastSequence => PublishFailure::Fenced { repeated },
        PublishErrorKind::MaxPayloadExceeded => {
            PublishFailure::Refused(refused("the message is larger than the broker accepts".into()))
        }
        PublishErrorKind::Other => match api_code(&error) {
            Some(10_077) => PublishFailure::Full,
            // The stream's own inbound queue is full: the same for a client, only for a shorter time.
            Some(10_167) => PublishFailure::Full,
            // A clustered stream answers this instead of 10071.
            Some(10_164) => PublishFailure::Fenced { repeated },
            Some(10_054) => PublishFailure::Refused(refused("the message is larger than its stream accepts".into())),
            _ => PublishFailure::Unavailable(error.into()),
        },
        _ => PublishFailure::Unavailable(error.into()),
    }
}

/// JetStream's error code, which [`PublishErrorKind::Other`] hides.
fn api_code(error: &PublishError) -> Option<u64> {
    Some(error.source()?.downcast_ref::<jetstream::Error>()?.error_code().0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(code: u64) -> PublishError {
        let error = serde_json::json!({ "code": 400, "err_code": code, "description": "" });
        let error: jetstream::Error = serde_json::from_value(error).unwrap();
        PublishError::with_source(PublishErrorKind::Other, error)
    }

    #[test]
    fn a_full_stream_or_inbound_queue_is_full() {
        for code in [10_077, 10_167] {
            assert!(matches!(classify(refusal(code), false), PublishFailure::Full), "{code}");
        }
    }

    #[test]
    fn a_clustered_streams_sequence_mismatch_is_fenced() {
        assert!(matches!(classify(refusal(10_164), true), PublishFailure::Fenced { repeated: true }));
    }

    #[test]
    fn a_message_too_large_for_its_stream_is_refused_for_good() {
        assert!(matches!(classify(refusal(10_054), false), PublishFailure::Refused(TransportError::Body(_))));
    }

    #[test]
    fn an_unknown_code_leaves_the_outcome_unknown() {
        assert!(matches!(classify(refusal(10_023), false), PublishFailure::Unavailable(_)));
    }

    #[test]
    fn a_timeout_leaves_the_outcome_unknown() {
        let timeout = PublishError::new(PublishErrorKind::TimedOut);
        assert!(matches!(classify(timeout, false), PublishFailure::Unavailable(_)));
    }

    #[test]
    fn only_a_full_queue_names_its_flow() {
        let flow = FlowName::new("f").unwrap();
        assert!(matches!(PublishFailure::Full.of_flow(&flow), TransportError::Full { .. }));
        assert!(matches!(PublishFailure::Full.of_store("results"), TransportError::Unavailable(_)));
    }
}
