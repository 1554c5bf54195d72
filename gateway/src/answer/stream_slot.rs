//! Limits the event streams that are open at once: in all, per subject and per address.

use std::sync::Arc;

use axum::http::StatusCode;
use tokio::sync::OwnedSemaphorePermit;

use crate::capacity::open_counts::OpenCount;
use crate::capacity::retry_after;
use crate::identity::caller::{Caller, Client};
use crate::problem::Problem;
use crate::state::GatewayState;

/// One of the event streams that may be open at once; free again when dropped.
pub struct StreamSlot {
    _permit: OwnedSemaphorePermit,
    _count: OpenCount,
}

/// A slot for a stream of this caller.
///
/// # Errors
/// 429 if the caller has too many streams open, 503 if all slots are taken.
pub fn acquire(state: &GatewayState, caller: &Caller) -> Result<StreamSlot, Problem> {
    let by_address = (Client::of_address(caller.address), state.limits.streams_per_address);
    let by_subject = caller.principal.as_ref().map(|_| (caller.client(), state.limits.streams_per_client));
    let count = state.stream_counts.open(by_subject.into_iter().chain([by_address]).collect()).map_err(too_many)?;
    let permit = Arc::clone(&state.streams).try_acquire_owned().map_err(|_| {
        let most = state.limits.streams;
        Problem::unavailable(
            "streams_full",
            format!("all {most} event streams are in use: ask /v1/requests/{{id}} instead"),
        )
    })?;
    Ok(StreamSlot { _permit: permit, _count: count })
}

fn too_many(most: usize) -> Problem {
    let detail = format!("a client may have at most {most} event streams open at once: close one first");
    Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many_streams", detail).with_retry_after(retry_after::DEFAULT)
}
