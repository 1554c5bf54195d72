//! [`Transport`] on JetStream. Hands each call to its part; [`connect`](crate::connect()) creates it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::stream::BoxStream;
use pipeline::{
    Announcement, Backlog, BodyOwner, BoxError, Claim, DeadLetter, Entry, FlowName, Lane, LedgerUpdate, Outcome,
    OutcomeKind, Record, RequestId, ResultAck, Source, SourceBounds, StoredDeadLetter, Submission, SubmitAck, Token,
    Transport, TransportError, Watch,
};
use tokio::sync::mpsc;
use tokio_util::sync::DropGuard;

use crate::link::broker::Broker;
use crate::link::connection::Connection;
use crate::queue::{backlog, source, submit, tail, workers};
use crate::stores::claim_store::ClaimStore;
use crate::stores::result_dispatch::ResultDispatch;
use crate::stores::usage::{self, StorageUsage};
use crate::stores::{alive, cancellations, dead_letters, ledger, records, results, write_canary};

/// Time for ending the tasks, and again for sending what is queued.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// [`Transport`] on NATS JetStream. Its tasks end when it is dropped or [closed](Self::close).
pub struct JetStream {
    broker: Arc<Broker>,
    claims: ClaimStore,
    dispatch: Arc<ResultDispatch>,
    /// Cancels `broker.stop` when dropped.
    _stop: DropGuard,
}

impl JetStream {
    pub(crate) fn new(broker: Arc<Broker>, claims: ClaimStore, dispatch: Arc<ResultDispatch>) -> Self {
        let stop = broker.stop.clone().drop_guard();
        Self { broker, claims, dispatch, _stop: stop }
    }

    /// Version of the server, for example `2.15.1`.
    #[must_use]
    pub fn server_version(&self) -> String {
        self.broker.publishing.client().server_info().version
    }

    /// Disk space that the streams use.
    ///
    /// # Errors
    /// If the broker does not answer.
    pub async fn storage(&self) -> Result<StorageUsage, TransportError> {
        usage::storage(&self.broker).await
    }

    /// Every declared stream, and whether it stores what is sent to it.
    #[must_use]
    pub fn streams(&self) -> Vec<(String, bool)> {
        self.broker.health.streams()
    }

    /// Whether a stream stores what is sent to it.
    #[must_use]
    pub fn is_writable(&self, stream: &str) -> bool {
        !self.broker.health.is_refusing(stream)
    }

    /// Stored dead letters of each flow that has any.
    ///
    /// # Errors
    /// If the broker does not answer.
    pub async fn dead_letter_counts(&self) -> Result<HashMap<FlowName, u64>, TransportError> {
        usage::dead_letter_counts(&self.broker).await
    }

    /// Declared flows on which no process works: none asks for their events, and none has any.
    ///
    /// # Errors
    /// If the broker does not answer.
    pub async fn flows_without_worker(&self) -> Result<Vec<FlowName>, TransportError> {
        workers::flows_without_worker(&self.broker).await
    }

    /// Stops pulling and following, hands back the events that nobody took, and sends what is queued. Call it after the
    /// flows have drained.
    pub async fn close(&self) {
        self.broker.stop.cancel();
        self.broker.tasks.close();
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.broker.tasks.wait()).await;
        let clients = self.broker.sending_connections().map(Connection::client);
        let flushes = clients.iter().map(|client| tokio::time::timeout(CLOSE_TIMEOUT, client.flush()));
        for flushed in join_all(flushes).await {
            if !matches!(flushed, Ok(Ok(()))) {
                tracing::warn!(
                    "the connection to the broker was closed with messages unsent, some events are redelivered"
                );
            }
        }
    }
}

#[async_trait]
impl Transport for JetStream {
    async fn submit(&self, submission: Submission) -> Result<SubmitAck, TransportError> {
        submit::submit(&self.broker, submission).await
    }

    async fn source(
        &self,
        flow: &FlowName,
        lane: Lane,
        bounds: SourceBounds,
    ) -> Result<Box<dyn Source>, TransportError> {
        source::open(&self.broker, flow, lane, bounds).await
    }

    async fn publish_outcome(&self, request: &RequestId, outcome: &Outcome) -> Result<ResultAck, TransportError> {
        let published = results::publish_outcome(&self.broker, request, outcome).await?;
        if published == ResultAck::Stored && outcome.kind == OutcomeKind::Cancelled {
            cancellations::announce(&self.broker, request).await;
        }
        Ok(published)
    }

    async fn cancellations(&self) -> Result<mpsc::Receiver<RequestId>, TransportError> {
        cancellations::listen(&self.broker).await
    }

    async fn outcomes(&self, request: &RequestId) -> Result<Vec<Outcome>, TransportError> {
        results::outcomes(&self.broker, request).await
    }

    async fn tail(&self, flow: &FlowName) -> Result<mpsc::Receiver<Submission>, TransportError> {
        tail::listen(&self.broker, flow).await
    }

    fn watch(&self, request: &RequestId) -> Watch {
        self.dispatch.watch(request)
    }

    async fn put_claim(
        &self,
        of: BodyOwner<'_>,
        body: BoxStream<'_, Result<Bytes, BoxError>>,
    ) -> Result<Claim, TransportError> {
        self.claims.put(of, body).await
    }

    async fn get_claim(&self, claim: &Claim) -> Result<Bytes, TransportError> {
        self.claims.get(claim).await
    }

    async fn drop_claim(&self, claim: &Claim) -> Result<(), TransportError> {
        self.claims.remove(claim).await
    }

    async fn dead_letter(&self, letter: DeadLetter) -> Result<(), TransportError> {
        dead_letters::store(&self.broker, letter).await
    }

    async fn dead_letters(
        &self,
        flow: Option<&FlowName>,
        from: u64,
        limit: usize,
    ) -> Result<Vec<StoredDeadLetter>, TransportError> {
        dead_letters::list(&self.broker, flow, from, limit).await
    }

    async fn remove_dead_letter(&self, id: u64) -> Result<(), TransportError> {
        dead_letters::remove(&self.broker, id).await
    }

    async fn note_ended(&self, entries: &[Entry]) -> Result<(), TransportError> {
        ledger::append(&self.broker, entries).await
    }

    async fn ended(&self) -> Result<mpsc::Receiver<LedgerUpdate>, TransportError> {
        ledger::read(&self.broker).await
    }

    async fn put_record(&self, store: &Token, key: &Token, value: Bytes) -> Result<u64, TransportError> {
        records::put(&self.broker, store, key, value).await
    }

    async fn replace_record(
        &self,
        store: &Token,
        key: &Token,
        revision: u64,
        value: Bytes,
    ) -> Result<bool, TransportError> {
        records::replace(&self.broker, store, key, revision, value).await
    }

    async fn get_record(&self, store: &Token, key: &Token) -> Result<Option<Record>, TransportError> {
        records::get(&self.broker, store, key).await
    }

    async fn announce(&self, process: &Token) -> Result<Announcement, TransportError> {
        alive::announce(&self.broker, process).await
    }

    async fn is_alive(&self, process: &Token) -> Result<bool, TransportError> {
        alive::is_alive(&self.broker, process).await
    }

    async fn backlog(&self, flow: &FlowName) -> Result<Backlog, TransportError> {
        backlog::of(&self.broker.publishing.context, &*self.broker.flow(flow)?).await
    }

    async fn ready(&self) -> Result<(), TransportError> {
        write_canary::write(&self.broker).await
    }
}
