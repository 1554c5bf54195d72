//! Event streams begin with `accepted`, whoever was faster: the gateway or a worker.

use async_trait::async_trait;
use pipeline::testing::{MemoryTransport, TransportWrapper};
use pipeline::{Content, Outcome, OutcomeKind, RequestId, ResultAck, Transport, TransportError};
use serde_json::json;

use crate::service::{FLOWS, Service, read_events, state, token};

const ROUTE: &str = "[[route]]\npath = \"/ask\"\nflow = \"describe\"\nbody = { json = true }";

/// A broker that stores every result of a worker before the gateway's `accepted`.
struct FastWorker(MemoryTransport);

#[async_trait]
impl TransportWrapper for FastWorker {
    fn within(&self) -> &dyn Transport {
        &self.0
    }

    async fn publish_outcome(&self, request: &RequestId, outcome: &Outcome) -> Result<ResultAck, TransportError> {
        for (ordinal, kind) in [(1, OutcomeKind::Data), (2, OutcomeKind::Data), (3, OutcomeKind::Done)] {
            let of_worker = Outcome::new(kind, ordinal, token("describe"), Content::json(&json!({})));
            self.0.publish_outcome(request, &of_worker).await?;
        }
        self.0.publish_outcome(request, outcome).await
    }
}

fn ids_and_kinds(events: &str) -> Vec<(&str, &str)> {
    let ids = events.lines().filter_map(|line| line.strip_prefix("id: "));
    ids.zip(events.lines().filter_map(|line| line.strip_prefix("event: "))).collect()
}

#[tokio::test]
async fn every_stream_begins_with_accepted_although_the_worker_was_faster() {
    const ALL: [(&str, &str); 4] = [("0", "accepted"), ("1", "data"), ("2", "data"), ("3", "done")];
    let kept = MemoryTransport::with_flows(FLOWS);
    let service = Service::serve(kept.clone(), state(FastWorker(kept), ROUTE, Vec::new()), None).await;
    let ask = || service.post("/ask").json(&json!({})).header("accept", "text/event-stream");
    let response = ask().header("idempotency-key", "k").send().await.unwrap();
    let id = response.headers()["caudal-request"].to_str().unwrap().to_owned();
    assert_eq!(ids_and_kinds(&read_events(response).await.0), ALL);
    let again = service.get(&format!("/v1/requests/{id}/events")).send().await.unwrap();
    assert_eq!(ids_and_kinds(&read_events(again).await.0), ALL);
    let repeat = ask().header("idempotency-key", "k").send().await.unwrap();
    assert_eq!(ids_and_kinds(&read_events(repeat).await.0), ALL);
    for _ in 0..20 {
        assert_eq!(ids_and_kinds(&read_events(ask().send().await.unwrap()).await.0), ALL);
    }
}
