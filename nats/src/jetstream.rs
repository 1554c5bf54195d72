//! The transport: five connections, the declared flows, and the tasks behind them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_nats::Subject;
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::stream::BoxStream;
use pipeline::{
    Backlog, BodyOf, BoxError, Claim, DeadLetter, Entry, FlowName, KeptLetter, Lane, News, Outcome, OutcomeKind,
    Published, Record, RequestId, Source, SourceBounds, Submission, Submitted, Token, Transport, TransportError, Watch,
};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::ConnectError;
use crate::backlog;
use crate::cancel;
use crate::claims::{self, Abandoned};
use crate::connection::{Access, Connection};
use crate::dead;
use crate::dispatch::{Dispatch, Reading};
use crate::follow::{Begin, Follower};
use crate::ledger;
use crate::names;
use crate::spec::Limits;
use crate::topology::{FlowTopology, Topology};
use crate::{ready, records, results, source, submit, tail, unused};

/// The oldest server with everything that is used (fences on another subject, batched direct get, strict JSON).
const OLDEST_SERVER: (u32, u32) = (2, 12);
/// How long closing may take per connection.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);

/// Where to connect, and what must be there.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// Address and credentials.
    pub access: Access,
    /// Flows and bounds.
    pub topology: Topology,
    /// How long the broker may take to be reachable.
    pub limit: Duration,
}

impl ConnectOptions {
    /// Options with a limit of 10 s.
    #[must_use]
    pub fn new(access: Access, topology: Topology) -> Self {
        Self { access, topology, limit: Duration::from_secs(10) }
    }
}

/// One declared flow.
pub struct Flow {
    pub name: FlowName,
    pub declared: FlowTopology,
    subjects: [Subject; 2],
}

impl Flow {
    fn new(declared: FlowTopology) -> Self {
        let name = declared.name.clone();
        Self { subjects: Lane::ALL.map(|lane| names::work_subject(&name, lane)), name, declared }
    }

    /// Where events of a lane go.
    pub fn subject(&self, lane: Lane) -> &Subject {
        match lane {
            Lane::Interactive => &self.subjects[0],
            Lane::Bulk => &self.subjects[1],
        }
    }
}

/// What every part of the transport shares. One connection per kind of traffic.
pub struct Inner {
    /// Events, records, canaries.
    pub publishing: Connection,
    /// Results and dead letters, written and read.
    pub results: Connection,
    /// Deliveries and their acknowledgements.
    pub work: Connection,
    /// Bodies.
    pub objects: Connection,
    /// What is followed: results, the ledger.
    pub live: Connection,
    pub limits: Limits,
    pub sweep: mpsc::Sender<Abandoned>,
    pub stop: CancellationToken,
    pub tasks: TaskTracker,
    flows: HashMap<FlowName, Arc<Flow>>,
    dispatch: Arc<Dispatch>,
}

impl Inner {
    pub fn flow(&self, name: &FlowName) -> Result<Arc<Flow>, TransportError> {
        self.flows.get(name).cloned().ok_or_else(|| TransportError::NoFlow(name.clone()))
    }

    fn connections(&self) -> [&Connection; 4] {
        [&self.publishing, &self.results, &self.work, &self.objects]
    }
}

/// [`Transport`] on NATS JetStream. Its tasks end when it is dropped or [closed](Self::close).
pub struct JetStream {
    inner: Arc<Inner>,
    _stop: DropGuard,
}

/// Connects, makes what the topology asks for, and begins to follow results.
///
/// # Errors
/// If the broker cannot be reached in time, refuses who we are, is too old, or holds a stream that does not fit.
pub async fn connect(options: ConnectOptions) -> Result<Arc<JetStream>, ConnectError> {
    let ConnectOptions { access, topology, limit } = options;
    let stop = CancellationToken::new();
    let publishing = Connection::open(&access, "publish", limit, &stop).await?;
    check_version(&publishing.client().server_info().version)?;
    topology.ensure(&publishing.context).await?;
    let results = Connection::open(&access, "results", limit, &stop).await?;
    let live = Connection::open(&access, "live", limit, &stop).await?;
    let work = Connection::open(&access, "work", limit, &stop).await?;
    let objects = Connection::open(&access, "objects", limit, &stop).await?;
    let dispatch = Arc::new(Dispatch::new());
    let reading = Reading(Arc::clone(&dispatch));
    let mut follower = Follower::new(names::RESULTS, Begin::Now, reading, live.clone(), stop.clone());
    let following = follower.begin().await.map_err(ConnectError::Results)?;
    let (sweep, abandoned) = mpsc::channel(claims::SWEEP_CAPACITY);
    let tasks = TaskTracker::new();
    tasks.spawn(follower.run(following));
    // Ends with the last sender; what it still has to do may be cut off, bodies expire by age.
    tokio::spawn(claims::sweep(objects.context.clone(), abandoned));
    let flows = topology.flows.into_iter().map(|flow| (flow.name.clone(), Arc::new(Flow::new(flow)))).collect();
    let inner = Inner {
        publishing,
        results,
        work,
        objects,
        live,
        limits: topology.limits,
        sweep,
        stop: stop.clone(),
        tasks,
        flows,
        dispatch,
    };
    let inner = Arc::new(inner);
    inner.tasks.spawn(unused::run(Arc::clone(&inner)));
    Ok(Arc::new(JetStream { inner, _stop: stop.drop_guard() }))
}

