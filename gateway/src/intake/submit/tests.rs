//! One behaviour of the submit step per test.

use std::convert::Infallible;
use std::time::Duration;

use async_trait::async_trait;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use futures_util::stream::{self, StreamExt};
use pipeline::testing::{MemoryTransport, TransportWrapper};
use pipeline::{FlowName, INLINE_LIMIT, Outcome, ResultAck, Token, Transport};
use serde_json::json;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::*;
use crate::intake::body::head;
use crate::testing::{flow, flow_entry, route, state};

const RAW: &str = "[[route]]\npath = \"/x\"\nflow = \"describe\"\nbody = { raw = true }";

const REPORT: &str = "[[route]]\npath = \"/reports\"\nflow = \"report\"\nbody = { form = { json = \"report\", files = \
                      \"photo\" } }\nrecord = { store = \"reports\", id = \"report_id\" }";

/// A broker whose answer to a submission is lost.
struct Unanswered(MemoryTransport);

#[async_trait]
impl TransportWrapper for Unanswered {
    fn within(&self) -> &dyn Transport {
        &self.0
    }

    async fn submit(&self, _: Submission) -> Result<SubmitAck, TransportError> {
        Err(TransportError::unavailable("no answer"))
    }
}

/// A broker that is known to refuse submissions.
struct Refusing(MemoryTransport);

#[async_trait]
impl TransportWrapper for Refusing {
    fn within(&self) -> &dyn Transport {
        &self.0
    }

    async fn submit(&self, _: Submission) -> Result<SubmitAck, TransportError> {
        Err(TransportError::NotSent("it refuses every write".into()))
    }
}

/// A broker that stores no result before a moment.
struct ResultsAway {
    inner: MemoryTransport,
    until: Instant,
}

#[async_trait]
impl TransportWrapper for ResultsAway {
    fn within(&self) -> &dyn Transport {
        &self.inner
    }

    async fn publish_outcome(&self, request: &RequestId, outcome: &Outcome) -> Result<ResultAck, TransportError> {
        if Instant::now() < self.until {
            return Err(TransportError::unavailable("no space left on device"));
        }
        self.inner.publish_outcome(request, outcome).await
    }
}

/// A broker that stores a submission only once it is told to.
struct Held {
    inner: MemoryTransport,
    asked: Arc<Notify>,
    go: Arc<Notify>,
}

#[async_trait]
impl TransportWrapper for Held {
    fn within(&self) -> &dyn Transport {
        &self.inner
    }

    async fn submit(&self, submission: Submission) -> Result<SubmitAck, TransportError> {
        self.asked.notify_one();
        self.go.notified().await;
        self.inner.submit(submission).await
    }
}

/// A gateway with one route.
struct Setup {
    state: GatewayState,
    route: Arc<Route>,
}

impl Setup {
    fn new(transport: impl Transport + 'static, config: &str) -> Self {
        let (spec, entries) = (route(config), vec![flow_entry("describe"), flow_entry("report")]);
        let flow = spec.flow.clone().unwrap();
        Self { state: state(Arc::new(transport), entries), route: Arc::new(Route::new(spec, flow, None)) }
    }

    fn request(&self, id: &str, key: Option<&'static str>) -> NewRequest {
        let mut headers = HeaderMap::new();
        if let Some(key) = key {
            headers.insert(HeaderName::from_static("idempotency-key"), HeaderValue::from_static(key));
        }
        let mut envelope = Envelope::new(self.route.flow.clone(), token(id));
        envelope.request = Some(token(id));
        NewRequest {
            state: self.state.clone(),
            route: Arc::clone(&self.route),
            envelope,
            mode: AnswerMode::Async,
            key: IdempotencyKey::read(&headers, None, &self.route.spec).unwrap(),
        }
    }

    fn head(&self, media_type: &'static str) -> BodyHead {
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(media_type))]);
        head::check(&self.route.spec.body, &headers).unwrap()
    }

    async fn send(&self, id: &str, key: Option<&'static str>, body: Body) -> Result<StoredRequest, Problem> {
        submit(self.request(id, key), self.head("application/octet-stream"), body).await
    }

    /// Sends a report of the id `r1` with a text in its field `text`, and one photo that is too long to be inline.
    async fn send_report(&self, id: &str, text: &str) -> Result<StoredRequest, Problem> {
        let mut form = format!(
            "--b\r\nContent-Disposition: form-data; name=\"report\"\r\n\r\n{{\"id\": \"r1\", \"text\": \"{text}\"}}\r\n\
             --b\r\nContent-Disposition: form-data; name=\"photo\"; filename=\"p\"\r\n\r\n"
        )
        .into_bytes();
        form.resize(form.len() + INLINE_LIMIT + 1, b'x');
        form.extend_from_slice(b"\r\n--b--\r\n");
        submit(self.request(id, None), self.head("multipart/form-data; boundary=b"), form.into()).await
    }

    /// Waits for every task that outlives its request.
    async fn settle(&self) {
        self.state.tasks.close();
        self.state.tasks.wait().await;
    }
}

