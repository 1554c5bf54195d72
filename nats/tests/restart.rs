//! The server is killed, stopped, restarted or cannot start: no accepted event is lost, and all clients continue.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may panic, and the environment names its server"
)]

mod support;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::jetstream::consumer::PullConsumer;
use futures_util::StreamExt;
use nats::server::{PrivateServer, ServerError};
use nats::{JetStream, NatsSpec};
use pipeline::{Lane, OutcomeKind, Settlement, SourceBounds, Transport};
use rustix::process::{Pid, Signal, kill_process};
use support::*;

fn kill(server: &PrivateServer) -> u32 {
    let pid = server.pid().expect("the server runs");
    kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::KILL).unwrap();
    pid
}

async fn restarted(server: &PrivateServer, before: u32) {
    eventually("the server is restarted", || async { server.pid().is_some_and(|pid| pid != before) }).await;
}

/// Submits until `stop` is set; returns the ids that were accepted.
async fn submit_all(transport: Arc<JetStream>, stop: Arc<AtomicBool>) -> HashSet<String> {
    let mut accepted = HashSet::new();
    let mut index = 0;
    while !stop.load(Ordering::Relaxed) {
        let id = format!("e{index}");
        index += 1;
        if transport.submit(event("f", &id, text("x"))).await.is_ok() {
            accepted.insert(id);
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    accepted
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_loses_no_accepted_event() {
    let broker = Broker::start().await;
    let transport = broker.connect(topology(&[("f", 100_000)])).await;
    let request = token("r");
    let mut watch = transport.watch(&request);
    transport.publish_outcome(&request, &outcome(OutcomeKind::Accepted, 0, "")).await.unwrap();
    assert_eq!(watch.outcomes.recv().await.unwrap().ordinal, 0);
    let mut source = open(&transport, "f", Lane::Interactive, bounds(64)).await;
    let stop = Arc::new(AtomicBool::new(false));
    let submitting = tokio::spawn(submit_all(Arc::clone(&transport), Arc::clone(&stop)));
    let mut delivered = HashSet::new();
    for round in 0..3_u32 {
        for _ in 0..100 {
            let delivery = next(&mut source).await;
            delivered.insert(delivery.envelope.id.to_string());
            delivery.ack.settle(Settlement::Done).await;
        }
        let before = kill(&broker.server);
        restarted(&broker.server, before).await;
        let ordinal = round + 1;
        eventually("a result is stored", || async {
            transport.publish_outcome(&request, &outcome(OutcomeKind::Data, ordinal, "")).await.is_ok()
        })
        .await;
        let live =
            tokio::time::timeout(PATIENCE, watch.outcomes.recv()).await.expect("the watch got no result").unwrap();
        assert_eq!(live.ordinal, ordinal);
    }
    stop.store(true, Ordering::Relaxed);
    let accepted = submitting.await.unwrap();
    // 300 were delivered; the acknowledgement of a few of them may have been lost.
    assert!(accepted.len() > 250, "{}", accepted.len());
    while !accepted.is_subset(&delivered) {
        let delivery = next(&mut source).await;
        delivered.insert(delivery.envelope.id.to_string());
        delivery.ack.settle(Settlement::Done).await;
    }
    let history = transport.outcomes(&request).await.unwrap();
    assert_eq!(history.iter().map(|outcome| outcome.ordinal).collect::<Vec<_>>(), [0, 1, 2, 3]);
    transport.ready().await.unwrap();
}

#[tokio::test]
async fn a_stopped_server_is_not_ready_and_its_store_is_intact_afterwards() {
    let broker = Broker::start().await;
    let transport = broker.connect(topology(&[("f", 100)])).await;
    transport.submit(event("f", "kept", text("x"))).await.unwrap();
    transport.put_record(&token("s"), &token("k"), "v".into()).await.unwrap();
    transport.ready().await.unwrap();
    let Broker { server, dir } = broker;
    server.stop().await;
    let begun = tokio::time::Instant::now();
    assert!(transport.ready().await.is_err());
    assert!(begun.elapsed() < Duration::from_secs(3));
    drop(transport);
    let server = PrivateServer::start(options(dir.path(), NatsSpec::default())).await.unwrap();
    let broker = Broker { server, dir };
    let transport = broker.connect(topology(&[("f", 100)])).await;
    assert_eq!(transport.get_record(&token("s"), &token("k")).await.unwrap().unwrap().value, "v");
    let mut source = open(&transport, "f", Lane::Interactive, bounds(1)).await;
    assert_eq!(next(&mut source).await.envelope.id.as_str(), "kept");
}

#[tokio::test]
async fn a_server_that_cannot_start_reports_why() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dir = tempfile::TempDir::new().unwrap();
    let spec = NatsSpec { listen: Some(taken.local_addr().unwrap()), ..NatsSpec::default() };
    let Err(error) = PrivateServer::start(options(dir.path(), spec)).await else { panic!("was started") };
    assert!(matches!(&error, ServerError::Ended { log, .. } if log.contains("address already in use")), "{error}");
    let mut missing = options(dir.path(), NatsSpec::default());
    missing.program = "/nowhere/nats-server".into();
    assert!(matches!(PrivateServer::start(missing).await, Err(ServerError::Program { .. })));
}

/// The broker stands still for longer than `ack_wait`: no progress report reaches it, and it redelivers everything.
#[tokio::test]
async fn what_is_in_flight_here_is_not_begun_again() {
    let broker = Broker::start().await;
    let transport = broker.connect(topology(&[("f", 100)])).await;
    let short = SourceBounds { ack_wait: Duration::from_millis(300), ..bounds(4) };
    let mut source = open(&transport, "f", Lane::Interactive, short).await;
    transport.submit(event("f", "a", text("x"))).await.unwrap();
    let held = next(&mut source).await;
    let seed = std::fs::read_to_string(broker.dir.path().join("nats/caudal.nk")).unwrap();
    let raw = async_nats::ConnectOptions::with_nkey(seed).connect(broker.access().url).await.unwrap();
    // The subject of the event's acknowledgement is seen when its progress is reported.
    let mut acknowledgements = raw.subscribe("$JS.ACK.EV-f.>").await.unwrap();
    let progress = tokio::time::timeout(Duration::from_secs(10), acknowledgements.next()).await.unwrap().unwrap();
    raw.publish(progress.subject, "-NAK".into()).await.unwrap();
    let jetstream = async_nats::jetstream::new(raw);
    let info = || async {
        let consumer: PullConsumer = jetstream.get_consumer_from_stream("interactive", "EV-f").await.unwrap();
        consumer.get_info().await.unwrap()
    };
    eventually("the broker redelivers", || async { info().await.num_redelivered > 0 }).await;
    assert_eq!(info().await.config.ack_wait, short.ack_wait);
    assert!(is_quiet(&mut source, 2 * short.ack_wait).await);
    held.ack.settle(Settlement::Done).await;
    eventually("it has ended", || async { transport.backlog(&token("f")).await.unwrap().is_empty() }).await;
    // A consumer that exists gets the new wait.
    drop(source);
    drop(open(&transport, "f", Lane::Interactive, bounds(1)).await);
    assert_eq!(info().await.config.ack_wait, bounds(1).ack_wait);
}

#[tokio::test]
async fn publishers_reach_a_listening_server_with_their_key_and_can_do_nothing_else() {
    let broker =
        Broker::start_with(NatsSpec { listen: Some("127.0.0.1:0".parse().unwrap()), ..NatsSpec::default() }).await;
    let transport = broker.connect(topology(&[("f", 100)])).await;
    let url = broker.access().url;
    assert!(async_nats::connect(&url).await.is_err(), "without a key");
    let file = broker.dir.path().join("nats/publisher.nk");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let seed = std::fs::read_to_string(file).unwrap();
    let client = async_nats::ConnectOptions::with_nkey(seed)
        .request_timeout(Some(Duration::from_millis(500)))
        .connect(url)
        .await
        .unwrap();
    let jetstream = async_nats::jetstream::new(client);
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("ce-id", "from-outside");
    jetstream.publish_with_headers("ev.f.interactive", headers, "hello".into()).await.unwrap().await.unwrap();
    let mut source = open(&transport, "f", Lane::Interactive, bounds(1)).await;
    assert_eq!(next(&mut source).await.envelope.id.as_str(), "from-outside");
    // As client libraries do that get a subject and no stream.
    assert_eq!(jetstream.stream_by_subject("res.from-outside.*").await.unwrap(), "RES");
    let results = jetstream.get_stream("RES").await.unwrap();
    assert!(results.consumer_names().collect::<Vec<_>>().await.iter().all(Result::is_ok));
    assert!(results.consumers().collect::<Vec<_>>().await.iter().all(Result::is_ok));
    // It can neither forge a result nor change the streams.
    assert!(jetstream.delete_stream("RES").await.is_err());
    let mut forged = async_nats::jetstream::context::ContextBuilder::new()
        .timeout(Duration::from_millis(500))
        .build(jetstream.client());
    forged.set_timeout(Duration::from_millis(300));
    assert!(forged.publish("res.from-outside.end", "x".into()).await.unwrap().await.is_err());
    assert!(transport.outcomes(&token("from-outside")).await.unwrap().is_empty());
}

/// An MQTT packet whose remaining length, below 128, is one byte.
fn mqtt(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    [&[kind, u8::try_from(body.len()).unwrap()], body.as_slice()].concat()
}

/// A string, preceded by its length in two bytes.
fn mqtt_text(text: &str) -> Vec<u8> {
    [&u16::try_from(text.len()).unwrap().to_be_bytes(), text.as_bytes()].concat()
}

#[tokio::test]
async fn mqtt_devices_publish_events_with_the_password_and_can_do_nothing_else() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    // The server does not report its MQTT port, so a port is chosen that was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let broker = Broker::start_with(NatsSpec { mqtt: Some(free), ..NatsSpec::default() }).await;
    let transport = broker.connect(topology(&[("f", 100)])).await;
    let password = std::fs::read_to_string(broker.dir.path().join("nats/mqtt.password")).unwrap();
    for (password, accepted) in [("wrong", false), (&*password, true)] {
        let mut device = tokio::net::TcpStream::connect(free).await.unwrap();
        let protocol = [mqtt_text("MQTT"), vec![4, 0xC2, 0, 60]].concat();
        let who = [mqtt_text("device"), mqtt_text("mqtt"), mqtt_text(password)].concat();
        device.write_all(&mqtt(0x10, &[&protocol, &who])).await.unwrap();
        let mut answer = [0; 4];
        device.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer[3] == 0, accepted);
        if accepted {
            device.write_all(&mqtt(0x30, &[&mqtt_text("res/x/end"), b"forged"])).await.unwrap();
            device.write_all(&mqtt(0x30, &[&mqtt_text("ev/f/bulk"), b"21.5"])).await.unwrap();
            let mut source = open(&transport, "f", Lane::Bulk, bounds(1)).await;
            let delivery = next(&mut source).await;
            assert!(delivery.envelope.id.as_str().starts_with("mqtt-"));
            assert!(transport.outcomes(&token("x")).await.unwrap().is_empty());
        }
    }
}
