//! Claim check pattern: short bodies travel inside their event, long ones are stored and travel by reference.

use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, BoxStream, StreamExt};

use crate::fault::BoxError;
use crate::names::FlowName;
use crate::payload::{Body, Content, Part, Payload, stored};
use crate::transport::{BodyOf, INLINE_LIMIT, Transport, TransportError};

/// Reads a body: up to [`INLINE_LIMIT`] it stays inline, a longer one streams on into the object store. Holds at most the
/// inline limit plus what the store has in flight.
///
/// # Errors
/// [`TransportError::Body`] if the stream fails, otherwise the error of the store.
pub async fn keep(
    transport: &dyn Transport,
    of: BodyOf<'_>,
    media_type: &str,
    mut body: BoxStream<'_, Result<Bytes, BoxError>>,
) -> Result<Content, TransportError> {
    let mut head: Vec<Bytes> = Vec::new();
    let mut length = 0;
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(TransportError::Body)?;
        length += chunk.len();
        head.push(chunk);
        if length > INLINE_LIMIT {
            let whole = stream::iter(head.into_iter().map(Ok)).chain(body).boxed();
            let claim = transport.put_claim(of, whole).await?;
            return Ok(Content { media_type: media_type.into(), body: Body::Claim(claim.into()) });
        }
    }
    Ok(Content::inline(media_type, join(head, length)))
}

/// Makes content out of bytes already in memory; long ones are stored.
///
/// # Errors
/// The error of the store.
pub async fn keep_bytes(
    transport: &dyn Transport,
    of: BodyOf<'_>,
    media_type: &str,
    bytes: Bytes,
) -> Result<Content, TransportError> {
    if bytes.len() <= INLINE_LIMIT {
        return Ok(Content::inline(media_type, bytes));
    }
    keep(transport, of, media_type, stream::iter([Ok(bytes)]).boxed()).await
}

/// The bytes of `content`, fetched if need be.
///
/// # Errors
/// The error of the store.
pub async fn fetch(transport: &dyn Transport, content: &Content) -> Result<Bytes, TransportError> {
    match &content.body {
        Body::Inline(bytes) => Ok(bytes.clone()),
        Body::Claim(claim) => transport.get_claim(claim).await,
    }
}

/// Brings the bytes of `payload` into memory, and restores an image or a vector that was stored as bytes. Parts are not
/// fetched: `split` emits them one by one.
pub(crate) async fn resolve(transport: &dyn Transport, payload: &mut Payload) -> Result<(), TransportError> {
    if let Payload::Bytes(content) = payload
        && let Body::Claim(claim) = &content.body
    {
        content.body = Body::Inline(transport.get_claim(claim).await?);
    }
    if let Payload::Bytes(content) = payload
        && let Some(thawed) = stored::thaw(content)
    {
        *payload = thawed;
    }
    Ok(())
}

/// A copy of `payload` for another event, of flow `to`: images and vectors as bytes, long bytes as a claim. A claim is
/// copied, because the original is dropped with the event that brought it.
///
/// # Errors
/// The error of the store.
pub async fn storable(transport: &dyn Transport, to: &FlowName, payload: &Payload) -> Result<Payload, TransportError> {
    let content = match payload {
        Payload::Bytes(content) => content.clone(),
        Payload::Image(image) => stored::freeze_image(image),
        Payload::Vector(vector) => stored::freeze_vector(vector),
        Payload::Json(_) => return Ok(payload.clone()),
        Payload::Parts(parts) => {
            let mut copies = Vec::with_capacity(parts.len());
            for part in parts.iter() {
                copies.push(Part { content: copied(transport, to, &part.content).await?, ..part.clone() });
            }
            return Ok(Payload::Parts(copies.into()));
        }
    };
    Ok(Payload::Bytes(copied(transport, to, &content).await?))
}

/// Content with a claim of its own if it is long.
async fn copied(transport: &dyn Transport, to: &FlowName, content: &Content) -> Result<Content, TransportError> {
    let bytes = fetch(transport, content).await?;
    keep_bytes(transport, BodyOf::Event(to), &content.media_type, bytes).await
}

/// Removes every claim of a payload; one that cannot be removed now is collected later as orphaned.
pub async fn drop_all(transport: &dyn Transport, payload: &Payload) {
    for claim in payload.claims() {
        if let Err(error) = transport.drop_claim(&claim).await {
            tracing::warn!(claim = %claim.id, %error, "claim not dropped");
        }
    }
}

fn join(mut chunks: Vec<Bytes>, length: usize) -> Bytes {
    if chunks.len() == 1 {
        return chunks.remove(0);
    }
    let mut joined = BytesMut::with_capacity(length);
    chunks.iter().for_each(|chunk| joined.extend_from_slice(chunk));
    joined.freeze()
}
