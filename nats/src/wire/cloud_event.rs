//! An event as a NATS message and back: CloudEvents 1.0 in binary mode, attributes in headers.
//!
//! Encoding refuses what would break the protocol (a line break in a value) or exceed a bound (see [`MAX_MESSAGE`]).
//! Decoding is tolerant, because publishers in any language write these messages: only an id is required, and every
//! header that is present must be well-formed.
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

use async_nats::header::NATS_MESSAGE_ID;
use async_nats::{HeaderMap, Message};
use pipeline::{
    Claim, Envelope, FlowName, Lane, Params, Payload, Rejection, Token, TransportError, parse_message, shortened,
};
use serde::de::DeserializeOwned;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::wire::headers::{CLAIM, CONTENT_TYPE, TIME, get, malformed, put, put_claim, put_message_id, rfc3339};
use crate::wire::payload::{self, EncodedPayload};

/// Largest message of a flow or result, headers included, in bytes: inline content is at most 256 KiB, a third more as
/// base64, JSON up to 1 MiB. A pull must ask for more bytes than this, or the broker would never deliver the largest.
pub const MAX_MESSAGE: usize = (1 << 20) + (128 << 10);
/// Longest `ce-type`, `ce-source` or `traceparent` accepted from a publisher, in bytes.
const MAX_ATTRIBUTE: usize = 1 << 10;
/// Longest piece of a header that a message quotes, in characters.
const MAX_SHOWN: usize = 64;

const ID: &str = "ce-id";
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
    let none = HeaderMap::new();
    let headers = message.headers.as_ref().unwrap_or(&none);
    let id = event_id(headers, arrival)?;
    let request = match get(headers, REQUEST) {
        Some(text) => Some(token(REQUEST, text)?),
        None => arrival.answers.then(|| id.clone()),
    };
    let kind = attribute(headers, TYPE)?.unwrap_or("caudal.event");
    let source = attribute(headers, SOURCE)?.unwrap_or("/");
    let envelope = Envelope {
        id,
        flow: arrival.flow.clone(),
        lane: arrival.lane,
        kind: share(&mut cache.kind, kind),
        source: share(&mut cache.source, source),
        time: moment(headers, TIME)?.unwrap_or_else(OffsetDateTime::now_utc),
        request,
        deadline: moment(headers, DEADLINE)?,
        traceparent: attribute(headers, TRACE)?.map(Into::into),
        params: json::<Params>(headers, PARAMS)?.unwrap_or_default(),
        attempt: arrival.attempt,
    };
    let claim = json::<Claim>(headers, CLAIM)?;
    let media_type = get(headers, CONTENT_TYPE).unwrap_or("application/octet-stream");
    let media_type = share(&mut cache.media_type, media_type);
    let as_bytes = get(headers, PAYLOAD) == Some("bytes");
    let payload = payload::decode(media_type, as_bytes, claim, &message.payload)?;
    Ok((envelope, payload))
}

fn event_id(headers: &HeaderMap, arrival: &Arrival<'_>) -> Result<Token, Rejection> {
    if let Some(id) = get(headers, ID) {
        return token(ID, id);
    }
    if let Some(id) = headers.get(NATS_MESSAGE_ID) {
        return token("Nats-Msg-Id", id.as_str());
    }
    if get(headers, FROM_MQTT).is_some() {
        return token("the id of an MQTT message", &format!("mqtt-{}", arrival.sequence));
    }
    Err(malformed("no_id", "the event has no id: set the header ce-id".into()))
}

fn token(name: &str, text: &str) -> Result<Token, Rejection> {
    Token::new(text).map_err(|why| malformed("bad_id", format!("{name} {why}")))
}

fn attribute<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<Option<&'a str>, Rejection> {
    match get(headers, name) {
        Some(text) if text.len() > MAX_ATTRIBUTE => {
            let length = text.len();
            Err(malformed("bad_header", format!("{name} has {length} bytes, at most {MAX_ATTRIBUTE} are allowed")))
        }
        text => Ok(text),
    }
}

fn moment(headers: &HeaderMap, name: &'static str) -> Result<Option<OffsetDateTime>, Rejection> {
    get(headers, name)
        .map(|text| {
            OffsetDateTime::parse(text, &Rfc3339).map_err(|_| {
                let shown = shortened(text, MAX_SHOWN);
                malformed("bad_header", format!("{name} is {shown:?}, expected a time such as 2026-01-31T12:00:00Z"))
            })
        })
        .transpose()
}

