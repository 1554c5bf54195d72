//! Connects to the broker: checks its version, creates the streams, and starts the tasks of the transport.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use pipeline::FlowName;
use pipeline::spec::ByteSize;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access::Access;
use crate::error::ConnectError;
use crate::jetstream::JetStream;
use crate::link::broker::Broker;
use crate::link::connection::Connection;
use crate::link::flow::DeclaredFlow;
use crate::link::follower::{Follower, StartAt};
use crate::link::healing;
use crate::link::stream_health::StreamHealth;
use crate::link::{ensure, streams};
use crate::queue::{backlog, undeclared};
use crate::server::Restarter;
use crate::stores::claim_store::ClaimStore;
use crate::stores::result_dispatch::{ResultDispatch, ResultReader};
use crate::stores::{claim_sweep, orphaned_claims};
use crate::topology::{FlowTopology, Topology};
use crate::wire::subjects;

/// The oldest server that has every feature used here (fences on another subject, batched direct get, strict JSON).
const OLDEST_SERVER: (u32, u32) = (2, 12);

/// Where to connect, and which streams to create.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// Address and credentials.
    pub access: Access,
    /// Flows and bounds.
    pub topology: Topology,
    /// How long the broker may take to be reachable.
    pub limit: Duration,
    /// Restarts the broker when it refuses writes although there is room; `None` if it is not our own.
    pub restarter: Option<Restarter>,
    /// `[nats] max_file` of our own broker, for the message that the streams do not fit.
    pub max_file: Option<ByteSize>,
}

impl ConnectOptions {
    /// Options with a limit of 10 s, for a broker that is not our own.
    #[must_use]
    pub fn new(access: Access, topology: Topology) -> Self {
        Self { access, topology, limit: Duration::from_secs(10), restarter: None, max_file: None }
    }
}

/// Connects, creates the streams of the topology, and begins to follow results.
///
/// # Errors
/// If the broker cannot be reached in time, refuses the credentials, is too old, or has a stream that cannot be
/// updated.
pub async fn connect(mut options: ConnectOptions) -> Result<Arc<JetStream>, ConnectError> {
    let restarter = options.restarter.take();
    let broker = Arc::new(open_broker(options, restarter.is_some()).await?);
    let dispatch = Arc::new(ResultDispatch::new());
    follow_results(&broker, &dispatch).await?;
    healing::watch(&broker, restarter).await.map_err(|error| ConnectError::Results(error.into()))?;
    let (sweep, abandoned) = mpsc::channel(claim_sweep::SWEEP_CAPACITY);
    // Ends with the last sender. Removals that are cut off when the process ends are harmless: bodies expire by age.
    tokio::spawn(claim_sweep::run(broker.objects.context.clone(), abandoned));
    broker.tasks.spawn(orphaned_claims::run(Arc::clone(&broker)));
    let claims = ClaimStore::new(Arc::clone(&broker), sweep);
    Ok(Arc::new(JetStream::new(broker, claims, dispatch)))
}

/// Opens the connections; creates the streams as soon as the first one is there.
async fn open_broker(options: ConnectOptions, is_own: bool) -> Result<Broker, ConnectError> {
    let ConnectOptions { access, topology, limit, max_file, .. } = options;
    let stop = CancellationToken::new();
    let open = |role| Connection::open(&access, role, limit, &stop);
    let publishing = open("publish").await?;
    check_version(&publishing.client().server_info().version)?;
    undeclared::report(&publishing.context, &topology.flows, is_own).await?;
    ensure::ensure_streams(&publishing.context, &topology, max_file).await?;
    backlog::check_order(&publishing.context, &topology.flows).await?;
    Ok(Broker {
        health: StreamHealth::new(streams::names(&topology)),
        publishing,
        results: open("results").await?,
        live: open("live").await?,
        work: open("work").await?,
        objects: open("objects").await?,
        limits: topology.limits,
        stop: stop.clone(),
        tasks: TaskTracker::new(),
        flows: declared(topology.flows),
    })
}

fn declared(flows: Vec<FlowTopology>) -> HashMap<FlowName, Arc<DeclaredFlow>> {
    flows.into_iter().map(|flow| (flow.name.clone(), Arc::new(DeclaredFlow::new(flow)))).collect()
}

async fn follow_results(broker: &Broker, dispatch: &Arc<ResultDispatch>) -> Result<(), ConnectError> {
    let reader = ResultReader(Arc::clone(dispatch));
    let (connection, stop) = (broker.live.clone(), broker.stop.clone());
    let mut follower = Follower::new(subjects::RESULTS, StartAt::Now, reader, connection, stop);
    let consumer = follower.begin().await.map_err(ConnectError::Results)?;
    broker.tasks.spawn(follower.run(consumer));
    Ok(())
}

/// Refuses a server without the features used here.
fn check_version(version: &str) -> Result<(), ConnectError> {
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().ok());
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(major), Some(minor)) if (major, minor) >= OLDEST_SERVER => Ok(()),
        _ => Err(ConnectError::TooOld { found: version.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_with_the_needed_features_is_accepted() {
        for version in ["2.12.0", "2.15.1", "3.0.0-beta", "2.100"] {
            assert!(check_version(version).is_ok(), "{version}");
        }
    }

    #[test]
    fn an_old_or_unknown_server_is_refused() {
        for version in ["2.11.9", "1.99.0", "", "x.y"] {
            assert!(check_version(version).is_err(), "{version}");
        }
    }
}
