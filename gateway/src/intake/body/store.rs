//! Stores the parts of a body: short ones inside the event, long ones in the object store as claims.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};
use pipeline::{BodyOwner, BoxError, Claim, Content, INLINE_LIMIT, Transport, claims};

use crate::problem::Problem;

/// Stores the parts of one body, so that together they fit into one event.
pub struct BodyStore<'a> {
    transport: &'a dyn Transport,
    of: BodyOwner<'a>,
    /// Bytes that may still travel inside the event.
    inline_left: usize,
    claims: Vec<Arc<Claim>>,
}

impl<'a> BodyStore<'a> {
    pub fn new(transport: &'a dyn Transport, of: BodyOwner<'a>) -> Self {
        Self { transport, of, inline_left: INLINE_LIMIT, claims: Vec::new() }
    }

    /// Stores one part.
    pub async fn put(
        &mut self,
        media_type: &str,
        body: BoxStream<'_, Result<Bytes, BoxError>>,
    ) -> Result<Content, Problem> {
        let mut content = claims::store(self.transport, self.of, media_type, body).await?;
        if let pipeline::Body::Inline(bytes) = &content.body {
            match self.inline_left.checked_sub(bytes.len()) {
                Some(left) => self.inline_left = left,
                None => {
                    let whole = stream::iter([Ok(bytes.clone())]).boxed();
                    let claim = self.transport.put_claim(self.of, whole).await?;
                    content.body = pipeline::Body::Claim(Arc::new(claim));
                }
            }
        }
        self.claims.extend(content.claim().cloned());
        Ok(content)
    }

    /// Removes everything that was stored as claims.
    pub async fn discard(self) {
        discard(self.transport, self.claims).await;
    }
}

/// Removes claims that no event refers to.
pub async fn discard(transport: &dyn Transport, claims: Vec<Arc<Claim>>) {
    for claim in claims {
        if let Err(error) = transport.drop_claim(&claim).await {
            // It expires by age.
            tracing::warn!(claim = %claim.id, %error, "claim not dropped");
        }
    }
}
