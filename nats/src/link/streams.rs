//! Streams and consumers, made and brought up to date from the declared flows.
//!
//! - One work-queue stream per flow, `EV-<flow>`, that refuses when full (`discard: new`, per lane too). It takes exactly
//!   its two lanes: a subject with another lane, or with a wildcard in it, is stored nowhere.
//! - `RES` (results) and `DEAD` drop the oldest when full; `BLOB` (bodies), `RECORDS` and `OWN` refuse.
//! - A worker's consumer never stops delivering on its own: a message past its last delivery would keep its place in the
//!   queue for ever. The source counts deliveries and writes the dead letter itself.
//! - In-flight work is bounded where it is asked for, per process; the consumer's own bound is the lane's backlog.

use std::time::Duration;

use async_nats::jetstream::Context;
use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::context::CreateStreamErrorKind;
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, SubjectTransform};
use futures_util::future::try_join_all;
use pipeline::spec::{BacklogSpec, ByteSize};
use pipeline::{BoxError, FlowName, Lane};

use crate::ConnectError;
use crate::backlog;
use crate::codec::MAX_MESSAGE;
use crate::names;
use crate::spec::Limits;

/// Copies of an event that arrive within this time are stored once. Each remembered id costs the broker about 95 bytes.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(600);
/// Parts of the private server's disk that streams no longer declared may still hold.
const LEFTOVER_SHARE: u64 = 4;
/// Disk for the service's own records: they are bounded by number, and take half of this.
const OWN_BYTES: i64 = 512 << 20;
/// Disk for what is not worth a bound of its own.
const CANARY_BYTES: i64 = 1 << 20;
/// Half a million events, each noted alone.
const LEDGER_BYTES: i64 = 128 << 20;

/// What the broker must hold.
#[derive(Clone, Debug, Default)]
pub struct Topology {
    /// Every declared flow, whether this process works on it or only sends to it.
    pub flows: Vec<FlowTopology>,
    /// Bounds of what all flows share.
    pub limits: Limits,
}

/// What the broker must know of one flow.
#[derive(Clone, Debug)]
pub struct FlowTopology {
    /// `NAME` of `[flow.NAME]`.
    pub name: FlowName,
    /// Bound of what waits.
    pub backlog: BacklogSpec,
    /// Whether every event of the flow is a request, named by the event's id.
    pub answers: bool,
    /// The parameter by which events keep their order.
    pub order_by: Option<String>,
}

/// Partitions of a lane that keeps the order of its keys: a key is always in the same one.
pub const PARTITIONS: u32 = 8;

impl Topology {
    /// Disk that all streams may fill together, in bytes, with a margin for flows that are no longer declared.
    #[must_use]
    pub fn max_file(&self) -> ByteSize {
        let shared = [
            self.limits.results_max_bytes,
            self.limits.claims_max_bytes,
            self.limits.dead_max_bytes,
            self.limits.records_max_bytes,
        ];
        let flows = self.flows.iter().map(|flow| flow.backlog.bytes);
        let sum: u64 = shared.into_iter().chain(flows).map(|size| size.0).sum::<u64>()
            + (CANARY_BYTES + LEDGER_BYTES + OWN_BYTES).unsigned_abs();
        ByteSize((sum + sum / LEFTOVER_SHARE).next_multiple_of(1 << 20))
    }

    /// Makes every stream, or brings it up to date.
    pub(crate) async fn ensure(&self, context: &Context) -> Result<(), ConnectError> {
        let flows = self.flows.iter().map(|flow| work(flow, &self.limits));
        let all = flows.chain(shared(&self.limits)).map(|config| ensure_stream(context, config));
        try_join_all(all).await?;
        try_join_all(self.flows.iter().map(|flow| backlog::check_order(context, flow))).await?;
        Ok(())
    }
}

/// Makes or updates the stream of one flow, after somebody removed it.
pub async fn ensure_flow(context: &Context, flow: &FlowTopology, limits: &Limits) -> Result<(), ConnectError> {
    ensure_stream(context, work(flow, limits)).await
}

/// What one consumer delivers: a lane, or one partition of it.
#[derive(Clone, Copy, Debug)]
pub struct LaneCut {
    pub lane: Lane,
    /// Where events keep the order of their keys.
    pub partition: Option<u32>,
}

impl LaneCut {
    /// Name of the durable consumer.
    pub fn consumer(&self) -> String {
        match self.partition {
            None => self.lane.as_str().into(),
            Some(partition) => format!("{}-{partition}", self.lane.as_str()),
        }
    }
}

/// Makes or updates a consumer.
pub async fn ensure_consumer(
    context: &Context,
    flow: &FlowTopology,
    cut: &LaneCut,
    ack_wait: Duration,
) -> Result<(), BoxError> {
    let mut config = pull::Config {
        durable_name: Some(cut.consumer()),
        filter_subject: names::work_subject(&flow.name, cut.lane).into_string(),
        ack_policy: AckPolicy::Explicit,
        ack_wait,
        max_deliver: -1,
        max_ack_pending: i64::from(flow.backlog.events.max(1)),
        ..Default::default()
    };
    if let Some(partition) = cut.partition {
        // One unsettled event at a time: the next of a key comes when the one before has ended, whoever works on it.
        config.max_ack_pending = 1;
        config.filter_subject = format!("{}.{partition}", config.filter_subject);
    }
    context.create_consumer_on_stream(config, names::work_stream(&flow.name)).await?;
    Ok(())
}

