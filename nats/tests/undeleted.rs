//! The broker forgets that ended events were deleted, as after a full disk: they leave the queue all the same.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may panic, and the environment names its server"
)]

mod support;

use std::path::Path;

use nats::NatsSpec;
use nats::server::PrivateServer;
use pipeline::{Lane, Settlement, Transport};
use support::*;

const EVENTS: usize = 3;

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

async fn restart(broker: Broker, while_stopped: impl FnOnce()) -> Broker {
    let Broker { server, dir } = broker;
    server.stop().await;
    while_stopped();
    let server = PrivateServer::start(options(dir.path(), NatsSpec::default())).await.unwrap();
    Broker { server, dir }
}

#[tokio::test]
async fn ended_events_that_are_in_the_queue_again_are_delivered_once_more() {
    let broker = Broker::start().await;
    let transport = broker.connect(topology(&[("f", 100)])).await;
    for number in 0..EVENTS {
        transport.submit(event("f", &format!("e{number}"), text("x"))).await.unwrap();
    }
    let messages = broker.dir.path().join("nats/jetstream/jetstream/$G/streams/EV-f/msgs");
    let kept = broker.dir.path().join("kept");
    let broker = restart(broker, || copy(&messages, &kept)).await;

    let transport = broker.connect(topology(&[("f", 100)])).await;
    let mut source = open(&transport, "f", Lane::Interactive, bounds(EVENTS)).await;
    for _ in 0..EVENTS {
        next(&mut source).await.ack.settle(Settlement::DoneConfirmed).await;
    }
    eventually("they have ended", || async { transport.backlog(&token("f")).await.unwrap().is_empty() }).await;
    drop(source);
    transport.close().await;
    let broker = restart(broker, || {
        std::fs::remove_dir_all(&messages).unwrap();
        copy(&kept, &messages);
    })
    .await;

    let transport = broker.connect(topology(&[("f", 100)])).await;
    assert_eq!(transport.backlog(&token("f")).await.unwrap().interactive, EVENTS as u64, "the deletion was forgotten");
    let mut source = open(&transport, "f", Lane::Interactive, bounds(EVENTS)).await;
    for number in 0..EVENTS {
        let delivery = next(&mut source).await;
        assert_eq!(delivery.envelope.id.as_str(), format!("e{number}"));
        delivery.ack.settle(Settlement::Done).await;
    }
    eventually("they have left the queue", || async { transport.backlog(&token("f")).await.unwrap().is_empty() }).await;
}