/// Refuses a server that lacks what is used.
fn check_version(version: &str) -> Result<(), ConnectError> {
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().ok());
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(major), Some(minor)) if (major, minor) >= OLDEST_SERVER => Ok(()),
        _ => Err(ConnectError::TooOld { found: version.to_owned() }),
    }
}

impl JetStream {
    /// Version of the server, for example `2.15.1`.
    #[must_use]
    pub fn server_version(&self) -> String {
        self.inner.publishing.client().server_info().version
    }

    /// Stops pulling and following, hands back what nobody took, and sends what is queued. Call it after the flows have
    /// drained.
    pub async fn close(&self) {
        self.inner.stop.cancel();
        self.inner.tasks.close();
        let _ = tokio::time::timeout(CLOSE_LIMIT, self.inner.tasks.wait()).await;
        let clients = self.inner.connections().map(Connection::client);
        let flushes = clients.iter().map(|client| tokio::time::timeout(CLOSE_LIMIT, client.flush()));
        for flushed in join_all(flushes).await {
            if !matches!(flushed, Ok(Ok(()))) {
                tracing::warn!("the connection to the broker was closed with words unsent, some events will repeat");
            }
        }
    }
}

#[async_trait]
impl Transport for JetStream {
    async fn submit(&self, submission: Submission) -> Result<Submitted, TransportError> {
        submit::submit(&self.inner, submission).await
    }

    async fn source(
        &self,
        flow: &FlowName,
        lane: Lane,
        bounds: SourceBounds,
    ) -> Result<Box<dyn Source>, TransportError> {
        source::open(&self.inner, flow, lane, bounds).await
    }

    async fn publish_outcome(&self, request: &RequestId, outcome: &Outcome) -> Result<Published, TransportError> {
        let published = results::publish_outcome(&self.inner, request, outcome).await?;
        if published == Published::Stored && outcome.kind == OutcomeKind::Cancelled {
            cancel::announce(&self.inner, request).await;
        }
        Ok(published)
    }

    async fn cancellations(&self) -> Result<mpsc::Receiver<RequestId>, TransportError> {
        cancel::listen(&self.inner).await
    }

    async fn outcomes(&self, request: &RequestId) -> Result<Vec<Outcome>, TransportError> {
        results::outcomes(&self.inner, request).await
    }

    async fn tail(&self, flow: &FlowName) -> Result<mpsc::Receiver<Submission>, TransportError> {
        tail::listen(&self.inner, flow).await
    }

    fn watch(&self, request: &RequestId) -> Watch {
        self.inner.dispatch.watch(request)
    }

    async fn put_claim(
        &self,
        of: BodyOf<'_>,
        body: BoxStream<'_, Result<Bytes, BoxError>>,
    ) -> Result<Claim, TransportError> {
        claims::put(&self.inner, of, body).await
    }

    async fn get_claim(&self, claim: &Claim) -> Result<Bytes, TransportError> {
        claims::get(&self.inner, claim).await
    }

    async fn drop_claim(&self, claim: &Claim) -> Result<(), TransportError> {
        claims::drop_claim(&self.inner, claim).await
    }

    async fn dead_letter(&self, letter: DeadLetter) -> Result<(), TransportError> {
        dead::keep(&self.inner, letter).await
    }

    async fn dead_letters(
        &self,
        flow: Option<&FlowName>,
        from: u64,
        limit: usize,
    ) -> Result<Vec<KeptLetter>, TransportError> {
        dead::list(&self.inner, flow, from, limit).await
    }

    async fn remove_dead_letter(&self, id: u64) -> Result<(), TransportError> {
        dead::remove(&self.inner, id).await
    }

    async fn note_ended(&self, entries: &[Entry]) -> Result<(), TransportError> {
        ledger::note(&self.inner, entries).await
    }

    async fn ended(&self) -> Result<mpsc::Receiver<News>, TransportError> {
        ledger::read(&self.inner).await
    }

    async fn put_record(&self, store: &Token, key: &Token, value: Bytes) -> Result<u64, TransportError> {
        records::put(&self.inner, store, key, value).await
    }

    async fn replace_record(
        &self,
        store: &Token,
        key: &Token,
        revision: u64,
        value: Bytes,
    ) -> Result<bool, TransportError> {
        records::replace(&self.inner, store, key, revision, value).await
    }

    async fn get_record(&self, store: &Token, key: &Token) -> Result<Option<Record>, TransportError> {
        records::get(&self.inner, store, key).await
    }

    async fn backlog(&self, flow: &FlowName) -> Result<Backlog, TransportError> {
        backlog::of(&self.inner.publishing.context, &*self.inner.flow(flow)?).await
    }

    async fn ready(&self) -> Result<(), TransportError> {
        ready::ready(&self.inner).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_server_is_refused() {
        for good in ["2.12.0", "2.15.1", "3.0.0-beta", "2.100"] {
            assert!(check_version(good).is_ok(), "{good}");
        }
        for bad in ["2.11.9", "1.99.0", "", "x.y"] {
            assert!(check_version(bad).is_err(), "{bad}");
        }
    }
}
