//! Follow-ups of requests: an event for another flow, stored before the result is published.

use std::sync::Arc;

use pipeline::engine::Flow;
use pipeline::spec::FlowSpec;
use pipeline::testing::{MemoryTransport, PATIENCE, kinds};
use pipeline::webhook::WebhookFollowUp;
use pipeline::{
    Delivery, Envelope, Lane, OutcomeKind, Payload, ProcessResources, Services, SourceBounds, Submission, TENANT_PARAM,
    Transport,
};
use serde_json::json;

use crate::support::{event, eventually, read_flows, start_flows_with, terminal, token};

/// A flow whose follow-ups go to the flow `tell`.
fn flow() -> FlowSpec {
    let mut flow = read_flows("[[flow.test.stage]]\nuse = \"noop\"\n", &kinds()).unwrap().remove(0);
    flow.settings.follow_ups = Some(token("tell"));
    flow
}

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn services() -> Services {
    Services::new(ProcessResources { completion_hook: Some(Arc::new(WebhookFollowUp)), ..ProcessResources::default() })
}

/// A request of the tenant `acme`, with a webhook where it has an address.
fn request(id: &str, url: Option<&str>) -> Submission {
    let Submission { envelope, payload } = event(id, Lane::Interactive, "x");
    let webhook = url.map(|url| ("webhook".to_owned(), json!({ "url": url })));
    let params = [(TENANT_PARAM.to_owned(), json!("acme"))].into_iter().chain(webhook).collect();
    Submission { envelope: Envelope { params, traceparent: Some(TRACE.into()), ..envelope }, payload }
}

async fn run_requests(transport: &MemoryTransport, requests: Vec<Submission>) {
    let running = start_flows_with(services(), Arc::new(transport.clone()), vec![flow()]).await;
    let count = requests.len() as u64;
    for request in requests {
        let id = request.envelope.id.clone();
        transport.submit(request).await.unwrap();
        assert_eq!(terminal(transport, id.as_str()).await.kind, OutcomeKind::Done);
    }
    eventually("the requests are settled", async || running.engine().stats()[0].done == count).await;
    running.drain(PATIENCE).await.unwrap();
}

/// How many events wait in the flow of follow-ups.
async fn waiting(transport: &MemoryTransport) -> u64 {
    transport.backlog(&token("tell")).await.unwrap().interactive
}

async fn next(transport: &MemoryTransport) -> Delivery {
    let (ack_wait, max_deliver) = (PATIENCE, 3);
    let bounds = SourceBounds { events: 8, bytes: 1 << 20, ordered: false, ack_wait, max_deliver };
    let mut source = transport.source(&token("tell"), Lane::Interactive, bounds).await.unwrap();
    tokio::time::timeout(PATIENCE, source.next()).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_request_with_a_webhook_has_an_event_with_its_result() {
    let transport = MemoryTransport::with_flows([("test", 10), ("tell", 10)]);
    run_requests(&transport, vec![request("a", Some("https://a.example/"))]).await;
    let Delivery { envelope, payload, .. } = next(&transport).await;
    assert_eq!(envelope.params["webhook"], json!({ "url": "https://a.example/", "request": "a" }));
    assert_eq!((envelope.tenant(), envelope.traceparent.as_deref()), (Some("acme"), Some(TRACE)));
    assert!(envelope.request.is_none() && &*envelope.kind == "caudal.tell");
    assert!(matches!(payload, Payload::Bytes(content) if &*content.media_type == "application/json"));
}

#[tokio::test]
async fn a_request_without_a_webhook_has_none() {
    let transport = MemoryTransport::with_flows([("test", 10), ("tell", 10)]);
    run_requests(&transport, vec![request("a", None)]).await;
    assert_eq!(waiting(&transport).await, 0);
}

#[tokio::test]
async fn a_repeated_request_has_one_follow_up() {
    let transport = MemoryTransport::with_flows([("test", 10), ("tell", 10)]);
    for _ in 0..2 {
        // As after a crash between the result and the ledger.
        transport.forget_ledger();
        run_requests(&transport, vec![request("a", Some("https://a.example/"))]).await;
        transport.forget_ids_of(&token("test"));
    }
    assert_eq!(waiting(&transport).await, 1);
}

#[tokio::test]
async fn a_flow_with_webhooks_is_not_built_without_what_makes_their_events() {
    let transport: Arc<dyn Transport> = Arc::new(MemoryTransport::with_flows([("test", 10), ("tell", 10)]));
    let error = Flow::build(flow(), &Arc::new(Services::default()), transport).await.err().unwrap();
    assert!(error.to_string().contains("webhooks"), "{error}");
}
