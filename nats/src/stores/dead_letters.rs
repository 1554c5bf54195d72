//! Dead letters: the event with the stage and the cause of its failure, on `dead.<flow>`.
//!
//! These headers are added to the event's own: `Caudal-Stage`, `Caudal-Faults` (how often it failed), `Caudal-Attempts`
//! (deliveries), `Caudal-Cause` (JSON: status, code, detail), `Caudal-Error` (the last error, for the operator of the
//! service) and `Caudal-MessageId` (the event's own `Nats-Msg-Id`; the dead letter has another). An event that could not
//! be decoded is stored with all headers it had, except those of the broker. No letter is refused for its size: what does
//! not fit is left out.

use std::collections::HashSet;
use std::str::FromStr;

use async_nats::header::{HeaderValue, NATS_MESSAGE_ID};
use async_nats::{HeaderMap, Message};
use bytes::Bytes;
use pipeline::{
    Content, DeadLetter, Envelope, FlowName, Lane, Payload, Rejection, StoredDeadLetter, Token, TransportError,
};

use crate::link::broker::Broker;
use crate::link::direct_get::{self, Page, StoredMessage};
use crate::link::publish::{OutgoingMessage, PublishFailure, publish};
use crate::wire::cloud_event::{self, Arrival, AttributeCache};
use crate::wire::headers;
use crate::wire::payload;
use crate::wire::subjects;

const STAGE: &str = "Caudal-Stage";
const CAUSE: &str = "Caudal-Cause";
const LANE: &str = "Caudal-Lane";
const ATTEMPTS: &str = "Caudal-Attempts";
const FAULTS: &str = "Caudal-Faults";
const ERROR: &str = "Caudal-Error";
const MESSAGE_ID: &str = "Caudal-MessageId";

/// Bytes of an error's text, a cause's detail or a message id that are stored.
const MAX_ERROR: usize = 4 << 10;
/// Bytes of a publisher's headers that are stored: the server takes 64 KiB for all headers together.
const MAX_GIVEN_HEADERS: usize = 48 << 10;
/// Bytes of a header line besides name and value.
const LINE: usize = 4;

/// Bounds of one page of dead letters.
const PAGE: Page = Page { messages: 128, bytes: 4 << 20 };

/// Stores an event that failed. Returns after the acknowledgement.
pub async fn store(broker: &Broker, letter: DeadLetter) -> Result<(), TransportError> {
    let DeadLetter { envelope, payload, stage, faults, cause, error } = letter;
    let error = error.map(|text| one_line(&text));
    let encoded = payload::encode(&payload)?;
    let build = || {
        let mut headers = cloud_event::encode_headers(&envelope, &encoded)?;
        // Stored again after a crash it is the same dead letter; an event that was retried by hand has an id of its
        // own.
        headers::put_message_id(&mut headers, &format!("{}.dead.{stage}", envelope.id))?;
        headers::put(&mut headers, MESSAGE_ID, envelope.id.as_str())?;
        add_cause(&mut headers, envelope.lane, &stage, &cause)?;
        headers::put(&mut headers, ATTEMPTS, &envelope.attempt.to_string())?;
        headers::put(&mut headers, FAULTS, &faults.to_string())?;
        if let Some(error) = &error {
            headers::put(&mut headers, ERROR, error)?;
        }
        let subject = subjects::dead_letter_subject(&envelope.flow);
        Ok(OutgoingMessage { subject, headers, payload: encoded.bytes.clone() })
    };
    publish_letter(broker, &envelope.flow, build).await
}

