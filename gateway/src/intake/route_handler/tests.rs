//! One behaviour of the route handler per test.

use std::convert::Infallible;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::http::Request as HttpRequest;
use axum::routing::post;
use futures_util::stream;
use http_body_util::BodyExt;
use pipeline::testing::{MemoryTransport, TransportWrapper};
use pipeline::{Content, Outcome, OutcomeKind, ResultAck, Transport, TransportError};
use serde_json::{Value, json};
use tower::Service;

use super::*;
use crate::FlowEntry;
use crate::door::rate_limit::ClientLimit;
use crate::testing::{caller, flow, flow_entry, route, state};

const ROUTE: &str = "[[route]]\npath = \"/x\"\nflow = \"describe\"\nwait_ms = 1000\nbody = { raw = true }";

/// A gateway with one route at `/x`.
struct Setup {
    state: GatewayState,
    transport: MemoryTransport,
    router: Router,
}

/// A broker that stores no result.
struct NoResults(MemoryTransport);

#[async_trait]
impl TransportWrapper for NoResults {
    fn within(&self) -> &dyn Transport {
        &self.0
    }

    async fn publish_outcome(&self, _: &RequestId, _: &Outcome) -> Result<ResultAck, TransportError> {
        Err(TransportError::unavailable("no space left on device"))
    }
}

impl Setup {
    fn new(config: &str) -> Self {
        Self::with_limit(config, None)
    }

    fn with_limit(config: &str, limit: Option<ClientLimit>) -> Self {
        let transport = MemoryTransport::with_flows([("describe", 10)]);
        Self::on(transport.clone(), Arc::new(transport), config, limit)
    }

    fn on(inner: MemoryTransport, transport: Arc<dyn Transport>, config: &str, limit: Option<ClientLimit>) -> Self {
        let entry = FlowEntry { backlog: 10, ..flow_entry("describe") };
        let state = state(transport, vec![entry]);
        let route = Arc::new(Route::new(route(config), flow("describe"), limit.map(Arc::new)));
        let shared = state.clone();
        let handler =
            move |path: Path, request: Request| handle(shared.clone(), caller(), Arc::clone(&route), path, request);
        Self { state, transport: inner, router: Router::new().route("/x", post(handler)) }
    }

    async fn send(&self, headers: &[(&str, &str)], body: impl Into<Body>) -> Response {
        let mut request = HttpRequest::post("/x");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut router = self.router.clone();
        router.call(request.body(body.into()).unwrap()).await.unwrap()
    }

    /// Plays a worker that answers the next event.
    fn work(&self, kind: OutcomeKind, content: Content) {
        let transport = self.transport.clone();
        tokio::spawn(async move {
            let request = next_request(&transport).await;
            let mut outcome = Outcome::new(kind, 1, flow("describe"), content);
            outcome.stage_times = vec![("decode".into(), Duration::from_millis(20))];
            transport.publish_outcome(&request, &outcome).await.unwrap();
        });
    }

    async fn status(&self, id: &str) -> Option<&'static str> {
        self.state.tasks.close();
        self.state.tasks.wait().await;
        crate::answer::status::current(&self.transport.outcomes(&flow(id)).await.unwrap())
    }
}

async fn next_request(transport: &MemoryTransport) -> RequestId {
    let mut events = transport.tail(&flow("describe")).await.unwrap();
    events.recv().await.unwrap().envelope.request.unwrap()
}

fn header<'r>(response: &'r Response, name: &str) -> &'r str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

