//! Dead letters: the event as it was, with the stage and the cause of its end, on `dead.<flow>`.
//!
//! `Caudal-Stage`, `Caudal-Faults` (times it failed), `Caudal-Attempts` (deliveries), `Caudal-Cause` (JSON: status, code,
//! detail) and `Caudal-Error` (the last error, for whoever runs the service) are added to the event's own headers. An event
//! that could not even be read is kept with whatever headers it had, except the broker's own.

use std::collections::HashSet;

use async_nats::{HeaderMap, Message};
use pipeline::{DeadLetter, FlowName, KeptLetter, Lane, Rejection, Token, TransportError};

use crate::body;
use crate::codec::{self, Arrival, Seen};
use crate::direct::{self, Page};
use crate::jetstream::Inner;
use crate::names;
use crate::publish::{Outgoing, publish};

const STAGE: &str = "Caudal-Stage";
const CAUSE: &str = "Caudal-Cause";
const LANE: &str = "Caudal-Lane";
const ATTEMPTS: &str = "Caudal-Attempts";
const FAULTS: &str = "Caudal-Faults";
const ERROR: &str = "Caudal-Error";

/// Bytes of an error's text that are kept.
const ERROR_SHOWN: usize = 4 << 10;

/// One page of dead letters.
const PAGE: Page = Page { messages: 128, bytes: 4 << 20 };

/// Keeps an event that failed. Confirmed when it returns.
pub async fn keep(inner: &Inner, letter: DeadLetter) -> Result<(), TransportError> {
    let DeadLetter { envelope, payload, stage, faults, cause, error } = letter;
    let error = error.map(|text| one_line(&text));
    let encoded = body::encode(&payload)?;
    let build = || {
        let mut headers = codec::headers(&envelope, &encoded)?;
        // Written again after a crash it is the same letter; a retry by hand has an id of its own.
        codec::put_message_id(&mut headers, &format!("{}.dead.{stage}", envelope.id))?;
        add_cause(&mut headers, envelope.lane, &stage, &cause)?;
        codec::put(&mut headers, ATTEMPTS, &envelope.attempt.to_string())?;
        codec::put(&mut headers, FAULTS, &faults.to_string())?;
        if let Some(error) = &error {
            codec::put(&mut headers, ERROR, error)?;
        }
        let subject = names::dead_subject(&envelope.flow);
        Ok(Outgoing { subject, headers, payload: encoded.bytes.clone() })
    };
    store(inner, &envelope.flow, build).await
}

/// Keeps a message that could not be read.
pub async fn keep_raw(
    inner: &Inner,
    flow: &FlowName,
    lane: Lane,
    message: &Message,
    stage: &str,
    cause: &Rejection,
) -> Result<(), TransportError> {
    let build = || {
        let mut headers = foreign_headers(message.headers.as_ref());
        let position = message.reply.as_ref().and_then(|reply| crate::delivery::Position::parse(reply));
        let sequence = position.map_or(0, |position| position.stream_sequence);
        codec::put_message_id(&mut headers, &format!("{flow}.{sequence}.unreadable"))?;
        add_cause(&mut headers, lane, stage, cause)?;
        Ok(Outgoing { subject: names::dead_subject(flow), headers, payload: message.payload.clone() })
    };
    store(inner, flow, build).await
}

async fn store(
    inner: &Inner,
    flow: &FlowName,
    build: impl Fn() -> Result<Outgoing, TransportError>,
) -> Result<(), TransportError> {
    publish(&inner.results.context, build).await.map_err(|failure| failure.of_store("dead letters"))?;
    metrics::counter!("caudal_dead_letters_total", "flow" => flow.to_string()).increment(1);
    Ok(())
}

fn add_cause(headers: &mut HeaderMap, lane: Lane, stage: &str, cause: &Rejection) -> Result<(), TransportError> {
    let cause = serde_json::to_string(cause).map_err(TransportError::unavailable)?;
    codec::put(headers, LANE, lane.as_str())?;
    codec::put(headers, STAGE, stage)?;
    codec::put(headers, CAUSE, &cause)
}

/// A text as one header value.
fn one_line(text: &str) -> String {
    let shown = &text[..text.floor_char_boundary(ERROR_SHOWN)];
    shown.replace(['\r', '\n'], " ")
}

