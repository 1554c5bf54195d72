//! Room in the store of bodies, which is shared by the bodies of requests, of events that follow from others, and of
//! results.
//!
//! An event leaves the store only after its result is stored. If the bodies of requests could fill the store, the events
//! that have one could never end. So requests may fill three quarters of it, and what follows from accepted events, over
//! durable edges or as webhooks, seven eighths. Results may fill it all; then the bodies of the oldest results make room,
//! as the stream of results drops its oldest messages.

use std::sync::{Mutex, PoisonError};

use async_nats::jetstream::stream::LastRawMessageErrorKind;
use pipeline::{BodyOwner, TransportError};

use crate::link::broker::Broker;
use crate::stores::claim_sweep;
use crate::wire::subjects;

/// Results whose bodies are removed at once, at most.
const EVICTED: usize = 16;

/// How full the store is, as far as this process knows.
#[derive(Default)]
pub struct BodyRoom(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// As the broker said last, and what was acknowledged since.
    stored: u64,
    /// Sent and not acknowledged, of all uploads.
    outstanding: u64,
}

impl BodyRoom {
    /// Asks the broker, before each upload: only it knows which bodies were removed.
    pub async fn count(&self, broker: &Broker) -> Result<(), TransportError> {
        let stored = stored_bytes(broker).await?;
        self.known().stored = stored;
        Ok(())
    }

    /// Counts bytes that are about to be sent; `false` if they do not fit below `ceiling`.
    pub fn take(&self, bytes: u64, ceiling: u64) -> bool {
        let mut known = self.known();
        let fits = known.stored + known.outstanding + bytes <= ceiling;
        if fits {
            known.outstanding += bytes;
        }
        fits
    }

    /// Bytes that were taken are stored, or are not sent any more.
    pub fn settle(&self, bytes: u64, stored: bool) {
        let mut known = self.known();
        known.outstanding = known.outstanding.saturating_sub(bytes);
        known.stored += if stored { bytes } else { 0 };
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes up to which the store may be filled for this owner. The broker itself refuses what is beyond `max_bytes`.
pub fn ceiling(of: BodyOwner<'_>, max_bytes: u64) -> u64 {
    match of {
        BodyOwner::Request(_) | BodyOwner::Template => max_bytes / 4 * 3,
        BodyOwner::Event(_) => max_bytes / 8 * 7,
        BodyOwner::Result => u64::MAX,
    }
}

async fn stored_bytes(broker: &Broker) -> Result<u64, TransportError> {
    let stream = broker.objects.context.get_stream(subjects::BLOBS).await.map_err(TransportError::unavailable)?;
    Ok(stream.cached_info().state.bytes)
}

/// Removes the bodies of the oldest results if there is no room for `bytes` more; returns how many.
pub async fn evict_results(broker: &Broker, bytes: u64) -> Result<usize, TransportError> {
    let context = &broker.objects.context;
    let stream = context.get_stream_no_info(subjects::BLOBS).await.map_err(TransportError::unavailable)?;
    for removed in 0..EVICTED {
        if stored_bytes(broker).await? + bytes < broker.limits.claims_max_bytes.0 {
            return Ok(removed);
        }
        let oldest = match stream.get_first_raw_message_by_subject(subjects::RESULT_BLOB_SUBJECTS, 1).await {
            Ok(oldest) => oldest,
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => return Ok(removed),
            Err(error) => return Err(TransportError::unavailable(error)),
        };
        let Some(id) = subjects::parse_result_blob(&oldest.subject) else { return Ok(removed) };
        claim_sweep::remove(context, &id).await?;
    }
    Ok(EVICTED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pipeline::FlowName;

    #[test]
    fn what_was_accepted_has_room_when_requests_have_none() {
        let flow = FlowName::new("f").unwrap();
        let of = |owner| ceiling(owner, 800);
        assert_eq!((of(BodyOwner::Request(&flow)), of(BodyOwner::Template)), (600, 600));
        assert_eq!((of(BodyOwner::Event(&flow)), of(BodyOwner::Result)), (700, u64::MAX));
    }

    #[test]
    fn bytes_are_counted_until_the_ceiling() {
        let room = BodyRoom::default();
        assert!(room.take(6, 10) && room.take(4, 10));
        assert!(!room.take(1, 10) && room.take(1, 11));
        room.settle(5, true);
        assert!(!room.take(1, 11));
        room.settle(5, false);
        assert!(room.take(5, 11) && !room.take(1, 11));
    }
}
