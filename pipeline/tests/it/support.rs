//! A flow from a few lines of TOML on the broker in memory.

use std::sync::Arc;
use std::time::Duration;

use pipeline::engine::{Flow, Running};
use pipeline::spec::{FlowSpec, Problems, Sources};
use pipeline::testing::{MemoryTransport, PATIENCE, kinds};
use pipeline::{Content, Envelope, FlowName, Lane, OperatorKind, Payload, Services, Submission, Token, Transport};

pub fn token(text: &str) -> Token {
    Token::new(text).unwrap()
}

/// The flows of `toml`, or the problems as one text.
pub fn read_flows(toml: &str, kinds: &[OperatorKind]) -> Result<Vec<FlowSpec>, String> {
    let mut sources = Sources::default();
    sources.add("test.toml", toml);
    let mut problems = Problems::default();
    let mut document = sources.parse(&mut problems);
    let mut flows = Vec::new();
    for (name, section) in document.root.take_named("flow", &mut problems) {
        let place = section.place();
        if let Some(flow) = FlowSpec::read(&name, section, kinds, &mut problems) {
            flow.check(&place, &pipeline::DeclaredNames::default(), &mut problems);
            flows.push(flow);
        }
    }
    if problems.is_empty() { Ok(flows) } else { Err(problems.render(&sources, false)) }
}

/// A running flow `test` with room for `limit` events per lane.
pub async fn start(toml: &str, more_kinds: &[OperatorKind], limit: usize) -> (MemoryTransport, Running) {
    let transport = MemoryTransport::with_flows([("test", limit)]);
    let running = start_on(&transport, toml, more_kinds).await;
    (transport, running)
}

pub async fn start_on(transport: &MemoryTransport, toml: &str, more_kinds: &[OperatorKind]) -> Running {
    start_through(Arc::new(transport.clone()), toml, more_kinds).await
}

/// The same through any transport.
pub async fn start_through(transport: Arc<dyn Transport>, toml: &str, more_kinds: &[OperatorKind]) -> Running {
    let mut all = kinds();
    all.extend_from_slice(more_kinds);
    let flows = read_flows(toml, &all).unwrap();
    start_flows(transport, flows.into_iter().flat_map(FlowSpec::into_parts).collect()).await
}

/// Runs the given parts of flows.
pub async fn start_flows(transport: Arc<dyn Transport>, parts: Vec<FlowSpec>) -> Running {
    start_flows_with(Services::default(), transport, parts).await
}

/// The same with other services.
pub async fn start_flows_with(services: Services, transport: Arc<dyn Transport>, parts: Vec<FlowSpec>) -> Running {
    let services = Arc::new(services);
    let mut flows = Vec::new();
    for part in parts {
        flows.push(Flow::build(part, &services, Arc::clone(&transport)).await.unwrap());
    }
    Running::start(flows)
}

pub fn event(id: &str, lane: Lane, body: &str) -> Submission {
    let id = token(id);
    let envelope = Envelope { lane, request: Some(id.clone()), ..Envelope::new(FlowName::new("test").unwrap(), id) };
    Submission { envelope, payload: Payload::Bytes(Content::inline("text/plain", body.to_owned())) }
}

/// Waits until the request has its terminal result and returns it.
pub async fn terminal(transport: &MemoryTransport, id: &str) -> pipeline::Outcome {
    let mut watch = transport.watch(&token(id));
    let stored = transport.outcomes(&token(id)).await.unwrap();
    if let Some(outcome) = stored.into_iter().find(|outcome| outcome.kind.is_terminal()) {
        return outcome;
    }
    let wait = async {
        loop {
            let outcome = watch.outcomes.recv().await.unwrap();
            if outcome.kind.is_terminal() {
                return std::sync::Arc::unwrap_or_clone(outcome);
            }
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("no result for {id}"))
}

/// Polls a condition of the system under test until it holds.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let poll = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, poll).await.unwrap_or_else(|_| panic!("never: {what}"));
}
