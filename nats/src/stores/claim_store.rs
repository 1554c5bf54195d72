//! The claim store: bodies too long for their event, as chunks on `blob.<flow>.<id>`.
//!
//! A body is cut into chunks of 128 KiB and hashed on the way; up to 32 chunks (4 MiB) wait for their acknowledgement
//! at once. A body is visible only by its claim, which is created after the last acknowledgement; if anything fails
//! before, the chunks are removed. A reader gets no byte before length and SHA-256 were compared. The body of a result
//! expires with the result; a body whose event was never submitted is removed by [`crate::stores::orphaned_claims`].

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{HeaderMap, Subject};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use pipeline::{BodyOwner, BoxError, Claim, Digest, Token, TransportError};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use crate::link::broker::Broker;
use crate::link::direct_get::{self, Page};
use crate::link::publish::{OutgoingMessage, PendingAck, PublishFailure, Sent, admit, classify, confirm, queue};
use crate::stores::body_room::{self, BodyRoom};
use crate::stores::claim_sweep::{self, AbandonedUpload};
use crate::wire::headers;
use crate::wire::subjects;

/// Bytes of one chunk; hashing it takes well under 500 µs.
const CHUNK: usize = 128 << 10;
/// Chunks whose acknowledgement may be outstanding.
const WINDOW: usize = 32;
/// Bounds of one read, within which there is no flow control.
const PAGE: Page = Page { messages: WINDOW as u32, bytes: 4 << 20 };
/// Memory reserved at once for a body, at most: the length in a claim may be wrong.
const MAX_RESERVED: u64 = 64 << 20;
/// Time that the body of a result outlives the result, which is written after its body.
const RESULT_MARGIN: Duration = Duration::from_secs(600);

/// Stores, reads and removes bodies.
pub struct ClaimStore {
    broker: Arc<Broker>,
    room: Arc<BodyRoom>,
    /// Takes uploads that were dropped before they were complete.
    sweep: mpsc::Sender<AbandonedUpload>,
}

impl ClaimStore {
    pub fn new(broker: Arc<Broker>, sweep: mpsc::Sender<AbandonedUpload>) -> Self {
        Self { broker, room: Arc::default(), sweep }
    }

    /// Stores a body. Returns after the last chunk was acknowledged.
    pub async fn put(
        &self,
        of: BodyOwner<'_>,
        body: BoxStream<'_, Result<Bytes, BoxError>>,
    ) -> Result<Claim, TransportError> {
        admit(&self.broker, subjects::BLOBS).map_err(|failure| failure.of_store("bodies"))?;
        let ceiling = body_room::ceiling(of, self.broker.limits.claims_max_bytes.0);
        if ceiling < u64::MAX {
            self.room.count(&self.broker).await?;
        }
        let id = Token::random();
        let mut upload = Upload {
            room: Arc::clone(&self.room),
            ceiling,
            established: *self.broker.objects.established.borrow(),
            broker: Arc::clone(&self.broker),
            subject: subjects::blob_subject(of, &id),
            ttl: time_to_live(of, self.broker.limits.results_max_age),
            id,
            hash: Sha256::new(),
            length: 0,
            chunks: 0,
            window: VecDeque::with_capacity(WINDOW),
            outstanding: VecDeque::with_capacity(WINDOW),
            sweep: Some(self.sweep.clone()),
        };
        match upload.store(body).await {
            Ok(claim) => {
                upload.sweep = None;
                Ok(claim)
            }
            // Removing it would wait for acknowledgements that never come: the sweep takes it when it is dropped.
            Err(error) if self.broker.health.is_refusing(subjects::BLOBS) => Err(error),
            Err(error) => {
                let abandoned = AbandonedUpload { id: upload.id.clone(), window: std::mem::take(&mut upload.window) };
                claim_sweep::remove_abandoned(&self.broker.objects.context, abandoned).await;
                upload.sweep = None;
                if matches!(of, BodyOwner::Result) {
                    self.make_room_for_results(upload.length + CHUNK as u64).await;
                }
                Err(error)
            }
        }
    }

    /// If the store is full, the next attempt finds room.
    async fn make_room_for_results(&self, bytes: u64) {
        match body_room::evict_results(&self.broker, bytes).await {
            Ok(0) => {}
            Ok(removed) => tracing::warn!(
                removed,
                limit_bytes = self.broker.limits.claims_max_bytes.0,
                "the store of bodies is full, those of the oldest results were removed: raise [nats] claims_max_bytes"
            ),
            Err(error) => tracing::debug!(%error, "no room was made in the store of bodies"),
        }
    }

