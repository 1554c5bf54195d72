//! Overload: latency of an interactive client beside a full bulk backlog, throughput and memory under ten times the
//! peak load, and the latency of a refusal.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use reqwest::StatusCode;
use reqwest::multipart::{Form, Part};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::caudal::{Caudal, Folder, resident};
use crate::load_generator::closed_loop;
use crate::statistics::{median, millis, percentile};
use crate::test_images::{jpeg, scene};

const ROUNDS: usize = 3;
/// Interactive requests per measurement, one at a time.
const REQUESTS: usize = 150;
/// Bulk events in the queue when a round begins; they last for the whole round.
const BACKLOG: u64 = 600;
const OVERLOAD: Duration = Duration::from_secs(60);
/// The overload as a multiple of the peak rate.
const TIMES: f64 = 10.0;
const REFUSALS: usize = 500;
/// Concurrent connections in the burst of refusals.
const CONNECTIONS: usize = 16;
/// The default of `[process] memory`.
const LIMIT_MIB: u64 = 768;

const PETALERT: [&str; 9] = [
    "config/petalert.toml",
    "--set",
    "limits.enabled=false",
    "--set",
    "flow.describe.open=true",
    "--set",
    "flow.describe.backlog.events=1000",
    "--set",
    "limits.connections=4096",
];

pub async fn run() {
    let photo = jpeg(&scene(1, 1155, 866), 85);
    println!("\noverload: PetAlert's config, ResNet-18-sized model, 1 MP JPEG of {} KiB", photo.len() >> 10);
    let folder = Folder::new();
    let model = folder.path().join("resnet18");
    crate::images::make_model(&model);
    let source = format!("model.photo.source={}", model.display());
    let args: Vec<&str> = PETALERT.into_iter().chain(["--set", &source]).collect();
    lanes(&args, &photo).await;
    overload(&args, &photo).await;
    refusals().await;
}

/// Interactive requests on an idle service, and beside a backlog of bulk events that does not run out.
async fn lanes(args: &[&str], photo: &[u8]) {
    let caudal = Caudal::serve(Folder::new(), args).await;
    interactive_latencies(&caudal, photo, REQUESTS / 3).await;
    let (mut idle, mut behind) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        idle.push(interactive_latencies(&caudal, photo, REQUESTS).await);
        fill(&caudal, photo).await;
        behind.push(interactive_latencies(&caudal, photo, REQUESTS).await);
        assert!(bulk_backlog(&caudal).await > 0, "the backlog ran out during the measurement");
        while bulk_backlog(&caudal).await > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    let of = |rounds: &[Vec<f64>], at| median(&rounds.iter().map(|round| percentile(round, at)).collect::<Vec<_>>());
    println!("  interactive, idle                   p50 {:.1} ms, p99 {:.1} ms", of(&idle, 0.5), of(&idle, 0.99));
    println!(
        "  interactive, {BACKLOG} bulk events queued p50 {:.1} ms, p99 {:.1} ms ({:.2} and {:.2} of idle)",
        of(&behind, 0.5),
        of(&behind, 0.99),
        of(&behind, 0.5) / of(&idle, 0.5),
        of(&behind, 0.99) / of(&idle, 0.99)
    );
}

async fn interactive_latencies(caudal: &Caudal, photo: &[u8], times: usize) -> Vec<f64> {
    let mut latencies = Vec::with_capacity(times);
    for _ in 0..times {
        let begun = Instant::now();
        let response = caudal.post_file("/embeddings/generate", photo.to_vec()).await;
        assert_eq!(response.status(), 200);
        response.bytes().await.unwrap();
        latencies.push(millis(begun.elapsed()));
    }
    latencies
}

/// Sends bulk events until [`BACKLOG`] are queued.
async fn fill(caudal: &Caudal, photo: &[u8]) {
    let photo = bytes::Bytes::copy_from_slice(photo);
    while bulk_backlog(caudal).await < BACKLOG {
        let post = caudal.client.post(caudal.url("/v1/flows/describe?lane=bulk")).header("content-type", "image/jpeg");
        let response = post.header("prefer", "respond-async").body(photo.clone()).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::ACCEPTED);
    }
}

async fn bulk_backlog(caudal: &Caudal) -> u64 {
    describe(&caudal.client, &caudal.base).await["backlog"]["bulk"].as_u64().unwrap_or(0)
}

/// The status of PetAlert's `describe` flow from `/v1/flows`.
async fn describe(client: &reqwest::Client, base: &str) -> Value {
    let flows: Value = client.get(format!("{base}/v1/flows")).send().await.unwrap().json().await.unwrap();
    flows["flows"].as_array().unwrap().iter().find(|flow| flow["name"] == "describe").unwrap().clone()
}

