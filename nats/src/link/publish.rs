//! Confirmation publishing: one message id, at most two sends, and what a refusal means.
//!
//! If no acknowledgement arrives, the outcome is *unknown*: the message may be stored, now or later. It is sent once
//! more with the same message id, so that the broker detects the duplicate. Every wait has a timeout: about 8 s at most
//! in all.
//!
//! A stream in which a write failed, say on a full disk, does not answer writes at all, but still answers a message whose
//! conditions do not hold. If such a message is answered and the one before it was not, the stream refuses writes; this
//! is found within [`SILENCE`] and kept in [`StreamHealth`](crate::link::stream_health::StreamHealth). From then on
//! requests are refused at once, but for one in a second.

use std::error::Error;
use std::time::Duration;

use async_nats::header::NATS_EXPECTED_STREAM;
use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::publish::PublishAck;
use async_nats::jetstream::{self, Context};
use async_nats::{HeaderMap, Subject};
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use pipeline::{BoxError, FlowName, TransportError};
use serde::Deserialize;

use crate::link::broker::Broker;
use crate::link::connection::Connection;
use crate::link::stream_health::Refusal;
use crate::link::timeout::timeout_if_pending;
use crate::wire::headers::refused;
use crate::wire::subjects;

/// Sends of one message, the first included.
const SENDS: u32 = 2;
/// How long a message may wait in the client behind others whose acknowledgement is outstanding.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long an acknowledgement may take before the stream is asked whether it refuses.
const SILENCE: Duration = Duration::from_millis(250);
/// The same for a stream that is known to refuse, so that a client waits less than 100 ms.
const SILENCE_OF_REFUSING: Duration = Duration::from_millis(30);
/// The same for a stream with replicas. It answers a failed condition before it has stored earlier messages, so that only
/// a long silence means something.
const SILENCE_OF_REPLICAS: Duration = Duration::from_millis(1_800);
/// JetStream's "expected stream does not match".
const OTHER_STREAM: u64 = 10_060;
/// JetStream's errors for a lack of resources: "insufficient resources", "insufficient storage resources available".
const NO_RESOURCES: [u64; 2] = [10_023, 10_047];
/// JetStream's "storing the message failed". The text says whether a bound of the stream or the storage is the reason.
const STORE_FAILED: u64 = 10_077;

/// The outstanding acknowledgement of one message.
pub type PendingAck = BoxFuture<'static, Result<PublishAck, PublishError>>;

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
    /// The stream refuses every write. Whether this one was stored is unknown.
    Refusing,
    /// The stream is known to refuse every write, so nothing was sent.
    NotSent,
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
            Self::Refusing => TransportError::unavailable(refuses_all(store)),
            Self::NotSent => TransportError::NotSent(refuses_all(store).into()),
        }
    }
}

fn refuses_all(store: &str) -> String {
    format!("the broker refuses every write to the store of {store}")
}

/// Publishes the message that `build` makes and waits for the acknowledgement. `build` is called once per send.
pub async fn publish(
    broker: &Broker,
    connection: &Connection,
    build: impl Fn() -> Result<OutgoingMessage, TransportError>,
) -> Result<Confirmation, PublishFailure> {
    let mut sends = 0;
    loop {
        sends += 1;
        let repeated = sends > 1;
        let message = build().map_err(PublishFailure::Refused)?;
        match send(broker, connection, message, repeated).await {
            Ok(ack) => return Ok(Confirmation { sequence: ack.sequence, duplicate: ack.duplicate, repeated }),
            Err(PublishFailure::Unavailable(error)) if sends < SENDS => {
                tracing::debug!(%error, "a publish was not confirmed, sending again");
            }
            Err(failure) => return Err(failure),
        }
    }
}

/// Queues a message and waits for its acknowledgement. `repeated`: an earlier send of it was not confirmed.
async fn send(
    broker: &Broker,
    connection: &Connection,
    message: OutgoingMessage,
    repeated: bool,
) -> Result<PublishAck, PublishFailure> {
    let subject = message.subject.clone();
    let established = *connection.established.borrow();
    let queued = queue(&connection.context, message).await.map_err(|error| classify(error, repeated))?;
    let sent = Sent { subject: &subject, established, repeated };
    confirm(broker, connection, sent, &mut queued.into_future()).await
}

/// A message that was sent.
#[derive(Clone, Copy)]
pub struct Sent<'s> {
    pub subject: &'s Subject,
    /// How often the connection had been established when it was sent.
    pub established: u64,
    /// An earlier send of it was not confirmed.
    pub repeated: bool,
}

