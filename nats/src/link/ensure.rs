//! Creates and updates the streams of the declared topology, whichever config made those that are there. No event is lost:
//!
//! - nats-server deletes the oldest events of a subject when the bound on their number is set below what it holds. So a
//!   queue takes no events while its bound is lowered, and the bound is not set below what waits.
//! - Bounds on bytes shrink before others grow, so that the streams fit into the disk limit all the time.

use async_nats::HeaderMap;
use async_nats::header::NATS_EXPECTED_STREAM;
use async_nats::jetstream::context::{CreateStreamError, CreateStreamErrorKind, GetStreamError, GetStreamErrorKind};
use async_nats::jetstream::stream::{Config, Info};
use async_nats::jetstream::{Context, ErrorCode};
use bytes::Bytes;
use futures_util::TryStreamExt;
use futures_util::future::try_join_all;
use pipeline::BoxError;
use pipeline::spec::ByteSize;

use crate::error::ConnectError;
use crate::link::streams;
use crate::spec::Limits;
use crate::topology::{FlowTopology, Topology};
use crate::wire::subjects;

/// JetStream's "insufficient storage resources available".
const NO_STORAGE: u64 = 10_047;
/// JetStream's "error creating store for stream".
const NO_STORE: u64 = 10_049;

/// Creates every stream of the topology, or updates it. `max_file` is the disk limit, if it is known.
pub async fn ensure_streams(
    context: &Context,
    topology: &Topology,
    max_file: Option<ByteSize>,
) -> Result<(), ConnectError> {
    let present = all(context).await?;
    let find = |name: &str| present.iter().find(|info| info.config.name == name).map(|info| &info.config);
    let (shrinking, others): (Vec<_>, Vec<_>) = streams::all(topology)
        .into_iter()
        .partition(|config| find(&config.name).is_some_and(|before| before.max_bytes > config.max_bytes));
    for configs in [shrinking, others] {
        let ensured = configs.into_iter().map(|config| {
            let before = find(&config.name);
            ensure_stream(context, before, config)
        });
        try_join_all(ensured).await.map_err(|failure| failure.explain(&present, topology, max_file))?;
    }
    Ok(())
}

/// Creates the stream of one flow if it was deleted, or updates it.
pub async fn ensure_flow(context: &Context, flow: &FlowTopology, limits: &Limits) -> Result<(), ConnectError> {
    let config = streams::work_stream(flow, limits);
    let before = match context.get_stream(&config.name).await {
        Ok(stream) => Some(stream.cached_info().config.clone()),
        Err(error) if is_not_found(&error) => None,
        Err(error) => return Err(unreadable(&config.name, error.into())),
    };
    let ensured = ensure_stream(context, before.as_ref(), config).await;
    ensured.map_err(|failure| failure.explain(&[], &Topology { flows: vec![flow.clone()], limits: *limits }, None))
}

/// Every stream of the broker.
pub async fn all(context: &Context) -> Result<Vec<Info>, ConnectError> {
    context.streams().try_collect().await.map_err(|error| ConnectError::Streams(error.into()))
}

/// Makes a work queue refuse events, and returns what it holds once all those sent before are stored. The next update of
/// the stream opens it again.
pub async fn close(context: &Context, before: &Config) -> Result<Info, BoxError> {
    let subject = subjects::closed_subject(&before.name);
    let closed = Config { subjects: vec![subject.clone()], subject_transform: None, ..before.clone() };
    context.update_stream(closed).await?;
    // Answered behind everything that the stream received before; stored nowhere, as no stream has this name.
    let mut headers = HeaderMap::new();
    headers.insert(NATS_EXPECTED_STREAM, "-");
    context.client().request_with_headers(subject, headers, Bytes::new()).await?;
    Ok(context.get_stream(&before.name).await?.cached_info().clone())
}

/// A stream that could not be created or updated.
struct Failure {
    stream: String,
    source: BoxError,
    kind: Option<CreateStreamErrorKind>,
}

impl Failure {
    fn explain(self, present: &[Info], topology: &Topology, limit: Option<ByteSize>) -> ConnectError {
        let Self { stream, source, kind } = self;
        match kind {
            Some(CreateStreamErrorKind::JetStream(why)) if why.error_code().0 == NO_STORAGE => {
                no_room(present, topology, limit)
            }
            kind => ConnectError::Stream { stream, remedy: remedy(kind.as_ref()), source },
        }
    }
}