async fn ensure_stream(context: &Context, config: Config) -> Result<(), ConnectError> {
    let stream = config.name.clone();
    match context.create_or_update_stream(config).await {
        Ok(_) => Ok(()),
        Err(error) => {
            let remedy = match error.kind() {
                CreateStreamErrorKind::JetStream(ref why) if why.error_code().0 == NO_STORAGE => {
                    "its bound does not fit into the broker's disk limit: lower the backlog's bytes or raise max_file"
                }
                CreateStreamErrorKind::JetStream(_) => {
                    "a stream of that name or subject exists with settings that cannot be changed: remove or rename it"
                }
                _ => "see the cause",
            };
            Err(ConnectError::Stream { stream, remedy, source: error.into() })
        }
    }
}

/// JetStream's "insufficient storage resources available".
const NO_STORAGE: u64 = 10_047;

fn work(flow: &FlowTopology, limits: &Limits) -> Config {
    let lanes = Lane::ALL.map(|lane| names::work_subject(&flow.name, lane).into_string()).to_vec();
    let ordered = flow.order_by.is_some();
    // The last token, whatever its value, becomes the number of a partition.
    let by_key = SubjectTransform {
        source: format!("ev.{}.*.*", flow.name),
        destination: format!("ev.{}.{{{{wildcard(1)}}}}.{{{{partition({PARTITIONS},2)}}}}", flow.name),
    };
    Config {
        name: names::work_stream(&flow.name),
        subjects: if ordered { lanes.iter().map(|lane| format!("{lane}.*")).collect() } else { lanes },
        subject_transform: ordered.then_some(by_key),
        retention: RetentionPolicy::WorkQueue,
        discard: DiscardPolicy::New,
        discard_new_per_subject: true,
        max_messages_per_subject: i64::from(flow.backlog.events.max(1)),
        max_bytes: bytes(flow.backlog.bytes),
        max_message_size: MAX_MESSAGE as i32,
        duplicate_window: DUPLICATE_WINDOW,
        num_replicas: limits.replicas,
        deny_delete: true,
        deny_purge: true,
        ..Default::default()
    }
}

fn shared(limits: &Limits) -> Vec<Config> {
    let base = Config { num_replicas: limits.replicas, duplicate_window: DUPLICATE_WINDOW, ..Default::default() };
    vec![
        Config {
            name: names::RESULTS.into(),
            subjects: vec!["res.*.*".into()],
            max_age: limits.results_max_age,
            max_bytes: bytes(limits.results_max_bytes),
            max_message_size: MAX_MESSAGE as i32,
            allow_direct: true,
            deny_delete: true,
            deny_purge: true,
            ..base.clone()
        },
        Config {
            name: names::BLOBS.into(),
            subjects: vec![names::BLOB_SUBJECTS.into()],
            // Bodies of results go with them.
            allow_message_ttl: true,
            discard: DiscardPolicy::New,
            max_age: limits.claims_max_age,
            max_bytes: bytes(limits.claims_max_bytes),
            allow_direct: true,
            ..base.clone()
        },
        Config {
            name: names::DEAD.into(),
            subjects: vec!["dead.*".into()],
            max_age: limits.dead_max_age,
            max_bytes: bytes(limits.dead_max_bytes),
            allow_direct: true,
            ..base.clone()
        },
        Config {
            name: names::RECORDS.into(),
            subjects: vec!["rec.*.*".into()],
            discard: DiscardPolicy::New,
            max_messages_per_subject: 1,
            max_bytes: bytes(limits.records_max_bytes),
            ..base.clone()
        },
        Config {
            name: names::OWN_RECORDS.into(),
            subjects: vec!["own.*.*".into()],
            discard: DiscardPolicy::New,
            max_messages_per_subject: 1,
            max_bytes: OWN_BYTES,
            ..base.clone()
        },
        Config {
            name: names::LEDGER.into(),
            subjects: vec![names::LEDGER_SUBJECT.into()],
            max_age: limits.ledger.age,
            // A message holds at least one event.
            max_messages: i64::try_from(limits.ledger.events).unwrap_or(i64::MAX),
            max_bytes: LEDGER_BYTES,
            deny_delete: true,
            deny_purge: true,
            ..base.clone()
        },
        Config {
            name: names::CANARY.into(),
            subjects: vec![names::CANARY_SUBJECT.into()],
            max_messages: 1,
            max_bytes: CANARY_BYTES,
            ..base
        },
    ]
}

fn bytes(size: ByteSize) -> i64 {
    i64::try_from(size.0).unwrap_or(i64::MAX)
}