/// Stores a message that could not be decoded. `id` is that of the event, if one could be read.
pub async fn store_unreadable(
    broker: &Broker,
    arrival: &Arrival<'_>,
    message: &Message,
    id: Option<&Token>,
    stage: &str,
    cause: &Rejection,
) -> Result<(), TransportError> {
    let (flow, lane) = (arrival.flow, arrival.lane);
    let given = message.headers.as_ref().and_then(|given| headers::get(given, "Nats-Msg-Id"));
    let build = || {
        let mut headers = headers_without_commands(message.headers.as_ref());
        // The id of an MQTT message is in no header.
        if let Some(id) = given.or(id.map(Token::as_str)) {
            headers::put(&mut headers, MESSAGE_ID, &one_line(id))?;
        }
        headers::put_message_id(&mut headers, &format!("{flow}.{}.unreadable", arrival.sequence))?;
        add_cause(&mut headers, lane, stage, cause)?;
        Ok(OutgoingMessage { subject: subjects::dead_letter_subject(flow), headers, payload: message.payload.clone() })
    };
    publish_letter(broker, flow, build).await
}

async fn publish_letter(
    broker: &Broker,
    flow: &FlowName,
    build: impl Fn() -> Result<OutgoingMessage, TransportError>,
) -> Result<(), TransportError> {
    let stored = match publish(broker, &broker.results, &build).await {
        Err(PublishFailure::Refused(why)) => {
            publish(broker, &broker.results, || Ok(without_body(build()?, &why))).await
        }
        stored => stored,
    };
    stored.map_err(|failure| failure.of_store("dead letters"))?;
    metrics::counter!("caudal_dead_letters_total", "flow" => flow.to_string()).increment(1);
    Ok(())
}

/// A letter that is too large for the broker with the headers it has in addition to the event's: without its body, it
/// still tells what failed.
fn without_body(letter: OutgoingMessage, why: &TransportError) -> OutgoingMessage {
    let OutgoingMessage { subject, mut headers, payload } = letter;
    let error = one_line(&format!("the body of {} bytes is not stored: {why}", payload.len()));
    if headers::put(&mut headers, ERROR, &error).is_err() {
        tracing::error!(%subject, %why, "a dead letter is stored without its body");
    }
    OutgoingMessage { subject, headers, payload: Bytes::new() }
}

fn add_cause(headers: &mut HeaderMap, lane: Lane, stage: &str, cause: &Rejection) -> Result<(), TransportError> {
    let cause = Rejection { detail: headers::cut(cause.detail.clone(), MAX_ERROR), ..cause.clone() };
    let cause = serde_json::to_string(&cause).map_err(TransportError::unavailable)?;
    headers::put(headers, LANE, lane.as_str())?;
    headers::put(headers, STAGE, stage)?;
    headers::put(headers, CAUSE, &cause)
}

/// A text as one header value.
fn one_line(text: &str) -> String {
    let shown = &text[..text.floor_char_boundary(MAX_ERROR)];
    shown.replace(['\r', '\n'], " ")
}

/// The headers of a publisher without `Nats-*`, which the broker would obey (for example delete other messages), and without
/// those of dead letters; the shortest first, as far as there is room.
fn headers_without_commands(given: Option<&HeaderMap>) -> HeaderMap {
    let of_letters = |name: &str| [ATTEMPTS, FAULTS, ERROR].iter().any(|own| name.eq_ignore_ascii_case(own));
    let is_command = |name: &str| name.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("nats-"));
    let given = given.into_iter().flat_map(HeaderMap::iter);
    let mut given: Vec<_> = given
        .flat_map(|(name, values)| values.iter().map(move |value| (name, value)))
        .filter(|(name, _)| !is_command(name.as_ref()) && !of_letters(name.as_ref()))
        .map(|(name, value)| (AsRef::<str>::as_ref(name).len() + value.as_str().len(), name, value))
        .collect();
    given.sort_unstable_by_key(|(length, ..)| *length);
    let mut kept = HeaderMap::new();
    let mut room = MAX_GIVEN_HEADERS;
    for (length, name, value) in given {
        let Some(left) = room.checked_sub(length + LINE) else { break };
        room = left;
        kept.append(name.clone(), value.clone());
    }
    kept
}