async fn ensure_stream(context: &Context, before: Option<&Config>, mut config: Config) -> Result<(), Failure> {
    let stream = config.name.clone();
    if let Some(before) = before.filter(|before| lowers_events(before, &config)) {
        let held = most_events(context, before).await;
        let held = held.map_err(|source| Failure { stream: stream.clone(), source, kind: None })?;
        if held > config.max_messages_per_subject {
            let bound = config.max_messages_per_subject;
            tracing::info!(stream, bound, held, "more events wait than backlog.events allows now: all are kept");
            config.max_messages_per_subject = held;
        }
    }
    match context.create_or_update_stream(config).await {
        Ok(_) => Ok(()),
        Err(error) => Err(Failure { stream, kind: Some(error.kind()), source: CreateStreamError::into(error) }),
    }
}

/// Whether the update would set a queue's bound per lane below the one it has.
fn lowers_events(before: &Config, after: &Config) -> bool {
    let is_queue = subjects::parse_work_stream(&after.name).is_some();
    let unbounded = before.max_messages_per_subject <= 0;
    is_queue && (unbounded || before.max_messages_per_subject > after.max_messages_per_subject)
}

/// The most events that wait on one subject of a queue, which is closed by this.
async fn most_events(context: &Context, before: &Config) -> Result<i64, BoxError> {
    close(context, before).await?;
    let stream = context.get_stream_no_info(&before.name).await?;
    let counts: Vec<(String, usize)> = stream.info_with_subjects(">").await?.try_collect().await?;
    Ok(counts.into_iter().map(|(_, count)| count as i64).max().unwrap_or(0))
}

/// Whether the broker has no such stream.
pub fn is_not_found(error: &GetStreamError) -> bool {
    matches!(error.kind(), GetStreamErrorKind::JetStream(why) if why.error_code() == ErrorCode::STREAM_NOT_FOUND)
}

fn unreadable(stream: &str, source: BoxError) -> ConnectError {
    ConnectError::Stream { stream: stream.to_owned(), remedy: "it cannot be read", source }
}

/// Names every stream with its bound: the declared ones, and the others that keep theirs.
fn no_room(present: &[Info], topology: &Topology, limit: Option<ByteSize>) -> ConnectError {
    let size = |bytes: i64| ByteSize(u64::try_from(bytes).unwrap_or(0));
    let declared = streams::all(topology);
    let is_declared = |info: &&Info| declared.iter().any(|config| config.name == info.config.name);
    let mut streams: Vec<(ByteSize, String)> =
        declared.iter().map(|config| (size(config.max_bytes), config.name.clone())).collect();
    streams.extend(present.iter().filter(|info| !is_declared(info)).map(|info| {
        let note = format!("{} (not declared, {} events)", info.config.name, info.state.messages);
        (size(info.config.max_bytes), note)
    }));
    streams.sort_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
    let reserved = ByteSize(streams.iter().map(|(bytes, _)| bytes.0).sum());
    let streams: Vec<String> = streams.into_iter().map(|(bytes, name)| format!("{name} {bytes}")).collect();
    ConnectError::NoRoom { reserved, limit, streams: streams.join(", ") }
}

fn remedy(kind: Option<&CreateStreamErrorKind>) -> &'static str {
    match kind {
        Some(CreateStreamErrorKind::JetStream(why))
            if why.error_code().0 == NO_STORE || why.to_string().contains("no space left") =>
        {
            "the broker cannot write its files: free disk space on its machine, then restart nats-server"
        }
        Some(CreateStreamErrorKind::JetStream(_)) => {
            "a stream of that name or subject exists with settings that cannot be changed: remove or rename it"
        }
        _ => "see the cause",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remedy_of(code: u64, description: &str) -> &'static str {
        let error = serde_json::json!({ "code": 500, "err_code": code, "description": description });
        remedy(Some(&CreateStreamErrorKind::JetStream(serde_json::from_value(error).unwrap())))
    }

    #[test]
    fn a_full_disk_of_the_broker_is_not_taken_for_another_streams_settings() {
        for (code, description) in [(10_069, "write meta.inf.tmp: no space left on device"), (NO_STORE, "")] {
            assert!(remedy_of(code, description).contains("free disk space"), "{description}");
        }
        assert!(remedy_of(10_058, "stream name already in use").contains("remove or rename"));
    }

    #[test]
    fn only_a_queue_whose_bound_is_lowered_is_closed() {
        let queue = |events| Config { name: "EV-f".into(), max_messages_per_subject: events, ..Config::default() };
        assert!(lowers_events(&queue(10), &queue(9)) && lowers_events(&queue(-1), &queue(9)));
        assert!(!lowers_events(&queue(9), &queue(9)) && !lowers_events(&queue(9), &queue(10)));
        let records = |events| Config { name: "OWN".into(), ..queue(events) };
        assert!(!lowers_events(&records(10), &records(1)));
    }
}
