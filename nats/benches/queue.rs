//! Pull an event, publish one child into another flow, acknowledge: this transport compared with plain JetStream, with
//! the same stream settings, server and process.
//!
//! `cargo bench -p nats` prints events per second of both and their ratio. It also prints processor time per event of
//! this process and of the server, which depends less on other programs of the machine. Payloads have 256 bytes; up to
//! 256 events are at work.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark may panic, and the environment names its server"
)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::{self, Context, consumer, stream};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use pipeline::{Content, Lane, Payload, Settlement, Transport};
use support::*;
use tokio::time::Instant;

const EVENTS: u32 = 40_000;
const AT_WORK: usize = 256;
const ROUNDS: usize = 3;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        // `-- transport` runs only the transport, for a profiler.
        if std::env::args().any(|argument| argument == "transport") {
            println!("transport {}", run_transport(0).await);
            return;
        }
        for round in 0..ROUNDS {
            let bare = run_bare(round, false).await;
            let with_headers = run_bare(round, true).await;
            let ours = run_transport(round).await;
            println!("bare      {bare}");
            println!("+ headers {with_headers}   ratio {:.2}", with_headers.rate / bare.rate);
            println!("transport {ours}   ratio {:.2}", ours.rate / bare.rate);
        }
    });
}

/// Measurements of one run.
struct Measurement {
    rate: f64,
    client_us: f64,
    server_us: f64,
}

impl std::fmt::Display for Measurement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:>8.0}/s   client {:>5.1} µs   server {:>5.1} µs", self.rate, self.client_us, self.server_us)
    }
}

struct Clock {
    begun: Instant,
    client: f64,
    server: f64,
    pid: u32,
}

impl Clock {
    fn start(broker: &Broker) -> Self {
        let pid = broker.server.pid().unwrap();
        Self { begun: Instant::now(), client: cpu_us("self"), server: cpu_us(&pid.to_string()), pid }
    }

    fn stop(self) -> Measurement {
        let events = f64::from(EVENTS);
        Measurement {
            rate: events / self.begun.elapsed().as_secs_f64(),
            client_us: (cpu_us("self") - self.client) / events,
            server_us: (cpu_us(&self.pid.to_string()) - self.server) / events,
        }
    }
}

/// Processor time of a process so far, in microseconds; the kernel counts in units of 10 ms.
fn cpu_us(process: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: f64 = fields[11..13].iter().map(|ticks| ticks.parse::<f64>().unwrap()).sum();
    ticks * 10_000.0
}

async fn run_transport(round: usize) -> Measurement {
    let broker = Broker::start().await;
    let transport = broker.connect(topology(&[("a", EVENTS), ("b", EVENTS)])).await;
    let payload = Payload::Bytes(Content::inline("application/octet-stream", vec![7; 256]));
    let submit = |flow: &'static str, id: String| {
        let (transport, submission) = (Arc::clone(&transport), event(flow, &id, payload.clone()));
        async move { transport.submit(submission).await.unwrap() }
    };
    let filling = (0..EVENTS).map(|index| submit("a", format!("{round}-{index}")));
    futures_util::stream::iter(filling).buffer_unordered(AT_WORK).for_each(|_| std::future::ready(())).await;
    let mut source = open(&transport, "a", Lane::Interactive, bounds(AT_WORK)).await;
    let clock = Clock::start(&broker);
    let mut at_work = FuturesUnordered::new();
    let mut done = 0;
    while done < EVENTS {
        tokio::select! {
            delivery = source.next(), if at_work.len() < AT_WORK => {
                let delivery = delivery.unwrap();
                let child = submit("b", delivery.envelope.id.to_string());
                at_work.push(async move {
                    child.await;
                    delivery.ack.settle(Settlement::Done).await;
                });
            }
            Some(()) = at_work.next() => done += 1,
        }
    }
    clock.stop()
}

/// `headers`: with the attributes of a CloudEvent, which every event of the transport has.
async fn run_bare(round: usize, headers: bool) -> Measurement {
    let broker = Broker::start().await;
    let seed = std::fs::read_to_string(broker.dir.path().join("nats/caudal.nk")).unwrap();
    let connect = || async {
        let client = async_nats::ConnectOptions::with_nkey(seed.clone()).connect(broker.access().url).await.unwrap();
        jetstream::new(client)
    };
    let (publishing, work) = (connect().await, connect().await);
    for name in ["a", "b"] {
        let config = stream::Config {
            name: name.into(),
            subjects: vec![format!("{name}.x")],
            retention: stream::RetentionPolicy::WorkQueue,
            discard: stream::DiscardPolicy::New,
            discard_new_per_subject: true,
            max_messages_per_subject: i64::from(EVENTS),
            max_bytes: 64 << 20,
            max_message_size: 1 << 20,
            duplicate_window: Duration::from_secs(600),
            ..Default::default()
        };
        publishing.create_stream(config).await.unwrap();
    }
    let publish = |subject: &'static str, id: String| {
        let context: Context = publishing.clone();
        async move {
            let mut message = jetstream::message::PublishMessage::build().payload(vec![7; 256].into());
            if headers {
                message = message
                    .header("ce-specversion", "1.0")
                    .header("ce-id", id.as_str())
                    .header("ce-type", "caudal.event")
                    .header("ce-source", "/")
                    .header("ce-time", "2026-01-31T12:00:00.123456789Z")
                    .header("content-type", "application/octet-stream");
            }
            let message = message.message_id(id);
            context.send_publish(subject, message).await.unwrap().await.unwrap();
        }
    };
    let filling = (0..EVENTS).map(|index| publish("a.x", format!("{round}-{index}")));
    futures_util::stream::iter(filling).buffer_unordered(AT_WORK).for_each(|_| std::future::ready(())).await;
    let config = consumer::pull::Config {
        durable_name: Some("w".into()),
        max_ack_pending: i64::from(EVENTS),
        ..Default::default()
    };
    let consumer = work.create_consumer_on_stream(config, "a").await.unwrap();
    let mut messages = consumer.stream().max_messages_per_batch(AT_WORK).messages().await.unwrap();
    let clock = Clock::start(&broker);
    let mut at_work = FuturesUnordered::new();
    let mut done = 0;
    while done < EVENTS {
        tokio::select! {
            message = messages.next(), if at_work.len() < AT_WORK => {
                let message = message.unwrap().unwrap();
                let child = publish("b.x", format!("c{}", message.info().unwrap().stream_sequence));
                at_work.push(async move {
                    child.await;
                    message.ack().await.unwrap();
                });
            }
            Some(()) = at_work.next() => done += 1,
        }
    }
    clock.stop()
}
