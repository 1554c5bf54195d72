//! A gateway under test: served on a free port; the test plays its workers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use gateway::spec::GatewaySpec;
use gateway::{FlowEntry, Gateway, GatewayState, Identity, Listener, ReadinessChecks, Tls};
use pipeline::spec::{Problems, Sources};
use pipeline::testing::{MemoryTransport, PATIENCE};
use pipeline::{
    Content, DeclaredNames, Delivery, FlowName, Lane, Outcome, OutcomeKind, RequestId, ResultAck, Settlement, Source,
    SourceBounds, Token, Transport,
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::rustls::crypto::ring;
use tokio_util::sync::CancellationToken;

/// The flows of every test, with the limit of each lane.
pub const FLOWS: [(&str, usize); 4] = [("describe", 100), ("report", 100), ("narrow", 1), ("documents", 100)];

pub struct Service {
    pub address: SocketAddr,
    pub transport: MemoryTransport,
    pub client: reqwest::Client,
    stop: CancellationToken,
    served: JoinHandle<()>,
}

pub fn token(text: &str) -> Token {
    Token::new(text).unwrap()
}

/// Waits for something that must happen.
pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("must happen soon")
}

impl Service {
    /// Serves `config`, TOML text.
    pub async fn start(config: &str) -> Self {
        Self::start_on(MemoryTransport::with_flows(FLOWS), config, Vec::new()).await
    }

    pub async fn start_on(transport: MemoryTransport, config: &str, checks: ReadinessChecks) -> Self {
        Self::start_with(transport, config, checks, None).await
    }

    /// Serves HTTPS if there is a certificate; the client speaks plain HTTP.
    pub async fn start_with(
        transport: MemoryTransport,
        config: &str,
        checks: ReadinessChecks,
        tls: Option<Tls>,
    ) -> Self {
        let state = state(transport.clone(), config, checks);
        Self::serve(transport, state, tls).await
    }

    /// Serves a state whose broker is, or wraps, `transport`.
    pub async fn serve(transport: MemoryTransport, state: GatewayState, tls: Option<Tls>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let served = tokio::spawn(gateway::serve(Listener { listener, tls }, state, stop.clone()));
        // The client needs a crypto provider even for plain HTTP.
        drop(ring::default_provider().install_default());
        let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
        Self { address, transport, client, stop, served }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn get(&self, path: &str) -> reqwest::RequestBuilder {
        self.client.get(self.url(path))
    }

    pub fn post(&self, path: &str) -> reqwest::RequestBuilder {
        self.client.post(self.url(path))
    }

    /// Stops accepting and waits until everything has ended.
    pub async fn stop(self) -> MemoryTransport {
        self.stop.cancel();
        soon(self.served).await.unwrap();
        self.transport
    }

    /// Begins the shutdown without waiting for it.
    pub fn begin_stop(&self) {
        self.stop.cancel();
    }

    pub async fn source(&self, flow: &str) -> Box<dyn Source> {
        let bounds = SourceBounds {
            events: 10,
            bytes: 1 << 20,
            ordered: false,
            ack_wait: Duration::from_secs(10),
            max_deliver: 3,
        };
        self.transport.source(&token(flow), Lane::Interactive, bounds).await.unwrap()
    }

    /// Plays a worker that answers every event with what it saw.
    pub async fn echo(&self, flow: &str) {
        let mut source = self.source(flow).await;
        let transport = self.transport.clone();
        tokio::spawn(async move {
            while let Some(delivery) = source.next().await {
                let seen = seen(&transport, &delivery).await;
                finish(&transport, delivery, Content::json(&seen)).await;
            }
        });
    }

    /// Publishes one result of a request.
    pub async fn publish(&self, request: &RequestId, kind: OutcomeKind, ordinal: u32, content: Content) -> ResultAck {
        let outcome = Outcome::new(kind, ordinal, token("describe"), content);
        self.transport.publish_outcome(request, &outcome).await.unwrap()
    }

    /// The terminal result of a request.
    pub async fn terminal(&self, request: &RequestId) -> Outcome {
        let mut watch = self.transport.watch(request);
        let stored = self.transport.outcomes(request).await.unwrap();
        if let Some(outcome) = stored.into_iter().find(|outcome| outcome.kind.is_terminal()) {
            return outcome;
        }
        loop {
            let outcome = soon(watch.outcomes.recv()).await.unwrap();
            if outcome.kind.is_terminal() {
                return Arc::unwrap_or_clone(outcome);
            }
        }
    }

    /// Sends bytes as they are over a connection of its own.
    pub async fn raw(&self, bytes: impl AsRef<[u8]>) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(bytes.as_ref()).await.unwrap();
        stream
    }
}