async fn body(response: Response) -> Value {
    serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_terminal_result_is_the_answer() {
    let setup = Setup::new(ROUTE);
    setup.work(OutcomeKind::Done, Content::json(&json!({"a": 1})));
    tokio::task::yield_now().await;
    let response = setup.send(&[], "x").await;
    assert_eq!(response.status(), 200);
    assert_eq!(body(response).await, json!({"a": 1}));
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_the_answer_and_names_its_request() {
    let setup = Setup::new(ROUTE);
    let rejection = pipeline::Rejection::unusable("no_pixels", "empty");
    setup.work(OutcomeKind::Failed, Content::json(&serde_json::to_value(rejection).unwrap()));
    tokio::task::yield_now().await;
    let response = setup.send(&[], "x").await;
    let id = header(&response, "caudal-request").to_owned();
    assert_eq!(response.status(), 422);
    assert_eq!(body(response).await["request"], id);
}

#[tokio::test(start_paused = true)]
async fn server_timing_names_the_stages() {
    let setup = Setup::new(ROUTE);
    setup.work(OutcomeKind::Done, Content::json(&json!({})));
    tokio::task::yield_now().await;
    let response = setup.send(&[], "x").await;
    let timing = header(&response, "server-timing");
    for entry in ["intake;dur=", "flow;dur=", "queue;dur=", "decode;dur=20.0", "total;dur="] {
        assert!(timing.contains(entry), "{timing}");
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_result_in_time_the_answer_is_202() {
    let response = Setup::new(ROUTE).send(&[], "x").await;
    assert_eq!((response.status().as_u16(), header(&response, "preference-applied")), (202, ""));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_cannot_be_looked_up_is_not_answered_202() {
    let inner = MemoryTransport::with_flows([("describe", 10)]);
    let setup = Setup::on(inner.clone(), Arc::new(NoResults(inner)), ROUTE, None);
    for headers in [vec![], vec![("prefer", "respond-async")], vec![("accept", "text/event-stream")]] {
        let response = setup.send(&headers, "x").await;
        let id = header(&response, "caudal-request").to_owned();
        assert_eq!(response.status(), 503);
        assert!(!header(&response, "retry-after").is_empty());
        let problem = body(response).await;
        assert_eq!(
            (problem["code"].as_str(), problem["request"].as_str()),
            (Some("acceptance_not_recorded"), Some(&*id))
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_can_shorten_the_wait() {
    let begun = Instant::now();
    let response = Setup::new(&ROUTE.replace("1000", "60000")).send(&[("prefer", "wait=2")], "x").await;
    assert_eq!((response.status().as_u16(), begun.elapsed().as_secs()), (202, 2));
}

#[tokio::test(start_paused = true)]
async fn a_client_cannot_lengthen_the_wait() {
    let begun = Instant::now();
    Setup::new(ROUTE).send(&[("prefer", "wait=3600")], "x").await;
    assert_eq!(begun.elapsed().as_secs(), 1);
}

#[tokio::test]
async fn respond_async_is_answered_at_once_with_a_location() {
    let response = Setup::new(ROUTE).send(&[("prefer", "respond-async")], "x").await;
    let location = format!("/v1/requests/{}", header(&response, "caudal-request"));
    assert_eq!((response.status().as_u16(), header(&response, "preference-applied")), (202, "respond-async"));
    assert_eq!(header(&response, "location"), location);
}

#[tokio::test]
async fn a_client_that_accepts_event_streams_gets_one() {
    let response = Setup::new(ROUTE).send(&[("accept", "text/event-stream")], "x").await;
    assert!(header(&response, "content-type").starts_with("text/event-stream"));
}

#[tokio::test]
async fn a_repeat_names_the_first_request_and_says_that_it_is_one() {
    let setup = Setup::new(ROUTE);
    let headers = [("prefer", "respond-async"), ("idempotency-key", "k")];
    let first = setup.send(&headers, "x").await;
    let repeat = setup.send(&headers, "x").await;
    assert_eq!(header(&first, "caudal-request"), header(&repeat, "caudal-request"));
    assert_eq!((header(&first, "idempotent-replayed"), header(&repeat, "idempotent-replayed")), ("", "true"));
}

#[tokio::test]
async fn a_full_lane_is_refused_before_the_body_is_read() {
    let setup = Setup::new(ROUTE);
    setup.transport.set_down(true);
    let full = TransportError::Full { flow: flow("describe") };
    drop(admission::refusal(&setup.state, full, Lane::Interactive));
    let never = Body::from_stream(stream::pending::<Result<&'static str, Infallible>>());
    let response = setup.send(&[], never).await;
    assert_eq!(response.status(), 503);
    assert!(!header(&response, "retry-after").is_empty());
    assert_eq!(body(response).await["code"], "queue_full");
}

#[tokio::test]
async fn a_repeat_is_admitted_although_the_lane_is_full() {
    let setup = Setup::new(ROUTE);
    let headers = [("prefer", "respond-async"), ("idempotency-key", "k")];
    setup.send(&headers, "x").await;
    for _ in 1..10 {
        setup.send(&headers[..1], "y").await;
    }
    assert_eq!(setup.send(&headers[..1], "y").await.status(), 503);
    assert_eq!(setup.send(&headers, "x").await.status(), 202);
}

#[tokio::test]
async fn a_client_over_its_rate_is_refused_with_the_limits_headers() {
    let limit = ClientLimit::new("route", "1/hour".parse().unwrap());
    let setup = Setup::with_limit(ROUTE, Some(limit));
    let headers = [("prefer", "respond-async")];
    assert_eq!(header(&setup.send(&headers, "x").await, "ratelimit"), "\"route\";r=0;t=3600");
    let refused = setup.send(&headers, "x").await;
    assert_eq!(refused.status(), 429);
    assert!(!header(&refused, "retry-after").is_empty());
}

#[tokio::test]
async fn an_answer_continues_the_callers_trace() {
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let response = Setup::new(ROUTE).send(&[("prefer", "respond-async"), ("traceparent", trace)], "x").await;
    assert!(header(&response, "traceparent").contains("0af7651916cd43dd8448eb211c80319c"));
}

#[tokio::test]
async fn gotenbergs_trace_comes_back_with_answers_and_refusals() {
    let setup = Setup::new(ROUTE);
    let headers = [("prefer", "respond-async"), ("gotenberg-trace", "t-1")];
    assert_eq!(header(&setup.send(&headers, "x").await, "gotenberg-trace"), "t-1");
    assert_eq!(header(&setup.send(&headers[..1], "x").await, "gotenberg-trace"), "");
    setup.transport.set_down(true);
    let refused = setup.send(&headers, "x").await;
    assert_eq!((refused.status().as_u16(), header(&refused, "gotenberg-trace")), (503, "t-1"));
}

#[tokio::test(start_paused = true)]
async fn progress_does_not_put_off_the_202_of_a_shutdown() {
    let setup = Setup::new(&ROUTE.replace("1000", "600000"));
    let (transport, grace) = (setup.transport.clone(), setup.state.service.grace());
    setup.state.closing.cancel();
    tokio::spawn(async move {
        let request = next_request(&transport).await;
        for ordinal in 1.. {
            let progress = Outcome::new(OutcomeKind::Progress, ordinal, flow("describe"), Content::json(&json!({})));
            transport.publish_outcome(&request, &progress).await.unwrap();
            tokio::time::sleep(grace / 5).await;
        }
    });
    tokio::task::yield_now().await;
    let begun = Instant::now();
    let response = setup.send(&[], "x").await;
    assert_eq!(response.status(), 202);
    assert!(begun.elapsed() < grace * 3 / 5, "{:?} of {grace:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_while_it_waits_cancels_its_request_if_the_route_says_so() {
    let setup = Setup::new(&format!("{ROUTE}\ncancel_on_disconnect = true"));
    let transport = setup.transport.clone();
    let (request, left) =
        tokio::join!(next_request(&transport), tokio::time::timeout(Duration::from_millis(10), setup.send(&[], "x")));
    assert!(left.is_err());
    assert_eq!(setup.status(request.as_str()).await, Some("cancelled"));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_while_it_waits_leaves_its_request_otherwise() {
    let setup = Setup::new(ROUTE);
    let transport = setup.transport.clone();
    let (request, left) =
        tokio::join!(next_request(&transport), tokio::time::timeout(Duration::from_millis(10), setup.send(&[], "x")));
    assert!(left.is_err());
    assert_eq!(setup.status(request.as_str()).await, Some("queued"));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_got_202_does_not_cancel_its_request() {
    let setup = Setup::new(&format!("{ROUTE}\ncancel_on_disconnect = true"));
    let response = setup.send(&[], "x").await;
    let id = header(&response, "caudal-request").to_owned();
    drop(response);
    assert_eq!(setup.status(&id).await, Some("queued"));
}
