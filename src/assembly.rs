//! Puts the parts together: the one list of operator kinds, and the order in which things are opened and closed.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use connectors::documents::Pool;
use connectors::webhook::HttpCaller;
use nats::server::{PrivateServer, ServerError, ServerOptions};
use nats::{Access, ConnectOptions, JetStream, NatsSpec};
use pipeline::documents::Converter;
use pipeline::engine::{Flow, Running};
use pipeline::spec::FlowSpec;
use pipeline::webhook::{WebhookCaller, WebhookFollowUp};
use pipeline::{
    Compute, ImageModel, Ledger, Need, OperatorKind, PixelBudget, ProcessResources, Service, Services, Spans,
    Transport, VectorIndex,
};
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
    let data_dir = open_data_dir(plan).await?;
    let (broker, access) = reach_broker(&plan.nats, &data_dir, parts).await?;
    let options = ConnectOptions {
        restarter: broker.as_ref().map(PrivateServer::restarter),
        max_file: plan.nats.max_file,
        ..ConnectOptions::new(access, plan.topology())
    };
    let jetstream = nats::connect(options).await?;
    let plain: Arc<dyn Transport> = jetstream.clone();
    let transport = extras.wrap_transport.map_or(plain.clone(), |wrap| wrap(plain));
    let process = ProcessResources {
        transport: Some(Arc::clone(&transport)),
        spans,
        ledger: Arc::new(Ledger::new(plan.nats.limits().ledger)),
        pixels: PixelBudget::new(plan.pixels),
        completion_hook: Some(Arc::new(WebhookFollowUp)),
        ..ProcessResources::default()
    };
    let opening = Opening { plan, parts, extras, data_dir: &data_dir };
    let services = Arc::new(opening.services(process).await?);
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

/// The services that these flows need.
fn needs<'f>(flows: impl IntoIterator<Item = &'f FlowSpec>) -> Vec<Need> {
    flows.into_iter().flat_map(|flow| &flow.stages).flat_map(|stage| stage.operator.needs()).collect()
}

/// Whether this service is among `needs`.
fn is_needed<T: Service + ?Sized>(needs: &[Need]) -> bool {
    needs.iter().any(Need::is::<T>)
}

/// What the services are opened from.
struct Opening<'p> {
    plan: &'p Plan,
    parts: &'p Parts,
    extras: &'p Extras,
    data_dir: &'p Path,
}

