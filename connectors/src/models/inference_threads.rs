//! Inference threads: each owns one ONNX Runtime session, all take batches from one bounded queue.
//!
//! A session's `run` needs exclusive access, so a thread that owns it is all the synchronisation there is. A run that
//! fails or panics fails its batch only: ONNX Runtime has no state between runs, and a session opened again might read
//! another file. A batch whose caller has gone is skipped.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::mpsc as blocking;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use ort::ep;
use ort::logging::LogLevel;
use ort::session::Session;
use ort::session::builder::GraphOptimizationLevel;
use ort::value::{TensorElementType, TensorRef, ValueType};
use pipeline::BoxError;
use tokio::sync::{mpsc, oneshot};

use super::error::ModelError;
use super::model_output::{self, GraphOutput};
use super::runtime;

/// Batches that wait per session, so that the next ones are ready while one runs.
const WAITING_PER_SESSION: usize = 2;

/// How sessions are created.
pub(super) struct SessionConfig {
    /// For messages, and the file itself unless there are `bytes`.
    pub(super) path: PathBuf,
    /// The ONNX graph of a model that is compiled in.
    pub(super) bytes: Option<&'static [u8]>,
    /// The output the config names.
    pub(super) output: Option<String>,
    /// Sides `(width, height)` of the input tensors.
    pub(super) input: (u32, u32),
    /// Threads of each session.
    pub(super) threads: usize,
}

/// Properties of the graph, known once a session has run.
#[derive(Clone, Copy, Debug)]
pub(super) struct GraphShape {
    /// Length of a vector.
    pub(super) dim: usize,
    /// The batch size, if the graph fixes it.
    pub(super) fixed_batch: Option<usize>,
}

/// Images of one inference.
pub(super) struct Batch {
    /// Number of images, padding included.
    pub(super) images: usize,
    /// f32 `[images, 3, H, W]`.
    pub(super) tensor: Vec<f32>,
    /// Receives the result; closed when the caller has gone.
    pub(super) reply: oneshot::Sender<BatchResult>,
}

/// The result of one inference.
pub(super) struct BatchResult {
    /// `images × dim` values, or why the whole batch failed.
    pub(super) rows: Result<Vec<f32>, BoxError>,
    /// The batch's tensor, for reuse.
    pub(super) tensor: Vec<f32>,
}

/// The threads and their queue. Dropping it waits for running batches.
pub(super) struct InferenceThreads {
    queue: Option<mpsc::Sender<Batch>>,
    threads: Vec<JoinHandle<()>>,
}

type Report = blocking::SyncSender<Result<GraphShape, ModelError>>;

impl InferenceThreads {
    /// Starts `count` threads; returns when each has created its session and run it once.
    pub(super) fn start(config: SessionConfig, count: usize) -> Result<(Self, GraphShape), ModelError> {
        let (queue, batches) = mpsc::channel(count * WAITING_PER_SESSION);
        let (report, reports) = blocking::sync_channel(count);
        let config = Arc::new(config);
        let batches = Arc::new(Mutex::new(batches));
        let mut sessions = Self { queue: Some(queue), threads: Vec::with_capacity(count) };
        for index in 0..count {
            let (config, batches, report) = (Arc::clone(&config), Arc::clone(&batches), report.clone());
            let thread = std::thread::Builder::new().name(format!("model-{index}"));
            let thread = thread.spawn(move || work(&config, &batches, report)).map_err(ModelError::Thread)?;
            sessions.threads.push(thread);
        }
        drop(report);
        let ended = || graph(&config, "its thread ended before it was loaded");
        let mut shape = reports.recv().map_err(|_| ended())??;
        for _ in 1..count {
            shape = reports.recv().map_err(|_| ended())??;
        }
        Ok((sessions, shape))
    }

    /// Queues a batch; waits while the queue is full.
    pub(super) async fn submit(&self, batch: Batch) -> Result<(), BoxError> {
        const GONE: &str = "the model's threads have ended";
        let queue = self.queue.as_ref().ok_or(GONE)?;
        queue.send(batch).await.map_err(|_| GONE.into())
    }
}

impl Drop for InferenceThreads {
    fn drop(&mut self) {
        self.queue = None;
        for thread in self.threads.drain(..) {
            // Whether it panicked does not matter: its session is dropped either way.
            let _ = thread.join();
        }
    }
}

fn work(config: &SessionConfig, batches: &Mutex<mpsc::Receiver<Batch>>, report: Report) {
    // ONNX Runtime's own threads are started from here and inherit the priority.
    pipeline::lower_priority();
    // `start` waits for one report of each thread; if it has returned already, the report does not matter.
    let mut runner = match SessionRunner::open(config) {
        Ok(runner) => {
            let _ = report.send(Ok(runner.shape));
            runner
        }
        Err(error) => {
            let _ = report.send(Err(error));
            return;
        }
    };
    drop(report);
    loop {
        let next = batches.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv();
        let Some(Batch { images, tensor, reply }) = next else { return };
        if reply.is_closed() {
            continue;
        }
        let rows = runner.run(config, images, &tensor);
        // Fails if the caller has gone.
        let _ = reply.send(BatchResult { rows, tensor });
    }
}

/// A session, its output and its shape.
struct SessionRunner {
    session: Session,
    output: String,
    shape: GraphShape,
}

