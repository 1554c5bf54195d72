//! Closed-loop load generator: clients that request documents as fast as they get them, and observers of health and
//! memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::process_tree::{Memory, cpu};
use super::samples::Sample;
use crate::caudal::{Caudal, plain_client};
use crate::statistics::millis;

/// One answer in so many is parsed as a PDF, after the measurement.
const CHECKED_ONE_IN: u64 = 16;
/// Interval between two health checks.
const HEALTH_INTERVAL: Duration = Duration::from_millis(20);
/// Interval between two memory measurements; long, because the kernel walks through all pages each time.
const MEMORY_INTERVAL: Duration = Duration::from_millis(400);

/// Gives the number of the next document to request.
pub type Numbers = fn() -> u64;

/// A number that is unique in the whole run.
pub fn fresh() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed) + 1
}

/// Always the same number, which [`fresh`] never gives.
pub fn same() -> u64 {
    0
}

/// What a closed loop of clients and its observers measured.
pub struct LoadReport {
    /// In milliseconds, ordered by time of answer.
    pub latencies: Vec<f64>,
    pub per_second: f64,
    pub errors: Vec<String>,
    /// Latencies of the health checks in milliseconds.
    pub health: Vec<f64>,
    /// Peak memory.
    pub memory: Memory,
    /// Average number of busy cores.
    pub cores: f64,
}

#[derive(Clone)]
struct Answer {
    number: u64,
    ended: Instant,
    took_ms: f64,
    pdf: Result<Bytes, String>,
}

/// The work that the clients share.
struct Workload {
    client: reqwest::Client,
    url: String,
    sample: Sample,
    numbers: Numbers,
    /// Documents not yet requested.
    left: AtomicUsize,
}

/// `clients` request `documents` PDFs of a template in total, each waiting for its answer before its next request.
pub async fn closed_loop(
    caudal: &Caudal,
    sample: Sample,
    numbers: Numbers,
    clients: usize,
    documents: usize,
) -> LoadReport {
    let url = caudal.url(&format!("/templates/{}/render?format=pdf", sample.name));
    let workload = Workload { client: plain_client(), url, sample, numbers, left: AtomicUsize::new(documents) };
    let (workload, stop) = (Arc::new(workload), Arc::new(AtomicBool::new(false)));
    let health = tokio::spawn(observe_health(caudal.url("/health"), Arc::clone(&stop)));
    let memory = tokio::spawn(observe_memory(caudal.pid(), Arc::clone(&stop)));
    let (begun, busy) = (Instant::now(), cpu(caudal.pid()));
    let mut all = JoinSet::new();
    for _ in 0..clients {
        all.spawn(client(Arc::clone(&workload)));
    }
    let mut answers = all.join_all().await.concat();
    let took = begun.elapsed().as_secs_f64();
    let busy = cpu(caudal.pid()) - busy;
    stop.store(true, Ordering::Relaxed);
    answers.sort_by_key(|answer| answer.ended);
    let errors: Vec<String> = answers.iter().filter_map(|answer| error_of(sample, answer)).collect();
    let latencies: Vec<f64> = answers.iter().filter(|answer| answer.pdf.is_ok()).map(|answer| answer.took_ms).collect();
    LoadReport {
        per_second: latencies.len() as f64 / took,
        latencies,
        errors,
        health: health.await.unwrap(),
        memory: memory.await.unwrap(),
        cores: busy / took,
    }
}

async fn client(workload: Arc<Workload>) -> Vec<Answer> {
    let take = || workload.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
    let mut answers = Vec::new();
    while take() {
        let number = (workload.numbers)();
        let context = (workload.sample.context)(number);
        let begun = Instant::now();
        let pdf = one(&workload, &context).await;
        answers.push(Answer { number, ended: Instant::now(), took_ms: millis(begun.elapsed()), pdf });
    }
    answers
}

async fn one(workload: &Workload, context: &serde_json::Value) -> Result<Bytes, String> {
    let response = workload.client.post(&workload.url).json(context).send().await.map_err(|error| error.to_string())?;
    let status = response.status();
    let body = response.bytes().await.map_err(|error| error.to_string())?;
    if status != 200 {
        return Err(format!("{status}: {}", String::from_utf8_lossy(&body)));
    }
    Sample::check_framing(&body)?;
    Ok(body)
}

/// The error of an answer. Some complete answers are also parsed.
fn error_of(sample: Sample, answer: &Answer) -> Option<String> {
    match &answer.pdf {
        Err(why) => Some(why.clone()),
        Ok(pdf) if answer.number.is_multiple_of(CHECKED_ONE_IN) => sample.check(answer.number, pdf).err(),
        Ok(_) => None,
    }
}

async fn observe_health(url: String, stop: Arc<AtomicBool>) -> Vec<f64> {
    let client = plain_client();
    let mut latencies = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        let answered = client.get(&url).send().await.is_ok_and(|response| response.status() == 200);
        // A failed health check counts as slower than any answered one.
        latencies.push(if answered { millis(begun.elapsed()) } else { f64::INFINITY });
        tokio::time::sleep(HEALTH_INTERVAL).await;
    }
    latencies
}

async fn observe_memory(pid: u32, stop: Arc<AtomicBool>) -> Memory {
    let mut peak = Memory::default();
    while !stop.load(Ordering::Relaxed) {
        peak = peak.max(tokio::task::spawn_blocking(move || Memory::of(pid)).await.unwrap());
        tokio::time::sleep(MEMORY_INTERVAL).await;
    }
    peak
}