fn token(text: &str) -> Token {
    Token::new(text).unwrap()
}

fn broker(limit: usize) -> MemoryTransport {
    MemoryTransport::with_flows([("describe", limit), ("report", limit)])
}

/// A body that is too long to be inline.
fn long(byte: u8) -> Body {
    Body::from(vec![byte; INLINE_LIMIT + 1])
}

async fn waiting(transport: &MemoryTransport, name: &str) -> u64 {
    let name: FlowName = flow(name);
    transport.backlog(&name).await.unwrap().interactive
}

async fn record(transport: &MemoryTransport) -> Option<String> {
    let record = transport.get_record(&token("reports"), &token("r1")).await.unwrap()?;
    Some(String::from_utf8(record.value.to_vec()).unwrap())
}

#[tokio::test]
async fn a_stored_request_is_queued_and_its_acceptance_recorded() {
    let transport = broker(10);
    let setup = Setup::new(transport.clone(), RAW);
    let stored = setup.send("a", None, Body::from("x")).await.unwrap();
    assert_eq!((stored.id.as_str(), stored.status), ("a", "queued"));
    assert_eq!(status::current(&transport.outcomes(&token("a")).await.unwrap()), Some("queued"));
}

#[tokio::test(start_paused = true)]
async fn an_acceptance_that_is_refused_for_a_moment_is_recorded() {
    let transport = broker(10);
    let until = Instant::now() + Duration::from_secs(1);
    let setup = Setup::new(ResultsAway { inner: transport.clone(), until }, RAW);
    assert_eq!(setup.send("a", None, Body::from("x")).await.unwrap().status, "queued");
    assert_eq!(status::current(&transport.outcomes(&token("a")).await.unwrap()), Some("queued"));
}

#[tokio::test(start_paused = true)]
async fn an_acceptance_that_cannot_be_recorded_is_none() {
    let transport = broker(10);
    let until = Instant::now() + Duration::from_secs(5);
    let config = format!("{RAW}\ncancel_on_disconnect = true");
    let setup = Setup::new(ResultsAway { inner: transport.clone(), until }, &config);
    let problem = setup.send("a", Some("k"), long(1)).await.err().unwrap().to_json();
    assert_eq!((&problem["status"], &problem["code"]), (&json!(503), &json!("acceptance_not_recorded")));
    assert_eq!(problem["request"], "a");
    assert_eq!((waiting(&transport, "describe").await, transport.claim_count()), (1, 1), "the event is stored");
    tokio::time::sleep_until(until).await;
    let repeat = setup.send("b", Some("k"), long(1)).await.unwrap();
    assert_eq!((repeat.id.as_str(), waiting(&transport, "describe").await), ("a", 1));
    assert_eq!(status::current(&transport.outcomes(&token("a")).await.unwrap()), Some("queued"));
}

#[tokio::test]
async fn a_refused_submit_drops_its_bodies() {
    let transport = broker(0);
    let setup = Setup::new(transport.clone(), RAW);
    let problem = setup.send("a", None, long(1)).await.err().unwrap();
    assert!(problem.to_string().contains("queue_full"), "{problem}");
    assert_eq!(transport.claim_count(), 0);
}

#[tokio::test]
async fn a_refused_submit_empties_its_new_record() {
    let transport = broker(0);
    let setup = Setup::new(transport.clone(), REPORT);
    setup.send_report("a", "new").await.err().unwrap();
    assert_eq!(record(&transport).await.as_deref(), Some(""));
}

#[tokio::test]
async fn a_refused_submit_restores_the_record_before_it() {
    let transport = broker(1);
    let setup = Setup::new(transport.clone(), REPORT);
    setup.send_report("a", "first").await.unwrap();
    setup.send_report("b", "second").await.err().unwrap();
    assert!(record(&transport).await.unwrap().contains("first"));
}

#[tokio::test]
async fn an_unanswered_submit_keeps_its_bodies() {
    let transport = broker(10);
    let setup = Setup::new(Unanswered(transport.clone()), RAW);
    let problem = setup.send("a", None, long(1)).await.err().unwrap();
    assert!(problem.to_string().contains("broker_unavailable"), "{problem}");
    assert_eq!(transport.claim_count(), 1);
}

#[tokio::test]
async fn a_submit_that_was_not_sent_leaves_neither_body_nor_record() {
    let transport = broker(10);
    let setup = Setup::new(Refusing(transport.clone()), REPORT);
    let problem = setup.send_report("a", "new").await.err().unwrap();
    assert!(problem.to_string().contains("broker_unavailable"), "{problem}");
    setup.settle().await;
    assert_eq!(transport.claim_count(), 0);
    assert!(record(&transport).await.is_none_or(|record| record.is_empty()));
}

#[tokio::test]
async fn an_unanswered_submit_keeps_its_record() {
    let transport = broker(10);
    let setup = Setup::new(Unanswered(transport.clone()), REPORT);
    setup.send_report("a", "new").await.err().unwrap();
    assert!(record(&transport).await.unwrap().contains("new"));
}

