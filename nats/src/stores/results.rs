//! Results of requests: fenced when written, in order when read.
//!
//! The terminal is stored on `res.<id>.end` only if nothing is there; everything else on `res.<id>.<n>` only if there is
//! no terminal yet, and once per ordinal. The broker decides, so it holds across processes. Every write carries a mark of
//! its own, by which a writer whose confirmation was lost tells its own copy from another's.

use std::sync::Arc;
use std::time::Duration;

use async_nats::header::{HeaderName, HeaderValue, NATS_EXPECTED_LAST_SUBJECT_SEQUENCE};
use async_nats::{HeaderMap, Subject};
use bytes::Bytes;
use pipeline::{Body, Claim, Content, FlowName, Outcome, OutcomeKind, Published, RequestId, Token, TransportError};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::body;
use crate::codec;
use crate::direct::{self, Page};
use crate::jetstream::Inner;
use crate::names;
use crate::publish::{Failure, Outgoing, publish};

const KIND: &str = "Caudal-Kind";
const ORDINAL: &str = "Caudal-Ordinal";
const FLOW: &str = "Caudal-Flow";
const MARK: &str = "Caudal-Mark";
/// What each stage took, in milliseconds: `decode=12.345,embed=30.120`.
const WORKED: &str = "Caudal-Worked";

/// Stages that are read.
const MOST_STAGES: usize = 32;
const FENCE_SUBJECT: &str = "Nats-Expected-Last-Subject-Sequence-Subject";

/// One page of history: a request has few results.
const HISTORY_PAGE: Page = Page { messages: 256, bytes: 4 << 20 };

/// Stores a result.
pub async fn publish_outcome(
    inner: &Inner,
    request: &RequestId,
    outcome: &Outcome,
) -> Result<Published, TransportError> {
    let terminal = names::terminal_subject(request);
    let subject = match outcome.kind.is_terminal() {
        true => terminal.clone(),
        false => names::result_subject(request, outcome.ordinal),
    };
    let mark = format!("{:016x}", rand::random::<u64>());
    let encoded = body::encode_content(&outcome.content)?;
    let build = || {
        let mut headers = headers(outcome, &mark)?;
        let name = if outcome.kind.is_terminal() { "end".to_owned() } else { outcome.ordinal.to_string() };
        codec::put_message_id(&mut headers, &format!("{request}.{name}"))?;
        headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, HeaderValue::from(0_u64));
        if !outcome.kind.is_terminal() {
            codec::put(&mut headers, FENCE_SUBJECT, terminal.as_str())?;
        }
        Ok(Outgoing { subject: subject.clone(), headers, payload: encoded.bytes.clone() })
    };
    match publish(&inner.results.context, build).await {
        Ok(confirmed) if !confirmed.duplicate => Ok(Published::Stored),
        Ok(confirmed) if !confirmed.repeated => Ok(Published::Refused),
        Err(Failure::Fenced { repeated: false }) => Ok(Published::Refused),
        Ok(_) | Err(Failure::Fenced { repeated: true }) => whose(inner, &subject, &mark).await,
        Err(failure) => Err(failure.of_store("results")),
    }
}

/// Whether what is stored is what was sent under `mark`. Asks the stream's leader: a copy may not have it yet.
async fn whose(inner: &Inner, subject: &Subject, mark: &str) -> Result<Published, TransportError> {
    let stored = direct::last(&inner.results.context, names::RESULTS, subject).await?;
    let ours = stored.is_some_and(|stored| codec::get(&stored.headers, MARK) == Some(mark));
    Ok(if ours { Published::Stored } else { Published::Refused })
}

fn headers(outcome: &Outcome, mark: &str) -> Result<HeaderMap, TransportError> {
    let mut headers = HeaderMap::new();
    codec::put(&mut headers, KIND, outcome.kind.as_str())?;
    headers.insert(HeaderName::from_static(ORDINAL), HeaderValue::from(outcome.ordinal));
    codec::put(&mut headers, FLOW, outcome.flow.as_str())?;
    codec::put(&mut headers, codec::TIME, &codec::rfc3339(outcome.time)?)?;
    codec::put(&mut headers, codec::CONTENT_TYPE, &outcome.content.media_type)?;
    codec::put(&mut headers, MARK, mark)?;
    if !outcome.worked.is_empty() {
        codec::put(&mut headers, WORKED, &write_worked(&outcome.worked))?;
    }
    if let Some(claim) = outcome.content.claim() {
        codec::put_claim(&mut headers, claim)?;
    }
    Ok(headers)
}

