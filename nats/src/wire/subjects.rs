//! Names of subjects and streams. Only this file puts names together, and only from validated tokens, so that no name
//! can hold a wildcard or a dot from outside.

use std::borrow::Cow;

use async_nats::Subject;
use pipeline::{BodyOwner, FlowName, Lane, Token};

/// Results of all requests: `res.<id>.<n>` and, once, `res.<id>.end`.
pub const RESULTS: &str = "RES";
/// Every result, as the subject of the stream.
pub const RESULT_SUBJECTS: &str = "res.*.*";
/// Chunks of claimed bodies: `blob.<flow>.<id>`, of results `blob.@result.<id>`, of templates `blob.@template.<id>`.
pub const BLOBS: &str = "BLOB";
/// Every chunk, as a filter.
pub const BLOB_SUBJECTS: &str = "blob.*.*";
/// Every chunk of the body of a result, as a filter.
pub const RESULT_BLOB_SUBJECTS: &str = "blob.@result.*";
/// Dead letters: `dead.<flow>`.
pub const DEAD_LETTERS: &str = "DEAD";
/// Every dead letter, as a filter.
pub const DEAD_LETTER_SUBJECTS: &str = "dead.*";
/// Records of clients: `rec.<store>.<key>`, the last one of each key.
pub const RECORDS: &str = "RECORDS";
/// Every record of clients, as the subject of the stream.
pub const RECORD_SUBJECTS: &str = "rec.*.*";
/// Records of the service itself: `own.<store>.<key>`, the last one of each key. A stream of their own, so that records
/// of clients cannot fill it.
pub const OWN_RECORDS: &str = "OWN";
/// Every record of the service itself, as the subject of the stream.
pub const OWN_RECORD_SUBJECTS: &str = "own.*.*";
/// Ended events, many in a message: `ledger`.
pub const LEDGER: &str = "LEDGER";
/// Subject of the ledger.
pub const LEDGER_SUBJECT: &str = "ledger";
/// One message, overwritten to prove that the broker stores.
pub const CANARY: &str = "CANARY";
/// Subject of the canary.
pub const CANARY_SUBJECT: &str = "canary.write";
/// Every cancellation, as a filter.
pub const CANCELLATIONS: &str = "cancel.*";
/// Every report that a stream refuses writes: `refusing.<stream>`. Plain NATS, stored nowhere.
pub const REFUSING_STREAMS: &str = "refusing.*";
/// Prefix of our inboxes. It differs from the client library's default, so that other users of the broker can be denied
/// access to them.
pub const INBOX_PREFIX: &str = "_INBOX_caudal";

/// In the place of the flow in the subject of a result's body. No flow can have this name.
const RESULT_BODY: &str = "@result";
/// In the place of the flow in the subject of a template's body. No flow can have this name.
const TEMPLATE_BODY: &str = "@template";
/// Stores whose names begin so belong to the service; no route may name one.
const OWN_STORES: &str = "caudal-";

/// Name of a flow's work-queue stream.
pub fn work_stream(flow: &FlowName) -> String {
    format!("EV-{flow}")
}

/// The flow of a work-queue stream; `None` for other streams.
pub fn parse_work_stream(stream: &str) -> Option<FlowName> {
    FlowName::new(stream.strip_prefix("EV-")?).ok()
}

/// The only subject of a work queue while it takes no events. Nobody publishes events on it.
pub fn closed_subject(stream: &str) -> String {
    format!("closed.{stream}")
}

/// The stream that stores messages of a subject; `None` if none does.
pub fn stream_of(subject: &str) -> Option<Cow<'static, str>> {
    let (kind, rest) = subject.split_once('.').unwrap_or((subject, ""));
    Some(match kind {
        "ev" => format!("EV-{}", rest.split('.').next().unwrap_or_default()).into(),
        "res" => RESULTS.into(),
        "blob" => BLOBS.into(),
        "dead" => DEAD_LETTERS.into(),
        "rec" => RECORDS.into(),
        "own" => OWN_RECORDS.into(),
        LEDGER_SUBJECT => LEDGER.into(),
        "canary" => CANARY.into(),
        _ => return None,
    })
}

/// Subject on which it is reported that a stream refuses writes.
pub fn refusing_subject(stream: &str) -> Subject {
    format!("refusing.{stream}").into()
}

/// The stream in the subject of such a report.
pub fn parse_refusing_stream(subject: &str) -> Option<&str> {
    subject.strip_prefix("refusing.")
}

/// Subject of the events of one lane of a flow.
pub fn work_subject(flow: &FlowName, lane: Lane) -> Subject {
    format!("ev.{flow}.{}", lane.as_str()).into()
}

/// Subject of the events of one lane that are kept in order among those of `key`.
pub fn keyed_subject(flow: &FlowName, lane: Lane, key: &Token) -> Subject {
    format!("ev.{flow}.{}.{key}", lane.as_str()).into()
}

/// Every lane and key of a flow, as a filter.
pub fn work_filter(flow: &FlowName) -> String {
    format!("ev.{flow}.>")
}

/// Subject of a result that is not terminal.
pub fn result_subject(request: &Token, ordinal: u32) -> Subject {
    format!("res.{request}.{ordinal}").into()
}

/// Subject of the terminal result.
pub fn terminal_subject(request: &Token) -> Subject {
    format!("res.{request}.end").into()
}

/// Every result of a request, as a filter.
pub fn results_filter(request: &Token) -> String {
    format!("res.{request}.*")
}

/// The request id in the subject of a result.
pub fn parse_result_request(subject: &str) -> Option<&str> {
    let (request, name) = subject.strip_prefix("res.")?.split_once('.')?;
    (!name.contains('.')).then_some(request)
}