/// Waits for an acknowledgement, and notes whether the stream stores. Returns [`PublishFailure::Refusing`] as soon as it
/// is known that the stream refuses writes; the acknowledgement is then still outstanding.
pub async fn confirm(
    broker: &Broker,
    connection: &Connection,
    sent: Sent<'_>,
    ack: &mut PendingAck,
) -> Result<PublishAck, PublishFailure> {
    let answer = loop {
        if let Ok(answer) = tokio::time::timeout(silence(broker, sent.subject), &mut *ack).await {
            break answer;
        }
        match ask(broker, connection, sent).await {
            Answer::Stores => {}
            Answer::KnownToRefuse => return Err(PublishFailure::Refusing),
            // An acknowledgement would have come before the answer to the question.
            Answer::Refuses => match (&mut *ack).now_or_never() {
                Some(answer) => break answer,
                None => return Err(refusing(broker, sent.subject, Refusal::Silent)),
            },
        }
    };
    match &answer {
        // A duplicate is recognised without being stored again.
        Ok(ack) if !ack.duplicate && broker.health.any_refusing() => {
            subjects::stream_of(sent.subject).inspect(|stream| broker.health.stored(stream));
        }
        Err(error) if is_out_of_storage(error) => return Err(refusing(broker, sent.subject, Refusal::Answered)),
        _ => {}
    }
    answer.map_err(|error| classify(error, sent.repeated))
}

/// Notes that the stream refuses writes.
fn refusing(broker: &Broker, subject: &Subject, refusal: Refusal) -> PublishFailure {
    subjects::stream_of(subject).inspect(|stream| broker.health.refused(stream, refusal));
    PublishFailure::Refusing
}

fn silence(broker: &Broker, subject: &Subject) -> Duration {
    let is_refusing = || subjects::stream_of(subject).is_some_and(|stream| broker.health.is_refusing(&stream));
    match broker.limits.replicas > 1 {
        true => SILENCE_OF_REPLICAS,
        false if broker.health.any_refusing() && is_refusing() => SILENCE_OF_REFUSING,
        false => SILENCE,
    }
}

/// What is known of a stream that has not acknowledged a message.
enum Answer {
    /// It is slow, or nothing is known.
    Stores,
    /// It answers a message that it must not store, and has not answered the one before.
    Refuses,
    /// Somebody else found that out before. That this message waits is no new evidence.
    KnownToRefuse,
}

/// Asks the stream, unless somebody else is asking it.
async fn ask(broker: &Broker, connection: &Connection, sent: Sent<'_>) -> Answer {
    #[derive(Deserialize)]
    struct Failed {
        error: jetstream::Error,
    }
    let Some(stream) = subjects::stream_of(sent.subject) else { return Answer::Stores };
    let Some(_check) = broker.health.begin_check(&stream) else {
        return if broker.health.is_refusing(&stream) { Answer::KnownToRefuse } else { Answer::Stores };
    };
    let mut headers = HeaderMap::new();
    // No stream has this name.
    headers.insert(NATS_EXPECTED_STREAM, "-");
    let asked = connection.client().request_with_headers(sent.subject.clone(), headers, Bytes::new()).await;
    let Ok(message) = asked else { return Answer::Stores };
    let answered = serde_json::from_slice::<Failed>(&message.payload);
    // On another connection the acknowledgement is lost and says nothing.
    let refuses = answered.is_ok_and(|answer| answer.error.error_code().0 == OTHER_STREAM)
        && *connection.established.borrow() == sent.established;
    if refuses { Answer::Refuses } else { Answer::Stores }
}

/// Refuses at once what is sent to a stream that refuses writes, but for one message in a second.
pub fn admit(broker: &Broker, stream: &str) -> Result<(), PublishFailure> {
    if broker.health.admits(stream) { Ok(()) } else { Err(PublishFailure::NotSent) }
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
            Some(STORE_FAILED) if !is_out_of_storage(&error) => PublishFailure::Full,
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

/// Whether the broker says that its storage failed or has no room, in contrast to a bound of the stream.
fn is_out_of_storage(error: &PublishError) -> bool {
    let Some(why) = error.source().and_then(|why| why.downcast_ref::<jetstream::Error>()) else { return false };
    let code = why.error_code().0;
    NO_RESOURCES.contains(&code) || code == STORE_FAILED && !why.to_string().contains("maximum")
}

/// JetStream's error code, which [`PublishErrorKind::Other`] hides.
fn api_code(error: &PublishError) -> Option<u64> {
    Some(error.source()?.downcast_ref::<jetstream::Error>()?.error_code().0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(code: u64) -> PublishError {
        let error = serde_json::json!({ "code": 400, "err_code": code, "description": "maximum reached" });
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
    fn a_failure_of_the_storage_is_not_a_full_stream() {
        let error =
            serde_json::json!({ "code": 503, "err_code": STORE_FAILED, "description": "no space left on device" });
        let error: jetstream::Error = serde_json::from_value(error).unwrap();
        let error = PublishError::with_source(PublishErrorKind::Other, error);
        assert!(is_out_of_storage(&error));
        assert!(matches!(classify(error, false), PublishFailure::Unavailable(_)));
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
