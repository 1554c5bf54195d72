//! The ledger reader: reads stored ends into memory, and opens the sources once everything stored so far is known.
//!
//! Until then nothing is pulled: an event pulled earlier would be done again although its end is stored.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::interruption::Interruption;
use crate::ledger::{Ledger, LedgerUpdate};
use crate::transport::Transport;

/// Pause before the ledger is read again after the broker refused.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Reads until stopped; cancels `caught_up` once everything stored before the start is known.
pub async fn run(
    transport: Arc<dyn Transport>,
    ledger: Arc<Ledger>,
    caught_up: CancellationToken,
    stop: CancellationToken,
) {
    // Cancel-safe: entries that are not read now are read at the next start.
    tokio::select! {
        () = read(&*transport, &ledger, &caught_up) => {}
        () = stop.cancelled() => {}
    }
}

async fn read(transport: &dyn Transport, ledger: &Ledger, caught_up: &CancellationToken) {
    let mut interruption = Interruption::default();
    loop {
        match transport.ended().await {
            Ok(mut news) => {
                if let Some(lasted) = interruption.end(Instant::now()) {
                    tracing::info!(?lasted, "the ledger can be read again");
                }
                while let Some(news) = news.recv().await {
                    match news {
                        LedgerUpdate::Noted(at, entries) => ledger.note(at, &entries),
                        LedgerUpdate::CaughtUp => caught_up.cancel(),
                    }
                }
            }
            Err(error) => {
                if interruption.begin(Instant::now()) {
                    tracing::warn!(%error, "the ledger cannot be read, will try again");
                }
            }
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::MemoryTransport;

    #[tokio::test(start_paused = true)]
    async fn sources_open_once_the_broker_can_be_read_again() {
        let (transport, caught_up) = (MemoryTransport::default(), CancellationToken::new());
        transport.set_down(true);
        let (ledger, stop) = (Arc::new(Ledger::default()), CancellationToken::new());
        let reading = tokio::spawn(run(Arc::new(transport.clone()), ledger, caught_up.clone(), stop.clone()));
        tokio::time::sleep(3 * RETRY_PAUSE).await;
        assert!(!caught_up.is_cancelled());
        transport.set_down(false);
        tokio::time::timeout(2 * RETRY_PAUSE, caught_up.cancelled()).await.expect("it is read");
        stop.cancel();
        reading.await.unwrap();
    }
}
