//! `[[route]]`: one path of the service.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::routing::MethodFilter;
use pipeline::spec::{Places, Problems, Section};
use pipeline::{DeclaredNames, FlowName, KeyProblem, Lane, Token};
use serde::Deserialize;

use super::body::BodyToml;
use super::query::QueryToml;
use super::{BodySpec, QueryParam, Rate};

/// Default time that a route waits for a result, in milliseconds.
const DEFAULT_WAIT_MS: u64 = 30_000;

/// A route as declared.
#[derive(Clone, Debug)]
pub struct RouteSpec {
    /// For example `/embeddings/index/{report_id}`; every parameter is a whole segment and becomes a parameter of the
    /// event.
    pub path: String,
    /// Its method.
    pub method: Method,
    /// Where its events go; `None` only for a route that reads records.
    pub flow: Option<FlowName>,
    /// The body that it takes.
    pub body: BodySpec,
    /// Its query parameters.
    pub query: Vec<QueryParam>,
    /// How long it waits for the result before it answers 202.
    pub wait: Duration,
    /// The lane of its events.
    pub lane: Lane,
    /// Status of a success.
    pub status: u16,
    /// Whether a client that disconnects cancels its request.
    pub cancel_on_disconnect: bool,
    /// Whether a request may name a webhook to call with its result.
    pub webhook: bool,
    /// Its own rate limit.
    pub limit: Option<Rate>,
    /// The class whose rate limit it shares.
    pub class: Option<String>,
    /// The record it writes or reads.
    pub record: Option<RecordSpec>,
    /// Where the keys are.
    pub places: Places,
}

/// `record = { store = "reports", id = "report_id" }`: a `GET` reads the record named by the path parameter `id`, any
/// other method writes one and answers at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordSpec {
    /// The store.
    pub store: Token,
    /// The parameter that holds a record's key.
    pub id: String,
}

/// The methods a route may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// Reads.
    Get,
    /// Submits.
    Post,
    /// Stores under a name.
    Put,
    /// Removes.
    Delete,
}

impl Method {
    fn parse(text: &str) -> Result<Self, ValueError> {
        match text.to_ascii_uppercase().as_str() {
            "GET" => Ok(Self::Get),
            "POST" => Ok(Self::Post),
            "PUT" => Ok(Self::Put),
            "DELETE" => Ok(Self::Delete),
            _ => Err((format!("method {text:?} is not known"), "use one of GET, POST, PUT, DELETE".into())),
        }
    }

    /// Its name in HTTP.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
        }
    }

    pub(crate) fn filter(self) -> MethodFilter {
        match self {
            Self::Get => MethodFilter::GET,
            Self::Post => MethodFilter::POST,
            Self::Put => MethodFilter::PUT,
            Self::Delete => MethodFilter::DELETE,
        }
    }
}

/// `[[route]]` as written in TOML.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RouteToml {
    path: String,
    #[serde(default = "post")]
    method: String,
    flow: Option<String>,
    body: Option<BodyToml>,
    #[serde(default)]
    query: BTreeMap<String, QueryToml>,
    #[serde(default = "default_wait_ms")]
    wait_ms: u64,
    #[serde(default)]
    lane: Lane,
    status: Option<u16>,
    #[serde(default)]
    cancel_on_disconnect: bool,
    #[serde(default)]
    webhook: bool,
    limit: Option<Rate>,
    class: Option<String>,
    record: Option<RecordToml>,
}

/// `record` as written in TOML.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordToml {
    store: Token,
    id: String,
}

fn post() -> String {
    "POST".into()
}

fn default_wait_ms() -> u64 {
    DEFAULT_WAIT_MS
}

fn parse_flow(name: Option<&str>) -> Result<Option<FlowName>, ValueError> {
    let wrong = |why| (format!("flow name {why}"), "name a flow that is declared".into());
    name.map(FlowName::new).transpose().map_err(wrong)
}

/// What is wrong with a key, and the remedy.
type ValueError = (String, String);

/// Collects the problems of a route's keys, so that all of them are reported.
struct ProblemCollector<'a> {
    places: &'a Places,
    problems: &'a mut Problems,
}

impl ProblemCollector<'_> {
    fn take<T>(&mut self, key: &str, result: Result<T, ValueError>) -> Option<T> {
        result.map_err(|(message, remedy)| self.problems.add(self.places.of(key), message, remedy)).ok()
    }
}

impl RouteSpec {
    /// Reads one `[[route]]` and reports every problem in it. `names` are the declared flows.
    pub fn read(section: Section<'_>, names: &DeclaredNames, problems: &mut Problems) -> Option<Self> {
        let places = section.places();
        let flow: Option<String> = section.peek("flow");
        if let Some(flow) = &flow
            && let Some(problem) = KeyProblem::unless_declared("flow", "flow", flow, &names.flows)
        {
            problems.add(places.of("flow"), problem.message, problem.remedy);
        }
        let text: RouteToml = section.read(problems)?;
        let mut collector = ProblemCollector { places: &places, problems };
        let method = collector.take("method", Method::parse(&text.method));
        let flow = collector.take("flow", parse_flow(text.flow.as_deref()));
        let body = collector.take("body", text.body.map_or_else(|| Ok(BodySpec::default()), BodyToml::resolve));
        let declared = text.query.into_iter();
        let query = declared.filter_map(|(name, param)| collector.take("query", param.resolve(name))).collect();
        Some(Self {
            path: text.path,
            method: method?,
            flow: flow?,
            body: body?,
            query,
            wait: Duration::from_millis(text.wait_ms),
            lane: text.lane,
            status: text.status.unwrap_or(200),
            cancel_on_disconnect: text.cancel_on_disconnect,
            webhook: text.webhook,
            limit: text.limit,
            class: text.class,
            record: text.record.map(|record| RecordSpec { store: record.store, id: record.id }),
            places,
        })
    }

    /// Whether it answers with a record and starts no flow.
    #[must_use]
    pub fn reads_record(&self) -> bool {
        self.method == Method::Get && self.record.is_some()
    }

    /// The names of the path's parameters.
    pub fn path_params(&self) -> impl Iterator<Item = &str> {
        self.path.split('/').filter_map(param_of)
    }
}

/// The name in a segment `{name}`.
pub fn param_of(segment: &str) -> Option<&str> {
    segment.strip_prefix('{')?.strip_suffix('}')
}
