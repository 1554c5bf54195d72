//! Puts the parts together: the one list of operator kinds, and the order in which things are opened and closed.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use connectors::documents::Pool;
use connectors::webhook::HttpCaller;
use nats::server::{PrivateServer, ServerError, ServerOptions};
use nats::{ConnectOptions, FlowTopology, JetStream, NatsSpec, Topology};
use pipeline::documents::Converter;
use pipeline::engine::{Flow, Running};
use pipeline::spec::FlowSpec;
use pipeline::webhook::Caller;
use pipeline::{Compute, ImageModel, Ledger, OperatorKind, Pixels, Services, Spans, Transport};

use tokio::time::Instant;

use crate::extras::Extras;
use crate::installed::{Parts, REMEDY};
use crate::plan::Plan;

/// How long a data folder may stay in use by a process that was killed just now.
const RELEASE_LIMIT: Duration = Duration::from_secs(3);
/// Pause between two looks.
const RELEASE_LOOK: Duration = Duration::from_millis(50);

/// Every operator a config may `use`.
#[must_use]
pub fn operator_kinds(extras: &Extras) -> Vec<OperatorKind> {
    operators::ALL.iter().chain(&extras.kinds).copied().collect()
}

/// The parts of a process, opened and not yet at work.
pub struct Assembly {
    /// The broker, where it is our own child.
    pub broker: Option<PrivateServer>,
    /// The connection to the broker.
    pub jetstream: Arc<JetStream>,
    /// The same, with what the program's extras put around it.
    pub transport: Arc<dyn Transport>,
    /// What the operators were built from.
    pub services: Arc<Services>,
    /// The plan's flows that this process works on.
    pub flows: Vec<Flow>,
}

/// Opens everything the plan names. A failure on the way leaves nothing behind.
///
/// # Errors
/// Which part could not be opened, and what to do.
pub async fn open(
    plan: &mut Plan,
    parts: &Parts,
    extras: &Extras,
    spans: Option<Arc<dyn Spans>>,
) -> anyhow::Result<Assembly> {
    let data_dir = plan.process.data_dir.clone();
    tokio::fs::create_dir_all(&data_dir).await.with_context(|| format!("cannot make {}", data_dir.display()))?;
    let data_dir = tokio::fs::canonicalize(&data_dir).await?;
    let topology = topology(&plan.nats, &plan.flows);
    // First of all: it locks the data folder, so that nothing else in it is touched by two processes.
    let (broker, access) = match plan.nats.access() {
        Some(access) => (None, access),
        None => {
            let broker = start_broker(&plan.nats, &topology, &data_dir, parts).await?;
            let access = broker.access();
            (Some(broker), access)
        }
    };
    let jetstream = nats::connect(ConnectOptions::new(access, topology)).await?;
    let plain: Arc<dyn Transport> = jetstream.clone();
    let transport = extras.wrap_transport.map_or(plain.clone(), |wrap| wrap(plain));
    let works = !plan.works_on.is_empty();
    let caller = if has(&plan.flows, "webhook") { Some(open_caller(plan).await?) } else { None };
    let services = Arc::new(Services {
        transport: Some(Arc::clone(&transport)),
        spans,
        ledger: Arc::new(Ledger::new(plan.nats.limits().ledger)),
        pixels: Pixels::new(plan.pixels),
        caller,
        ..if works { open_services(plan, parts, extras, &data_dir).await? } else { Services::default() }
    });
    let mut flows = Vec::new();
    let (mine, others): (Vec<_>, Vec<_>) =
        std::mem::take(&mut plan.flows).into_iter().partition(|flow| plan.works_on.contains(&flow.name));
    plan.flows = others;
    for spec in mine {
        let name = spec.name.clone();
        let flow = Flow::build(spec, &services, Arc::clone(&transport)).await;
        flows.push(flow.map_err(|error| anyhow!(error).context(format!("cannot build flow {name}")))?);
    }
    Ok(Assembly { broker, jetstream, transport, services, flows })
}

/// Models, index and threads, for a process that works on flows.
async fn open_services(plan: &Plan, parts: &Parts, extras: &Extras, data_dir: &Path) -> anyhow::Result<Services> {
    let compute = Compute::new(compute_threads(plan.process.compute_threads))?;
    let models = load_models(plan, parts, &compute).await?;
    let office_folder = data_dir.join("office");
    let (index_spec, data_dir) = (plan.index.clone(), data_dir.to_path_buf());
    let index = blocking(move || connectors::index::open(&index_spec, &data_dir)).await??;
    if plan.nats.url.is_some() && plan.index.url.is_none() {
        // What one process indexes no other one finds.
        tracing::warn!(
            "the embedded index is this process's own: give [index] url where several work on the same flows"
        );
    }
    let index = extras.wrap_index.map_or(index.clone(), |wrap| wrap(index));
    let converter = if uses(plan, "convert") { Some(open_office(plan, office_folder).await?) } else { None };
    Ok(Services { models, index: Some(index), compute: Some(compute), converter, ..Services::default() })
}

