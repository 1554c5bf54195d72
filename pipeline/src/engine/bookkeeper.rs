//! Reads the ledger into memory, and tells the sources when everything stored so far is known.
//!
//! Until then nothing is pulled: an event taken before would be done again although its end is noted.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::ledger::{Ledger, News};
use crate::transport::Transport;

/// Pause before the ledger is asked for again after the broker refused.
const AGAIN: Duration = Duration::from_secs(1);

/// Runs until stopped; `caught_up` is cancelled once everything stored before the start is known.
pub async fn run(
    transport: Arc<dyn Transport>,
    ledger: Arc<Ledger>,
    caught_up: CancellationToken,
    stop: CancellationToken,
) {
    let reading = async {
        loop {
            match transport.ended().await {
                Ok(mut news) => {
                    while let Some(news) = news.recv().await {
                        match news {
                            News::Noted(at, entries) => ledger.note(at, &entries),
                            News::CaughtUp => caught_up.cancel(),
                        }
                    }
                }
                Err(error) => tracing::warn!(%error, "the ledger cannot be read, will try again"),
            }
            tokio::time::sleep(AGAIN).await;
        }
    };
    // Nothing is held across these awaits: what is not heard is read again at the next start.
    tokio::select! {
        () = reading => {}
        () = stop.cancelled() => {}
    }
}
