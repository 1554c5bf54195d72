//! A tail gets events as they are submitted; the workers get them too.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may panic, and the environment names its server"
)]

mod support;

use pipeline::{Lane, Transport};
use support::*;

#[tokio::test]
async fn a_tail_gets_every_lane_of_its_flow_and_leaves_the_events_in_the_queue() {
    let broker = Broker::start().await;
    let mut ordered = flow("o", 10, false);
    ordered.order_by = Some("key".into());
    let mut declared = topology(&[("f", 10), ("g", 10)]);
    declared.flows.push(ordered);
    let transport = broker.connect(declared.clone()).await;
    let mut tail = transport.tail(&token("f")).await.unwrap();
    let mut keyed = transport.tail(&token("o")).await.unwrap();
    assert!(transport.tail(&token("nothing")).await.is_err());
    // Submitted by another process.
    let other = broker.connect(declared).await;
    other.submit(event("g", "a", text("unseen"))).await.unwrap();
    let mut bulk = event("f", "b", text("seen"));
    bulk.envelope.lane = Lane::Bulk;
    bulk.envelope.params.insert("n".into(), 1.into());
    other.submit(bulk.clone()).await.unwrap();
    other.submit(event("f", "c", text("too"))).await.unwrap();
    other.submit(event("o", "d", text("keyed"))).await.unwrap();
    let first = tokio::time::timeout(PATIENCE, tail.recv()).await.unwrap().unwrap();
    assert_eq!(format!("{:?}", first.envelope), format!("{:?}", bulk.envelope));
    assert_eq!(format!("{:?}", first.payload), format!("{:?}", bulk.payload));
    let second = tokio::time::timeout(PATIENCE, tail.recv()).await.unwrap().unwrap();
    assert_eq!((second.envelope.id.as_str(), second.envelope.lane), ("c", Lane::Interactive));
    let third = tokio::time::timeout(PATIENCE, keyed.recv()).await.unwrap().unwrap();
    assert_eq!(third.envelope.id.as_str(), "d");
    let backlog = transport.backlog(&token("f")).await.unwrap();
    assert_eq!((backlog.interactive, backlog.bulk), (1, 1));
}