/// Whether a flow that is worked on here has a stage of this kind.
fn uses(plan: &Plan, kind: &str) -> bool {
    has(plan.flows.iter().filter(|flow| plan.works_on.contains(&flow.name)), kind)
}

/// Whether one of these flows has a stage of this kind.
fn has<'f>(flows: impl IntoIterator<Item = &'f FlowSpec>, kind: &str) -> bool {
    flows.into_iter().flat_map(|flow| &flow.stages).any(|stage| stage.kind == kind)
}

/// What calls receivers: also where nobody is called, because what accepts a request checks its receiver.
async fn open_caller(plan: &Plan) -> anyhow::Result<Arc<dyn Caller>> {
    let spec = plan.webhook.clone();
    Ok(Arc::new(blocking(move || HttpCaller::open(&spec)).await??))
}

/// The engine of documents, or, where it is not installed, what to do: what needs no engine works all the same.
async fn open_office(plan: &Plan, folder: PathBuf) -> anyhow::Result<Result<Arc<dyn Converter>, Arc<str>>> {
    if let Err(missing) = plan.office.find() {
        tracing::warn!("documents are not converted: {missing}");
        return Ok(Err(missing.into()));
    }
    let of_before = folder.clone();
    // What a killed process left: this one alone has the data folder.
    blocking(move || match std::fs::remove_dir_all(of_before) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    })
    .await??;
    let ourselves = std::env::current_exe().context("cannot find our own program")?;
    let config = plan.office.pool((ourselves, vec!["office-worker".into()]), &folder);
    let pool = Pool::start(config).await.context("cannot start the engine of documents")?;
    tracing::info!(version = pool.version(), workers = pool.workers(), "documents are converted by LibreOffice");
    Ok(Ok(Arc::new(pool)))
}

/// Closes what [`open`] opened, once the flows have drained.
pub async fn close(broker: Option<PrivateServer>, jetstream: &JetStream, services: &Services) {
    if let Some(index) = &services.index {
        index.close().await;
    }
    if let Some(Ok(converter)) = &services.converter {
        converter.close().await;
    }
    jetstream.close().await;
    if let Some(broker) = broker {
        broker.stop().await;
    }
}

impl Assembly {
    /// Starts the flows.
    #[must_use]
    pub fn start_flows(&mut self) -> Running {
        Running::start(std::mem::take(&mut self.flows))
    }
}

fn topology(spec: &NatsSpec, flows: &[FlowSpec]) -> Topology {
    let flows = flows.iter().map(|flow| FlowTopology {
        name: flow.name.clone(),
        backlog: flow.settings.backlog,
        answers: flow.answers,
        order_by: flow.order_by().map(str::to_owned),
    });
    Topology { flows: flows.collect(), limits: spec.limits() }
}

async fn start_broker(
    spec: &NatsSpec,
    topology: &Topology,
    data_dir: &Path,
    parts: &Parts,
) -> anyhow::Result<PrivateServer> {
    let program = parts.find_nats_server().with_context(|| format!("nats-server is not installed: {REMEDY}"))?;
    let ourselves = std::env::current_exe().context("cannot find our own program")?;
    let options = ServerOptions {
        program,
        launcher: vec![ourselves.into_os_string(), OsString::from("guard"), OsString::from("--")],
        data_dir: data_dir.to_path_buf(),
        spec: spec.clone(),
        max_file: topology.max_file(),
    };
    let deadline = Instant::now() + RELEASE_LIMIT;
    loop {
        match PrivateServer::start(options.clone()).await {
            // After a kill the old broker needs some milliseconds to end.
            Err(ServerError::InUse(_)) if Instant::now() < deadline => tokio::time::sleep(RELEASE_LOOK).await,
            started => return Ok(started?),
        }
    }
}

async fn load_models(
    plan: &Plan,
    parts: &Parts,
    compute: &Compute,
) -> anyhow::Result<HashMap<String, Arc<dyn ImageModel>>> {
    if plan.models.is_empty() {
        return Ok(HashMap::new());
    }
    let library = parts.find_onnxruntime().with_context(|| format!("ONNX Runtime is not installed: {REMEDY}"))?;
    let (declared, compute) = (plan.models.clone(), compute.clone());
    blocking(move || {
        connectors::models::runtime::load(&library)?;
        let mut models = HashMap::new();
        for (name, spec) in declared {
            let model = connectors::models::load(&name, &spec, &PathBuf::new(), &compute)
                .with_context(|| format!("cannot load model {name}"))?;
            models.insert(name, model);
        }
        Ok(models)
    })
    .await?
}

/// Runs what reads files or waits for a library away from the runtime.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> anyhow::Result<T> {
    Ok(tokio::task::spawn_blocking(work).await?)
}

fn compute_threads(asked: usize) -> usize {
    if asked > 0 { asked } else { std::thread::available_parallelism().map_or(1, usize::from) }
}
