//! An event as a NATS message and back: CloudEvents 1.0 in binary mode, attributes in headers.
//!
//! Encoding refuses what would break the protocol (a line break in a value) or exceed a bound (see [`MAX_MESSAGE`]).
//! Decoding is tolerant, because publishers in any language write these messages: only an id is required, the case of
//! names makes no difference, and every header that is present must be well-formed. What cannot be encoded again is
//! refused: it could not become a dead letter. Of a refused message, [`salvage`] reads what can be read.
//!
//! | header | value |
//! | --- | --- |
//! | `ce-specversion` | `1.0` |
//! | `ce-id`, `Nats-Msg-Id` | the event's id |
//! | `ce-type`, `ce-source`, `ce-time` | CloudEvents attributes; time is RFC 3339 |
//! | `content-type` | media type of the payload; `application/json` is delivered as JSON |
//! | `Caudal-Payload` | `bytes` if JSON must be delivered as bytes |
//! | `Caudal-Request` | id of the request to which results of this event belong |
//! | `Caudal-Deadline` | RFC 3339; after this time nobody needs the result |
//! | `Caudal-Params` | a JSON object beside the payload |
//! | `Caudal-Claim` | `{"id", "length", "sha256"}` of a body in the object store; the message is empty then |
//! | `traceparent` | W3C trace context |

use std::sync::Arc;

use async_nats::{HeaderMap, Message};
use bytes::Bytes;
use pipeline::{
    Body, Claim, Content, Envelope, FlowName, Lane, Params, Payload, Rejection, Token, TransportError, parse_message,
    shortened,
};
use serde::de::DeserializeOwned;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::wire::headers::{
    CLAIM, CONTENT_TYPE, MAX_HEADER, TIME, get, malformed, put, put_claim, put_message_id, rfc3339,
};
use crate::wire::payload::{self, EncodedPayload};

/// Largest message of a flow or result, headers included, in bytes: inline content is at most 256 KiB, a third more as
/// base64, JSON up to 1 MiB. A pull must ask for more bytes than this, or the broker would never deliver the largest.
pub const MAX_MESSAGE: usize = (1 << 20) + (128 << 10);
/// Longest `ce-type`, `ce-source`, `traceparent` or `content-type` accepted from a publisher, in bytes.
const MAX_ATTRIBUTE: usize = 1 << 10;
/// Longest piece of a header that a message quotes, in characters.
const MAX_SHOWN: usize = 64;

const ID: &str = "ce-id";
const MESSAGE_ID: &str = "Nats-Msg-Id";
const SPEC_VERSION: &str = "ce-specversion";
const TYPE: &str = "ce-type";
const SOURCE: &str = "ce-source";
const TRACE: &str = "traceparent";
const PAYLOAD: &str = "Caudal-Payload";
const REQUEST: &str = "Caudal-Request";
const DEADLINE: &str = "Caudal-Deadline";
const PARAMS: &str = "Caudal-Params";
/// Set by the server on messages that were published over MQTT.
const FROM_MQTT: &str = "Nmqtt-Pub";

/// What is known of a message from its subject and its delivery.
pub struct Arrival<'a> {
    pub flow: &'a FlowName,
    pub lane: Lane,
    /// Whether every event of the flow is a request.
    pub answers: bool,
    /// Number of this delivery, from 1.
    pub attempt: u32,
    /// Position in the queue's stream: the id of a message that came over MQTT, which has no headers.
    pub sequence: u64,
}

/// The last decoded type, source and media type. Most messages of a flow have the same ones, so they are shared instead
/// of copied.
#[derive(Default)]
pub struct AttributeCache {
    kind: Option<Arc<str>>,
    source: Option<Arc<str>>,
    media_type: Option<Arc<str>>,
}

/// `text`, without a copy if it is the same as the last time.
fn share(last: &mut Option<Arc<str>>, text: &str) -> Arc<str> {
    match last {
        Some(same) if &**same == text => Arc::clone(same),
        _ => Arc::clone(last.insert(text.into())),
    }
}

