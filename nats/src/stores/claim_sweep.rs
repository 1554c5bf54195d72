//! Removes bodies from the claim store, among them those whose upload failed or was dropped half-way.

use std::collections::VecDeque;
use std::time::Duration;

use async_nats::jetstream::Context;
use pipeline::{Token, TransportError};
use tokio::sync::mpsc;

use crate::link::publish::PendingAck;
use crate::wire::subjects;

/// Dropped uploads that may wait for their removal; further ones expire by age.
pub const SWEEP_CAPACITY: usize = 1024;
/// Time for removing the chunks of one body.
const REMOVAL_TIMEOUT: Duration = Duration::from_secs(6);

/// An upload that ended before the body was complete, with its outstanding chunks.
pub struct AbandonedUpload {
    pub id: Token,
    pub window: VecDeque<PendingAck>,
}

/// Removes dropped uploads, one after the other, until the last sender is gone.
pub async fn run(context: Context, mut abandoned: mpsc::Receiver<AbandonedUpload>) {
    while let Some(upload) = abandoned.recv().await {
        remove_abandoned(&context, upload).await;
    }
}

/// Waits for the outstanding chunks, then removes all: a chunk that is stored after the removal would remain.
pub async fn remove_abandoned(context: &Context, mut upload: AbandonedUpload) {
    let removal = async {
        for ack in upload.window.drain(..) {
            let _ = ack.await;
        }
        remove(context, &upload.id).await
    };
    match tokio::time::timeout(REMOVAL_TIMEOUT, removal).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::warn!(body = %upload.id, %error, "an incomplete body was not removed, it expires by age");
        }
        Err(_) => tracing::warn!(body = %upload.id, "removing an incomplete body timed out, it expires by age"),
    }
}

/// Removes a body; no error if there is none.
pub async fn remove(context: &Context, id: &Token) -> Result<(), TransportError> {
    let stream = context.get_stream_no_info(subjects::BLOBS).await.map_err(TransportError::unavailable)?;
    // The only wildcard is in the place of the flow: a token contains none.
    stream.purge().filter(subjects::blob_filter(id).as_str()).await.map_err(TransportError::unavailable)?;
    Ok(())
}
