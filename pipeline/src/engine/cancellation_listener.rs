//! The cancellation listener: passes on which requests are cancelled, until the process stops.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::interruption::Interruption;
use crate::event::Cancellations;
use crate::transport::Transport;

/// Pause before cancellations are listened to again after the broker refused.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Listens until stopped.
pub async fn run(transport: Arc<dyn Transport>, cancellations: Arc<Cancellations>, stop: CancellationToken) {
    // Cancel-safe: a cancellation that is missed costs work whose result is refused.
    tokio::select! {
        () = listen(&*transport, &cancellations) => {}
        () = stop.cancelled() => {}
    }
}

async fn listen(transport: &dyn Transport, cancellations: &Cancellations) {
    let mut interruption = Interruption::default();
    loop {
        match transport.cancellations().await {
            Ok(mut cancelled) => {
                if let Some(lasted) = interruption.end(Instant::now()) {
                    tracing::info!(?lasted, "cancellations are received again");
                }
                while let Some(request) = cancelled.recv().await {
                    cancellations.cancel(request);
                }
            }
            Err(error) => {
                if interruption.begin(Instant::now()) {
                    tracing::warn!(%error, "cancellations are not received, cancelled requests may be worked on");
                }
            }
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{Outcome, OutcomeKind};
    use crate::payload::Content;
    use crate::testing::MemoryTransport;
    use crate::testing::units::token;

    #[tokio::test(start_paused = true)]
    async fn cancellations_arrive_once_the_broker_is_back() {
        let (transport, cancellations) = (MemoryTransport::default(), Arc::new(Cancellations::default()));
        transport.set_down(true);
        let stop = CancellationToken::new();
        let listening = tokio::spawn(run(Arc::new(transport.clone()), Arc::clone(&cancellations), stop.clone()));
        tokio::time::sleep(3 * RETRY_PAUSE).await;
        transport.set_down(false);
        tokio::time::sleep(2 * RETRY_PAUSE).await;
        let cancelled = Outcome::new(OutcomeKind::Cancelled, 1, token("test"), Content::inline("text/plain", ""));
        transport.publish_outcome(&token("r"), &cancelled).await.unwrap();
        tokio::time::sleep(RETRY_PAUSE).await;
        assert!(cancellations.begin(&token("r")).is_cancelled());
        stop.cancel();
        listening.await.unwrap();
    }
}