impl Opening<'_> {
    /// Opens the services that the flows of this process need, and no others.
    async fn services(&self, process: ProcessResources) -> anyhow::Result<Services> {
        let plan = self.plan;
        let mut services = Services::new(process);
        // Also where this process works on no flow: the gateway that accepts a request checks the address of its webhook.
        if is_needed::<dyn WebhookCaller>(&needs(&plan.flows)) {
            services = services.offer(self.caller().await?);
        }
        if plan.works_on.is_empty() {
            return Ok(services);
        }
        let needs = needs(plan.flows.iter().filter(|flow| plan.works_on.contains(&flow.name)));
        let compute = Compute::new(compute_threads(plan.process.compute_threads))?;
        for (name, model) in self.models(&needs, &compute).await? {
            services = services.offer_named(&name, model);
        }
        services.process.compute = Some(compute);
        if is_needed::<dyn VectorIndex>(&needs) {
            services = services.offer(self.index().await?);
        }
        if is_needed::<dyn Converter>(&needs) {
            services = self.offer_converter(services).await?;
        }
        Ok(services)
    }

    async fn caller(&self) -> anyhow::Result<Arc<dyn WebhookCaller>> {
        let spec = self.plan.webhook.clone();
        Ok(Arc::new(blocking(move || HttpCaller::open(&spec)).await??))
    }

    async fn models(&self, needs: &[Need], compute: &Compute) -> anyhow::Result<Vec<(String, Arc<dyn ImageModel>)>> {
        let is_needed = |name: &str| needs.iter().any(|need| need.is::<dyn ImageModel>() && need.name() == Some(name));
        let mut declared = self.plan.models.clone();
        declared.retain(|(name, _)| is_needed(name));
        if declared.is_empty() {
            return Ok(Vec::new());
        }
        let library = self.parts.find_onnxruntime();
        let library = library.with_context(|| format!("ONNX Runtime is not installed: {REMEDY}"))?;
        let compute = compute.clone();
        let load = move || {
            connectors::models::runtime::load(&library)?;
            let mut models = Vec::new();
            for (name, spec) in declared {
                let model = connectors::models::load(&name, &spec, &PathBuf::new(), &compute)
                    .with_context(|| format!("cannot load model {name}"))?;
                models.push((name, model));
            }
            Ok(models)
        };
        blocking(load).await?
    }

    async fn index(&self) -> anyhow::Result<Arc<dyn VectorIndex>> {
        let (spec, data_dir) = (self.plan.index.clone(), self.data_dir.to_path_buf());
        let index = blocking(move || connectors::index::open(&spec, &data_dir)).await??;
        Ok(self.extras.wrap_index.map_or(index.clone(), |wrap| wrap(index)))
    }

    /// Offers LibreOffice, or the reason why it is missing: stages that convert then answer 501, all else works.
    async fn offer_converter(&self, services: Services) -> anyhow::Result<Services> {
        let plan = self.plan;
        if let Err(missing) = plan.office.find() {
            tracing::warn!("documents are not converted: {missing}");
            return Ok(services.decline::<dyn Converter>(missing));
        }
        let folder = self.data_dir.join("office");
        let left_over = folder.clone();
        // Left by a process that was killed; the data folder is locked, so no other process uses it.
        blocking(move || match std::fs::remove_dir_all(left_over) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        })
        .await??;
        let ourselves = std::env::current_exe().context("cannot find our own program")?;
        let config = plan.office.pool((ourselves, vec!["office-worker".into()]), &folder);
        let pool = Pool::start(config).await.context("cannot start LibreOffice")?;
        tracing::info!(version = pool.version(), workers = pool.workers(), "documents are converted by LibreOffice");
        Ok(services.offer::<dyn Converter>(Arc::new(pool)))
    }
}

/// Closes what [`open`] opened, once the flows have drained.
pub async fn close(broker: Option<PrivateServer>, jetstream: &JetStream, services: &Services) {
    if let Ok(index) = services.get::<dyn VectorIndex>() {
        index.close().await;
    }
    if let Ok(converter) = services.get::<dyn Converter>() {
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

/// Makes the data folder, if it is missing.
///
/// # Errors
/// If it cannot be made.
pub async fn open_data_dir(plan: &Plan) -> anyhow::Result<PathBuf> {
    let data_dir = &plan.process.data_dir;
    tokio::fs::create_dir_all(data_dir).await.with_context(|| format!("cannot make {}", data_dir.display()))?;
    Ok(tokio::fs::canonicalize(data_dir).await?)
}

/// Starts our own broker, unless the config names another one. The first part to be opened: it locks the data folder, so
/// that nothing else in it is touched by two processes.
///
/// # Errors
/// Why it does not start.
pub async fn reach_broker(
    spec: &NatsSpec,
    data_dir: &Path,
    parts: &Parts,
) -> anyhow::Result<(Option<PrivateServer>, Access)> {
    if let Some(access) = spec.access() {
        return Ok((None, access));
    }
    let broker = start_broker(spec, data_dir, parts).await?;
    let access = broker.access();
    Ok((Some(broker), access))
}

async fn start_broker(spec: &NatsSpec, data_dir: &Path, parts: &Parts) -> anyhow::Result<PrivateServer> {
    let program = parts.find_nats_server().with_context(|| format!("nats-server is not installed: {REMEDY}"))?;
    let ourselves = std::env::current_exe().context("cannot find our own program")?;
    let options = ServerOptions {
        program,
        launcher: vec![ourselves.into_os_string(), OsString::from("guard"), OsString::from("--")],
        data_dir: data_dir.to_path_buf(),
        spec: spec.clone(),
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

/// Runs what reads files or waits for a library away from the runtime.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> anyhow::Result<T> {
    Ok(tokio::task::spawn_blocking(work).await?)
}

fn compute_threads(asked: usize) -> usize {
    if asked > 0 { asked } else { std::thread::available_parallelism().map_or(1, usize::from) }
}
