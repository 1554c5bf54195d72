//! Inference on threads of its own: each owns one ONNX Runtime session, all take from one bounded queue.
//!
//! A session's `run` needs it exclusively, so a thread that owns it is the whole synchronisation. A run that fails or
//! panics costs its batch and no more: ONNX Runtime keeps no state between runs, and a session opened again might find
//! another file. A batch nobody waits for any more is skipped.

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

use super::output::{self, Declared};
use super::{ModelError, runtime};

/// Batches that wait per session: one is filled while one runs.
const WAITING_PER_SESSION: usize = 2;

/// How sessions are made.
pub(super) struct Plan {
    /// For messages, and the file itself unless `bytes` are given.
    pub(super) path: PathBuf,
    /// A model that is compiled in.
    pub(super) bytes: Option<&'static [u8]>,
    /// The output the config names.
    pub(super) output: Option<String>,
    /// Sides `(width, height)` of the tensors that will come.
    pub(super) input: (u32, u32),
    /// Threads of each session.
    pub(super) threads: usize,
}

/// What a session turned out to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// Length of a vector.
    pub(super) dim: usize,
    /// The batch the graph insists on, if it does.
    pub(super) fixed_batch: Option<usize>,
}

/// Images to run.
pub(super) struct Batch {
    /// How many, padding included.
    pub(super) images: usize,
    /// f32 `[images, 3, H, W]`.
    pub(super) tensor: Vec<f32>,
    /// Where the outcome goes; closed when nobody waits any more.
    pub(super) reply: oneshot::Sender<Done>,
}

/// A batch that was run.
pub(super) struct Done {
    /// `images × dim` values, or what went wrong with the batch as a whole.
    pub(super) rows: Result<Vec<f32>, BoxError>,
    /// The batch's tensor, for reuse.
    pub(super) tensor: Vec<f32>,
}

/// The threads and their queue. Dropping it waits for what is running.
pub(super) struct Sessions {
    queue: Option<mpsc::Sender<Batch>>,
    threads: Vec<JoinHandle<()>>,
}

type Report = blocking::SyncSender<Result<Shape, ModelError>>;

impl Sessions {
    /// Starts `count` threads; returns when every one has built its session and run it once.
    pub(super) fn start(plan: Plan, count: usize) -> Result<(Self, Shape), ModelError> {
        let (queue, batches) = mpsc::channel(count * WAITING_PER_SESSION);
        let (report, reports) = blocking::sync_channel(count);
        let plan = Arc::new(plan);
        let batches = Arc::new(Mutex::new(batches));
        let mut sessions = Self { queue: Some(queue), threads: Vec::with_capacity(count) };
        for index in 0..count {
            let (plan, batches, report) = (Arc::clone(&plan), Arc::clone(&batches), report.clone());
            let thread = std::thread::Builder::new().name(format!("model-{index}"));
            let thread = thread.spawn(move || work(&plan, &batches, report)).map_err(ModelError::Thread)?;
            sessions.threads.push(thread);
        }
        drop(report);
        let ended = || graph(&plan, "its thread ended before it was loaded");
        let mut shape = reports.recv().map_err(|_| ended())??;
        for _ in 1..count {
            shape = reports.recv().map_err(|_| ended())??;
        }
        Ok((sessions, shape))
    }

    /// Queues a batch, waiting for room.
    pub(super) async fn submit(&self, batch: Batch) -> Result<(), BoxError> {
        const GONE: &str = "the model's threads have ended";
        let queue = self.queue.as_ref().ok_or(GONE)?;
        queue.send(batch).await.map_err(|_| GONE.into())
    }
}

impl Drop for Sessions {
    fn drop(&mut self) {
        self.queue = None;
        for thread in self.threads.drain(..) {
            // A thread that panicked has nothing left to say; its session is gone either way.
            let _ = thread.join();
        }
    }
}

fn work(plan: &Plan, batches: &Mutex<mpsc::Receiver<Batch>>, report: Report) {
    // ONNX Runtime's own threads are started from here and inherit it.
    pipeline::lower_priority();
    // Whoever starts the thread waits for exactly one report, so that sending it cannot fail while it matters.
    let mut runner = match Runner::open(plan) {
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
        let rows = runner.run(plan, images, &tensor);
        // Nobody there: the asker has gone.
        let _ = reply.send(Done { rows, tensor });
    }
}

