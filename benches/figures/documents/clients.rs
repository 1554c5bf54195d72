//! Clients that ask for documents as fast as they get them, and who looks on meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::sample::Sample;
use super::tree::{Memory, cpu};
use crate::caudal::{Caudal, plain_client};
use crate::numbers::millis;

/// One answer of so many is read as a PDF, after the clock has stopped.
const LOOKED_INTO: u64 = 16;
/// Pause between two health checks of the observer.
const ASK_EVERY: Duration = Duration::from_millis(20);
/// Pause between two looks at the memory: each makes the kernel walk through all of it.
const WEIGH_EVERY: Duration = Duration::from_millis(400);

/// Which document is asked for next.
pub type Numbers = fn() -> u64;

/// Never the same one, in the whole run.
pub fn fresh() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed) + 1
}

/// Always the same one, which [`fresh`] never gives.
pub fn same() -> u64 {
    0
}

/// What a closed loop of clients saw, and who looked on.
pub struct Seen {
    /// In milliseconds, in the order of the answers.
    pub latencies: Vec<f64>,
    pub per_second: f64,
    pub errors: Vec<String>,
    /// Milliseconds of each health check.
    pub health: Vec<f64>,
    /// At its peak.
    pub memory: Memory,
    /// Cores that the service kept busy.
    pub cores: f64,
}

#[derive(Clone)]
struct Answer {
    number: u64,
    ended: Instant,
    took_ms: f64,
    pdf: Result<Bytes, String>,
}

/// Where and for what is asked.
struct Ask {
    client: reqwest::Client,
    url: String,
    sample: Sample,
    numbers: Numbers,
    /// Documents that nobody has asked for yet.
    left: AtomicUsize,
}

/// `clients` ask for `documents` PDFs of a template together, each waiting for its answer before the next.
pub async fn closed_loop(caudal: &Caudal, sample: Sample, numbers: Numbers, clients: usize, documents: usize) -> Seen {
    let url = caudal.url(&format!("/templates/{}/render?format=pdf", sample.name));
    let ask = Ask { client: plain_client(), url, sample, numbers, left: AtomicUsize::new(documents) };
    let (ask, stop) = (Arc::new(ask), Arc::new(AtomicBool::new(false)));
    let health = tokio::spawn(ask_health(caudal.url("/health"), Arc::clone(&stop)));
    let memory = tokio::spawn(weigh(caudal.pid(), Arc::clone(&stop)));
    let (begun, busy) = (Instant::now(), cpu(caudal.pid()));
    let mut all = JoinSet::new();
    for _ in 0..clients {
        all.spawn(client(Arc::clone(&ask)));
    }
    let mut answers = all.join_all().await.concat();
    let took = begun.elapsed().as_secs_f64();
    let busy = cpu(caudal.pid()) - busy;
    stop.store(true, Ordering::Relaxed);
    answers.sort_by_key(|answer| answer.ended);
    let errors: Vec<String> = answers.iter().filter_map(|answer| wrong(sample, answer)).collect();
    let latencies: Vec<f64> = answers.iter().filter(|answer| answer.pdf.is_ok()).map(|answer| answer.took_ms).collect();
    Seen {
        per_second: latencies.len() as f64 / took,
        latencies,
        errors,
        health: health.await.unwrap(),
        memory: memory.await.unwrap(),
        cores: busy / took,
    }
}

async fn client(ask: Arc<Ask>) -> Vec<Answer> {
    let take = || ask.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
    let mut answers = Vec::new();
    while take() {
        let number = (ask.numbers)();
        let context = (ask.sample.context)(number);
        let begun = Instant::now();
        let pdf = one(&ask, &context).await;
        answers.push(Answer { number, ended: Instant::now(), took_ms: millis(begun.elapsed()), pdf });
    }
    answers
}

async fn one(ask: &Ask, context: &serde_json::Value) -> Result<Bytes, String> {
    let response = ask.client.post(&ask.url).json(context).send().await.map_err(|error| error.to_string())?;
    let status = response.status();
    let body = response.bytes().await.map_err(|error| error.to_string())?;
    if status != 200 {
        return Err(format!("{status}: {}", String::from_utf8_lossy(&body)));
    }
    Sample::looks_whole(&body)?;
    Ok(body)
}

/// What is wrong with an answer; one that came whole is looked into now and then.
fn wrong(sample: Sample, answer: &Answer) -> Option<String> {
    match &answer.pdf {
        Err(why) => Some(why.clone()),
        Ok(pdf) if answer.number.is_multiple_of(LOOKED_INTO) => sample.check(answer.number, pdf).err(),
        Ok(_) => None,
    }
}

async fn ask_health(url: String, stop: Arc<AtomicBool>) -> Vec<f64> {
    let client = plain_client();
    let mut latencies = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        let answered = client.get(&url).send().await.is_ok_and(|response| response.status() == 200);
        // One without an answer is worse than any that has one.
        latencies.push(if answered { millis(begun.elapsed()) } else { f64::INFINITY });
        tokio::time::sleep(ASK_EVERY).await;
    }
    latencies
}

async fn weigh(pid: u32, stop: Arc<AtomicBool>) -> Memory {
    let mut peak = Memory::default();
    while !stop.load(Ordering::Relaxed) {
        peak = peak.max(tokio::task::spawn_blocking(move || Memory::of(pid)).await.unwrap());
        tokio::time::sleep(WEIGH_EVERY).await;
    }
    peak
}