    /// Reads a body whole; length and SHA-256 are compared.
    pub async fn get(&self, claim: &Claim) -> Result<Bytes, TransportError> {
        let mut reader = ClaimReader::new(claim);
        if claim.length > 0 {
            let filter = subjects::blob_filter(&claim.id);
            direct_get::read(&self.broker.objects, subjects::BLOBS, &filter, PAGE, &mut |chunk| {
                reader.push(&chunk.payload)
            })
            .await?;
        }
        reader.finish().map_err(|why| TransportError::Claim { id: claim.id.clone(), why })
    }

    /// Removes a body; no error if it is gone.
    pub async fn remove(&self, claim: &Claim) -> Result<(), TransportError> {
        if claim.length == 0 {
            return Ok(());
        }
        claim_sweep::remove(&self.broker.objects.context, &claim.id).await
    }
}

/// Value of `Nats-TTL` for the chunks of a body: seconds or `never`; `None` for the age limit of the stream.
fn time_to_live(of: BodyOwner<'_>, results_max_age: Duration) -> Option<String> {
    match of {
        BodyOwner::Request(_) | BodyOwner::Event(_) => None,
        BodyOwner::Result => Some((results_max_age + RESULT_MARGIN).as_secs().to_string()),
        // Exempt from the age limit of the stream (ADR-43 of NATS).
        BodyOwner::Template => Some("never".to_owned()),
    }
}

/// Puts the chunks of a body together and compares the whole with its claim.
struct ClaimReader<'a> {
    claim: &'a Claim,
    bytes: BytesMut,
    hash: Sha256,
    too_long: bool,
}

impl<'a> ClaimReader<'a> {
    fn new(claim: &'a Claim) -> Self {
        let reserved = usize::try_from(claim.length.min(MAX_RESERVED)).unwrap_or(0);
        Self { claim, bytes: BytesMut::with_capacity(reserved), hash: Sha256::new(), too_long: false }
    }

    /// Adds a chunk; `false` if the body is longer than its claim, and reading must stop.
    fn push(&mut self, chunk: &Bytes) -> bool {
        self.too_long = (self.bytes.len() + chunk.len()) as u64 > self.claim.length;
        if !self.too_long {
            self.hash.update(chunk);
            self.bytes.extend_from_slice(chunk);
        }
        !self.too_long
    }

    fn finish(self) -> Result<Bytes, &'static str> {
        if self.too_long {
            return Err("it is longer than what was stored under this claim");
        }
        if self.bytes.is_empty() && self.claim.length > 0 {
            return Err("it is gone: it expired or was removed");
        }
        if self.bytes.len() as u64 != self.claim.length {
            return Err("it is cut short");
        }
        if Digest(self.hash.finalize().into()) != self.claim.sha256 {
            return Err("its SHA-256 differs: it was altered");
        }
        Ok(self.bytes.freeze())
    }
}

/// A body that is being stored. If it is dropped before it is complete, its chunks go to the sweep.
struct Upload {
    broker: Arc<Broker>,
    room: Arc<BodyRoom>,
    /// Bytes up to which the store may be filled.
    ceiling: u64,
    /// How often the connection had been established when it began.
    established: u64,
    id: Token,
    subject: Subject,
    /// Seconds after which the broker removes it, or `never`.
    ttl: Option<String>,
    hash: Sha256,
    length: u64,
    chunks: u64,
    window: VecDeque<PendingAck>,
    /// Bytes of the chunks that are not acknowledged.
    outstanding: VecDeque<u64>,
    sweep: Option<mpsc::Sender<AbandonedUpload>>,
}

impl Upload {
    async fn store(&mut self, mut body: BoxStream<'_, Result<Bytes, BoxError>>) -> Result<Claim, TransportError> {
        let mut rest = BytesMut::new();
        while let Some(piece) = body.next().await {
            let mut piece = piece.map_err(TransportError::Body)?;
            // Whole chunks of a large piece are sent without a copy.
            while rest.is_empty() && piece.len() >= CHUNK {
                self.send(piece.split_to(CHUNK)).await?;
            }
            while !piece.is_empty() {
                let missing = CHUNK - rest.len();
                rest.extend_from_slice(&piece.split_to(missing.min(piece.len())));
                if rest.len() == CHUNK {
                    self.send(rest.split().freeze()).await?;
                }
            }
        }
        if !rest.is_empty() {
            self.send(rest.freeze()).await?;
        }
        while !self.window.is_empty() {
            self.await_oldest_ack().await?;
        }
        let sha256 = Digest(std::mem::take(&mut self.hash).finalize().into());
        Ok(Claim { id: self.id.clone(), length: self.length, sha256 })
    }

