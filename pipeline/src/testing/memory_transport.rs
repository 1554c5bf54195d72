//! An in-memory transport with the promises of [`Transport`], for one process.
//!
//! It has the unpleasant traits of the real one: an unsettled event is redelivered, a second terminal result is refused, a
//! full lane refuses, a repeat of a stored id is stored once.

use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use tokio::sync::mpsc;

use super::memory_broker::{MemoryBroker, State};
use super::memory_source::MemorySource;
use crate::envelope::Lane;
use crate::fault::BoxError;
use crate::ledger::{Entry, LedgerUpdate};
use crate::names::{FlowName, RequestId, Token};
use crate::outcome::{Outcome, OutcomeKind};
use crate::payload::{Claim, Digest};
use crate::transport::{
    Announcement, Backlog, BodyOwner, DeadLetter, Record, ResultAck, Source, SourceBounds, StoredDeadLetter,
    Submission, SubmitAck, Transport, TransportError, Watch,
};

/// Results a watcher may be behind.
const WATCH_BOUND: usize = 256;

/// The in-memory transport. Clones share everything.
#[derive(Clone, Default)]
pub struct MemoryTransport {
    broker: MemoryBroker,
}

impl MemoryTransport {
    /// A broker with the given flows and the bound of each of their lanes.
    ///
    /// # Panics
    /// If a name is not a token.
    #[must_use]
    pub fn with_flows<'a>(flows: impl IntoIterator<Item = (&'a str, usize)>) -> Self {
        let transport = Self::default();
        for (name, limit) in flows {
            let flow = FlowName::new(name).expect("a test names its flows with tokens");
            transport.lock().limits.insert(flow, limit);
        }
        transport
    }

    /// Makes every call that needs the broker fail from now on, or work again.
    pub fn set_down(&self, down: bool) {
        self.lock().down = down;
    }

    /// The dead letters.
    #[must_use]
    pub fn letters(&self) -> Vec<DeadLetter> {
        self.lock().dead.values().cloned().collect()
    }

    /// Why events were handed back, in order.
    #[must_use]
    pub fn retry_reasons(&self) -> Vec<Arc<str>> {
        self.lock().reasons.clone()
    }

    /// Forgets the ids of submissions, as a broker does after ten minutes or a restart.
    pub fn forget_ids(&self) {
        self.lock().lanes.values_mut().for_each(|lane| lane.known.clear());
    }

    /// Forgets the ids of submissions to one flow.
    pub fn forget_ids_of(&self, flow: &FlowName) {
        let mut state = self.lock();
        state.lanes.iter_mut().filter(|((of, _), _)| of == flow).for_each(|(_, lane)| lane.known.clear());
    }

    /// Loses the results of a request, as a broker does that has too many or too old results.
    pub fn forget_results(&self, request: &RequestId) {
        self.lock().outcomes.remove(request);
    }

    /// Loses the ledger, as if the process had died before it was written.
    pub fn forget_ledger(&self) {
        self.lock().ledger.clear();
    }

    /// How many claims are stored.
    #[must_use]
    pub fn claim_count(&self) -> usize {
        self.lock().claims.len()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.broker.lock()
    }

    fn up(&self) -> Result<MutexGuard<'_, State>, TransportError> {
        self.broker.up()
    }
}

struct Unwatch;

/// Dropped, the process is gone.
struct Announced {
    broker: MemoryBroker,
    process: Token,
}

impl Drop for Announced {
    fn drop(&mut self) {
        self.broker.lock().alive.remove(&self.process);
    }
}

