//! The streams and consumers of the declared topology, as they are configured. `ensure.rs` brings the broker to this.
//!
//! - One work-queue stream per flow, `EV-<flow>`, that refuses when full (`discard: new`, per lane too). It accepts
//!   exactly its two lanes: an event on a subject with another lane, or with a wildcard in it, is stored in no stream.
//! - `RES` (results) and `DEAD` (dead letters) drop the oldest when full; `BLOB` (bodies), `RECORDS` and `OWN` refuse.
//! - A worker's consumer has no delivery limit: a message beyond such a limit would stay in the queue for ever. The
//!   source counts deliveries and writes the dead letter itself.
//! - Each process bounds its in-flight events by how many it pulls; the consumer's own bound is the lane's backlog.

use std::time::Duration;

use async_nats::jetstream::Context;
use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, SubjectTransform};
use pipeline::spec::ByteSize;
use pipeline::{BoxError, Lane};

use crate::spec::Limits;
use crate::topology::{CANARY_BYTES, FlowTopology, LEDGER_BYTES, OWN_RECORDS_BYTES, PARTITIONS, Topology};
use crate::wire::cloud_event::MAX_MESSAGE;
use crate::wire::subjects;

/// Copies of an event within this time are stored once. Each remembered id costs the broker about 95 bytes.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(600);

/// Every stream of the topology.
pub fn all(topology: &Topology) -> Vec<Config> {
    let flows = topology.flows.iter().map(|flow| work_stream(flow, &topology.limits));
    flows.chain(shared_streams(&topology.limits)).collect()
}

/// Names of all streams of the topology.
pub fn names(topology: &Topology) -> Vec<String> {
    all(topology).into_iter().map(|config| config.name).collect()
}

/// The part of a flow that one consumer delivers: a lane, or one partition of a lane.
#[derive(Clone, Copy, Debug)]
pub struct LanePart {
    pub lane: Lane,
    /// The partition, if events are kept in the order of their keys.
    pub partition: Option<u32>,
}

impl LanePart {
    /// Name of the durable consumer.
    pub fn consumer(&self) -> String {
        match self.partition {
            None => self.lane.as_str().into(),
            Some(partition) => format!("{}-{partition}", self.lane.as_str()),
        }
    }
}

/// Creates or updates a consumer.
pub async fn ensure_consumer(
    context: &Context,
    flow: &FlowTopology,
    part: &LanePart,
    ack_wait: Duration,
) -> Result<(), BoxError> {
    let config = consumer(flow, part, ack_wait);
    context.create_consumer_on_stream(config, subjects::work_stream(&flow.name)).await?;
    Ok(())
}

fn consumer(flow: &FlowTopology, part: &LanePart, ack_wait: Duration) -> pull::Config {
    let mut config = pull::Config {
        durable_name: Some(part.consumer()),
        filter_subject: subjects::work_subject(&flow.name, part.lane).into_string(),
        ack_policy: AckPolicy::Explicit,
        ack_wait,
        max_deliver: -1,
        max_ack_pending: i64::from(flow.backlog.events.max(1)),
        ..Default::default()
    };
    if let Some(partition) = part.partition {
        // One unsettled event at a time: the next of a key is delivered when the one before has ended, in whichever
        // process.
        config.max_ack_pending = 1;
        config.filter_subject = format!("{}.{partition}", config.filter_subject);
    }
    config
}

