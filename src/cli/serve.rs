//! `caudal serve`: load, build, run, drain.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use clap::Args;
use gateway::{FlowEntry, Gateway, GatewayState, Identity, Listener, ReadinessChecks, Tls};
use pipeline::Spans;
use pipeline::engine::Running;
use pipeline::webhook::WebhookCaller;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::config_args::{ConfigArgs, EXIT_CONFIG};
use super::readiness_checks;
use crate::assembly::{self, Assembly};
use crate::extras::Extras;
use crate::installed::Parts;
use crate::metrics::{self, BrokerMetrics};
use crate::plan::Plan;
use crate::role::RoleArgs;
use crate::telemetry::{ProcessIdentity, Telemetry};

#[derive(Args)]
pub struct ServeArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    role: RoleArgs,
    /// Address to serve on; port 0 picks a free one
    #[arg(long, value_name = "HOST:PORT", value_parser = gateway::spec::checked_listen)]
    listen: Option<String>,
    /// Directory for everything the service stores
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Collector of traces, unless `[telemetry]` otlp names one
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", hide_env_values = true, value_name = "URL")]
    otlp_endpoint: Option<String>,
}

/// # Errors
/// If a part cannot be opened, or fails while it runs.
pub fn run(args: &ServeArgs, parts: &Parts, extras: &Extras) -> anyhow::Result<ExitCode> {
    let Some((mut plan, sources)) = args.config.load(extras)? else { return Ok(ExitCode::from(EXIT_CONFIG)) };
    plan.warnings.log_warnings(&sources);
    if let Some(listen) = &args.listen {
        plan.gateway.service.listen.clone_from(listen);
    }
    if let Some(exposure) = plan.gateway.listen_problem() {
        bail!("{}: {}", exposure.message, exposure.remedy);
    }
    if let Some(data_dir) = &args.data_dir {
        plan.process.data_dir.clone_from(data_dir);
    }
    if let Some(endpoint) = &args.otlp_endpoint {
        plan.telemetry.set_default_endpoint(endpoint)?;
    }
    args.role.apply(&mut plan)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("caudal").build()?;
    runtime.block_on(serve(plan, args.role.name(), parts, extras))?;
    // A thread that hangs in a library must not delay the exit.
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(ExitCode::SUCCESS)
}

async fn serve(mut plan: Plan, role: &'static str, parts: &Parts, extras: &Extras) -> anyhow::Result<()> {
    let metrics = metrics::install()?;
    let stop = stop_signal()?;
    let grace = plan.gateway.service.grace();
    let listen = plan.gateway.service.listen.clone();
    let listener = TcpListener::bind(&listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    let address = listener.local_addr()?;
    let entries = entries(&plan);
    let auth = plan.gateway.auth.clone();
    let identity = tokio::task::spawn_blocking(move || Identity::open(&auth)).await??;
    let tls = plan.gateway.service.tls.clone();
    let tls = tokio::task::spawn_blocking(move || tls.as_ref().map(Tls::open).transpose()).await??;
    let scheme = if tls.is_some() { "https" } else { "http" };
    let (spec, process) = (plan.telemetry.clone(), ProcessIdentity::new(&plan.gateway.service.name, role));
    let runtime = tokio::runtime::Handle::current();
    let telemetry = tokio::task::spawn_blocking(move || Telemetry::open(&spec, &process, runtime)).await??;
    let spans = telemetry.clone().map(|telemetry| telemetry as Arc<dyn Spans>);
    let mut assembly = tokio::select! {
        opened = assembly::open(&mut plan, parts, extras, spans) => opened?,
        () = stop.cancelled() => {
            tracing::info!("stopped before it was ready");
            return Ok(());
        }
    };
    let running = assembly.start_flows();
    let checks = readiness_checks::of(&plan, &assembly, extras);
    let state = gateway_state(&plan, &assembly, &running, checks, metrics, entries, identity);
    let serving = tokio::spawn(gateway::serve(Listener { listener, tls }, state, stop.clone()));
    writeln!(std::io::stdout(), "ready {scheme}://{address}")?;
    tracing::info!(%address, service = plan.gateway.service.name, "ready");
    let Assembly { broker, jetstream, services, .. } = assembly;
    let ended = work(running, &stop, grace).await;
    // The gateway stops on the same signal. Its last answers come from the broker, so it must end before the broker does.
    serving.await.context("the gateway failed")?;
    assembly::close(broker, &jetstream, &services).await;
    if let Some(telemetry) = telemetry {
        telemetry.close().await;
    }
    ended
}

/// What the gateway knows of each flow. A worker serves none of the open flows.
fn entries(plan: &Plan) -> Vec<FlowEntry> {
    let entries = FlowEntry::of(&plan.flows);
    entries.into_iter().map(|entry| FlowEntry { open: entry.open && plan.serves, ..entry }).collect()
}

fn gateway_state(
    plan: &Plan,
    assembly: &Assembly,
    running: &Running,
    checks: ReadinessChecks,
    metrics: metrics_exporter_prometheus::PrometheusHandle,
    flows: Vec<FlowEntry>,
    identity: Identity,
) -> GatewayState {
    let engine = running.engine();
    let stats_of = engine.clone();
    let queues = flows.iter().map(|flow| flow.name.clone()).collect();
    let broker = BrokerMetrics::new(Arc::clone(&assembly.jetstream), queues);
    GatewayState::new(Gateway {
        transport: assembly.transport.clone(),
        identity,
        service: plan.gateway.service.clone(),
        limits: plan.gateway.limits.clone(),
        routes: plan.gateway.routes.clone(),
        flows,
        spans: assembly.services.process.spans.clone(),
        webhook_caller: assembly.services.get::<dyn WebhookCaller>().ok(),
        flow_stats: Arc::new(move || stats_of.stats()),
        checks,
        render_metrics: metrics::renderer(metrics, engine, Arc::clone(&assembly.services), broker),
    })
}

/// Waits for a stop signal or a fatal operator error, then drains the flows.
async fn work(mut running: Running, stop: &CancellationToken, grace: Duration) -> anyhow::Result<()> {
    // Without flows, `ended` would return at once.
    let works = !running.engine().stats().is_empty();
    let ended = tokio::select! {
        () = stop.cancelled() => Ok(()),
        ended = running.ended(), if works => ended.map_err(|error| anyhow!(error)),
    };
    stop.cancel();
    if let Err(busy) = running.drain(grace).await {
        for stage in busy {
            tracing::warn!(
                stage = stage.stage,
                events = stage.events,
                "still busy at the end of the grace period; its events are redelivered"
            );
        }
    }
    ended
}

/// A token that SIGTERM or Ctrl-C cancels.
fn stop_signal() -> anyhow::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let stop = CancellationToken::new();
    let on_signal = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        tracing::info!("stop requested");
        on_signal.cancel();
    });
    Ok(stop)
}