/// Reads a stored result; `None` if it is none of ours.
pub fn decode(headers: &HeaderMap, payload: Bytes) -> Option<Outcome> {
    let kind = OutcomeKind::parse(codec::get(headers, KIND)?)?;
    let ordinal = codec::get(headers, ORDINAL)?.parse().ok()?;
    let flow = FlowName::new(codec::get(headers, FLOW)?).ok()?;
    let time = OffsetDateTime::parse(codec::get(headers, codec::TIME)?, &Rfc3339).ok()?;
    let body = match codec::get(headers, codec::CLAIM) {
        Some(claim) => Body::Claim(serde_json::from_str::<Claim>(claim).ok()?.into()),
        None => Body::Inline(payload),
    };
    let media_type = codec::get(headers, codec::CONTENT_TYPE).unwrap_or("application/octet-stream").into();
    let worked = codec::get(headers, WORKED).map(read_worked).unwrap_or_default();
    Some(Outcome { kind, ordinal, flow, time, worked, content: Content { media_type, body } })
}

fn write_worked(worked: &[(Arc<str>, Duration)]) -> String {
    let stage = |(stage, took): &(Arc<str>, Duration)| format!("{stage}={:.3}", took.as_secs_f64() * 1e3);
    worked.iter().map(stage).collect::<Vec<_>>().join(",")
}

/// What cannot be read is left out: nothing depends on it.
fn read_worked(text: &str) -> Vec<(Arc<str>, Duration)> {
    let stage = |entry: &str| {
        let (stage, millis) = entry.split_once('=')?;
        let took = Duration::try_from_secs_f64(millis.parse::<f64>().ok()? / 1e3).ok()?;
        Some((stage.into(), took))
    };
    text.split(',').filter_map(stage).take(MOST_STAGES).collect()
}

/// Everything stored for a request, by ordinal, the terminal last.
pub async fn outcomes(inner: &Inner, request: &RequestId) -> Result<Vec<Outcome>, TransportError> {
    let mut found = Vec::new();
    let filter = names::results_filter(request);
    direct::read(&inner.results, names::RESULTS, &filter, HISTORY_PAGE, &mut |stored| {
        found.extend(decode(&stored.headers, stored.payload));
        true
    })
    .await?;
    found.sort_by_key(|outcome| (outcome.kind.is_terminal(), outcome.ordinal));
    found.dedup_by(|later, earlier| later.ordinal == earlier.ordinal && !later.kind.is_terminal());
    Ok(found)
}

/// The request id in a result's subject.
pub fn request_of(subject: &str) -> Option<&str> {
    let (request, name) = subject.strip_prefix("res.")?.split_once('.')?;
    (!name.contains('.')).then_some(request)
}

/// Ends a request that no worker will ever answer, after everything it already got.
pub async fn fail(
    inner: &Inner,
    request: &Token,
    flow: &FlowName,
    cause: &pipeline::Rejection,
) -> Result<(), TransportError> {
    let ordinal = outcomes(inner, request).await?.last().map_or(0, |last| last.ordinal.saturating_add(1));
    let problem = serde_json::to_vec(cause).map_err(TransportError::unavailable)?;
    let content = Content::inline("application/json", problem);
    let outcome = Outcome::new(OutcomeKind::Failed, ordinal, flow.clone(), content);
    publish_outcome(inner, request, &outcome).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_survives_its_headers() {
        let flow = FlowName::new("f").unwrap();
        let worked = vec![("decode".into(), Duration::from_micros(12_345)), ("embed".into(), Duration::ZERO)];
        let data = Outcome::new(OutcomeKind::Data, 7, flow, Content::inline("text/plain", "x"));
        let outcome = Outcome { worked, ..data };
        let read = decode(&headers(&outcome, "m").unwrap(), "x".into()).unwrap();
        assert_eq!(format!("{read:?}"), format!("{outcome:?}"));
        assert!(decode(&HeaderMap::new(), Bytes::new()).is_none());
    }

    #[test]
    fn times_that_make_no_sense_are_left_out() {
        let read = |text: &str| read_worked(text).into_iter().map(|(stage, _)| stage.to_string()).collect::<Vec<_>>();
        assert_eq!(read("a=1,b,c=x,d=-1,e=NaN,f=inf,g=2.5"), ["a", "g"]);
        assert_eq!(read_worked(&"s=1,".repeat(1000)).len(), MOST_STAGES);
    }

    #[test]
    fn the_request_is_the_middle_of_the_subject() {
        assert_eq!(request_of("res.abc.end"), Some("abc"));
        assert_eq!(request_of("res.abc.12"), Some("abc"));
        assert_eq!(request_of("res.abc"), None);
        assert_eq!(request_of("res.abc.1.2"), None);
        assert_eq!(request_of("ev.abc.1"), None);
    }
}