/// The headers of an event whose payload is already encoded.
pub fn encode_headers(envelope: &Envelope, encoded: &EncodedPayload) -> Result<HeaderMap, TransportError> {
    let mut headers = HeaderMap::new();
    put(&mut headers, SPEC_VERSION, "1.0")?;
    put(&mut headers, ID, envelope.id.as_str())?;
    put_message_id(&mut headers, envelope.id.as_str())?;
    put(&mut headers, TYPE, &envelope.kind)?;
    put(&mut headers, SOURCE, &envelope.source)?;
    put(&mut headers, TIME, &rfc3339(envelope.time)?)?;
    put(&mut headers, CONTENT_TYPE, &encoded.media_type)?;
    if encoded.is_opaque_json() {
        put(&mut headers, PAYLOAD, "bytes")?;
    }
    if let Some(claim) = &encoded.claim {
        put_claim(&mut headers, claim)?;
    }
    if let Some(request) = &envelope.request {
        put(&mut headers, REQUEST, request.as_str())?;
    }
    if let Some(deadline) = envelope.deadline {
        put(&mut headers, DEADLINE, &rfc3339(deadline)?)?;
    }
    if let Some(trace) = &envelope.traceparent {
        put(&mut headers, TRACE, trace)?;
    }
    if !envelope.params.is_empty() {
        let text = serde_json::to_string(&envelope.params).map_err(TransportError::unavailable)?;
        put(&mut headers, PARAMS, &text)?;
    }
    Ok(headers)
}

/// Decodes a message of a flow.
///
/// # Errors
/// Why the message cannot be decoded; it must then be dead-lettered.
pub fn decode(
    message: &Message,
    arrival: &Arrival<'_>,
    cache: &mut AttributeCache,
) -> Result<(Envelope, Payload), Rejection> {
    let (read, problem) = read(message, arrival, cache);
    match (read, problem) {
        (Some(event), None) => Ok(event),
        (_, Some(problem)) => Err(problem),
        (None, None) => Err(malformed("no_id", "the event has no id: set the header ce-id".into())),
    }
}

/// What can be read of a message that [`decode`] refuses: malformed headers as if they were absent, a malformed body as
/// bytes. `None` if it has no valid id.
pub fn salvage(message: &Message, arrival: &Arrival<'_>) -> Option<(Envelope, Payload)> {
    read(message, arrival, &mut AttributeCache::default()).0
}

/// The event, if it has an id, and the first problem that was met.
fn read(
    message: &Message,
    arrival: &Arrival<'_>,
    cache: &mut AttributeCache,
) -> (Option<(Envelope, Payload)>, Option<Rejection>) {
    let none = HeaderMap::new();
    let mut reader = Reader { headers: message.headers.as_ref().unwrap_or(&none), problem: None };
    let Some(id) = reader.event_id(arrival) else { return (None, reader.problem) };
    let kind = reader.attribute(TYPE).unwrap_or("caudal.event");
    let source = reader.attribute(SOURCE).unwrap_or("/");
    let envelope = Envelope {
        flow: arrival.flow.clone(),
        lane: arrival.lane,
        kind: share(&mut cache.kind, kind),
        source: share(&mut cache.source, source),
        time: reader.moment(TIME).unwrap_or_else(OffsetDateTime::now_utc),
        request: reader.request(&id, arrival),
        deadline: reader.moment(DEADLINE),
        traceparent: reader.attribute(TRACE).map(Into::into),
        params: reader.params(),
        attempt: arrival.attempt,
        id,
    };
    let payload = reader.payload(&message.payload, cache);
    (Some((envelope, payload)), reader.problem)
}

/// Reads headers and notes the first problem. What is malformed is `None`, as if it were absent.
struct Reader<'m> {
    headers: &'m HeaderMap,
    problem: Option<Rejection>,
}

