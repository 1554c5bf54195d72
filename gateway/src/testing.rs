//! What the unit tests share: a gateway's state on the broker in memory, and routes from TOML.

use std::net::Ipv4Addr;
use std::sync::Arc;

use pipeline::spec::{Problems, Sources};
use pipeline::{DeclaredNames, FlowName, Token, Transport};

use crate::flow_entry::FlowEntry;
use crate::identity::Identity;
use crate::identity::caller::Caller;
use crate::spec::{AuthSpec, GatewaySpec, LimitsSpec, RouteSpec, ServiceSpec};
use crate::state::{Gateway, GatewayState};

pub fn flow(name: &str) -> FlowName {
    Token::new(name).unwrap()
}

/// A flow without a deadline.
pub fn flow_entry(name: &str) -> FlowEntry {
    FlowEntry {
        name: flow(name),
        about: String::new(),
        open: false,
        deadline: None,
        takes_json: false,
        backlog: 100,
        then: Vec::new(),
    }
}

/// A gateway without authentication, limits and routes.
pub fn state(transport: Arc<dyn Transport>, flows: Vec<FlowEntry>) -> GatewayState {
    GatewayState::new(Gateway {
        transport,
        service: ServiceSpec::default(),
        identity: Identity::open(&AuthSpec::default()).unwrap(),
        limits: LimitsSpec::default(),
        routes: Vec::new(),
        flows,
        spans: None,
        webhook_caller: None,
        flow_stats: Arc::new(Vec::new),
        checks: Vec::new(),
        render_metrics: Arc::new(|| Box::pin(async { Ok(String::new()) })),
    })
}

/// The first `[[route]]` of a config.
pub fn route(config: &str) -> RouteSpec {
    let mut sources = Sources::default();
    sources.add("test.toml", config);
    let mut problems = Problems::default();
    let mut document = sources.parse(&mut problems);
    let names =
        DeclaredNames { flows: ["describe".to_owned(), "report".to_owned()].into(), ..DeclaredNames::default() };
    let spec = GatewaySpec::read(&mut document.root, &names, &mut problems);
    spec.check(&mut problems);
    assert!(problems.is_empty(), "{problems:?}");
    spec.routes.into_iter().next().unwrap()
}

/// A caller that did not authenticate.
pub fn caller() -> Caller {
    Caller { principal: None, address: Ipv4Addr::LOCALHOST.into() }
}
