//! Throughput of a three-stage flow in events per second, beside bare JetStream doing the same: pull, publish,
//! acknowledge.
//!
//! Both sides drain a work queue of 256-byte events into another one, with message ids and every publish confirmed
//! before its event is acknowledged. The engine's flow is noop → noop → publish.

use std::collections::VecDeque;
use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::{self, consumer, context::PublishAckFuture};
use futures_util::StreamExt;
use pipeline::engine::{Flow, Running};
use pipeline::spec::{BacklogSpec, ByteSize, FlowSpec, Problems, Sources};
use pipeline::{Content, Envelope, FlowName, Payload, ProcessResources, Services, Submission, Token, Transport};
use tokio::time::Instant;

use crate::bare_broker::Broker;
use crate::statistics::{ROUNDS, median};

const EVENTS: usize = 60_000;
const BODY: &[u8] = &[b'x'; 256];
/// Publishes in flight, on both sides.
const WINDOW: usize = 2_048;

/// The headers of a CloudEvent in binary mode, except its id.
const HEADERS: [(&str, &str); 6] = [
    ("ce-specversion", "1.0"),
    ("ce-type", "caudal.event"),
    ("ce-source", "/"),
    ("ce-time", "2026-01-01T00:00:00.000000000Z"),
    ("content-type", "application/octet-stream"),
    ("Caudal-Payload", "bytes"),
];

const FLOW: &str = r#"
[flow.in]
backlog = { events = 1000000, bytes = "2 GiB" }
[[flow.in.stage]]
use = "noop"
name = "one"
queue = { events = 1024 }
[[flow.in.stage]]
use = "noop"
name = "two"
queue = { events = 1024 }
[[flow.in.stage]]
use = "publish"
flow = "out"
workers = 4
queue = { events = 1024 }
"#;

pub async fn run() {
    let (mut bare, mut with_headers, mut engine) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        bare.push(bare_rate(false).await);
        with_headers.push(bare_rate(true).await);
        engine.push(engine_rate().await);
    }
    let (bare, with_headers, engine) = (median(&bare), median(&with_headers), median(&engine));
    println!("\nengine: {EVENTS} events of 256 B, three stages, medians of {ROUNDS} rounds");
    println!("  bare JetStream: pull, publish, ack   {bare:>9.0} /s");
    println!("  the same, with CloudEvents headers   {with_headers:>9.0} /s");
    let (of_bare, of_headers) = (engine / bare, engine / with_headers);
    println!(
        "  engine                               {engine:>9.0} /s  ({of_bare:.2} of bare, {of_headers:.2} with headers)"
    );
}

async fn engine_rate() -> f64 {
    let broker = Broker::start();
    let names = ["in", "out"].map(|name| FlowName::new(name).unwrap());
    let flows = names.iter().map(|name| nats::FlowTopology {
        name: name.clone(),
        backlog: BacklogSpec { events: 1_000_000, bytes: ByteSize(2 << 30) },
        answers: false,
        order_by: None,
    });
    let topology = nats::Topology { flows: flows.collect(), ..Default::default() };
    let access = nats::Access { url: broker.url.clone(), auth: nats::Auth::None };
    let transport = nats::connect(nats::ConnectOptions::new(access, topology)).await.unwrap();
    fill(&*transport, &names[0]).await;

    let shared: Arc<dyn Transport> = transport.clone();
    let process = ProcessResources { transport: Some(Arc::clone(&shared)), ..ProcessResources::default() };
    let services = Arc::new(Services::new(process));
    let flow = Flow::build(read_flow(), &services, shared).await.unwrap();
    let begun = Instant::now();
    let running = Running::start(vec![flow]);
    while transport.backlog(&names[0]).await.unwrap().interactive > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let took = begun.elapsed().as_secs_f64();
    let stored = transport.backlog(&names[1]).await.unwrap();
    assert_eq!(stored.interactive + stored.bulk, EVENTS as u64);
    running.drain(Duration::from_secs(10)).await.unwrap();
    transport.close().await;
    EVENTS as f64 / took
}