impl<'m> Reader<'m> {
    fn note<T>(&mut self, read: Result<T, Rejection>) -> Option<T> {
        match read {
            Ok(value) => Some(value),
            Err(problem) => {
                self.problem.get_or_insert(problem);
                None
            }
        }
    }

    fn token(&mut self, name: &'static str) -> Option<Token> {
        let text = get(self.headers, name)?;
        self.note(Token::new(text).map_err(|why| malformed("bad_id", format!("{name} {why}"))))
    }

    /// If `ce-id` is malformed, the failure is told under the message id.
    fn event_id(&mut self, arrival: &Arrival<'_>) -> Option<Token> {
        let of_mqtt = |reader: &Self| {
            get(reader.headers, FROM_MQTT)?;
            Token::new(&format!("mqtt-{}", arrival.sequence)).ok()
        };
        self.token(ID).or_else(|| self.token(MESSAGE_ID)).or_else(|| of_mqtt(self))
    }

    /// If `Caudal-Request` is malformed, the failure is told under the event's id.
    fn request(&mut self, id: &Token, arrival: &Arrival<'_>) -> Option<Token> {
        let is_request = arrival.answers || get(self.headers, REQUEST).is_some();
        self.token(REQUEST).or_else(|| is_request.then(|| id.clone()))
    }

    fn attribute(&mut self, name: &'static str) -> Option<&'m str> {
        self.limited(name, MAX_ATTRIBUTE)
    }

    fn limited(&mut self, name: &'static str, most: usize) -> Option<&'m str> {
        let text = get(self.headers, name)?;
        let length = text.len();
        let too_long = || malformed("bad_header", format!("{name} has {length} bytes, at most {most} are allowed"));
        self.note(if length > most { Err(too_long()) } else { Ok(text) })
    }

    fn moment(&mut self, name: &'static str) -> Option<OffsetDateTime> {
        let text = get(self.headers, name)?;
        let expected = "expected a time such as 2026-01-31T12:00:00Z";
        let parsed = OffsetDateTime::parse(text, &Rfc3339);
        self.note(
            parsed.map_err(|_| {
                malformed("bad_header", format!("{name} is {:?}, {expected}", shortened(text, MAX_SHOWN)))
            }),
        )
    }

    fn json<T: DeserializeOwned>(&mut self, name: &'static str) -> Option<T> {
        let text = self.limited(name, MAX_HEADER)?;
        let parsed = serde_json::from_str(text);
        self.note(parsed.map_err(|why| malformed("bad_header", format!("{name}: {}", parse_message(&why)))))
    }

    fn params(&mut self) -> Params {
        let Some(params) = self.json::<Params>(PARAMS) else { return Params::new() };
        // Written out again, numbers can be longer.
        let length = serde_json::to_string(&params).map_or(0, |text| text.len());
        if length > MAX_HEADER {
            let detail = format!("{PARAMS} has {length} bytes written out, at most {MAX_HEADER} are allowed");
            self.problem.get_or_insert(malformed("bad_header", detail));
        }
        params
    }

    fn payload(&mut self, bytes: &Bytes, cache: &mut AttributeCache) -> Payload {
        let media_type = self.attribute(CONTENT_TYPE).unwrap_or("application/octet-stream");
        let media_type = share(&mut cache.media_type, media_type);
        let as_bytes = get(self.headers, PAYLOAD).is_some_and(|kind| kind.eq_ignore_ascii_case("bytes"));
        let claim = self.json::<Claim>(CLAIM);
        let decoded = self.note(payload::decode(Arc::clone(&media_type), as_bytes, claim, bytes));
        match decoded {
            Some(payload) => {
                self.note(payload::check_length(&payload, bytes.len()));
                payload
            }
            None => Payload::Bytes(Content { media_type, body: Body::Inline(bytes.clone()) }),
        }
    }
}

#[cfg(test)]
mod tests;
