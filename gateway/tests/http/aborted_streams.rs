//! Streams whose results cannot be read for a moment are aborted, and their requests are not cancelled.

use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use pipeline::testing::{MemoryTransport, TransportWrapper};
use pipeline::{Outcome, OutcomeKind, RequestId, Transport, TransportError, Watch};
use serde_json::json;
use tokio::sync::mpsc;

use crate::service::{FLOWS, Service, read_events, state, token};

const ROUTE: &str = r#"
    [[route]]
    path = "/leave"
    flow = "describe"
    body = { json = true }
    cancel_on_disconnect = true
"#;

/// A broker whose watches end at once, and whose results cannot be read a number of times.
struct Forgetful {
    kept: MemoryTransport,
    failures: AtomicUsize,
}

#[async_trait]
impl TransportWrapper for Forgetful {
    fn within(&self) -> &dyn Transport {
        &self.kept
    }

    fn watch(&self, _: &RequestId) -> Watch {
        let (_, outcomes) = mpsc::channel(1);
        Watch { outcomes, guard: Box::new(()) }
    }

    async fn outcomes(&self, request: &RequestId) -> Result<Vec<Outcome>, TransportError> {
        let one_less = |left: usize| left.checked_sub(1);
        if self.failures.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok() {
            return Err(TransportError::unavailable("not now"));
        }
        self.kept.outcomes(request).await
    }
}

#[tokio::test]
async fn a_history_that_cannot_be_read_aborts_the_stream_and_cancels_nothing() {
    let kept = MemoryTransport::with_flows(FLOWS);
    let forgetful = Forgetful { kept: kept.clone(), failures: AtomicUsize::new(1) };
    let service = Service::serve(kept, state(forgetful, ROUTE, Vec::new()), None).await;
    let request = service.post("/leave").header("accept", "text/event-stream").json(&json!({}));
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 200);
    let id = token(response.headers()["caudal-request"].to_str().unwrap());
    let (text, whole) = read_events(response).await;
    assert!(!whole && !text.contains("event: done"), "{text}");
    // The shutdown waits for every task, a cancellation included.
    let outcomes = service.stop().await.outcomes(&id).await.unwrap();
    assert!(outcomes.iter().all(|outcome| outcome.kind == OutcomeKind::Accepted), "{outcomes:?}");
}
