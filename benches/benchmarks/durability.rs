//! The cost of durability: publishes to memory storage, to files synced every second, and to files synced before every
//! acknowledgement; and sequential requests to the gateway with each of the file settings.

use std::collections::VecDeque;
use std::future::IntoFuture;
use std::time::Duration;

use async_nats::jetstream;
use tokio::time::Instant;

use crate::bare_broker::Broker;
use crate::caudal::{Caudal, Folder};
use crate::statistics::{median, millis, percentile};

const ROUNDS: usize = 3;
const TIME: Duration = Duration::from_secs(2);
const BODY: &[u8] = &[b'x'; 256];
const WINDOWS: [usize; 2] = [1, 256];
const TRIPS: usize = 300;

/// A storage type and its sync setting.
#[derive(Clone, Copy)]
struct StorageSetting {
    label: &'static str,
    storage: jetstream::stream::StorageType,
    sync: &'static str,
}

const SETTINGS: [StorageSetting; 3] = [
    StorageSetting { label: "memory", storage: jetstream::stream::StorageType::Memory, sync: "1s" },
    StorageSetting { label: "file, synced every second", storage: jetstream::stream::StorageType::File, sync: "1s" },
    StorageSetting {
        label: "file, synced before every ack",
        storage: jetstream::stream::StorageType::File,
        sync: "always",
    },
];

pub async fn run() {
    println!("\ndurability: publishes of 256 B, each confirmed; medians of {ROUNDS} rounds");
    for setting in SETTINGS {
        let mut rates = [const { Vec::new() }; WINDOWS.len()];
        for _ in 0..ROUNDS {
            let broker = Broker::start_with(setting.sync);
            for (window, rates) in WINDOWS.into_iter().zip(&mut rates) {
                rates.push(rate(&broker, setting, window).await);
            }
        }
        let [one, many] = rates.map(|rates| median(&rates));
        println!("  {:<29} one at a time {one:>8.0} /s, {} in flight {many:>8.0} /s", setting.label, WINDOWS[1]);
    }
    let folder = Folder::new();
    let config = folder.path().join("echo.toml");
    std::fs::write(&config, "[flow.echo]\nopen = true\n[[flow.echo.stage]]\nuse = \"respond\"\n").unwrap();
    for sync in ["1s", "always"] {
        let set = format!("nats.sync={sync}");
        let caudal = Caudal::serve(Folder::new(), &[config.to_str().unwrap(), "--set", &set]).await;
        trips(&caudal, TRIPS / 5).await;
        let taken = trips(&caudal, TRIPS).await;
        let (p50, p99) = (percentile(&taken, 0.5), percentile(&taken, 0.99));
        println!("  POST /v1/flows/echo, sync = {sync:<8} p50 {p50:.2} ms, p99 {p99:.2} ms");
    }
}

async fn rate(broker: &Broker, setting: StorageSetting, window: usize) -> f64 {
    let client = async_nats::connect(&broker.url).await.unwrap();
    let context = jetstream::context::ContextBuilder::new().max_ack_inflight(2 * window).build(client);
    let name = format!("s{window}");
    let config = jetstream::stream::Config {
        name: name.clone(),
        subjects: vec![name.clone()],
        storage: setting.storage,
        ..Default::default()
    };
    context.create_stream(config).await.unwrap();
    let (begun, mut confirmed) = (Instant::now(), 0_u32);
    let mut in_flight = VecDeque::new();
    while begun.elapsed() < TIME {
        if in_flight.len() >= window {
            let oldest: <jetstream::context::PublishAckFuture as IntoFuture>::IntoFuture =
                in_flight.pop_front().unwrap();
            oldest.await.unwrap();
            confirmed += 1;
        }
        in_flight.push_back(context.publish(name.clone(), BODY.into()).await.unwrap().into_future());
    }
    f64::from(confirmed) / begun.elapsed().as_secs_f64()
}

async fn trips(caudal: &Caudal, trips: usize) -> Vec<f64> {
    let url = caudal.url("/v1/flows/echo");
    let mut latencies = Vec::with_capacity(trips);
    for _ in 0..trips {
        let begun = Instant::now();
        let response = caudal.client.post(&url).header("content-type", "text/plain").body(BODY).send().await.unwrap();
        assert_eq!(response.status(), 200);
        latencies.push(millis(begun.elapsed()));
    }
    latencies
}
