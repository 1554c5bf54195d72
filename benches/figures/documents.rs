//! Templates and data to PDF, end to end, beside a process of LibreOffice for each document.
//!
//! A letter of one page and an invoice of four. The yardstick gets documents that are filled already, so it does less.
//! No two requests are alike, for the service keeps results; what that is worth is measured by itself.

mod clients;
mod sample;
mod soffice;
mod tree;

use std::path::PathBuf;

use connectors::documents::OfficeSpec;

use crate::caudal::{Caudal, Folder};
use crate::numbers::{median, percentile};
use clients::{Seen, closed_loop, fresh, same};
use sample::{INVOICE, LETTER, Sample, TYPST};
use soffice::{Reached, Soffice};

const CLIENTS: [usize; 4] = [1, 5, 20, 50];
/// Documents of a cell, and of one in which nobody else asks.
const DOCUMENTS: usize = 200;
const ALONE: usize = 60;
/// Documents of each side of the yardstick.
const YARDSTICK: usize = 8;
const IN_A_ROW: usize = 1_000;

pub async fn run() {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    println!(
        "\ndocuments: a template and JSON to PDF, config/gendoc.toml, {cores} cores; memory and CPU of all processes"
    );
    let office = OfficeSpec::default();
    if let Err(missing) = office.find() {
        println!("  not measured: {missing}");
        return;
    }
    let folder = Folder::new();
    let soffice = Soffice { program: office.path.join("program/soffice.bin"), folder: PathBuf::from(folder.path()) };
    let caudal = Caudal::serve(Folder::new(), &["config/gendoc.toml", "--set", "limits.enabled=false"]).await;
    for sample in [LETTER, INVOICE] {
        put(&caudal, sample).await.unwrap_or_else(|why| panic!("{}: {why}", sample.name));
        let yardstick = yardstick(&caudal, &soffice, sample).await;
        closed_loop(&caudal, sample, fresh, 2, 16).await;
        for clients in CLIENTS {
            let documents = if clients == 1 { ALONE } else { DOCUMENTS };
            let seen = closed_loop(&caudal, sample, fresh, clients, documents).await;
            print(&format!("{}, {clients} at a time", sample.name), &seen, Some(yardstick));
        }
    }
    in_a_row(&caudal).await;
    again(&caudal).await;
    typst(&caudal).await;
}

/// Keeps a template in the service.
async fn put(caudal: &Caudal, sample: Sample) -> Result<(), String> {
    let url = caudal.url(&format!("/templates/{}", sample.name));
    let request = caudal.client.put(url).header("content-type", sample.media_type).body((sample.template)());
    let response = request.send().await.map_err(|error| error.to_string())?;
    let (status, text) = (response.status(), response.text().await.unwrap_or_default());
    if status == 200 { Ok(()) } else { Err(format!("PUT was answered {status}: {text}")) }
}

/// The better of one and two processes at a time, in documents a second.
async fn yardstick(caudal: &Caudal, soffice: &Soffice, sample: Sample) -> f64 {
    let url = caudal.url(&format!("/templates/{}/render?format=docx", sample.name));
    let mut best: f64 = 0.0;
    for lanes in [1, 2] {
        let mut filled = Vec::new();
        for _ in 0..YARDSTICK {
            let number = fresh();
            let response = caudal.client.post(&url).json(&(sample.context)(number)).send().await.unwrap();
            assert_eq!(response.status(), 200);
            filled.push((number, response.bytes().await.unwrap().to_vec()));
        }
        let Reached { per_second, mean_ms, cpu } = soffice.convert(sample, &filled, lanes).await;
        println!(
            "  {:<28}{per_second:>7.2} /s  mean {mean_ms:.0} ms; {cpu:.2} s of CPU a document",
            format!("{}, soffice, {lanes} at a time", sample.name)
        );
        best = best.max(per_second);
    }
    best
}

fn print(what: &str, seen: &Seen, yardstick: Option<f64>) {
    let ratio = yardstick.map(|rate| format!("({:.1} of soffice)", seen.per_second / rate)).unwrap_or_default();
    let [p50, p95, p99] = [0.5, 0.95, 0.99].map(|at| percentile(&seen.latencies, at));
    let mean = seen.latencies.iter().sum::<f64>() / seen.latencies.len() as f64;
    println!(
        "  {what:<28}{:>7.2} /s  {ratio:<18} mean {mean:.0} ms, p50 {p50:.0}, p95 {p95:.0}, p99 {p99:.0}; {} errors",
        seen.per_second,
        seen.errors.len()
    );
    println!(
        "      /health p50 {:.1} ms, p99 {:.1} ms; at most {} MiB resident, {} MiB proportional, in {} processes; \
         {:.2} cores, {:.3} s of CPU a document",
        percentile(&seen.health, 0.5),
        percentile(&seen.health, 0.99),
        seen.memory.resident,
        seen.memory.proportional,
        seen.memory.processes,
        seen.cores,
        seen.cores / seen.per_second
    );
    if let Some(first) = seen.errors.first() {
        println!("      the first error: {first}");
    }
}

/// Whether it gets slower.
async fn in_a_row(caudal: &Caudal) {
    let seen = closed_loop(caudal, LETTER, fresh, 2, IN_A_ROW).await;
    print(&format!("{IN_A_ROW} letters, 2 at a time"), &seen, None);
    let edge = (seen.latencies.len() / 10).max(1).min(seen.latencies.len());
    let (first, last) = (&seen.latencies[..edge], &seen.latencies[seen.latencies.len() - edge..]);
    let (first, last) = (median(first), median(last));
    println!("      median of the first {edge} {first:.0} ms, of the last {last:.0} ms ({:.2})", last / first);
}

/// What is asked for again comes from memory.
async fn again(caudal: &Caudal) {
    closed_loop(caudal, LETTER, same, 1, 1).await;
    for clients in [1, 20] {
        let seen = closed_loop(caudal, LETTER, same, clients, IN_A_ROW).await;
        print(&format!("the same again, {clients} at a time"), &seen, None);
    }
}

async fn typst(caudal: &Caudal) {
    if let Err(why) = put(caudal, TYPST).await {
        println!("  typst not measured: {why}");
        return;
    }
    let first = closed_loop(caudal, TYPST, fresh, 1, 1).await;
    if let Some(why) = first.errors.first() {
        println!("  typst not measured: the first document was answered {why}");
        return;
    }
    let seen = closed_loop(caudal, TYPST, fresh, 20, IN_A_ROW).await;
    print("typst letter, 20 at a time", &seen, None);
}