/// The stream of one flow.
pub fn work_stream(flow: &FlowTopology, limits: &Limits) -> Config {
    let lanes = Lane::ALL.map(|lane| subjects::work_subject(&flow.name, lane).into_string()).to_vec();
    let ordered = flow.order_by.is_some();
    // Replaces the key, the last token of the subject, by the number of its partition.
    let by_key = SubjectTransform {
        source: format!("ev.{}.*.*", flow.name),
        destination: format!("ev.{}.{{{{wildcard(1)}}}}.{{{{partition({PARTITIONS},2)}}}}", flow.name),
    };
    Config {
        name: subjects::work_stream(&flow.name),
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

fn shared_streams(limits: &Limits) -> [Config; 7] {
    let base = Config { num_replicas: limits.replicas, duplicate_window: DUPLICATE_WINDOW, ..Default::default() };
    [
        results(limits, base.clone()),
        blobs(limits, base.clone()),
        dead_letters(limits, base.clone()),
        records(subjects::RECORDS, subjects::RECORD_SUBJECTS, limits.records_max_bytes, base.clone()),
        records(subjects::OWN_RECORDS, subjects::OWN_RECORD_SUBJECTS, ByteSize(OWN_RECORDS_BYTES), base.clone()),
        ledger(limits, base.clone()),
        canary(base),
    ]
}

fn results(limits: &Limits, base: Config) -> Config {
    Config {
        name: subjects::RESULTS.into(),
        subjects: vec![subjects::RESULT_SUBJECTS.into()],
        max_age: limits.results_max_age,
        max_bytes: bytes(limits.results_max_bytes),
        max_message_size: MAX_MESSAGE as i32,
        allow_direct: true,
        deny_delete: true,
        deny_purge: true,
        ..base
    }
}

fn blobs(limits: &Limits, base: Config) -> Config {
    Config {
        name: subjects::BLOBS.into(),
        subjects: vec![subjects::BLOB_SUBJECTS.into()],
        // The body of a result expires with its result, by a time to live of its own.
        allow_message_ttl: true,
        discard: DiscardPolicy::New,
        max_age: limits.claims_max_age,
        max_bytes: bytes(limits.claims_max_bytes),
        allow_direct: true,
        ..base
    }
}

fn dead_letters(limits: &Limits, base: Config) -> Config {
    Config {
        name: subjects::DEAD_LETTERS.into(),
        subjects: vec![subjects::DEAD_LETTER_SUBJECTS.into()],
        max_age: limits.dead_max_age,
        max_bytes: bytes(limits.dead_max_bytes),
        allow_direct: true,
        ..base
    }
}

fn records(name: &str, stored: &str, max_bytes: ByteSize, base: Config) -> Config {
    Config {
        name: name.into(),
        subjects: vec![stored.into()],
        discard: DiscardPolicy::New,
        max_messages_per_subject: 1,
        max_bytes: bytes(max_bytes),
        ..base
    }
}

fn ledger(limits: &Limits, base: Config) -> Config {
    Config {
        name: subjects::LEDGER.into(),
        subjects: vec![subjects::LEDGER_SUBJECT.into()],
        max_age: limits.ledger.age,
        // A message holds at least one event.
        max_messages: i64::try_from(limits.ledger.events).unwrap_or(i64::MAX),
        max_bytes: bytes(ByteSize(LEDGER_BYTES)),
        deny_delete: true,
        deny_purge: true,
        ..base
    }
}

fn canary(base: Config) -> Config {
    Config {
        name: subjects::CANARY.into(),
        subjects: vec![subjects::CANARY_SUBJECT.into()],
        max_messages: 1,
        max_bytes: bytes(ByteSize(CANARY_BYTES)),
        ..base
    }
}

fn bytes(size: ByteSize) -> i64 {
    i64::try_from(size.0).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pipeline::FlowName;
    use pipeline::spec::BacklogSpec;

    fn flow(order_by: Option<&str>) -> FlowTopology {
        let backlog = BacklogSpec { events: 10, bytes: ByteSize::mib(1) };
        let order_by = order_by.map(str::to_owned);
        FlowTopology { name: FlowName::new("f").unwrap(), backlog, answers: false, order_by }
    }

    fn consumer_of(partition: Option<u32>) -> pull::Config {
        consumer(&flow(None), &LanePart { lane: Lane::Bulk, partition }, Duration::from_secs(1))
    }

    #[test]
    fn a_flow_without_order_stores_exactly_its_two_lanes() {
        let config = work_stream(&flow(None), &Limits::default());
        assert_eq!(config.subjects, ["ev.f.interactive", "ev.f.bulk"]);
        assert!(config.subject_transform.is_none());
    }

    #[test]
    fn a_flow_with_order_stores_the_partition_in_place_of_the_key() {
        let config = work_stream(&flow(Some("device")), &Limits::default());
        assert_eq!(config.subjects, ["ev.f.interactive.*", "ev.f.bulk.*"]);
        assert_eq!(config.subject_transform.unwrap().destination, "ev.f.{{wildcard(1)}}.{{partition(8,2)}}");
    }

    #[test]
    fn a_lane_has_one_consumer_bounded_by_its_backlog() {
        let config = consumer_of(None);
        assert_eq!(config.durable_name.as_deref(), Some("bulk"));
        assert_eq!((config.filter_subject.as_str(), config.max_ack_pending), ("ev.f.bulk", 10));
    }

    #[test]
    fn a_partition_delivers_one_event_at_a_time() {
        let config = consumer_of(Some(3));
        assert_eq!(config.durable_name.as_deref(), Some("bulk-3"));
        assert_eq!((config.filter_subject.as_str(), config.max_ack_pending), ("ev.f.bulk.3", 1));
    }

    #[test]
    fn the_topology_reserves_the_bounds_of_its_streams() {
        let topology = Topology { flows: vec![flow(None)], ..Topology::default() };
        let sum: i64 = all(&topology).iter().map(|config| config.max_bytes).sum();
        assert_eq!(topology.reserved().0, sum.unsigned_abs());
    }
}
