//! Templates and JSON to PDF, end to end, beside one LibreOffice process per document.
//!
//! A letter of one page and an invoice of four. The baseline converts documents that are filled already, so it does
//! less. All requests differ, because the service caches results; the cache is measured separately.

mod load_generator;
mod process_tree;
mod samples;
mod soffice;

use std::path::PathBuf;

use connectors::documents::OfficeSpec;

use crate::caudal::{Caudal, Folder};
use crate::statistics::{median, percentile};
use load_generator::{LoadReport, closed_loop, fresh, same};
use samples::{INVOICE, LETTER, Sample, TYPST};
use soffice::{ConversionRate, Soffice};

const CLIENTS: [usize; 4] = [1, 5, 20, 50];
/// Documents per measurement, and with a single client.
const DOCUMENTS: usize = 200;
const ALONE: usize = 60;
/// Documents per measurement of the baseline.
const BASELINE: usize = 8;
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
        let baseline = baseline(&caudal, &soffice, sample).await;
        closed_loop(&caudal, sample, fresh, 2, 16).await;
        for clients in CLIENTS {
            let documents = if clients == 1 { ALONE } else { DOCUMENTS };
            let report = closed_loop(&caudal, sample, fresh, clients, documents).await;
            print(&format!("{}, {clients} at a time", sample.name), &report, Some(baseline));
        }
    }
    in_a_row(&caudal).await;
    from_cache(&caudal).await;
    typst(&caudal).await;
}

/// Uploads a template.
async fn put(caudal: &Caudal, sample: Sample) -> Result<(), String> {
    let url = caudal.url(&format!("/templates/{}", sample.name));
    let request = caudal.client.put(url).header("content-type", sample.media_type).body((sample.template)());
    let response = request.send().await.map_err(|error| error.to_string())?;
    let (status, text) = (response.status(), response.text().await.unwrap_or_default());
    if status == 200 { Ok(()) } else { Err(format!("PUT was answered {status}: {text}")) }
}

/// Documents per second of one LibreOffice process per document, the better of one and two at a time.
async fn baseline(caudal: &Caudal, soffice: &Soffice, sample: Sample) -> f64 {
    let url = caudal.url(&format!("/templates/{}/render?format=docx", sample.name));
    let mut best: f64 = 0.0;
    for lanes in [1, 2] {
        let mut filled = Vec::new();
        for _ in 0..BASELINE {
            let number = fresh();
            let response = caudal.client.post(&url).json(&(sample.context)(number)).send().await.unwrap();
            assert_eq!(response.status(), 200);
            filled.push((number, response.bytes().await.unwrap().to_vec()));
        }
        let ConversionRate { per_second, mean_ms, cpu } = soffice.convert(sample, &filled, lanes).await;
        println!(
            "  {:<28}{per_second:>7.2} /s  mean {mean_ms:.0} ms; {cpu:.2} s of CPU per document",
            format!("{}, soffice, {lanes} at a time", sample.name)
        );
        best = best.max(per_second);
    }
    best
}

fn print(what: &str, report: &LoadReport, baseline: Option<f64>) {
    let ratio = baseline.map(|rate| format!("({:.1} of soffice)", report.per_second / rate)).unwrap_or_default();
    let [p50, p95, p99] = [0.5, 0.95, 0.99].map(|at| percentile(&report.latencies, at));
    let mean = report.latencies.iter().sum::<f64>() / report.latencies.len() as f64;
    println!(
        "  {what:<28}{:>7.2} /s  {ratio:<18} mean {mean:.0} ms, p50 {p50:.0}, p95 {p95:.0}, p99 {p99:.0}; {} errors",
        report.per_second,
        report.errors.len()
    );
    println!(
        "      /health p50 {:.1} ms, p99 {:.1} ms; peak {} MiB resident, {} MiB proportional, {} processes; \
         {:.2} cores, {:.3} s of CPU per document",
        percentile(&report.health, 0.5),
        percentile(&report.health, 0.99),
        report.memory.resident,
        report.memory.proportional,
        report.memory.processes,
        report.cores,
        report.cores / report.per_second
    );
    if let Some(first) = report.errors.first() {
        println!("      the first error: {first}");
    }
}

/// Whether the service gets slower with time.
async fn in_a_row(caudal: &Caudal) {
    let report = closed_loop(caudal, LETTER, fresh, 2, IN_A_ROW).await;
    print(&format!("{IN_A_ROW} letters, 2 at a time"), &report, None);
    let edge = (report.latencies.len() / 10).max(1).min(report.latencies.len());
    let (first, last) = (&report.latencies[..edge], &report.latencies[report.latencies.len() - edge..]);
    let (first, last) = (median(first), median(last));
    println!("      median of the first {edge} {first:.0} ms, of the last {last:.0} ms ({:.2})", last / first);
}

/// Repeated requests are answered from the cache.
async fn from_cache(caudal: &Caudal) {
    closed_loop(caudal, LETTER, same, 1, 1).await;
    for clients in [1, 20] {
        let report = closed_loop(caudal, LETTER, same, clients, IN_A_ROW).await;
        print(&format!("cached, {clients} at a time"), &report, None);
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
    let report = closed_loop(caudal, TYPST, fresh, 20, IN_A_ROW).await;
    print("typst letter, 20 at a time", &report, None);
}
