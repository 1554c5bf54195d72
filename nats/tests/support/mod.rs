//! A private nats-server for each test, with a port and a store of its own. It ends with the test.

#![allow(dead_code, reason = "each test binary uses only a part")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nats::server::{PrivateServer, ServerOptions};
use nats::{Access, ConnectOptions, FlowTopology, JetStream, Limits, NatsSpec, Topology};
use pipeline::spec::{BacklogSpec, ByteSize};
use pipeline::{
    Content, Delivery, Envelope, FlowName, Lane, Outcome, OutcomeKind, Payload, Source, SourceBounds, Submission,
    Token, Transport,
};
use tempfile::TempDir;

/// Longer than anything takes here.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub fn program() -> PathBuf {
    std::env::var_os("CAUDAL_NATS_SERVER")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../.caudal/bin/nats-server"), PathBuf::from)
}

pub struct Broker {
    pub server: PrivateServer,
    pub dir: TempDir,
}

impl Broker {
    pub async fn start() -> Self {
        Self::start_with(NatsSpec::default()).await
    }

    pub async fn start_with(spec: NatsSpec) -> Self {
        let dir = TempDir::new().unwrap();
        let server = PrivateServer::start(options(dir.path(), spec)).await.unwrap();
        Self { server, dir }
    }

    pub fn access(&self) -> Access {
        self.server.access()
    }

    pub async fn connect(&self, topology: Topology) -> Arc<JetStream> {
        nats::connect(ConnectOptions::new(self.access(), topology)).await.unwrap()
    }
}

pub fn options(data_dir: &Path, spec: NatsSpec) -> ServerOptions {
    ServerOptions { program: program(), launcher: Vec::new(), data_dir: data_dir.to_owned(), spec }
}

/// Small bounds, so that many servers fit on the disk of a test machine.
pub fn limits() -> Limits {
    Limits {
        results_max_bytes: ByteSize::mib(256),
        claims_max_bytes: ByteSize::mib(256),
        dead_max_bytes: ByteSize::mib(64),
        records_max_bytes: ByteSize::mib(64),
        ..Limits::default()
    }
}

pub fn flow(name: &str, events: u32, answers: bool) -> FlowTopology {
    FlowTopology {
        name: token(name),
        backlog: BacklogSpec { events, bytes: ByteSize::mib(64) },
        answers,
        order_by: None,
    }
}

pub fn topology(flows: &[(&str, u32)]) -> Topology {
    let flows = flows.iter().map(|(name, events)| flow(name, *events, false)).collect();
    Topology { flows, limits: limits() }
}

pub fn token(text: &str) -> Token {
    Token::new(text).unwrap()
}

pub fn bounds(events: usize) -> SourceBounds {
    SourceBounds { events, bytes: 16 << 20, ordered: false, ack_wait: Duration::from_secs(10), max_deliver: 10 }
}

pub fn event(flow: &str, id: &str, payload: Payload) -> Submission {
    Submission { envelope: Envelope::new(token(flow), token(id)), payload }
}

pub fn text(text: &str) -> Payload {
    Payload::Bytes(Content::inline("text/plain", text.to_owned()))
}

pub async fn open(transport: &JetStream, flow: &str, lane: Lane, bounds: SourceBounds) -> Box<dyn Source> {
    transport.source(&token(flow), lane, bounds).await.unwrap()
}

pub async fn next(source: &mut Box<dyn Source>) -> Delivery {
    tokio::time::timeout(PATIENCE, source.next()).await.expect("no event was delivered").expect("the source ended")
}

/// Whether no event is delivered within `time`.
pub async fn is_quiet(source: &mut Box<dyn Source>, time: Duration) -> bool {
    tokio::time::timeout(time, source.next()).await.is_err()
}

pub fn outcome(kind: OutcomeKind, ordinal: u32, body: &str) -> Outcome {
    Outcome::new(kind, ordinal, FlowName::new("f").unwrap(), Content::inline("text/plain", body.to_owned()))
}

pub fn kinds(outcomes: &[Outcome]) -> Vec<(OutcomeKind, u32)> {
    outcomes.iter().map(|outcome| (outcome.kind, outcome.ordinal)).collect()
}

/// Polls `done` until it returns `true`.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut done: impl FnMut() -> F) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !done().await {
        assert!(tokio::time::Instant::now() < deadline, "timed out: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