#[tokio::test]
async fn a_stored_report_answers_with_its_record() {
    let transport = broker(10);
    let setup = Setup::new(transport.clone(), REPORT);
    let stored = setup.send_report("a", "new").await.unwrap();
    assert_eq!(record(&transport).await.unwrap().as_bytes(), stored.record.unwrap());
}

#[tokio::test]
async fn a_repeat_attaches_to_the_first_request() {
    let transport = broker(10);
    let setup = Setup::new(transport.clone(), RAW);
    setup.send("a", Some("k"), Body::from("x")).await.unwrap();
    let repeat = setup.send("b", Some("k"), Body::from("x")).await.unwrap();
    assert_eq!(repeat.id.as_str(), "a");
    assert_eq!(waiting(&transport, "describe").await, 1);
}

#[tokio::test]
async fn a_repeat_drops_its_copy_of_the_body() {
    let transport = broker(10);
    let setup = Setup::new(transport.clone(), RAW);
    setup.send("a", Some("k"), long(1)).await.unwrap();
    setup.send("b", Some("k"), long(1)).await.unwrap();
    assert_eq!(transport.claim_count(), 1);
}

#[tokio::test]
async fn a_repeat_of_a_lost_submit_submits_its_own_copy_under_the_first_id() {
    let transport = broker(10);
    let lost = Setup::new(Unanswered(transport.clone()), RAW);
    lost.send("a", Some("k"), Body::from("x")).await.err().unwrap();
    let setup = Setup::new(transport.clone(), RAW);
    assert_eq!(setup.send("b", Some("k"), Body::from("x")).await.unwrap().id.as_str(), "a");
    assert_eq!(waiting(&transport, "describe").await, 1);
}

#[tokio::test]
async fn another_body_under_the_same_key_is_refused() {
    let setup = Setup::new(broker(10), RAW);
    setup.send("a", Some("k"), Body::from("x")).await.unwrap();
    let problem = setup.send("b", Some("k"), Body::from("y")).await.err().unwrap();
    assert!(problem.to_string().contains("idempotency_key_reused"), "{problem}");
}

#[tokio::test]
async fn a_repeat_whose_results_are_gone_is_refused() {
    let transport = broker(10);
    let setup = Setup::new(transport.clone(), RAW);
    setup.send("a", Some("k"), Body::from("x")).await.unwrap();
    setup.settle().await;
    transport.forget_results(&token("a"));
    let problem = setup.send("b", Some("k"), Body::from("x")).await.err().unwrap();
    assert!(problem.to_string().contains("result_gone"), "{problem}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_within_its_body_leaves_nothing() {
    let transport = broker(10);
    let setup = Setup::new(transport.clone(), RAW);
    let half = stream::iter([Ok::<_, Infallible>(Bytes::from(vec![1; INLINE_LIMIT + 1]))]).chain(stream::pending());
    let sent = setup.send("a", None, Body::from_stream(half));
    assert!(tokio::time::timeout(Duration::from_millis(10), sent).await.is_err());
    setup.settle().await;
    assert_eq!((waiting(&transport, "describe").await, transport.claim_count()), (0, 0));
}

#[tokio::test]
async fn a_client_that_leaves_after_its_body_leaves_a_whole_request() {
    let (transport, asked, go) = (broker(10), Arc::new(Notify::new()), Arc::new(Notify::new()));
    let held = Held { inner: transport.clone(), asked: Arc::clone(&asked), go: Arc::clone(&go) };
    let setup = Setup::new(held, RAW);
    tokio::select! {
        _ = setup.send("a", None, long(1)) => panic!("the broker has not answered"),
        () = asked.notified() => {}
    }
    go.notify_one();
    setup.settle().await;
    assert_eq!((waiting(&transport, "describe").await, transport.claim_count()), (1, 1));
}

#[tokio::test]
async fn a_client_that_leaves_cancels_its_request_if_the_route_says_so() {
    let transport = broker(10);
    let setup = Setup::new(transport.clone(), &format!("{RAW}\ncancel_on_disconnect = true"));
    drop(setup.send("a", None, Body::from("x")).await.unwrap());
    setup.settle().await;
    assert_eq!(status::current(&transport.outcomes(&token("a")).await.unwrap()), Some("cancelled"));
}

#[tokio::test]
async fn a_repeat_that_leaves_does_not_cancel_the_first_request() {
    let transport = broker(10);
    let setup = Setup::new(transport.clone(), &format!("{RAW}\ncancel_on_disconnect = true"));
    let first = setup.send("a", Some("k"), Body::from("x")).await.unwrap();
    drop(setup.send("b", Some("k"), Body::from("x")).await.unwrap());
    first.on_disconnect.unwrap().disarm();
    setup.settle().await;
    assert_eq!(status::current(&transport.outcomes(&token("a")).await.unwrap()), Some("queued"));
}