/// Up to `limit` readable dead letters of one flow or of all, from a sequence on, oldest first.
pub async fn list(
    broker: &Broker,
    flow: Option<&FlowName>,
    from: u64,
    limit: usize,
) -> Result<Vec<StoredDeadLetter>, TransportError> {
    if limit == 0 {
        return Ok(Vec::new());
    }
    let filter = flow.map_or_else(
        || subjects::DEAD_LETTER_SUBJECTS.to_owned(),
        |flow| subjects::dead_letter_subject(flow).into_string(),
    );
    let mut found = Vec::new();
    direct_get::read_from(&broker.results, subjects::DEAD_LETTERS, from.max(1), &filter, PAGE, &mut |stored| {
        found.extend(decode(stored));
        found.len() < limit
    })
    .await?;
    Ok(found)
}

/// Ids of the bodies to which dead letters of a flow refer.
pub async fn claimed_bodies(broker: &Broker, flow: &FlowName) -> Result<HashSet<Token>, TransportError> {
    let filter = subjects::dead_letter_subject(flow);
    let mut found = HashSet::new();
    direct_get::read(&broker.results, subjects::DEAD_LETTERS, &filter, PAGE, &mut |stored| {
        if let Some(stored) = decode(stored) {
            found.extend(stored.letter.payload.claims().into_iter().map(|claim| claim.id.clone()));
        }
        true
    })
    .await?;
    Ok(found)
}

fn decode(stored: StoredMessage) -> Option<StoredDeadLetter> {
    let subject = headers::get(&stored.headers, "Nats-Subject")?;
    let flow = subjects::parse_dead_letter_flow(subject)?;
    let stage = headers::get(&stored.headers, STAGE).unwrap_or("unknown").into();
    let cause = serde_json::from_str(headers::get(&stored.headers, CAUSE)?).ok()?;
    let lane = match headers::get(&stored.headers, LANE) {
        Some("bulk") => Lane::Bulk,
        _ => Lane::Interactive,
    };
    let mut given = stored.headers.clone();
    if let Some(id) = headers::get(&given, MESSAGE_ID).and_then(|id| HeaderValue::from_str(id).ok()) {
        given.insert(NATS_MESSAGE_ID, id);
    }
    let message = Message {
        subject: subject.into(),
        reply: None,
        length: stored.payload.len(),
        payload: stored.payload.clone(),
        headers: Some(given),
        status: None,
        description: None,
    };
    let attempt = headers::get(&stored.headers, ATTEMPTS).and_then(|text| text.parse().ok()).unwrap_or(1);
    let arrival = Arrival { flow: &flow, lane, answers: false, attempt, sequence: stored.sequence };
    let (envelope, payload) = match cloud_event::decode(&message, &arrival, &mut AttributeCache::default()) {
        Ok(read) => read,
        Err(_) => cloud_event::salvage(&message, &arrival).unwrap_or_else(|| unnamed(&flow, lane, &stored)),
    };
    let faults = headers::get(&stored.headers, FAULTS).and_then(|text| text.parse().ok()).unwrap_or(0);
    let error = headers::get(&stored.headers, ERROR).map(Into::into);
    Some(StoredDeadLetter {
        id: stored.sequence,
        letter: DeadLetter { envelope, payload, stage, faults, cause, error },
    })
}

/// Stands for an event without a valid id: its bytes, with an id made from its position.
fn unnamed(flow: &FlowName, lane: Lane, stored: &StoredMessage) -> (Envelope, Payload) {
    let id = Token::new(&format!("unreadable-{}", stored.sequence)).unwrap_or_else(|_| Token::random());
    let mut envelope = Envelope::new(flow.clone(), id);
    envelope.lane = lane;
    let content = Content::inline("application/octet-stream", stored.payload.clone());
    (envelope, Payload::Bytes(content))
}