/// One session and what is known of it.
struct Runner {
    session: Session,
    output: String,
    shape: Shape,
}

impl Runner {
    fn open(plan: &Plan) -> Result<Self, ModelError> {
        let mut session = build(plan)?;
        let fixed_batch = check_input(&session, plan).map_err(|why| graph(plan, why))?;
        let output = choose_output(&session, plan.output.as_deref()).map_err(|why| graph(plan, why))?;
        let images = fixed_batch.unwrap_or(1);
        let (width, height) = plan.input;
        let blank = vec![0.0; images * 3 * width as usize * height as usize];
        let warm_up = infer(&mut session, &output, plan.input, images, &blank);
        let (_, dim) = warm_up.map_err(|error| graph(plan, format!("it does not run: {error}")))?;
        Ok(Self { session, output, shape: Shape { dim, fixed_batch } })
    }

    fn run(&mut self, plan: &Plan, images: usize, tensor: &[f32]) -> Result<Vec<f32>, BoxError> {
        let attempt = AssertUnwindSafe(|| infer(&mut self.session, &self.output, plan.input, images, tensor));
        let (rows, dim) = catch_unwind(attempt).map_err(|_| "the inference panicked")??;
        if dim != self.shape.dim {
            return Err(format!("the model gave {dim} values, {} at its start", self.shape.dim).into());
        }
        Ok(rows)
    }
}

fn graph(plan: &Plan, why: impl Into<String>) -> ModelError {
    ModelError::Graph { path: plan.path.clone(), why: why.into() }
}

fn build(plan: &Plan) -> Result<Session, ModelError> {
    let environment = runtime::environment()?;
    configure(&environment, plan).map_err(|source| ModelError::Onnx { path: plan.path.clone(), source })
}

fn configure(environment: &ort::environment::Environment, plan: &Plan) -> Result<Session, ort::Error> {
    // The arena keeps the largest shape it ever saw and the pattern cache one plan per shape. Batches come in a handful of
    // sizes only, but a machine that holds several models wants its memory back between bursts.
    let processor = ep::CPU::default().with_arena_allocator(false).build();
    let mut builder = Session::builder(environment)?
        .with_execution_providers([processor])?
        .with_optimization_level(GraphOptimizationLevel::All)?
        .with_intra_threads(plan.threads)?
        // Threads that spin while they wait would take the cores from everything else in the process.
        .with_intra_op_spinning(false)?
        .with_memory_pattern(false)?
        .with_log_level(LogLevel::Warning)?;
    match plan.bytes {
        Some(bytes) => builder.commit_from_memory(bytes),
        None => builder.commit_from_file(&plan.path),
    }
}

/// Whether the graph takes one tensor of images of the right size; the batch it insists on, if any.
fn check_input(session: &Session, plan: &Plan) -> Result<Option<usize>, String> {
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
        return Err(format!("its input {:?} is no tensor", input.name()));
    };
    if *ty != TensorElementType::Float32 {
        return Err(format!("its input {:?} is {ty}, not f32: use the fp32 or the quantised variant", input.name()));
    }
    let (width, height) = plan.input;
    let [batch, channels, rows, columns] = **shape else {
        return Err(format!("its input {:?} has shape {shape:?}, expected [N, 3, {height}, {width}]", input.name()));
    };
    // Open dimensions are negative.
    let fits = |dim: i64, size: u32| dim < 0 || dim == i64::from(size);
    if !(fits(channels, 3) && fits(rows, height) && fits(columns, width)) {
        return Err(format!(
            "it takes images of shape {shape:?}, its preprocessor_config.json makes [N, 3, {height}, {width}]"
        ));
    }
    Ok(usize::try_from(batch).ok().filter(|batch| *batch > 0))
}

fn choose_output(session: &Session, wanted: Option<&str>) -> Result<String, String> {
    let declared: Vec<Declared<'_>> = session
        .outputs()
        .iter()
        .map(|output| Declared {
            name: output.name(),
            rank: output.dtype().tensor_shape().map(|shape| shape.len()).filter(|rank| *rank > 0),
            is_float: output.dtype().tensor_type() == Some(TensorElementType::Float32),
        })
        .collect();
    output::choose(&declared, wanted)
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
    Ok(output::rows(shape, values, images)?)
}