/// Subject of the chunks of a body.
pub fn blob_subject(of: BodyOwner<'_>, id: &Token) -> Subject {
    match of {
        BodyOwner::Request(flow) | BodyOwner::Event(flow) => format!("blob.{flow}.{id}").into(),
        BodyOwner::Result => format!("blob.{RESULT_BODY}.{id}").into(),
        BodyOwner::Template => format!("blob.{TEMPLATE_BODY}.{id}").into(),
    }
}

/// The chunks of one body of any kind, as a filter: a claim holds only the id, which no other body has.
pub fn blob_filter(id: &Token) -> String {
    format!("blob.*.{id}")
}

/// Flow and id in the subject of an event's body; `None` for bodies of results and templates.
pub fn parse_event_blob(subject: &str) -> Option<(FlowName, Token)> {
    let (flow, id) = subject.strip_prefix("blob.")?.split_once('.')?;
    Some((FlowName::new(flow).ok()?, Token::new(id).ok()?))
}

/// Id in the subject of a result's body.
pub fn parse_result_blob(subject: &str) -> Option<Token> {
    Token::new(subject.strip_prefix("blob.")?.strip_prefix(RESULT_BODY)?.strip_prefix('.')?).ok()
}

/// Subject on which the cancellation of a request is announced.
pub fn cancel_subject(request: &Token) -> Subject {
    format!("cancel.{request}").into()
}

/// The request id in the subject of a cancellation.
pub fn parse_cancelled_request(subject: &str) -> Option<Token> {
    Token::new(subject.strip_prefix("cancel.")?).ok()
}

/// Subject on which a process answers for as long as it lives.
pub fn alive_subject(process: &Token) -> Subject {
    format!("alive.{process}").into()
}

/// Subject of a flow's dead letters.
pub fn dead_letter_subject(flow: &FlowName) -> Subject {
    format!("dead.{flow}").into()
}

/// The flow in the subject of a dead letter.
pub fn parse_dead_letter_flow(subject: &str) -> Option<FlowName> {
    FlowName::new(subject.strip_prefix("dead.")?).ok()
}

/// Subject of a record.
pub fn record_subject(store: &Token, key: &Token) -> Subject {
    let root = if is_own(store) { "own" } else { "rec" };
    format!("{root}.{store}.{key}").into()
}

/// The stream that holds a store's records.
pub fn records_stream(store: &Token) -> &'static str {
    if is_own(store) { OWN_RECORDS } else { RECORDS }
}

fn is_own(store: &Token) -> bool {
    store.as_str().starts_with(OWN_STORES)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(text: &str) -> Token {
        Token::new(text).unwrap()
    }

    #[test]
    fn every_subject_that_is_written_to_has_its_stream() {
        let (flow, id) = (token("f"), token("a"));
        let of = |subject: &str| stream_of(subject).map(Cow::into_owned);
        assert_eq!(of(&work_subject(&flow, Lane::Bulk)), Some(work_stream(&flow)));
        assert_eq!(of(&keyed_subject(&flow, Lane::Bulk, &id)), Some(work_stream(&flow)));
        assert_eq!(of(&terminal_subject(&id)).as_deref(), Some(RESULTS));
        assert_eq!(of(&blob_subject(BodyOwner::Result, &id)).as_deref(), Some(BLOBS));
        assert_eq!(of(&dead_letter_subject(&flow)).as_deref(), Some(DEAD_LETTERS));
        for store in ["mine", "caudal-keys"] {
            assert_eq!(of(&record_subject(&token(store), &id)).as_deref(), Some(records_stream(&token(store))));
        }
        assert_eq!(of(LEDGER_SUBJECT).as_deref(), Some(LEDGER));
        assert_eq!(of(CANARY_SUBJECT).as_deref(), Some(CANARY));
        assert_eq!(of("cancel.a"), None);
    }

    #[test]
    fn the_request_is_the_middle_of_a_results_subject() {
        assert_eq!(parse_result_request("res.abc.end"), Some("abc"));
        assert_eq!(parse_result_request("res.abc.12"), Some("abc"));
        assert_eq!(parse_result_request("res.abc"), None);
        assert_eq!(parse_result_request("res.abc.1.2"), None);
        assert_eq!(parse_result_request("ev.abc.1"), None);
    }

    #[test]
    fn the_subject_of_an_events_body_gives_its_flow_and_id_back() {
        let (flow, id) = (token("f"), token("b1"));
        let subject = blob_subject(BodyOwner::Event(&flow), &id);
        assert_eq!(parse_event_blob(&subject), Some((flow, id)));
    }

    #[test]
    fn bodies_of_results_and_templates_belong_to_no_flow() {
        for of in [BodyOwner::Result, BodyOwner::Template] {
            assert_eq!(parse_event_blob(&blob_subject(of, &token("b1"))), None);
        }
    }

    #[test]
    fn records_of_clients_and_of_the_service_are_in_different_streams() {
        let (clients, own, key) = (token("reports"), token("caudal-notes"), token("k"));
        assert_eq!((&*record_subject(&clients, &key), records_stream(&clients)), ("rec.reports.k", RECORDS));
        assert_eq!((&*record_subject(&own, &key), records_stream(&own)), ("own.caudal-notes.k", OWN_RECORDS));
    }

    #[test]
    fn the_subject_of_a_cancellation_gives_its_request_back() {
        assert_eq!(parse_cancelled_request(&cancel_subject(&token("r1"))), Some(token("r1")));
        assert_eq!(parse_cancelled_request("cancel.a.b"), None);
    }
}