/// Removes a dead letter; no error if it is gone.
pub async fn remove(broker: &Broker, sequence: u64) -> Result<(), TransportError> {
    use async_nats::jetstream::stream::DeleteMessageErrorKind;
    /// The three error codes for "no message found".
    const GONE: [u64; 3] = [10_037, 10_043, 10_057];
    let context = &broker.results.context;
    let stream = context.get_stream_no_info(subjects::DEAD_LETTERS).await.map_err(TransportError::unavailable)?;
    match stream.delete_message(sequence).await {
        Ok(_) => Ok(()),
        Err(error) => match error.kind() {
            DeleteMessageErrorKind::JetStream(ref why) if GONE.contains(&why.error_code().0) => Ok(()),
            _ => Err(TransportError::unavailable(error)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(given: &[(&'static str, &str)]) -> StoredMessage {
        let mut all = HeaderMap::new();
        for &(name, value) in given {
            headers::put(&mut all, name, value).unwrap();
        }
        StoredMessage { sequence: 7, headers: all, payload: "x".into() }
    }

    const CAUSE_HEADER: (&str, &str) = (CAUSE, r#"{"status": 400, "code": "no_id", "detail": ""}"#);

    #[test]
    fn a_publishers_commands_to_the_broker_are_not_stored() {
        let mut given = HeaderMap::new();
        for name in ["Nats-Rollup", "nats-msg-id", "ce-id", "x-own", "Caudal-Faults", "caudal-error"] {
            given.insert(name, "x");
        }
        let kept = headers_without_commands(Some(&given));
        assert_eq!(kept.len(), 2);
    }

    #[test]
    fn an_error_is_stored_on_one_line() {
        assert_eq!(one_line("a\r\nb"), "a  b");
    }

    #[test]
    fn a_long_error_is_cut_between_characters() {
        let shown = one_line(&format!("x{}", "ä".repeat(MAX_ERROR)));
        assert_eq!(shown.len(), MAX_ERROR - 1);
    }

    #[test]
    fn an_event_without_an_id_is_named_by_its_position() {
        let dead = decode(stored(&[("Nats-Subject", "dead.f"), CAUSE_HEADER])).unwrap();
        assert_eq!(dead.letter.envelope.id.as_str(), "unreadable-7");
    }

    #[test]
    fn an_unreadable_event_has_its_own_id() {
        let own = |given: &[(&'static str, &str)]| {
            let given = [&[("Nats-Subject", "dead.f"), CAUSE_HEADER, ("ce-time", "noon")], given].concat();
            decode(stored(&given)).unwrap().letter.envelope.id.to_string()
        };
        assert_eq!(own(&[("Ce-Id", "e1")]), "e1");
        // The letter itself has another message id.
        assert_eq!(own(&[("Nats-Msg-Id", "f.7.unreadable"), (MESSAGE_ID, "m1")]), "m1");
    }

    #[test]
    fn headers_are_stored_as_far_as_there_is_room() {
        let mut given = HeaderMap::new();
        given.insert("ce-id", "e1");
        given.insert("x-most", "x".repeat(60 << 10));
        let kept = headers_without_commands(Some(&given));
        assert_eq!((kept.len(), headers::get(&kept, "ce-id")), (1, Some("e1")));
    }

    #[test]
    fn a_letter_without_its_body_says_so() {
        let letter = OutgoingMessage { subject: "dead.f".into(), headers: HeaderMap::new(), payload: "12345".into() };
        let left = without_body(letter, &headers::refused("too large".into()));
        assert!(left.payload.is_empty());
        assert!(headers::get(&left.headers, ERROR).unwrap().contains("5 bytes"));
    }

    #[test]
    fn the_detail_of_a_cause_fits_into_its_header() {
        let mut headers = HeaderMap::new();
        let cause = Rejection::unusable("x", "ä\n".repeat(60 << 10));
        assert!(add_cause(&mut headers, Lane::Bulk, "s", &cause).is_ok());
    }

    #[test]
    fn a_message_without_a_cause_is_no_dead_letter() {
        assert!(decode(stored(&[("Nats-Subject", "dead.f"), ("ce-id", "e")])).is_none());
    }
}