impl SessionRunner {
    fn open(config: &SessionConfig) -> Result<Self, ModelError> {
        let mut session = build(config)?;
        let fixed_batch = check_input(&session, config).map_err(|why| graph(config, why))?;
        let output = choose_output(&session, config.output.as_deref()).map_err(|why| graph(config, why))?;
        let images = fixed_batch.unwrap_or(1);
        let (width, height) = config.input;
        let blank = vec![0.0; images * 3 * width as usize * height as usize];
        let warm_up = infer(&mut session, &output, config.input, images, &blank);
        let (_, dim) = warm_up.map_err(|error| graph(config, format!("it does not run: {error}")))?;
        Ok(Self { session, output, shape: GraphShape { dim, fixed_batch } })
    }

    fn run(&mut self, config: &SessionConfig, images: usize, tensor: &[f32]) -> Result<Vec<f32>, BoxError> {
        let attempt = AssertUnwindSafe(|| infer(&mut self.session, &self.output, config.input, images, tensor));
        let (rows, dim) = catch_unwind(attempt).map_err(|_| "the inference panicked")??;
        if dim != self.shape.dim {
            return Err(format!("the model gave {dim} values, {} when it was loaded", self.shape.dim).into());
        }
        Ok(rows)
    }
}

fn graph(config: &SessionConfig, why: impl Into<String>) -> ModelError {
    ModelError::Graph { path: config.path.clone(), why: why.into() }
}

fn build(config: &SessionConfig) -> Result<Session, ModelError> {
    let environment = runtime::environment()?;
    configure(&environment, config).map_err(|source| ModelError::Onnx { path: config.path.clone(), source })
}

fn configure(environment: &ort::environment::Environment, config: &SessionConfig) -> Result<Session, ort::Error> {
    // The arena allocator never frees the largest shape it saw, and the pattern cache stores one plan per shape. There
    // are only a few batch sizes, but a machine with several models needs the memory back between bursts.
    let processor = ep::CPU::default().with_arena_allocator(false).build();
    let mut builder = Session::builder(environment)?
        .with_execution_providers([processor])?
        .with_optimization_level(GraphOptimizationLevel::All)?
        .with_intra_threads(config.threads)?
        // Threads that spin while they wait would take the cores from the rest of the process.
        .with_intra_op_spinning(false)?
        .with_memory_pattern(false)?
        .with_log_level(LogLevel::Warning)?;
    match config.bytes {
        Some(bytes) => builder.commit_from_memory(bytes),
        None => builder.commit_from_file(&config.path),
    }
}

/// Checks that the graph takes one image tensor of the right size; returns the batch size if the graph fixes it.
fn check_input(session: &Session, config: &SessionConfig) -> Result<Option<usize>, String> {
    let inputs = session.inputs();
    let [input] = inputs else {
        let names: Vec<&str> = inputs.iter().map(|input| input.name()).collect();
        return Err(format!(
            "it takes {} inputs ({}), expected one image tensor; of a dual encoder use the image half (vision_model.onnx)",
            names.len(),
            names.join(", ")
        ));
    };
    let ValueType::Tensor { ty, shape, .. } = input.dtype() else {
        return Err(format!("its input {:?} is not a tensor", input.name()));
    };
    if *ty != TensorElementType::Float32 {
        return Err(format!("its input {:?} is {ty}, not f32: use the fp32 or the quantised variant", input.name()));
    }
    let (width, height) = config.input;
    let [batch, channels, rows, columns] = **shape else {
        return Err(format!("its input {:?} has shape {shape:?}, expected [N, 3, {height}, {width}]", input.name()));
    };
    // Dynamic dimensions are negative.
    let fits = |dim: i64, size: u32| dim < 0 || dim == i64::from(size);
    if !(fits(channels, 3) && fits(rows, height) && fits(columns, width)) {
        return Err(format!(
            "it takes images of shape {shape:?}, its preprocessor_config.json makes [N, 3, {height}, {width}]"
        ));
    }
    Ok(usize::try_from(batch).ok().filter(|batch| *batch > 0))
}

fn choose_output(session: &Session, wanted: Option<&str>) -> Result<String, String> {
    let outputs: Vec<GraphOutput<'_>> = session
        .outputs()
        .iter()
        .map(|output| GraphOutput {
            name: output.name(),
            rank: output.dtype().tensor_shape().map(|shape| shape.len()).filter(|rank| *rank > 0),
            is_float: output.dtype().tensor_type() == Some(TensorElementType::Float32),
        })
        .collect();
    model_output::choose(&outputs, wanted)
}

/// Runs `[images, 3, H, W]` and returns the rows of the chosen output and their length.
fn infer(
    session: &mut Session,
    output: &str,
    (width, height): (u32, u32),
    images: usize,
    tensor: &[f32],
) -> Result<(Vec<f32>, usize), BoxError> {
    let shape = [images, 3, height as usize, width as usize];
    let outputs = session.run(ort::inputs![TensorRef::from_array_view((shape, tensor))?])?;
    let value = outputs.get(output).ok_or("the chosen output is missing")?;
    let (shape, values) = value.try_extract_tensor::<f32>()?;
    Ok(model_output::rows(shape, values, images)?)
}