#[async_trait]
impl Transport for MemoryTransport {
    async fn submit(&self, submission: Submission) -> Result<SubmitAck, TransportError> {
        let flow = submission.envelope.flow.clone();
        let mut state = self.up()?;
        let limit = *state.limits.get(&flow).ok_or_else(|| TransportError::NoFlow(flow.clone()))?;
        let lane = state.lanes.entry((flow.clone(), submission.envelope.lane)).or_default();
        if lane.known.contains(&submission.envelope.id) {
            return Ok(SubmitAck::Duplicate);
        }
        if lane.waiting.len() as u64 + lane.in_flight >= limit as u64 {
            return Err(TransportError::Full { flow });
        }
        lane.known.insert(submission.envelope.id.clone());
        let shown = submission.clone();
        lane.waiting.push_back((submission, 1));
        if let Some(tails) = state.tails.get_mut(&flow) {
            tails.retain(|tail| !matches!(tail.try_send(shown.clone()), Err(mpsc::error::TrySendError::Closed(_))));
        }
        drop(state);
        self.broker.filled.notify_waiters();
        Ok(SubmitAck::Stored)
    }

    async fn source(&self, flow: &FlowName, lane: Lane, _: SourceBounds) -> Result<Box<dyn Source>, TransportError> {
        if !self.up()?.limits.contains_key(flow) {
            return Err(TransportError::NoFlow(flow.clone()));
        }
        Ok(Box::new(MemorySource { broker: self.broker.clone(), key: (flow.clone(), lane) }))
    }

    async fn publish_outcome(&self, request: &RequestId, outcome: &Outcome) -> Result<ResultAck, TransportError> {
        let mut state = self.up()?;
        let stored = state.outcomes.entry(request.clone()).or_default();
        let ended = stored.values().any(|known| known.kind.is_terminal());
        // `accepted` may arrive after the end: it is stored, because it does not contradict the end.
        if (ended && outcome.ordinal != 0) || stored.contains_key(&outcome.ordinal) {
            return Ok(ResultAck::Refused);
        }
        stored.insert(outcome.ordinal, outcome.clone());
        if outcome.kind == OutcomeKind::Cancelled {
            state.listeners.retain(|listener| listener.try_send(request.clone()).is_ok());
        }
        if let Some(watchers) = state.watchers.get_mut(request) {
            watchers.retain(|watcher| watcher.try_send(Arc::new(outcome.clone())).is_ok());
        }
        Ok(ResultAck::Stored)
    }

    async fn outcomes(&self, request: &RequestId) -> Result<Vec<Outcome>, TransportError> {
        let state = self.up()?;
        Ok(state.outcomes.get(request).map(|stored| stored.values().cloned().collect()).unwrap_or_default())
    }

    async fn cancellations(&self) -> Result<mpsc::Receiver<RequestId>, TransportError> {
        let (listener, given_up) = mpsc::channel(WATCH_BOUND);
        self.up()?.listeners.push(listener);
        Ok(given_up)
    }

    async fn tail(&self, flow: &FlowName) -> Result<mpsc::Receiver<Submission>, TransportError> {
        let (tail, events) = mpsc::channel(WATCH_BOUND);
        self.up()?.tails.entry(flow.clone()).or_default().push(tail);
        Ok(events)
    }

    fn watch(&self, request: &RequestId) -> Watch {
        let (sender, outcomes) = mpsc::channel(WATCH_BOUND);
        self.lock().watchers.entry(request.clone()).or_default().push(sender);
        // A watcher whose receiver is gone is dropped at the next result.
        Watch { outcomes, guard: Box::new(Unwatch) }
    }

    async fn put_claim(
        &self,
        _: BodyOwner<'_>,
        mut body: BoxStream<'_, Result<Bytes, BoxError>>,
    ) -> Result<Claim, TransportError> {
        let mut whole = BytesMut::new();
        while let Some(chunk) = body.next().await {
            whole.extend_from_slice(&chunk.map_err(TransportError::Body)?);
        }
        let sha256 = Digest(Sha256::digest(&whole).into());
        let claim = Claim { id: Token::random(), length: whole.len() as u64, sha256 };
        self.up()?.claims.insert(claim.id.clone(), whole.freeze());
        Ok(claim)
    }

    async fn get_claim(&self, claim: &Claim) -> Result<Bytes, TransportError> {
        let lost = |why| TransportError::Claim { id: claim.id.clone(), why };
        let bytes = self.up()?.claims.get(&claim.id).cloned().ok_or_else(|| lost("it is gone"))?;
        if Digest(Sha256::digest(&bytes).into()) != claim.sha256 {
            return Err(lost("it was altered"));
        }
        Ok(bytes)
    }