async fn fill(transport: &dyn Transport, flow: &FlowName) {
    let submissions = (0..EVENTS).map(|number| {
        let envelope = Envelope::new(flow.clone(), Token::new(&format!("e{number}")).unwrap());
        let payload = Payload::Bytes(Content::inline("application/octet-stream", BODY));
        transport.submit(Submission { envelope, payload })
    });
    let mut pending = futures_util::stream::iter(submissions).buffer_unordered(WINDOW);
    while let Some(stored) = pending.next().await {
        stored.unwrap();
    }
}

fn read_flow() -> FlowSpec {
    let mut sources = Sources::default();
    sources.add("bench", FLOW);
    let mut problems = Problems::default();
    let (name, section) = sources.parse(&mut problems).root.take_named("flow", &mut problems).remove(0);
    let mut kinds = pipeline::testing::kinds();
    kinds.extend_from_slice(operators::ALL);
    let flow = FlowSpec::read(&name, section, &kinds, &mut problems);
    flow.unwrap_or_else(|| panic!("{}", problems.render(&sources, false)))
}

/// The rate of bare JetStream; `with_headers` adds the headers of the engine's events.
async fn bare_rate(with_headers: bool) -> f64 {
    let broker = Broker::start();
    let client = async_nats::connect(&broker.url).await.unwrap();
    let context = jetstream::context::ContextBuilder::new().max_ack_inflight(2 * WINDOW).build(client);
    let stream = |name: &str| jetstream::stream::Config {
        name: name.into(),
        subjects: vec![name.into()],
        retention: jetstream::stream::RetentionPolicy::WorkQueue,
        duplicate_window: Duration::from_secs(600),
        ..Default::default()
    };
    let input = context.create_stream(stream("in")).await.unwrap();
    context.create_stream(stream("out")).await.unwrap();
    let mut window = Window { with_headers, pending: VecDeque::new() };
    for number in 0..EVENTS {
        window.publish(&context, "in", number, None).await;
    }
    window.finish().await;

    let pull = consumer::pull::Config {
        durable_name: Some("worker".into()),
        max_ack_pending: 1_000_000,
        ..Default::default()
    };
    let consumer = input.create_consumer(pull).await.unwrap();
    let begun = Instant::now();
    let mut messages = consumer.stream().max_messages_per_batch(1_000).messages().await.unwrap();
    for number in 0..EVENTS {
        let message = messages.next().await.unwrap().unwrap();
        window.publish(&context, "out", number, Some(message)).await;
    }
    window.finish().await;
    EVENTS as f64 / begun.elapsed().as_secs_f64()
}

/// Publishes in flight, oldest first, each with the message to acknowledge after it.
struct Window {
    with_headers: bool,
    pending: VecDeque<(<PublishAckFuture as IntoFuture>::IntoFuture, Option<jetstream::Message>)>,
}

impl Window {
    async fn publish(
        &mut self,
        context: &jetstream::Context,
        to: &str,
        number: usize,
        from: Option<jetstream::Message>,
    ) {
        if self.pending.len() >= WINDOW {
            self.confirm_oldest().await;
        }
        let id = format!("e{number}");
        let mut publish = jetstream::message::PublishMessage::build().payload(BODY.into()).message_id(&id);
        if self.with_headers {
            for (name, value) in HEADERS {
                publish = publish.header(name, value);
            }
            publish = publish.header("ce-id", id.as_str());
        }
        let ack = context.send_publish(to.to_owned(), publish).await.unwrap();
        self.pending.push_back((ack.into_future(), from));
    }

    async fn confirm_oldest(&mut self) {
        if let Some((ack, message)) = self.pending.pop_front() {
            ack.await.unwrap();
            if let Some(message) = message {
                message.ack().await.unwrap();
            }
        }
    }

    async fn finish(&mut self) {
        while !self.pending.is_empty() {
            self.confirm_oldest().await;
        }
    }
}