    async fn send(&mut self, chunk: Bytes) -> Result<(), TransportError> {
        if self.window.len() == WINDOW {
            self.await_oldest_ack().await?;
        }
        if !self.room.take(chunk.len() as u64, self.ceiling) {
            return Err(PublishFailure::Full.of_store("bodies"));
        }
        self.outstanding.push_back(chunk.len() as u64);
        self.hash.update(&chunk);
        self.length += chunk.len() as u64;
        let mut headers = HeaderMap::new();
        headers::put_message_id(&mut headers, &format!("{}.{}", self.id, self.chunks))?;
        if let Some(ttl) = &self.ttl {
            headers::put(&mut headers, "Nats-TTL", ttl)?;
        }
        self.chunks += 1;
        let message = OutgoingMessage { subject: self.subject.clone(), headers, payload: chunk };
        let queued = queue(&self.broker.objects.context, message).await;
        let ack = queued.map_err(|error| classify(error, false).of_store("bodies"))?;
        self.window.push_back(ack.into_future());
        Ok(())
    }

    async fn await_oldest_ack(&mut self) -> Result<(), TransportError> {
        let Some(oldest) = self.window.front_mut() else { return Ok(()) };
        let sent = Sent { subject: &self.subject, established: self.established, repeated: false };
        let confirmed = confirm(&self.broker, &self.broker.objects, sent, oldest).await;
        self.window.pop_front();
        self.room.settle(self.outstanding.pop_front().unwrap_or(0), confirmed.is_ok());
        confirmed.map(|_| ()).map_err(|failure| failure.of_store("bodies"))
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.room.settle(self.outstanding.iter().sum(), false);
        let Some(sweep) = self.sweep.take() else { return };
        let abandoned = AbandonedUpload { id: self.id.clone(), window: std::mem::take(&mut self.window) };
        if sweep.try_send(abandoned).is_err() {
            tracing::warn!(body = %self.id, "too many uploads were dropped at once, this body expires by age");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim_of(body: &[u8]) -> Claim {
        let sha256 = Digest(Sha256::digest(body).into());
        Claim { id: Token::new("c").unwrap(), length: body.len() as u64, sha256 }
    }

    fn read(claim: &Claim, chunks: &[&'static str]) -> Result<Bytes, &'static str> {
        let mut reader = ClaimReader::new(claim);
        chunks.iter().take_while(|chunk| reader.push(&Bytes::from(**chunk))).for_each(drop);
        reader.finish()
    }

    #[test]
    fn chunks_are_put_together_in_order() {
        assert_eq!(read(&claim_of(b"abcd"), &["ab", "cd"]).unwrap(), "abcd");
    }

    #[test]
    fn a_body_longer_than_its_claim_is_refused() {
        assert!(read(&claim_of(b"ab"), &["ab", "cd"]).unwrap_err().contains("longer"));
    }

    #[test]
    fn a_body_shorter_than_its_claim_is_refused() {
        assert!(read(&claim_of(b"abcd"), &["ab"]).unwrap_err().contains("cut short"));
    }

    #[test]
    fn a_body_without_chunks_is_gone() {
        assert!(read(&claim_of(b"abcd"), &[]).unwrap_err().contains("gone"));
    }

    #[test]
    fn a_body_with_another_digest_is_refused() {
        assert!(read(&claim_of(b"abcd"), &["abce"]).unwrap_err().contains("SHA-256"));
    }

    #[test]
    fn an_empty_body_has_no_chunks() {
        assert!(read(&claim_of(b""), &[]).unwrap().is_empty());
    }

    #[test]
    fn the_body_of_a_result_outlives_the_result() {
        let ttl = time_to_live(BodyOwner::Result, Duration::from_secs(60));
        assert_eq!(ttl.as_deref(), Some("660"));
    }

    #[test]
    fn a_template_never_expires() {
        assert_eq!(time_to_live(BodyOwner::Template, Duration::ZERO).as_deref(), Some("never"));
    }
}