    async fn drop_claim(&self, claim: &Claim) -> Result<(), TransportError> {
        self.up()?.claims.remove(&claim.id);
        Ok(())
    }

    async fn dead_letter(&self, letter: DeadLetter) -> Result<(), TransportError> {
        let mut state = self.up()?;
        state.dead_count += 1;
        let id = state.dead_count;
        state.dead.insert(id, letter);
        Ok(())
    }

    async fn dead_letters(
        &self,
        flow: Option<&FlowName>,
        from: u64,
        limit: usize,
    ) -> Result<Vec<StoredDeadLetter>, TransportError> {
        let state = self.up()?;
        let letters = state.dead.range(from..).map(|(id, letter)| StoredDeadLetter { id: *id, letter: letter.clone() });
        Ok(letters.filter(|kept| flow.is_none_or(|flow| kept.letter.envelope.flow == *flow)).take(limit).collect())
    }

    async fn remove_dead_letter(&self, id: u64) -> Result<(), TransportError> {
        self.up()?.dead.remove(&id);
        Ok(())
    }

    async fn note_ended(&self, entries: &[Entry]) -> Result<(), TransportError> {
        let mut state = self.up()?;
        state.ledger.extend_from_slice(entries);
        let news = LedgerUpdate::Noted(OffsetDateTime::now_utc(), entries.to_vec());
        state.ledger_readers.retain(|reader| reader.try_send(news.clone()).is_ok());
        Ok(())
    }

    async fn ended(&self) -> Result<mpsc::Receiver<LedgerUpdate>, TransportError> {
        let mut state = self.up()?;
        let (reader, news) = mpsc::channel(WATCH_BOUND);
        let so_far = LedgerUpdate::Noted(OffsetDateTime::now_utc(), state.ledger.clone());
        [so_far, LedgerUpdate::CaughtUp]
            .into_iter()
            .for_each(|news| reader.try_send(news).expect("the channel is new"));
        state.ledger_readers.push(reader);
        Ok(news)
    }

    async fn put_record(&self, store: &Token, key: &Token, value: Bytes) -> Result<u64, TransportError> {
        let mut state = self.up()?;
        state.writes += 1;
        let revision = state.writes;
        state.records.insert((store.clone(), key.clone()), Record { value, revision });
        Ok(revision)
    }

    async fn replace_record(
        &self,
        store: &Token,
        key: &Token,
        revision: u64,
        value: Bytes,
    ) -> Result<bool, TransportError> {
        let mut state = self.up()?;
        let place = (store.clone(), key.clone());
        if state.records.get(&place).map_or(0, |record| record.revision) != revision {
            return Ok(false);
        }
        state.writes += 1;
        let revision = state.writes;
        state.records.insert(place, Record { value, revision });
        Ok(true)
    }

    async fn get_record(&self, store: &Token, key: &Token) -> Result<Option<Record>, TransportError> {
        Ok(self.up()?.records.get(&(store.clone(), key.clone())).cloned())
    }

    async fn announce(&self, process: &Token) -> Result<Announcement, TransportError> {
        self.up()?.alive.insert(process.clone());
        Ok(Box::new(Announced { broker: self.broker.clone(), process: process.clone() }))
    }

    async fn is_alive(&self, process: &Token) -> Result<bool, TransportError> {
        Ok(self.up()?.alive.contains(process))
    }

    async fn backlog(&self, flow: &FlowName) -> Result<Backlog, TransportError> {
        let state = self.up()?;
        let count = |lane| {
            let state = state.lanes.get(&(flow.clone(), lane));
            state.map_or(0, |lane| lane.waiting.len() as u64 + lane.in_flight)
        };
        let ended = state.ended.get(flow).copied().unwrap_or(0);
        Ok(Backlog { interactive: count(Lane::Interactive), bulk: count(Lane::Bulk), ended })
    }

    async fn ready(&self) -> Result<(), TransportError> {
        self.up().map(|_| ())
    }
}

/// How long a test waits for something that must happen before it fails.
pub const PATIENCE: Duration = Duration::from_secs(20);
