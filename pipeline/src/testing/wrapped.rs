//! A transport around another one, for tests that change a few methods; the others pass through.

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use tokio::sync::mpsc;

use crate::envelope::Lane;
use crate::fault::BoxError;
use crate::ledger::{Entry, LedgerUpdate};
use crate::names::{FlowName, RequestId, Token};
use crate::outcome::Outcome;
use crate::payload::Claim;
use crate::transport::{
    Announcement, Backlog, BodyOwner, DeadLetter, Record, ResultAck, Source, SourceBounds, StoredDeadLetter,
    Submission, SubmitAck, Transport, TransportError, Watch,
};

type Result<T> = std::result::Result<T, TransportError>;

/// Implement this to get a [`Transport`] that passes every method on which is not overridden.
#[async_trait]
#[expect(missing_docs, reason = "the methods of `Transport`, which documents them")]
pub trait TransportWrapper: Send + Sync {
    /// The transport within.
    fn within(&self) -> &dyn Transport;

    async fn submit(&self, submission: Submission) -> Result<SubmitAck> {
        self.within().submit(submission).await
    }

    async fn source(&self, flow: &FlowName, lane: Lane, bounds: SourceBounds) -> Result<Box<dyn Source>> {
        self.within().source(flow, lane, bounds).await
    }

    async fn publish_outcome(&self, request: &RequestId, outcome: &Outcome) -> Result<ResultAck> {
        self.within().publish_outcome(request, outcome).await
    }

    async fn outcomes(&self, request: &RequestId) -> Result<Vec<Outcome>> {
        self.within().outcomes(request).await
    }

    async fn cancellations(&self) -> Result<mpsc::Receiver<RequestId>> {
        self.within().cancellations().await
    }

    async fn tail(&self, flow: &FlowName) -> Result<mpsc::Receiver<Submission>> {
        self.within().tail(flow).await
    }

    fn watch(&self, request: &RequestId) -> Watch {
        self.within().watch(request)
    }

    async fn put_claim(
        &self,
        of: BodyOwner<'_>,
        body: BoxStream<'_, std::result::Result<Bytes, BoxError>>,
    ) -> Result<Claim> {
        self.within().put_claim(of, body).await
    }

    async fn get_claim(&self, claim: &Claim) -> Result<Bytes> {
        self.within().get_claim(claim).await
    }

    async fn drop_claim(&self, claim: &Claim) -> Result<()> {
        self.within().drop_claim(claim).await
    }

    async fn dead_letter(&self, letter: DeadLetter) -> Result<()> {
        self.within().dead_letter(letter).await
    }

    async fn dead_letters(&self, flow: Option<&FlowName>, from: u64, limit: usize) -> Result<Vec<StoredDeadLetter>> {
        self.within().dead_letters(flow, from, limit).await
    }

    async fn remove_dead_letter(&self, id: u64) -> Result<()> {
        self.within().remove_dead_letter(id).await
    }

    async fn note_ended(&self, entries: &[Entry]) -> Result<()> {
        self.within().note_ended(entries).await
    }

    async fn ended(&self) -> Result<mpsc::Receiver<LedgerUpdate>> {
        self.within().ended().await
    }

    async fn put_record(&self, store: &Token, key: &Token, value: Bytes) -> Result<u64> {
        self.within().put_record(store, key, value).await
    }

    async fn replace_record(&self, store: &Token, key: &Token, revision: u64, value: Bytes) -> Result<bool> {
        self.within().replace_record(store, key, revision, value).await
    }

    async fn get_record(&self, store: &Token, key: &Token) -> Result<Option<Record>> {
        self.within().get_record(store, key).await
    }

    async fn announce(&self, process: &Token) -> Result<Announcement> {
        self.within().announce(process).await
    }

    async fn is_alive(&self, process: &Token) -> Result<bool> {
        self.within().is_alive(process).await
    }

    async fn backlog(&self, flow: &FlowName) -> Result<Backlog> {
        self.within().backlog(flow).await
    }

    async fn ready(&self) -> Result<()> {
        self.within().ready().await
    }
}

#[async_trait]
impl<T: TransportWrapper> Transport for T {
    async fn submit(&self, submission: Submission) -> Result<SubmitAck> {
        TransportWrapper::submit(self, submission).await
    }

    async fn source(&self, flow: &FlowName, lane: Lane, bounds: SourceBounds) -> Result<Box<dyn Source>> {
        TransportWrapper::source(self, flow, lane, bounds).await
    }

    async fn publish_outcome(&self, request: &RequestId, outcome: &Outcome) -> Result<ResultAck> {
        TransportWrapper::publish_outcome(self, request, outcome).await
    }

    async fn outcomes(&self, request: &RequestId) -> Result<Vec<Outcome>> {
        TransportWrapper::outcomes(self, request).await
    }

    async fn cancellations(&self) -> Result<mpsc::Receiver<RequestId>> {
        TransportWrapper::cancellations(self).await
    }

    async fn tail(&self, flow: &FlowName) -> Result<mpsc::Receiver<Submission>> {
        TransportWrapper::tail(self, flow).await
    }

    fn watch(&self, request: &RequestId) -> Watch {
        TransportWrapper::watch(self, request)
    }

    async fn put_claim(
        &self,
        of: BodyOwner<'_>,
        body: BoxStream<'_, std::result::Result<Bytes, BoxError>>,
    ) -> Result<Claim> {
        TransportWrapper::put_claim(self, of, body).await
    }

    async fn get_claim(&self, claim: &Claim) -> Result<Bytes> {
        TransportWrapper::get_claim(self, claim).await
    }

    async fn drop_claim(&self, claim: &Claim) -> Result<()> {
        TransportWrapper::drop_claim(self, claim).await
    }

    async fn dead_letter(&self, letter: DeadLetter) -> Result<()> {
        TransportWrapper::dead_letter(self, letter).await
    }

    async fn dead_letters(&self, flow: Option<&FlowName>, from: u64, limit: usize) -> Result<Vec<StoredDeadLetter>> {
        TransportWrapper::dead_letters(self, flow, from, limit).await
    }

    async fn remove_dead_letter(&self, id: u64) -> Result<()> {
        TransportWrapper::remove_dead_letter(self, id).await
    }

    async fn note_ended(&self, entries: &[Entry]) -> Result<()> {
        TransportWrapper::note_ended(self, entries).await
    }

    async fn ended(&self) -> Result<mpsc::Receiver<LedgerUpdate>> {
        TransportWrapper::ended(self).await
    }

    async fn put_record(&self, store: &Token, key: &Token, value: Bytes) -> Result<u64> {
        TransportWrapper::put_record(self, store, key, value).await
    }

    async fn replace_record(&self, store: &Token, key: &Token, revision: u64, value: Bytes) -> Result<bool> {
        TransportWrapper::replace_record(self, store, key, revision, value).await
    }

    async fn get_record(&self, store: &Token, key: &Token) -> Result<Option<Record>> {
        TransportWrapper::get_record(self, store, key).await
    }

    async fn announce(&self, process: &Token) -> Result<Announcement> {
        TransportWrapper::announce(self, process).await
    }

    async fn is_alive(&self, process: &Token) -> Result<bool> {
        TransportWrapper::is_alive(self, process).await
    }

    async fn backlog(&self, flow: &FlowName) -> Result<Backlog> {
        TransportWrapper::backlog(self, flow).await
    }

    async fn ready(&self) -> Result<()> {
        TransportWrapper::ready(self).await
    }
}
