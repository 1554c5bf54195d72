//! Streams of one config meet those of another: no accepted event is lost, and whatever does not fit is named.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may panic, and the environment names its server"
)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nats::{ConnectError, ConnectOptions, JetStream, Limits, NatsSpec, Removal, Topology, UndeclaredQueues};
use pipeline::spec::ByteSize;
use pipeline::{Lane, Settlement, Transport, TransportError};
use support::*;

/// Connects as the process that runs the broker.
async fn connect(broker: &Broker, topology: Topology) -> Result<Arc<JetStream>, ConnectError> {
    let restarter = Some(broker.server.restarter());
    nats::connect(ConnectOptions { restarter, ..ConnectOptions::new(broker.access(), topology) }).await
}

async fn with_flows(broker: &Broker, flows: &[(&str, u32)]) -> Arc<JetStream> {
    connect(broker, topology(flows)).await.unwrap()
}

async fn submit(transport: &JetStream, flow: &str, ids: std::ops::Range<u32>) {
    for id in ids {
        transport.submit(event(flow, &format!("{flow}{id}"), text("x"))).await.unwrap();
    }
}

async fn waiting(transport: &JetStream, flow: &str) -> u64 {
    transport.backlog(&token(flow)).await.unwrap().interactive
}

/// The flows with a queue that this config does not declare, with the events in it.
async fn undeclared(broker: &Broker, declared: &Topology) -> Vec<(String, u64)> {
    let queues = UndeclaredQueues::open(&broker.access()).await.unwrap();
    let list = queues.list(&declared.flows).await.unwrap();
    list.into_iter().map(|queue| (queue.flow.to_string(), queue.events)).collect()
}

#[tokio::test]
async fn a_lower_bound_on_events_loses_none_that_wait() {
    let broker = Broker::start().await;
    let transport = with_flows(&broker, &[("f", 10)]).await;
    submit(&transport, "f", 0..10).await;
    transport.close().await;
    let transport = with_flows(&broker, &[("f", 3)]).await;
    assert_eq!(waiting(&transport, "f").await, 10);
    let full = transport.submit(event("f", "more", text("x"))).await;
    assert!(matches!(full, Err(TransportError::Full { .. })), "{full:?}");
    let mut source = open(&transport, "f", Lane::Interactive, bounds(20)).await;
    for _ in 0..10 {
        next(&mut source).await.ack.settle(Settlement::Done).await;
    }
    eventually("all were delivered", || async { waiting(&transport, "f").await == 0 }).await;
    transport.close().await;
    // Nothing waits any more: the bound is the declared one.
    let transport = with_flows(&broker, &[("f", 3)]).await;
    submit(&transport, "f", 10..13).await;
    let full = transport.submit(event("f", "more", text("x"))).await;
    assert!(matches!(full, Err(TransportError::Full { .. })), "{full:?}");
}

#[tokio::test]
async fn a_lower_bound_on_events_loses_none_of_an_ordered_flow() {
    let broker = Broker::start().await;
    let ordered = |events| {
        let mut topology = topology(&[("f", events)]);
        topology.flows[0].order_by = Some("device".into());
        topology
    };
    let transport = connect(&broker, ordered(10)).await.unwrap();
    for id in 0..10 {
        let mut submission = event("f", &format!("f{id}"), text("x"));
        submission.envelope.params.insert("device".into(), "one".into());
        transport.submit(submission).await.unwrap();
    }
    transport.close().await;
    let transport = connect(&broker, ordered(2)).await.unwrap();
    assert_eq!(waiting(&transport, "f").await, 10);
}

#[tokio::test]
async fn a_lower_bound_on_bytes_loses_none_that_wait() {
    let broker = Broker::start().await;
    let transport = with_flows(&broker, &[("f", 100)]).await;
    submit(&transport, "f", 0..50).await;
    let mut small = topology(&[("f", 100)]);
    small.flows[0].backlog.bytes = ByteSize(1 << 10);
    let transport = connect(&broker, small).await.unwrap();
    assert_eq!(waiting(&transport, "f").await, 50);
}

#[tokio::test]
async fn a_queue_that_is_not_declared_is_kept_while_it_holds_events() {
    let broker = Broker::start().await;
    let transport = with_flows(&broker, &[("empty", 10), ("full", 10), ("stays", 10)]).await;
    submit(&transport, "full", 0..3).await;
    submit(&transport, "stays", 0..1).await;
    transport.close().await;
    let fewer = topology(&[("stays", 10)]);
    connect(&broker, fewer.clone()).await.unwrap().close().await;
    assert_eq!(undeclared(&broker, &fewer).await, [("full".to_owned(), 3)]);
    // Declared again, it delivers them, and takes more.
    let transport = with_flows(&broker, &[("stays", 10), ("full", 10)]).await;
    let mut source = open(&transport, "full", Lane::Interactive, bounds(10)).await;
    for _ in 0..3 {
        next(&mut source).await.ack.settle(Settlement::Done).await;
    }
    submit(&transport, "full", 3..4).await;
    assert_eq!(waiting(&transport, "stays").await, 1);
}

