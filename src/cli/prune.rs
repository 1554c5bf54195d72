//! `caudal prune`: removes queues of flows that the config does not declare. Those that hold events stay, unless they are
//! named.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{anyhow, ensure};
use clap::Args;
use nats::{Removal, UndeclaredQueue, UndeclaredQueues};

use super::config_args::{ConfigArgs, EXIT_CONFIG};
use crate::assembly;
use crate::extras::Extras;
use crate::installed::Parts;
use crate::plan::Plan;

/// Removes the queues of flows that the given config does not declare and that hold no events.
///
/// The broker is the one of the config. A private broker is started for this, so stop its service first.
#[derive(Args)]
pub struct PruneArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Directory for everything the service stores
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Also remove the queues of these flows, with the events that wait in them
    #[arg(long, value_name = "FLOW,…", value_delimiter = ',')]
    with_events: Vec<String>,
}

/// # Errors
/// If the broker cannot be reached, or `--with-events` names a flow that has no such queue.
pub fn run(args: &PruneArgs, parts: &Parts, extras: &Extras) -> anyhow::Result<ExitCode> {
    let Some((mut plan, _)) = args.config.load(extras)? else { return Ok(ExitCode::from(EXIT_CONFIG)) };
    if let Some(data_dir) = &args.data_dir {
        plan.process.data_dir.clone_from(data_dir);
    }
    tokio::runtime::Runtime::new()?.block_on(prune(&plan, &args.with_events, parts))?;
    Ok(ExitCode::SUCCESS)
}

async fn prune(plan: &Plan, with_events: &[String], parts: &Parts) -> anyhow::Result<()> {
    let data_dir = assembly::open_data_dir(plan).await?;
    let (broker, access) = assembly::reach_broker(&plan.nats, &data_dir, parts).await?;
    let queues = UndeclaredQueues::open(&access).await?;
    let undeclared = queues.list(&plan.topology().flows).await?;
    check_names(&undeclared, with_events)?;
    let mut out = std::io::stdout();
    for queue in &undeclared {
        let flow = &queue.flow;
        let removal = queues.remove(queue, with_events.iter().any(|name| name == flow.as_str())).await;
        let line =
            match removal.map_err(|error| anyhow!(error).context(format!("cannot remove the queue of {flow}")))? {
                Removal::Removed(events) => format!("removed  {flow}  {events} events"),
                Removal::Kept(events) => format!(
                    "kept     {flow}  {events} events, {}: declare the flow to process them, or remove them with \
                 --with-events {flow}",
                    queue.reserved
                ),
                Removal::InUse => format!("kept     {flow}  a process works on it"),
            };
        writeln!(out, "{line}")?;
    }
    writeln!(out, "{} queues of flows that the config does not declare", undeclared.len())?;
    if let Some(broker) = broker {
        broker.stop().await;
    }
    Ok(())
}

/// Refuses names of flows that have no such queue, before anything is removed.
fn check_names(undeclared: &[UndeclaredQueue], with_events: &[String]) -> anyhow::Result<()> {
    let known: Vec<&str> = undeclared.iter().map(|queue| queue.flow.as_str()).collect();
    for name in with_events {
        ensure!(
            known.contains(&name.as_str()),
            "--with-events names {name:?}, which has no queue, or the config declares it; to remove are: {}",
            if known.is_empty() { "none".to_owned() } else { known.join(", ") }
        );
    }
    Ok(())
}
