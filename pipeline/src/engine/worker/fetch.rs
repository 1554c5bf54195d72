//! Brings the stored payloads of events into memory before a stage works on them.

use bytes::Bytes;
use futures_util::future::join_all;

use crate::claims;
use crate::edges::Output;
use crate::engine::image_admission::Admitted;
use crate::event::Event;
use crate::fault::Rejection;
use crate::storage_outage::StorageOutage;
use crate::transport::{Transport, TransportError};

/// Why a payload was not fetched.
enum FetchError {
    /// The event was cancelled, or its deadline passed, while the store was out of reach.
    Obsolete(Rejection),
    /// The payload is gone, or the flow has ended.
    Failed(TransportError),
}

/// Brings the payloads of admitted events into memory, in the order of the batch; waits while the store is out of reach,
/// and settles events whose payload is lost or that are obsolete by then.
pub async fn fetch(
    stage: &str,
    storage: &StorageOutage,
    transport: &dyn Transport,
    admitted: Vec<Admitted>,
    out: &mut Output,
) -> Vec<Event> {
    let mut fetches = Vec::with_capacity(admitted.len());
    for (mut event, room) in admitted {
        match room {
            Ok(room) => fetches.push(async move {
                let fetched = fetch_body(storage, transport, &event).await;
                let result = fetched.map(|body| claims::resolve(&mut event.payload, body, room));
                (event, result)
            }),
            Err(why) => {
                out.reject(&event, why);
                event.root.finish();
            }
        }
    }
    let mut ready = Vec::new();
    for (event, result) in join_all(fetches).await {
        match result {
            Ok(()) => {
                ready.push(event);
                continue;
            }
            Err(FetchError::Obsolete(why)) => out.reject(&event, why),
            Err(FetchError::Failed(error @ TransportError::Claim { .. })) => {
                tracing::error!(event = %event.id, %error, "payload lost");
                out.reject(&event, Rejection::new(500, "payload_lost", "the stored payload is gone or was altered"));
            }
            // The flow has ended.
            Err(FetchError::Failed(error)) => {
                out.hand_back(&event);
                event.root.hand_back(format!("stage {stage} could not read the payload: {error}"));
            }
        }
        event.root.finish();
    }
    ready
}

/// The event's body, if it is in the store; waits while that is out of reach.
async fn fetch_body(
    storage: &StorageOutage,
    transport: &dyn Transport,
    event: &Event,
) -> Result<Option<Bytes>, FetchError> {
    let mut wait = storage.begin(1);
    loop {
        match claims::fetch_body(transport, &event.payload).await {
            Ok(body) => {
                wait.end();
                return Ok(body);
            }
            Err(error) if error.will_pass() && wait.pause(&error).await => {}
            Err(error) => return Err(FetchError::Failed(error)),
        }
        if let Some(why) = event.obsolete() {
            return Err(FetchError::Obsolete(why));
        }
    }
}