#[tokio::test]
async fn on_another_broker_queues_that_are_not_declared_are_left_alone() {
    let broker = Broker::start().await;
    broker.connect(topology(&[("theirs", 10)])).await.close().await;
    let ours = topology(&[("ours", 10)]);
    broker.connect(ours.clone()).await.close().await;
    assert_eq!(undeclared(&broker, &ours).await, [("theirs".to_owned(), 0)]);
}

#[tokio::test]
async fn prune_removes_events_only_if_it_is_told_to_and_no_queue_that_is_worked_on() {
    let broker = Broker::start().await;
    let transport = with_flows(&broker, &[("waits", 10), ("works", 10)]).await;
    submit(&transport, "waits", 0..2).await;
    let _worker = open(&transport, "works", Lane::Interactive, bounds(10)).await;
    let queues = UndeclaredQueues::open(&broker.access()).await.unwrap();
    let list = queues.list(&[]).await.unwrap();
    let [waits, works] = list.as_slice() else { panic!("{list:?}") };
    eventually("the worker asks for events", || async { queues.remove(works, true).await.unwrap() == Removal::InUse })
        .await;
    assert_eq!(queues.remove(waits, false).await.unwrap(), Removal::Kept(2));
    // It takes events as before.
    submit(&transport, "waits", 2..3).await;
    assert_eq!(queues.remove(waits, true).await.unwrap(), Removal::Removed(3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_arrives_while_its_queue_is_removed_is_kept_or_refused() {
    let broker = Broker::start().await;
    let queues = UndeclaredQueues::open(&broker.access()).await.unwrap();
    for round in 0..10 {
        let flow = format!("f{round}");
        let publisher = broker.connect(topology(&[(&flow, 100_000)])).await;
        let list = queues.list(&[]).await.unwrap();
        let queue = list.iter().find(|queue| queue.flow.as_str() == flow).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let publishing = {
            let (publisher, stop, flow) = (Arc::clone(&publisher), Arc::clone(&stop), flow.clone());
            tokio::spawn(async move {
                let mut accepted = 0;
                for id in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    match publisher.submit(event(&flow, &format!("e{id}"), text("x"))).await {
                        Ok(_) => accepted += 1,
                        // Its queue is gone.
                        Err(_) => break,
                    }
                }
                accepted
            })
        };
        queues.remove(queue, false).await.unwrap();
        stop.store(true, Ordering::Relaxed);
        let accepted: u64 = publishing.await.unwrap();
        let again = broker.connect(topology(&[(&flow, 100_000)])).await;
        assert_eq!(waiting(&again, &flow).await, accepted, "round {round}");
    }
}

/// A private server whose streams may reserve `max_file`.
async fn limited(max_file: ByteSize) -> Broker {
    Broker::start_with(NatsSpec { max_file: Some(max_file), ..NatsSpec::default() }).await
}

#[tokio::test]
async fn streams_that_do_not_fit_are_named_with_sizes_limit_key_and_remedy() {
    let one = topology(&[("old", 10)]);
    let broker = limited(one.reserved()).await;
    let transport = connect(&broker, one).await.unwrap();
    submit(&transport, "old", 0..1).await;
    transport.close().await;
    let options = ConnectOptions {
        restarter: Some(broker.server.restarter()),
        max_file: Some(topology(&[("old", 10)]).reserved()),
        ..ConnectOptions::new(broker.access(), topology(&[("new", 10)]))
    };
    let Err(error) = nats::connect(options).await else { panic!("both fit") };
    let text = error.to_string();
    let limit = topology(&[("old", 10)]).reserved().to_string();
    for said in ["EV-new 64 MiB", "EV-old (not declared, 1 events) 64 MiB", &limit, "max_file", "caudal prune"] {
        assert!(text.contains(said), "{said}: {text}");
    }
}

#[tokio::test]
async fn bounds_that_change_places_fit_at_every_moment() {
    let sized = |a: u64, b: u64| {
        let mut topology = topology(&[("a", 10), ("b", 10)]);
        topology.flows[0].backlog.bytes = ByteSize::mib(a);
        topology.flows[1].backlog.bytes = ByteSize::mib(b);
        topology
    };
    let broker = limited(sized(512, 1).reserved()).await;
    for _ in 0..3 {
        connect(&broker, sized(512, 1)).await.unwrap().close().await;
        connect(&broker, sized(1, 512)).await.unwrap().close().await;
    }
}

#[tokio::test]
async fn an_orphaned_body_of_a_flow_that_is_gone_is_removed() {
    use futures_util::{StreamExt, stream};
    use pipeline::BodyOwner;

    let broker = Broker::start().await;
    let limits = Limits { claims_orphaned_after: Duration::from_secs(1), ..limits() };
    let with = |flow: &str| Topology { limits, ..topology(&[(flow, 10)]) };
    let transport = connect(&broker, with("gone")).await.unwrap();
    let body = stream::iter([Ok::<_, pipeline::BoxError>(bytes::Bytes::from(vec![1; 400 << 10]))]).boxed();
    let claim = transport.put_claim(BodyOwner::Event(&token("gone")), body).await.unwrap();
    transport.close().await;
    let transport = connect(&broker, with("other")).await.unwrap();
    eventually("the body is removed", || async { transport.get_claim(&claim).await.is_err() }).await;
}
