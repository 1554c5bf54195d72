//! Throughput in embeddings per second, end to end, beside ONNX Runtime alone with the same model.
//!
//! The model has the size of ResNet-18 (11.2 M parameters, 1.8 GMAC at 224 × 224) and random weights.

use std::path::Path;
use std::time::Duration;

use ort::environment::Environment;
use ort::session::Session;
use ort::value::Tensor;
use tokio::time::Instant;

use crate::caudal::{Caudal, Folder, checkout};
use crate::load_generator::{LoadReport, closed_loop};
use crate::statistics::median;
use crate::test_images::{jpeg, scene};

const CLIENTS: usize = 20;
const ROUNDS: usize = 3;
const TIME: Duration = Duration::from_secs(8);

pub async fn run() {
    let folder = Folder::new();
    let model = folder.path().join("resnet18");
    make_model(&model);
    println!("\nimages: {CLIENTS} clients, ResNet-18-sized model, {} cores", cores());
    let small = jpeg(&scene(1, 1155, 866), 85);
    let large = jpeg(&scene(1, 4000, 3000), 90);
    println!("  1 MP JPEG of {} KiB, 12 MP JPEG of {} KiB", small.len() >> 10, large.len() >> 10);

    let library = checkout().join(".caudal/lib/libonnxruntime.so");
    let environment = ort::init_from(library).unwrap().with_telemetry(false).build().unwrap();
    let source = format!("model.photo.source={}", model.display());
    let args = ["config/petalert.toml", "--set", &source, "--set", "limits.enabled=false"];
    let (mut alone, mut one, mut twelve) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        alone.push(runtime_alone(&environment, &model));
        let caudal = Caudal::serve(Folder::new(), &args).await;
        closed_loop(&caudal, "/embeddings/generate", &small, CLIENTS, Duration::from_secs(1)).await;
        one.push(closed_loop(&caudal, "/embeddings/generate", &small, CLIENTS, TIME).await);
        twelve.push(closed_loop(&caudal, "/embeddings/generate", &large, CLIENTS, TIME).await);
    }
    println!("  ONNX Runtime alone            {:>8.1} /s", median(&alone));
    report("end to end, 1 MP ", &one, median(&alone));
    report("end to end, 12 MP", &twelve, median(&alone));
}

fn report(what: &str, rounds: &[LoadReport], alone: f64) {
    let of = |pick: fn(&LoadReport) -> f64| median(&rounds.iter().map(pick).collect::<Vec<_>>());
    let rate = of(|round| round.per_second);
    let errors: usize = rounds.iter().map(|round| round.errors).sum();
    let peak = rounds.iter().map(|round| round.peak_mib).max().unwrap_or(0);
    println!("  {what}             {rate:>8.1} /s  ({:.2} of alone), {errors} errors", rate / alone);
    println!(
        "      answer p50 {:.0} ms, p99 {:.0} ms; /health p50 {:.1} ms, p99 {:.1} ms; peak {peak} MiB with broker",
        of(|round| round.p50_ms),
        of(|round| round.p99_ms),
        of(|round| round.health_p50_ms),
        of(|round| round.health_p99_ms),
    );
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Writes the model and its preprocessing into a folder.
pub fn make_model(folder: &Path) {
    let script = checkout().join("tests/fixtures/make_resnet18.py");
    let status = std::process::Command::new("python3").arg(script).arg(folder).status().unwrap();
    assert!(status.success(), "the model could not be made");
}

/// The baseline: images per second of ONNX Runtime with prepared tensors on all cores, the better of two batch sizes.
fn runtime_alone(environment: &Environment, model: &Path) -> f64 {
    let files = ["model.onnx", "onnx/model.onnx"].map(|name| model.join(name));
    let file = files.into_iter().find(|file| file.is_file()).unwrap();
    let builder = Session::builder(environment).unwrap().with_intra_threads(cores()).unwrap();
    let mut session = builder.with_intra_op_spinning(false).unwrap().commit_from_file(file).unwrap();
    [1usize, 8].map(|batch| forward_rate(&mut session, batch)).into_iter().fold(0.0, f64::max)
}

fn forward_rate(session: &mut Session, batch: usize) -> f64 {
    let pixels = vec![0.1f32; batch * 3 * 224 * 224];
    let mut forward = || {
        let input = Tensor::from_array(([batch, 3, 224, 224], pixels.clone())).unwrap();
        session.run(ort::inputs![input]).unwrap();
    };
    forward();
    let begun = Instant::now();
    let mut done = 0;
    while begun.elapsed() < Duration::from_secs(3) {
        forward();
        done += batch;
    }
    done as f64 / begun.elapsed().as_secs_f64()
}