/// The headers of a publisher without those that would tell the broker to do something.
fn foreign_headers(given: Option<&HeaderMap>) -> HeaderMap {
    let mut kept = HeaderMap::new();
    for (name, values) in given.into_iter().flat_map(HeaderMap::iter) {
        let text: &str = name.as_ref();
        if !text.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("nats-")) {
            values.iter().for_each(|value| kept.append(name.clone(), value.clone()));
        }
    }
    kept
}

/// Up to `limit` dead letters that can be read, from a sequence on, oldest first, of one flow or of all.
pub async fn list(
    inner: &Inner,
    flow: Option<&FlowName>,
    from: u64,
    limit: usize,
) -> Result<Vec<KeptLetter>, TransportError> {
    if limit == 0 {
        return Ok(Vec::new());
    }
    let filter = flow.map_or_else(|| "dead.*".to_owned(), |flow| names::dead_subject(flow).into_string());
    let mut found = Vec::new();
    direct::read_from(&inner.results, names::DEAD, from.max(1), &filter, PAGE, &mut |stored| {
        found.extend(decode(stored));
        found.len() < limit
    })
    .await?;
    Ok(found)
}

/// The bodies that dead letters of a flow refer to.
pub async fn bodies(inner: &Inner, flow: &FlowName) -> Result<HashSet<Token>, TransportError> {
    let filter = names::dead_subject(flow);
    let mut found = HashSet::new();
    direct::read(&inner.results, names::DEAD, &filter, PAGE, &mut |stored| {
        let letter = decode(stored);
        found.extend(letter.into_iter().flat_map(|kept| kept.letter.payload.claims()).map(|claim| claim.id.clone()));
        true
    })
    .await?;
    Ok(found)
}

fn decode(stored: direct::Stored) -> Option<KeptLetter> {
    let subject = codec::get(&stored.headers, "Nats-Subject")?;
    let flow = FlowName::new(subject.strip_prefix("dead.")?).ok()?;
    let stage = codec::get(&stored.headers, STAGE).unwrap_or("unknown").into();
    let cause = serde_json::from_str(codec::get(&stored.headers, CAUSE)?).ok()?;
    let lane = match codec::get(&stored.headers, LANE) {
        Some("bulk") => Lane::Bulk,
        _ => Lane::Interactive,
    };
    let message = Message {
        subject: subject.into(),
        reply: None,
        length: stored.payload.len(),
        payload: stored.payload.clone(),
        headers: Some(stored.headers.clone()),
        status: None,
        description: None,
    };
    let attempt = codec::get(&stored.headers, ATTEMPTS).and_then(|text| text.parse().ok()).unwrap_or(1);
    let arrival = Arrival { flow: &flow, lane, answers: false, attempt, sequence: stored.sequence };
    let (envelope, payload) = match codec::decode(&message, &arrival, &mut Seen::default()) {
        Ok(read) => read,
        Err(_) => unreadable(&flow, lane, &stored),
    };
    let faults = codec::get(&stored.headers, FAULTS).and_then(|text| text.parse().ok()).unwrap_or(0);
    let error = codec::get(&stored.headers, ERROR).map(Into::into);
    Some(KeptLetter { id: stored.sequence, letter: DeadLetter { envelope, payload, stage, faults, cause, error } })
}

/// What can be shown of an event that could not be read: its bytes, under a name made from its place.
fn unreadable(flow: &FlowName, lane: Lane, stored: &direct::Stored) -> (pipeline::Envelope, pipeline::Payload) {
    let id = Token::new(&format!("unreadable-{}", stored.sequence)).unwrap_or_else(|_| Token::random());
    let mut envelope = pipeline::Envelope::new(flow.clone(), id);
    envelope.lane = lane;
    let content = pipeline::Content::inline("application/octet-stream", stored.payload.clone());
    (envelope, pipeline::Payload::Bytes(content))
}

/// Removes a dead letter; no error if it is gone.
pub async fn remove(inner: &Inner, sequence: u64) -> Result<(), TransportError> {
    use async_nats::jetstream::stream::DeleteMessageErrorKind;
    /// "no message found" in its three forms.
    const GONE: [u64; 3] = [10_037, 10_043, 10_057];
    let context = &inner.results.context;
    let stream = context.get_stream_no_info(names::DEAD).await.map_err(TransportError::unavailable)?;
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

    #[test]
    fn a_publisher_cannot_smuggle_orders_to_the_broker() {
        let mut given = HeaderMap::new();
        for name in ["Nats-Rollup", "nats-msg-id", "ce-id", "x-own"] {
            given.insert(name, "x");
        }
        let kept = foreign_headers(Some(&given));
        assert_eq!(kept.len(), 2);
    }
}
