//! Closed-loop load generator: clients that post as fast as they are answered, and an observer of `/health` and memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::caudal::{Caudal, tree_memory};
use crate::statistics::{millis, percentile};

/// What a closed loop of clients measured.
pub struct LoadReport {
    pub per_second: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub errors: usize,
    pub health_p50_ms: f64,
    pub health_p99_ms: f64,
    pub peak_mib: u64,
}

/// Interval between two health checks.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// `clients` post `body` to `path` as the form field `file` for `time`, each waiting for its answer before the next.
pub async fn closed_loop(caudal: &Caudal, path: &str, body: &[u8], clients: usize, time: Duration) -> LoadReport {
    let stop = Arc::new(AtomicBool::new(false));
    let observer = tokio::spawn(observe(caudal.client.clone(), caudal.url("/health"), caudal.pid(), Arc::clone(&stop)));
    let begun = Instant::now();
    let mut all = JoinSet::new();
    for _ in 0..clients {
        all.spawn(client(caudal.client.clone(), caudal.url(path), body.to_vec(), begun + time));
    }
    let (mut latencies, mut errors) = (Vec::new(), 0);
    for (mut of_client, failed) in all.join_all().await {
        latencies.append(&mut of_client);
        errors += failed;
    }
    let took = begun.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    let (health, peak_mib) = observer.await.unwrap();
    LoadReport {
        per_second: latencies.len() as f64 / took,
        p50_ms: percentile(&latencies, 0.5),
        p99_ms: percentile(&latencies, 0.99),
        errors,
        health_p50_ms: percentile(&health, 0.5),
        health_p99_ms: percentile(&health, 0.99),
        peak_mib,
    }
}

async fn client(client: reqwest::Client, url: String, body: Vec<u8>, until: Instant) -> (Vec<f64>, usize) {
    let body = bytes::Bytes::from(body);
    let (mut latencies, mut errors) = (Vec::new(), 0);
    while Instant::now() < until {
        let part = reqwest::multipart::Part::stream(body.clone()).file_name("photo");
        let form = reqwest::multipart::Form::new().part("file", part);
        let begun = Instant::now();
        let answered = match client.post(&url).multipart(form).send().await {
            Ok(response) if response.status() == 200 => response.bytes().await.is_ok(),
            _ => false,
        };
        if answered {
            latencies.push(millis(begun.elapsed()));
        } else {
            errors += 1;
        }
    }
    (latencies, errors)
}

async fn observe(client: reqwest::Client, url: String, pid: u32, stop: Arc<AtomicBool>) -> (Vec<f64>, u64) {
    let (mut latencies, mut peak) = (Vec::new(), 0);
    while !stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        if client.get(&url).send().await.is_ok_and(|response| response.status() == 200) {
            latencies.push(millis(begun.elapsed()));
        }
        peak = peak.max(tree_memory(pid) >> 20);
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    (latencies, peak)
}
