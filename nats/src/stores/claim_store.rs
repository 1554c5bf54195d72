//! The object store for bodies too long to travel inside their event: chunks on `blob.<flow>.<id>`.
//!
//! A body is cut into 128 KiB, hashed on the way, and up to 32 chunks (4 MiB) wait for their confirmation at once. It
//! becomes visible by its claim alone, which is made after the last confirmation; whatever happens before, the chunks are
//! removed. Reading compares length and SHA-256 before a byte is handed out. The body of a result goes when the result does;
//! one whose event never came is found by [`crate::unused`].

use std::collections::VecDeque;
use std::time::Duration;

use async_nats::jetstream::Context;
use async_nats::jetstream::context::PublishError;
use async_nats::jetstream::publish::PublishAck;
use async_nats::{HeaderMap, Subject};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use pipeline::{BodyOf, BoxError, Claim, Digest, Token, TransportError};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use crate::codec;
use crate::direct::{self, Page};
use crate::jetstream::Inner;
use crate::names;
use crate::publish::{Outgoing, judge, queue};

/// Bytes of one chunk; hashing it takes well under 500 µs.
const CHUNK: usize = 128 << 10;
/// Chunks whose confirmation may be outstanding.
const WINDOW: usize = 32;
/// Answers to one read; there is no flow control within it.
const PAGE: Page = Page { messages: WINDOW as u32, bytes: 4 << 20 };
/// Memory taken in advance for a body whose length is only claimed.
const TRUSTED_LENGTH: u64 = 64 << 20;
/// How long removing the chunks of one body may take.
const REMOVAL_LIMIT: Duration = Duration::from_secs(6);
/// Time that a result's body outlives the result, which is written after it.
const RESULT_MARGIN: Duration = Duration::from_secs(600);
/// Bodies whose removal may wait; beyond, they expire by age.
pub const SWEEP_CAPACITY: usize = 1024;

type Confirmation = BoxFuture<'static, Result<PublishAck, PublishError>>;

/// A body that was given up, with the chunks that are on their way.
pub struct Abandoned {
    id: Token,
    window: VecDeque<Confirmation>,
}

/// Stores a body.
pub async fn put(
    inner: &Inner,
    of: BodyOf<'_>,
    body: BoxStream<'_, Result<Bytes, BoxError>>,
) -> Result<Claim, TransportError> {
    let id = Token::random();
    let ttl = match of {
        BodyOf::Event(_) => None,
        BodyOf::Result => Some((inner.limits.results_max_age + RESULT_MARGIN).as_secs().to_string()),
        // Whatever age the others go at (ADR-43 of the broker).
        BodyOf::Template => Some("never".to_owned()),
    };
    let mut upload = Upload {
        context: inner.objects.context.clone(),
        subject: names::blob_subject(of, &id),
        ttl,
        id,
        hash: Sha256::new(),
        length: 0,
        chunks: 0,
        window: VecDeque::with_capacity(WINDOW),
        sweep: Some(inner.sweep.clone()),
    };
    match upload.store(body).await {
        Ok(claim) => {
            upload.sweep = None;
            Ok(claim)
        }
        Err(error) => {
            let abandoned = Abandoned { id: upload.id.clone(), window: std::mem::take(&mut upload.window) };
            remove_abandoned(&upload.context, abandoned).await;
            upload.sweep = None;
            Err(error)
        }
    }
}

/// A body on its way. Dropped before it is whole, it goes to the sweeper.
struct Upload {
    context: Context,
    id: Token,
    subject: Subject,
    /// Seconds after which the broker removes it, or `never`.
    ttl: Option<String>,
    hash: Sha256,
    length: u64,
    chunks: u64,
    window: VecDeque<Confirmation>,
    sweep: Option<mpsc::Sender<Abandoned>>,
}

impl Upload {
    async fn store(&mut self, mut body: BoxStream<'_, Result<Bytes, BoxError>>) -> Result<Claim, TransportError> {
        let mut rest = BytesMut::new();
        while let Some(piece) = body.next().await {
            let mut piece = piece.map_err(TransportError::Body)?;
            // Whole chunks of a large piece are sent as they are.
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
            self.confirm_oldest().await?;
        }
        let sha256 = Digest(std::mem::take(&mut self.hash).finalize().into());
        Ok(Claim { id: self.id.clone(), length: self.length, sha256 })
    }