/// Open loop: requests arrive at [`TIMES`] the peak rate, whether or not the service keeps up.
async fn overload(args: &[&str], photo: &[u8]) {
    let caudal = Caudal::serve(Folder::new(), args).await;
    closed_loop(&caudal, "/embeddings/generate", photo, 20, Duration::from_secs(2)).await;
    let peak = closed_loop(&caudal, "/embeddings/generate", photo, 20, Duration::from_secs(10)).await;
    let before = describe(&caudal.client, &caudal.base).await["done"].as_u64().unwrap();
    let memory = Arc::new(AtomicU64::new(0));
    let watching = tokio::spawn(watch_memory(caudal.pid(), Arc::clone(&memory)));
    let begun = Instant::now();
    let (accepted, refused, failed) = flood(&caudal, photo, peak.per_second * TIMES).await;
    let took = begun.elapsed().as_secs_f64();
    let done = describe(&caudal.client, &caudal.base).await["done"].as_u64().unwrap() - before;
    watching.abort();
    let completed = done as f64 / took;
    println!("  peak, closed loop of 20 clients     {:>8.1} /s", peak.per_second);
    println!(
        "  {TIMES:.0} times that for {:.0} s            {completed:>8.1} /s completed ({:.2} of the peak); \
         {accepted} accepted, {refused} refused, {failed} without an answer",
        OVERLOAD.as_secs_f64(),
        completed / peak.per_second
    );
    println!("      peak memory of the process {} MiB, limit {LIMIT_MIB}", memory.load(Ordering::Relaxed) >> 20);
}

async fn watch_memory(pid: u32, highest: Arc<AtomicU64>) {
    loop {
        highest.fetch_max(resident(pid), Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Sends requests at a steady rate, and counts accepted, refused and failed ones. At most a thousand requests
/// are open at once; one that would exceed that is not sent and counts as failed.
async fn flood(caudal: &Caudal, photo: &[u8], rate: f64) -> (usize, usize, usize) {
    const OPEN: usize = 1_000;
    let photo = bytes::Bytes::copy_from_slice(photo);
    let (begun, mut sent, mut skipped) = (Instant::now(), 0_u32, 0);
    let mut open = JoinSet::new();
    let mut counts = (0, 0, 0);
    let mut count = |status: Option<StatusCode>| match status {
        Some(StatusCode::ACCEPTED) => counts.0 += 1,
        Some(StatusCode::SERVICE_UNAVAILABLE) => counts.1 += 1,
        _ => counts.2 += 1,
    };
    while begun.elapsed() < OVERLOAD {
        tokio::time::sleep_until(begun + Duration::from_secs_f64(f64::from(sent) / rate)).await;
        sent += 1;
        while let Some(ended) = open.try_join_next() {
            count(ended.unwrap());
        }
        if open.len() >= OPEN {
            skipped += 1;
            continue;
        }
        let (client, url, photo) = (caudal.client.clone(), caudal.url("/embeddings/generate"), photo.clone());
        open.spawn(async move {
            let form = Form::new().part("file", Part::stream(photo).file_name("photo"));
            let post = client.post(url).header("prefer", "respond-async").multipart(form);
            post.send().await.ok().map(|response| response.status())
        });
    }
    while let Some(ended) = open.join_next().await {
        count(ended.unwrap());
    }
    counts.2 += skipped;
    counts
}

/// Refusals of a gateway without workers whose queue is full: in a burst, and one at a time.
async fn refusals() {
    let folder = Folder::new();
    let config = folder.path().join("echo.toml");
    let text = "[flow.echo]\nopen = true\nbacklog = { events = 100 }\n[[flow.echo.stage]]\nuse = \"respond\"\n";
    std::fs::write(&config, text).unwrap();
    let args = [config.to_str().unwrap(), "--role", "gateway", "--set", "nats.listen=127.0.0.1:0"];
    let caudal = Caudal::serve(Folder::new(), &args).await;
    // Few connections: the load generator runs on the same cores, and opening connections would dominate.
    let sent = (0..150).map(|_| refusal(caudal.client.clone(), caudal.url("/v1/flows/echo")));
    let first: Vec<_> = futures_util::stream::iter(sent).buffer_unordered(CONNECTIONS).collect().await;
    let accepted = first.iter().filter(|(status, _)| *status == StatusCode::ACCEPTED).count();
    let burst: Vec<f64> =
        first.iter().filter(|(status, _)| *status == StatusCode::SERVICE_UNAVAILABLE).map(|(_, took)| *took).collect();
    let mut one_by_one = Vec::new();
    for _ in 0..REFUSALS {
        let (status, took) = refusal(caudal.client.clone(), caudal.url("/v1/flows/echo")).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        one_by_one.push(took);
    }
    println!("  queue of 100, 150 sent by {CONNECTIONS} connections  {accepted} accepted, {} refused", burst.len());
    let line = |what: &str, taken: &[f64]| {
        let (p50, p99) = (percentile(taken, 0.5), percentile(taken, 0.99));
        println!("      {what:<32}p50 {p50:.2} ms, p99 {p99:.2} ms");
    };
    line("refusals of that burst", &burst);
    line("refusals, one at a time", &one_by_one);
}

async fn refusal(client: reqwest::Client, url: String) -> (StatusCode, f64) {
    let post = client.post(url).header("content-type", "text/plain").header("prefer", "respond-async").body("x");
    let begun = Instant::now();
    let response = post.send().await.unwrap();
    let took = millis(begun.elapsed());
    assert!(response.status() != 503 || response.headers().contains_key("retry-after"));
    (response.status(), took)
}
