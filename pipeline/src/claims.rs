//! The claim check pattern: short bodies travel inside their event, long ones by reference into the object store.

use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, BoxStream, StreamExt};

use crate::fault::BoxError;
use crate::names::FlowName;
use crate::payload::{Body, Content, Part, Payload, wire_form};
use crate::pixel_budget::PixelRoom;
use crate::transport::{BodyOwner, INLINE_LIMIT, Transport, TransportError};

/// Reads a body: up to [`INLINE_LIMIT`] it stays in memory, beyond that it streams on into the object store. Memory is
/// bounded by the inline limit plus the chunks that the store has in flight.
///
/// # Errors
/// [`TransportError::Body`] if the stream fails, otherwise the error of the store.
pub async fn store(
    transport: &dyn Transport,
    of: BodyOwner<'_>,
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

/// Makes content of bytes that are in memory, by reference if they are long.
///
/// # Errors
/// The error of the store.
pub async fn store_bytes(
    transport: &dyn Transport,
    of: BodyOwner<'_>,
    media_type: &str,
    bytes: Bytes,
) -> Result<Content, TransportError> {
    if bytes.len() <= INLINE_LIMIT {
        return Ok(Content::inline(media_type, bytes));
    }
    store(transport, of, media_type, stream::iter([Ok(bytes)]).boxed()).await
}

/// The bytes of `content`, fetched from the store if it is a reference.
///
/// # Errors
/// The error of the store.
pub async fn fetch(transport: &dyn Transport, content: &Content) -> Result<Bytes, TransportError> {
    match &content.body {
        Body::Inline(bytes) => Ok(bytes.clone()),
        Body::Claim(claim) => transport.get_claim(claim).await,
    }
}

/// The bytes of `payload`, if it refers to bytes in the store. Parts stay there: `split` emits them one by one.
///
/// # Errors
/// The error of the store.
pub(crate) async fn fetch_body(transport: &dyn Transport, payload: &Payload) -> Result<Option<Bytes>, TransportError> {
    let Payload::Bytes(Content { body: Body::Claim(claim), .. }) = payload else { return Ok(None) };
    transport.get_claim(claim).await.map(Some)
}

/// Puts the fetched `body` into `payload`, and turns an encoded image or vector back into one; an image takes `room`.
pub(crate) fn resolve(payload: &mut Payload, body: Option<Bytes>, room: Option<PixelRoom>) {
    if let (Payload::Bytes(content), Some(body)) = (&mut *payload, body) {
        content.body = Body::Inline(body);
    }
    if let Payload::Bytes(content) = payload
        && let Some(decoded) = wire_form::decode(content, room)
    {
        *payload = decoded;
    }
}

/// `payload` for another event, of flow `to`: images and vectors as bytes, long bytes as a claim. A body in the store is
/// copied, because the original is dropped when the event that brought it ends.
///
/// # Errors
/// The error of the store.
pub async fn storable(transport: &dyn Transport, to: &FlowName, payload: &Payload) -> Result<Payload, TransportError> {
    let content = match payload {
        Payload::Bytes(content) => content.clone(),
        Payload::Image(image) => {
            let pieces = stream::iter(wire_form::encode_image(image).map(Ok)).boxed();
            let content = store(transport, BodyOwner::Event(to), wire_form::IMAGE_TYPE, pieces).await?;
            return Ok(Payload::Bytes(content));
        }
        Payload::Vector(vector) => wire_form::encode_vector(vector),
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

/// The same content with a body of its own: in the store if it is long, inline if it is short.
async fn copied(transport: &dyn Transport, to: &FlowName, content: &Content) -> Result<Content, TransportError> {
    let bytes = fetch(transport, content).await?;
    store_bytes(transport, BodyOwner::Event(to), &content.media_type, bytes).await
}

/// Removes the bodies that a payload refers to; one that cannot be removed is found as orphaned later.
pub async fn drop_all(transport: &dyn Transport, payload: &Payload) {
    for claim in payload.claims() {
        if let Err(error) = transport.drop_claim(&claim).await {
            // One line per event would flood the log while the store is away; what is orphaned is counted when it is found.
            tracing::debug!(claim = %claim.id, %error, "claim not dropped");
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