    async fn send(&mut self, chunk: Bytes) -> Result<(), TransportError> {
        if self.window.len() == WINDOW {
            self.confirm_oldest().await?;
        }
        self.hash.update(&chunk);
        self.length += chunk.len() as u64;
        let mut headers = HeaderMap::new();
        codec::put_message_id(&mut headers, &format!("{}.{}", self.id, self.chunks))?;
        if let Some(ttl) = &self.ttl {
            codec::put(&mut headers, "Nats-TTL", ttl)?;
        }
        self.chunks += 1;
        let message = Outgoing { subject: self.subject.clone(), headers, payload: chunk };
        let queued = queue(&self.context, message).await;
        let confirmation = queued.map_err(|error| judge(error, false).of_store("bodies"))?;
        self.window.push_back(confirmation.into_future());
        Ok(())
    }

    async fn confirm_oldest(&mut self) -> Result<(), TransportError> {
        let Some(oldest) = self.window.front_mut() else { return Ok(()) };
        let confirmed = oldest.await;
        self.window.pop_front();
        confirmed.map(|_| ()).map_err(|error| judge(error, false).of_store("bodies"))
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let Some(sweep) = self.sweep.take() else { return };
        let abandoned = Abandoned { id: self.id.clone(), window: std::mem::take(&mut self.window) };
        if sweep.try_send(abandoned).is_err() {
            tracing::warn!(body = %self.id, "too many bodies were given up at once, this one goes by age");
        }
    }
}

/// Removes bodies whose upload was dropped, one after the other.
pub async fn sweep(context: Context, mut abandoned: mpsc::Receiver<Abandoned>) {
    while let Some(body) = abandoned.recv().await {
        remove_abandoned(&context, body).await;
    }
}

/// Waits for what is on its way, then removes everything: a chunk stored after the removal would stay.
async fn remove_abandoned(context: &Context, mut body: Abandoned) {
    let removal = async {
        for confirmation in body.window.drain(..) {
            let _ = confirmation.await;
        }
        remove(context, &body.id).await
    };
    match tokio::time::timeout(REMOVAL_LIMIT, removal).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(body = %body.id, %error, "a broken body was not removed, it goes by age"),
        Err(_) => tracing::warn!(body = %body.id, "a broken body was not removed in time, it goes by age"),
    }
}

pub async fn remove(context: &Context, id: &Token) -> Result<(), TransportError> {
    let stream = context.get_stream_no_info(names::BLOBS).await.map_err(TransportError::unavailable)?;
    // The only wildcard is the flow's: a checked token holds none.
    stream.purge().filter(names::blob_filter(id).as_str()).await.map_err(TransportError::unavailable)?;
    Ok(())
}

/// Removes a body.
pub async fn drop_claim(inner: &Inner, claim: &Claim) -> Result<(), TransportError> {
    if claim.length == 0 {
        return Ok(());
    }
    remove(&inner.objects.context, &claim.id).await
}

/// Reads a body back.
pub async fn get(inner: &Inner, claim: &Claim) -> Result<Bytes, TransportError> {
    let wrong = |why| TransportError::Claim { id: claim.id.clone(), why };
    let mut bytes = BytesMut::with_capacity(usize::try_from(claim.length.min(TRUSTED_LENGTH)).unwrap_or(0));
    let mut hash = Sha256::new();
    let mut too_long = false;
    if claim.length > 0 {
        let subject = names::blob_filter(&claim.id);
        direct::read(&inner.objects, names::BLOBS, &subject, PAGE, &mut |stored| {
            too_long = (bytes.len() + stored.payload.len()) as u64 > claim.length;
            if !too_long {
                hash.update(&stored.payload);
                bytes.extend_from_slice(&stored.payload);
            }
            !too_long
        })
        .await?;
    }
    if too_long {
        return Err(wrong("it is longer than what was stored under this claim"));
    }
    if bytes.is_empty() && claim.length > 0 {
        return Err(wrong("it is gone: it expired or was removed"));
    }
    if bytes.len() as u64 != claim.length {
        return Err(wrong("it is cut short"));
    }
    if Digest(hash.finalize().into()) != claim.sha256 {
        return Err(wrong("its SHA-256 differs: it was altered"));
    }
    Ok(bytes.freeze())
}