fn json<T: DeserializeOwned>(headers: &HeaderMap, name: &'static str) -> Result<Option<T>, Rejection> {
    get(headers, name)
        .map(|text| {
            serde_json::from_str(text)
                .map_err(|why| malformed("bad_header", format!("{name}: {}", parse_message(&why))))
        })
        .transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use pipeline::{Content, Submission};

    fn message(headers: HeaderMap, payload: Bytes) -> Message {
        Message {
            subject: "ev.f.bulk".into(),
            reply: None,
            length: payload.len(),
            payload,
            headers: Some(headers),
            status: None,
            description: None,
        }
    }

    fn arrival(flow: &FlowName, answers: bool) -> Arrival<'_> {
        Arrival { flow, lane: Lane::Bulk, answers, attempt: 2, sequence: 9 }
    }

    fn submission() -> Submission {
        let flow = FlowName::new("f").unwrap();
        let mut envelope = Envelope::new(flow, Token::new("e1").unwrap());
        envelope.lane = Lane::Bulk;
        envelope.request = Some(Token::new("r1").unwrap());
        envelope.deadline = Some(OffsetDateTime::UNIX_EPOCH);
        envelope.traceparent = Some("00-abc-def-01".into());
        envelope.params.insert("report_id".into(), "ä\"\n".into());
        Submission { envelope, payload: Payload::Bytes(Content::inline("text/plain", "hello")) }
    }

    #[test]
    fn an_envelope_survives_the_wire() {
        let sent = submission();
        let encoded = payload::encode(&sent.payload).unwrap();
        let headers = encode_headers(&sent.envelope, &encoded).unwrap();
        let flow = sent.envelope.flow.clone();
        let (got, payload) =
            decode(&message(headers, encoded.bytes), &arrival(&flow, false), &mut AttributeCache::default()).unwrap();
        let mut wanted = sent.envelope;
        wanted.attempt = 2;
        assert_eq!(format!("{got:?}"), format!("{wanted:?}"));
        assert_eq!(format!("{payload:?}"), format!("{:?}", sent.payload));
    }

    #[test]
    fn a_line_break_in_a_value_is_refused_without_a_panic() {
        for break_it in [
            |e: &mut Envelope| e.kind = "a\r\nNats-Rollup: all".into(),
            |e: &mut Envelope| e.source = "a\nNats-Msg-Id: 1".into(),
            |e: &mut Envelope| e.traceparent = Some("a\r".into()),
        ] {
            let mut sent = submission();
            break_it(&mut sent.envelope);
            let encoded = payload::encode(&sent.payload).unwrap();
            assert!(matches!(encode_headers(&sent.envelope, &encoded), Err(TransportError::Body(_))));
        }
        let mut sent = submission();
        sent.payload = Payload::Bytes(Content::inline("text/plain\r\nNats-Rollup: all", "x"));
        assert!(encode_headers(&sent.envelope, &payload::encode(&sent.payload).unwrap()).is_err());
    }

    #[test]
    fn only_an_id_is_required_of_a_publisher() {
        let flow = FlowName::new("f").unwrap();
        let mut given = HeaderMap::new();
        put_message_id(&mut given, "m-1").unwrap();
        let (envelope, payload) =
            decode(&message(given, "x".into()), &arrival(&flow, true), &mut AttributeCache::default()).unwrap();
        assert_eq!(envelope.id.as_str(), "m-1");
        assert_eq!(envelope.request, Some(envelope.id.clone()));
        assert!(matches!(payload, Payload::Bytes(content) if &*content.media_type == "application/octet-stream"));
    }

    #[test]
    fn an_mqtt_message_is_named_by_its_position() {
        let flow = FlowName::new("f").unwrap();
        let mut given = HeaderMap::new();
        put(&mut given, FROM_MQTT, "1").unwrap();
        let (envelope, _) =
            decode(&message(given, "x".into()), &arrival(&flow, false), &mut AttributeCache::default()).unwrap();
        assert_eq!(envelope.id.as_str(), "mqtt-9");
    }

    #[test]
    fn a_refusal_does_not_repeat_the_header() {
        let (flow, long) = (FlowName::new("f").unwrap(), "n".repeat(30_000));
        for (name, text) in [
            (PARAMS, format!("\"{long}\"")),
            (CLAIM, format!("\"{long}\"")),
            (CLAIM, format!("{{\"id\": \"{long}\"}}")),
            (DEADLINE, long.clone()),
            (REQUEST, long.clone()),
        ] {
            let mut given = HeaderMap::new();
            put(&mut given, ID, "good").unwrap();
            put(&mut given, name, &text).unwrap();
            let message = message(given, Bytes::new());
            let refused = decode(&message, &arrival(&flow, false), &mut AttributeCache::default()).unwrap_err();
            assert!(refused.detail.contains(name) && refused.detail.len() < 300, "{refused}");
        }
    }

    #[test]
    fn a_header_that_is_present_must_be_well_formed() {
        let flow = FlowName::new("f").unwrap();
        for (name, text) in [
            (ID, "a.b"),
            (ID, "*"),
            (ID, ""),
            (REQUEST, ">"),
            (DEADLINE, "tomorrow"),
            (PARAMS, "[1]"),
            (CLAIM, "{\"id\": \"a.b\"}"),
            (TYPE, &"x".repeat(2000)),
        ] {
            let mut given = HeaderMap::new();
            put(&mut given, ID, "good").unwrap();
            put(&mut given, name, text).unwrap();
            let decoded = decode(&message(given, Bytes::new()), &arrival(&flow, false), &mut AttributeCache::default());
            assert!(decoded.is_err(), "{name}: {text}");
        }
        let empty = message(HeaderMap::new(), Bytes::new());
        assert!(decode(&empty, &arrival(&flow, false), &mut AttributeCache::default()).is_err());
    }
}
