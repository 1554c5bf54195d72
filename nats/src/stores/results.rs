//! Results of requests: fenced by the broker when written, in order when read.
//!
//! The terminal result is stored on `res.<id>.end` only if that subject is empty; every other result on `res.<id>.<n>`
//! only if there is no terminal yet, and once per ordinal. The broker checks both, so they hold across processes. Only
//! `accepted` is stored also after the terminal: a worker can be faster than the gateway that stored the event. Every
//! write has a random mark. A writer whose acknowledgement was lost compares it to find out whether the stored result
//! is its own.

use std::sync::Arc;
use std::time::Duration;

use async_nats::header::{HeaderName, HeaderValue, NATS_EXPECTED_LAST_SUBJECT_SEQUENCE};
use async_nats::{HeaderMap, Subject};
use bytes::Bytes;
use pipeline::{
    Body, Claim, Content, FlowName, Outcome, OutcomeKind, Rejection, RequestId, ResultAck, Token, TransportError,
};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::link::broker::Broker;
use crate::link::direct_get::{self, Page};
use crate::link::publish::{OutgoingMessage, PublishFailure, publish};
use crate::wire::headers;
use crate::wire::payload;
use crate::wire::subjects;

const KIND: &str = "Caudal-Kind";
const ORDINAL: &str = "Caudal-Ordinal";
const FLOW: &str = "Caudal-Flow";
const MARK: &str = "Caudal-Mark";
/// Time that each stage took, in milliseconds: `decode=12.345,embed=30.120`.
const STAGE_TIMES: &str = "Caudal-Worked";
/// The subject to which `Nats-Expected-Last-Subject-Sequence` applies, if it is not the message's own.
const FENCE_SUBJECT: &str = "Nats-Expected-Last-Subject-Sequence-Subject";

/// Stages of which times are read, at most.
const MAX_STAGES: usize = 32;

/// Bounds of one page; a request has few results.
const PAGE: Page = Page { messages: 256, bytes: 4 << 20 };

/// Stores a result.
pub async fn publish_outcome(
    broker: &Broker,
    request: &RequestId,
    outcome: &Outcome,
) -> Result<ResultAck, TransportError> {
    let terminal = subjects::terminal_subject(request);
    let subject = match outcome.kind.is_terminal() {
        true => terminal.clone(),
        false => subjects::result_subject(request, outcome.ordinal),
    };
    let mark = format!("{:016x}", rand::random::<u64>());
    let encoded = payload::encode_content(&outcome.content)?;
    let build = || {
        let mut headers = encode_headers(outcome, &mark)?;
        let name = if outcome.kind.is_terminal() { "end".to_owned() } else { outcome.ordinal.to_string() };
        headers::put_message_id(&mut headers, &format!("{request}.{name}"))?;
        headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, HeaderValue::from(0_u64));
        if !matches!(outcome.kind, OutcomeKind::Accepted) && !outcome.kind.is_terminal() {
            headers::put(&mut headers, FENCE_SUBJECT, terminal.as_str())?;
        }
        Ok(OutgoingMessage { subject: subject.clone(), headers, payload: encoded.bytes.clone() })
    };
    match publish(broker, &broker.results, build).await {
        Ok(confirmed) if !confirmed.duplicate => Ok(ResultAck::Stored),
        Ok(confirmed) if !confirmed.repeated => Ok(ResultAck::Refused),
        Err(PublishFailure::Fenced { repeated: false }) => Ok(ResultAck::Refused),
        Ok(_) | Err(PublishFailure::Fenced { repeated: true }) => stored_by_us(broker, &subject, &mark).await,
        Err(failure) => Err(failure.of_store("results")),
    }
}

/// [`ResultAck::Stored`] if the stored result has our `mark`. Asks the stream's leader, because a replica may be
/// behind.
async fn stored_by_us(broker: &Broker, subject: &Subject, mark: &str) -> Result<ResultAck, TransportError> {
    let stored = direct_get::last(&broker.results.context, subjects::RESULTS, subject).await?;
    let ours = stored.is_some_and(|stored| headers::get(&stored.headers, MARK) == Some(mark));
    Ok(if ours { ResultAck::Stored } else { ResultAck::Refused })
}

fn encode_headers(outcome: &Outcome, mark: &str) -> Result<HeaderMap, TransportError> {
    let mut headers = HeaderMap::new();
    headers::put(&mut headers, KIND, outcome.kind.as_str())?;
    headers.insert(HeaderName::from_static(ORDINAL), HeaderValue::from(outcome.ordinal));
    headers::put(&mut headers, FLOW, outcome.flow.as_str())?;
    headers::put(&mut headers, headers::TIME, &headers::rfc3339(outcome.time)?)?;
    headers::put(&mut headers, headers::CONTENT_TYPE, &outcome.content.media_type)?;
    headers::put(&mut headers, MARK, mark)?;
    if !outcome.stage_times.is_empty() {
        headers::put(&mut headers, STAGE_TIMES, &write_stage_times(&outcome.stage_times))?;
    }
    if let Some(claim) = outcome.content.claim() {
        headers::put_claim(&mut headers, claim)?;
    }
    Ok(headers)
}

