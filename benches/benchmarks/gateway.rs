//! Latency of a request over HTTP (request → event → result → response), beside a bare durable round trip on the same
//! kind of broker: publish, acknowledge, consume, publish the result, receive it.
//!
//! Both one at a time over loopback.

use std::time::Duration;

use async_nats::jetstream;
use futures_util::StreamExt;
use tokio::time::Instant;

use crate::bare_broker::Broker;
use crate::caudal::{Caudal, Folder};
use crate::statistics::{ROUNDS, median, millis, percentile};

const TRIPS: usize = 1_500;
const WARM_UP: usize = 200;
const BODY: &[u8] = &[b'x'; 256];

const CONFIG: &str = "[flow.echo]\nopen = true\n[[flow.echo.stage]]\nuse = \"respond\"\n";

pub async fn run() {
    let broker = Broker::start();
    let bare = Bare::start(&broker).await;
    let folder = Folder::new();
    let config = folder.path().join("echo.toml");
    std::fs::write(&config, CONFIG).unwrap();
    let caudal = Caudal::serve(Folder::new(), &[config.to_str().unwrap()]).await;
    let url = caudal.url("/v1/flows/echo");
    let (mut bare_ms, mut http_ms, mut health_ms) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let trips = if round == 0 { WARM_UP } else { TRIPS };
        let one = bare.trips(trips).await;
        let two = http_trips(&caudal, &url, trips).await;
        let three = health_trips(&caudal, trips).await;
        if round > 0 {
            bare_ms.push(one);
            http_ms.push(two);
            health_ms.push(three);
        }
    }
    println!("\ngateway: {TRIPS} round trips of 256 B, one at a time, medians of {ROUNDS} rounds");
    let line = |what: &str, rounds: &[Vec<f64>]| {
        let p50 = median(&rounds.iter().map(|round| percentile(round, 0.5)).collect::<Vec<_>>());
        let p99 = median(&rounds.iter().map(|round| percentile(round, 0.99)).collect::<Vec<_>>());
        println!("  {what:<44} p50 {p50:.3} ms  p99 {p99:.3} ms");
        p50
    };
    let bare = line("bare durable round trip on JetStream", &bare_ms);
    line("GET /health (HTTP client and server alone)", &health_ms);
    let http = line("POST /v1/flows/echo", &http_ms);
    println!("  the gateway and the engine add {:.3} ms at the median", http - bare);
}

async fn http_trips(caudal: &Caudal, url: &str, trips: usize) -> Vec<f64> {
    let mut latencies = Vec::with_capacity(trips);
    for _ in 0..trips {
        let begun = Instant::now();
        let response = caudal.client.post(url).header("content-type", "text/plain").body(BODY).send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.bytes().await.unwrap().len(), BODY.len());
        latencies.push(millis(begun.elapsed()));
    }
    latencies
}

async fn health_trips(caudal: &Caudal, trips: usize) -> Vec<f64> {
    let mut latencies = Vec::with_capacity(trips);
    for _ in 0..trips {
        let begun = Instant::now();
        caudal.get("/health").await.bytes().await.unwrap();
        latencies.push(millis(begun.elapsed()));
    }
    latencies
}

/// The baseline: one worker and one client on JetStream without Caudal, with the stream settings that Caudal uses.
struct Bare {
    context: jetstream::Context,
    results: tokio::sync::Mutex<jetstream::consumer::push::Ordered>,
}

impl Bare {
    async fn start(broker: &Broker) -> Self {
        let client = async_nats::connect(&broker.url).await.unwrap();
        let context = jetstream::new(client.clone());
        let work = jetstream::stream::Config {
            name: "WORK".into(),
            subjects: vec!["work".into()],
            retention: jetstream::stream::RetentionPolicy::WorkQueue,
            ..Default::default()
        };
        let work = context.create_stream(work).await.unwrap();
        let results = jetstream::stream::Config {
            name: "RES".into(),
            subjects: vec!["res".into()],
            allow_direct: true,
            ..Default::default()
        };
        let results = context.create_stream(results).await.unwrap();
        let ordered = jetstream::consumer::push::OrderedConfig {
            deliver_subject: client.new_inbox(),
            deliver_policy: jetstream::consumer::DeliverPolicy::New,
            ..Default::default()
        };
        let ordered = results.create_consumer(ordered).await.unwrap().messages().await.unwrap();
        let pull = jetstream::consumer::pull::Config { durable_name: Some("worker".into()), ..Default::default() };
        let consumer = work.create_consumer(pull).await.unwrap();
        let publisher = context.clone();
        tokio::spawn(async move {
            let mut messages = consumer.stream().max_messages_per_batch(8).messages().await.unwrap();
            while let Some(Ok(message)) = messages.next().await {
                publisher.publish("res", message.payload.clone()).await.unwrap().await.unwrap();
                message.ack().await.unwrap();
            }
        });
        Self { context, results: tokio::sync::Mutex::new(ordered) }
    }

    async fn trips(&self, trips: usize) -> Vec<f64> {
        let mut results = self.results.lock().await;
        let mut latencies = Vec::with_capacity(trips);
        for _ in 0..trips {
            let begun = Instant::now();
            self.context.publish("work", BODY.into()).await.unwrap().await.unwrap();
            let received = tokio::time::timeout(Duration::from_secs(5), results.next()).await.unwrap();
            received.unwrap().unwrap();
            latencies.push(millis(begun.elapsed()));
        }
        latencies
    }
}