/// The state of a gateway that serves `config`, TOML text.
pub fn state(transport: impl Transport + 'static, config: &str, checks: ReadinessChecks) -> GatewayState {
    let spec = read(config);
    let flow = |name: &str| FlowEntry {
        name: token(name),
        about: format!("tests {name}"),
        open: matches!(name, "documents" | "describe"),
        deadline: None,
        takes_json: name == "documents",
        backlog: 100,
        then: Vec::new(),
    };
    GatewayState::new(Gateway {
        spans: None,
        webhook_caller: None,
        transport: Arc::new(transport),
        identity: Identity::open(&spec.auth).unwrap(),
        service: spec.service,
        limits: spec.limits,
        routes: spec.routes,
        flows: FLOWS.iter().map(|(name, _)| flow(name)).collect(),
        flow_stats: Arc::new(Vec::new),
        checks,
        render_metrics: Arc::new(|| Box::pin(async { Ok("caudal_up 1\n".to_owned()) })),
    })
}

/// Reads a config that must be valid.
pub fn read(config: &str) -> GatewaySpec {
    let (spec, problems) = read_checked(config);
    assert!(problems.is_empty(), "{problems:?}");
    spec
}

/// Reads and checks a config; every problem as `message; remedy`.
pub fn read_checked(config: &str) -> (GatewaySpec, Vec<String>) {
    let mut sources = Sources::default();
    sources.add("test.toml", config);
    let mut problems = Problems::default();
    let mut document = sources.parse(&mut problems);
    let names =
        DeclaredNames { flows: FLOWS.iter().map(|(name, _)| (*name).to_owned()).collect(), ..DeclaredNames::default() };
    let spec = GatewaySpec::read(&mut document.root, &names, &mut problems);
    spec.check(&mut problems);
    let lines = problems.sorted().iter().map(|problem| format!("{}; {}", problem.message, problem.remedy)).collect();
    (spec, lines)
}

/// Ends a delivery with an answer.
pub async fn finish(transport: &MemoryTransport, delivery: Delivery, content: Content) {
    if let Some(request) = &delivery.envelope.request {
        let flow: FlowName = delivery.envelope.flow.clone();
        let outcome = Outcome::new(OutcomeKind::Done, 1, flow, content);
        transport.publish_outcome(request, &outcome).await.unwrap();
    }
    delivery.ack.settle(Settlement::Done).await;
}

async fn seen(transport: &MemoryTransport, delivery: &Delivery) -> Value {
    let mut parts = Vec::new();
    let mut note = |name: &str, content: &Content, bytes: &[u8]| {
        parts.push(json!({
            "name": name,
            "type": &*content.media_type,
            "length": content.length(),
            "claim": content.claim().is_some(),
            "sum": bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>(),
        }));
    };
    match &delivery.payload {
        pipeline::Payload::Bytes(content) => {
            note("", content, &pipeline::claims::fetch(transport, content).await.unwrap());
        }
        pipeline::Payload::Parts(list) => {
            for part in list.iter() {
                note(&part.name, &part.content, &pipeline::claims::fetch(transport, &part.content).await.unwrap());
            }
        }
        _ => {}
    }
    let json = match &delivery.payload {
        pipeline::Payload::Json(value) => (**value).clone(),
        _ => Value::Null,
    };
    json!({
        "params": delivery.envelope.params,
        "source": &*delivery.envelope.source,
        "trace": delivery.envelope.traceparent.as_deref(),
        "lane": delivery.envelope.lane.as_str(),
        "kind": delivery.payload.kind().to_string(),
        "json": json,
        "parts": parts,
    })
}

/// Everything until the other side closes.
pub async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset is an end too.
    let _ = soon(stream.read_to_end(&mut bytes)).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Every event of a stream, and whether it ended cleanly.
pub async fn read_events(mut stream: reqwest::Response) -> (String, bool) {
    let mut text = String::new();
    loop {
        match soon(stream.chunk()).await {
            Ok(Some(piece)) => text.push_str(std::str::from_utf8(&piece).unwrap()),
            ended => return (text, ended.is_ok()),
        }
    }
}

/// Reads until `text` has come.
pub async fn read_until(stream: &mut TcpStream, text: &str) -> String {
    let mut read = String::new();
    let mut buffer = [0; 4096];
    while !read.contains(text) {
        let count = soon(stream.read(&mut buffer)).await.unwrap();
        assert!(count > 0, "closed after {read:?}");
        read.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    read
}

/// A form with one part.
pub fn form(name: &'static str, media_type: &str, bytes: Vec<u8>) -> reqwest::multipart::Form {
    add(reqwest::multipart::Form::new(), name, media_type, bytes)
}

/// Adds a part to a form.
pub fn add(
    form: reqwest::multipart::Form,
    name: &'static str,
    media_type: &str,
    bytes: Vec<u8>,
) -> reqwest::multipart::Form {
    form.part(name, reqwest::multipart::Part::bytes(bytes).file_name("photo.jpg").mime_str(media_type).unwrap())
}

/// Asserts a problem and returns it.
pub async fn problem(response: reqwest::Response, status: u16, code: &str) -> Value {
    let headers = response.headers().clone();
    let (got, text) = (response.status().as_u16(), response.text().await.unwrap());
    assert_eq!(got, status, "{text}");
    assert_eq!(headers["content-type"], "application/problem+json");
    let body: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((body["status"].as_u64(), body["code"].as_str()), (Some(u64::from(status)), Some(code)), "{text}");
    assert!(body["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{text}");
    body
}