/// Decodes a stored result; `None` if the message is not a result.
pub fn decode(headers: &HeaderMap, payload: Bytes) -> Option<Outcome> {
    let kind = OutcomeKind::parse(headers::get(headers, KIND)?)?;
    let ordinal = headers::get(headers, ORDINAL)?.parse().ok()?;
    let flow = FlowName::new(headers::get(headers, FLOW)?).ok()?;
    let time = OffsetDateTime::parse(headers::get(headers, headers::TIME)?, &Rfc3339).ok()?;
    let body = match headers::get(headers, headers::CLAIM) {
        Some(claim) => Body::Claim(serde_json::from_str::<Claim>(claim).ok()?.into()),
        None => Body::Inline(payload),
    };
    let media_type = headers::get(headers, headers::CONTENT_TYPE).unwrap_or("application/octet-stream").into();
    let stage_times = headers::get(headers, STAGE_TIMES).map(read_stage_times).unwrap_or_default();
    Some(Outcome { kind, ordinal, flow, time, stage_times, content: Content { media_type, body } })
}

fn write_stage_times(stage_times: &[(Arc<str>, Duration)]) -> String {
    let stage = |(stage, took): &(Arc<str>, Duration)| format!("{stage}={:.3}", took.as_secs_f64() * 1e3);
    stage_times.iter().map(stage).collect::<Vec<_>>().join(",")
}

/// Times that cannot be parsed are left out; nothing depends on them.
fn read_stage_times(text: &str) -> Vec<(Arc<str>, Duration)> {
    let stage = |entry: &str| {
        let (stage, millis) = entry.split_once('=')?;
        let took = Duration::try_from_secs_f64(millis.parse::<f64>().ok()? / 1e3).ok()?;
        Some((stage.into(), took))
    };
    text.split(',').filter_map(stage).take(MAX_STAGES).collect()
}

/// All stored results of a request by ordinal, the terminal last.
pub async fn outcomes(broker: &Broker, request: &RequestId) -> Result<Vec<Outcome>, TransportError> {
    let mut found = Vec::new();
    let filter = subjects::results_filter(request);
    direct_get::read(&broker.results, subjects::RESULTS, &filter, PAGE, &mut |stored| {
        found.extend(decode(&stored.headers, stored.payload));
        true
    })
    .await?;
    found.sort_by_key(|outcome| (outcome.kind.is_terminal(), outcome.ordinal));
    found.dedup_by(|later, earlier| later.ordinal == earlier.ordinal && !later.kind.is_terminal());
    Ok(found)
}

/// Stores a `failed` terminal after all results that the request already has.
pub async fn publish_failed(
    broker: &Broker,
    request: &Token,
    flow: &FlowName,
    cause: &Rejection,
) -> Result<(), TransportError> {
    let ordinal = outcomes(broker, request).await?.last().map_or(0, |last| last.ordinal.saturating_add(1));
    let problem = serde_json::to_vec(cause).map_err(TransportError::unavailable)?;
    let content = Content::inline("application/json", problem);
    let outcome = Outcome::new(OutcomeKind::Failed, ordinal, flow.clone(), content);
    publish_outcome(broker, request, &outcome).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_survives_encoding_and_decoding() {
        let flow = FlowName::new("f").unwrap();
        let stage_times = vec![("decode".into(), Duration::from_micros(12_345)), ("embed".into(), Duration::ZERO)];
        let data = Outcome::new(OutcomeKind::Data, 7, flow, Content::inline("text/plain", "x"));
        let outcome = Outcome { stage_times, ..data };
        let read = decode(&encode_headers(&outcome, "m").unwrap(), "x".into()).unwrap();
        assert_eq!(format!("{read:?}"), format!("{outcome:?}"));
    }

    #[test]
    fn headers_have_the_names_that_readme_documents() {
        let names = [KIND, ORDINAL, FLOW, MARK, STAGE_TIMES];
        assert_eq!(names, ["Caudal-Kind", "Caudal-Ordinal", "Caudal-Flow", "Caudal-Mark", "Caudal-Worked"]);
    }

    #[test]
    fn a_message_without_headers_is_not_a_result() {
        assert!(decode(&HeaderMap::new(), Bytes::new()).is_none());
    }

    #[test]
    fn times_that_cannot_be_parsed_are_left_out() {
        let read =
            |text: &str| read_stage_times(text).into_iter().map(|(stage, _)| stage.to_string()).collect::<Vec<_>>();
        assert_eq!(read("a=1,b,c=x,d=-1,e=NaN,f=inf,g=2.5"), ["a", "g"]);
    }

    #[test]
    fn the_number_of_times_is_bounded() {
        assert_eq!(read_stage_times(&"s=1,".repeat(1000)).len(), MAX_STAGES);
    }
}
