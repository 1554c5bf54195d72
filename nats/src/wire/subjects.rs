//! Subjects, streams and consumers: the one place where names are put together, from checked tokens only.

use async_nats::Subject;
use pipeline::{BodyOf, FlowName, Lane, Token};

/// Results of all requests: `res.<id>.<n>` and, once, `res.<id>.end`.
pub const RESULTS: &str = "RES";
/// Chunks of claimed bodies: `blob.<flow>.<id>`, of results `blob.@result.<id>`, of templates `blob.@template.<id>`.
pub const BLOBS: &str = "BLOB";
/// Dead letters: `dead.<flow>`.
pub const DEAD: &str = "DEAD";
/// Records: `rec.<store>.<key>`, the last one of each.
pub const RECORDS: &str = "RECORDS";
/// Records that the service keeps for itself: `own.<store>.<key>`, the last one of each. What clients keep cannot fill it.
pub const OWN_RECORDS: &str = "OWN";
/// Ended events, many in a message: `ledger`.
pub const LEDGER: &str = "LEDGER";
/// Subject of the ledger.
pub const LEDGER_SUBJECT: &str = "ledger";
/// One message, rewritten to prove that the broker stores.
pub const CANARY: &str = "CANARY";
/// Subject of the canary.
pub const CANARY_SUBJECT: &str = "canary.write";

/// Name of the work-queue stream of a flow.
pub fn work_stream(flow: &FlowName) -> String {
    format!("EV-{flow}")
}

/// Where events of one lane of a flow are published.
pub fn work_subject(flow: &FlowName, lane: Lane) -> Subject {
    format!("ev.{flow}.{}", lane.as_str()).into()
}

/// Where events of one lane are published that keep their order among those of `key`.
pub fn keyed_subject(flow: &FlowName, lane: Lane, key: &Token) -> Subject {
    format!("ev.{flow}.{}.{key}", lane.as_str()).into()
}

/// The same for every lane and key of a flow, as a filter.
pub fn work_filter(flow: &FlowName) -> String {
    format!("ev.{flow}.>")
}

/// Where a result that is not terminal is stored.
pub fn result_subject(request: &Token, ordinal: u32) -> Subject {
    format!("res.{request}.{ordinal}").into()
}

/// Where the terminal result is stored.
pub fn terminal_subject(request: &Token) -> Subject {
    format!("res.{request}.end").into()
}

/// Every result of a request.
pub fn results_filter(request: &Token) -> String {
    format!("res.{request}.*")
}

/// Stands for the flow in the subject of a result's body; no flow can have this name.
const RESULT_BODY: &str = "@result";
/// The same for a template's.
const TEMPLATE_BODY: &str = "@template";

/// Where the chunks of a body are stored.
pub fn blob_subject(of: BodyOf<'_>, id: &Token) -> Subject {
    match of {
        BodyOf::Event(flow) => format!("blob.{flow}.{id}").into(),
        BodyOf::Result => format!("blob.{RESULT_BODY}.{id}").into(),
        BodyOf::Template => format!("blob.{TEMPLATE_BODY}.{id}").into(),
    }
}

/// The chunks of a body, whatever it is for: its claim names it by an id that no other body has.
pub fn blob_filter(id: &Token) -> String {
    format!("blob.*.{id}")
}

/// All bodies, as a filter.
pub const BLOB_SUBJECTS: &str = "blob.*.*";

/// Flow and id of an event's body.
pub fn event_body(subject: &str) -> Option<(FlowName, Token)> {
    let (flow, id) = subject.strip_prefix("blob.")?.split_once('.')?;
    Some((FlowName::new(flow).ok()?, Token::new(id).ok()?))
}

/// Every cancellation.
pub const CANCELLATIONS: &str = "cancel.*";

/// Where it is said that a request is given up.
pub fn cancel_subject(request: &Token) -> Subject {
    format!("cancel.{request}").into()
}

/// The request that a cancellation names.
pub fn cancelled_request(subject: &Subject) -> Option<Token> {
    Token::new(subject.strip_prefix("cancel.")?).ok()
}

/// Where dead letters of a flow are stored.
pub fn dead_subject(flow: &FlowName) -> Subject {
    format!("dead.{flow}").into()
}

/// Stores whose names begin so are the service's own; no route may name one.
const OWN_STORES: &str = "caudal-";

/// Where a record is stored.
pub fn record_subject(store: &Token, key: &Token) -> Subject {
    let root = if store.as_str().starts_with(OWN_STORES) { "own" } else { "rec" };
    format!("{root}.{store}.{key}").into()
}

/// The stream that has a store's records.
pub fn records_of(store: &Token) -> &'static str {
    if store.as_str().starts_with(OWN_STORES) { OWN_RECORDS } else { RECORDS }
}
