//! Checks routes against each other and against the flows. Routes that pass cannot make the router panic.

use std::collections::HashMap;

use pipeline::spec::{FlowSpec, Problems};

use super::route::param_of;
use super::{BodyKind, Method, RouteSpec};

/// Built-in paths; one that ends in `/` stands for everything below it.
const BUILT_IN: [&str; 11] = [
    "/",
    "/health",
    "/ready",
    "/metrics",
    "/openapi.json",
    "/console/",
    "/v1/requests/",
    "/v1/flows/",
    "/v1/tail/",
    "/v1/dead-letters/",
    "/v1/query",
];

/// Prefix of the gateway's own stores.
const RESERVED_STORES: &str = "caudal-";

/// Parameters that the gateway itself adds: the fields of a form, and the webhook.
const RESERVED_PARAMS: [&str; 2] = ["form", "webhook"];

/// Checks each route by itself and against the others.
pub fn check(routes: &[RouteSpec], problems: &mut Problems) {
    let mut taken: HashMap<String, &RouteSpec> = HashMap::new();
    let mut methods: HashMap<(String, Method), ()> = HashMap::new();
    for route in routes {
        check_path(route, problems);
        check_flow(route, problems);
        check_record(route, problems);
        check_body(route, problems);
        let shape = shape(&route.path);
        if methods.insert((shape.clone(), route.method), ()).is_some() {
            let message = format!("{} {} is declared twice", route.method.as_str(), route.path);
            problems.add(route.places.of("path"), message, "remove one of the two, or give it another path or method");
            continue;
        }
        let first = taken.entry(shape).or_insert(route);
        if first.path.trim_end_matches('/') != route.path.trim_end_matches('/') {
            let message = format!("{} and {} differ only in the names of their parameters", first.path, route.path);
            problems.add(route.places.of("path"), message, "name the parameters alike");
        }
    }
}

/// Checks that the payload of each route is one that the first stage of its flow takes.
pub fn check_bodies(routes: &[RouteSpec], flows: &[FlowSpec], problems: &mut Problems) {
    for route in routes {
        let Some(flow) = flows.iter().find(|flow| Some(&flow.name) == route.flow.as_ref()) else { continue };
        let Some(first) = flow.stages.first() else { continue };
        let (gives, takes) = (route.body.kind.gives(), first.operator.types().takes);
        if !takes.contains(&gives) {
            let takes: Vec<String> = takes.iter().map(ToString::to_string).collect();
            let message = format!(
                "the route gives {gives}, but {}, the first stage of flow {}, takes {}",
                first.name,
                flow.name,
                takes.join(" or ")
            );
            problems.add(route.places.of("body"), message, "choose another kind of body, or put a stage before it");
        }
    }
}

/// The path without its parameters' names: routes of one shape match the same requests.
fn shape(path: &str) -> String {
    let path = path.trim_end_matches('/');
    path.split('/')
        .map(|segment| if param_of(segment).is_some() { "{}" } else { segment })
        .collect::<Vec<_>>()
        .join("/")
}

fn check_path(route: &RouteSpec, problems: &mut Problems) {
    let place = route.places.of("path");
    let path = route.path.as_str();
    let Some(rest) = path.strip_prefix('/') else {
        problems.add(place, format!("path {path:?} does not begin with /"), format!("write \"/{path}\""));
        return;
    };
    if is_built_in(path) {
        problems.add(place, format!("{path} is served by the gateway itself"), "choose another path");
        return;
    }
    let mut params: Vec<&str> = Vec::new();
    for segment in rest.strip_suffix('/').unwrap_or(rest).split('/') {
        let Some(param) = param_of(segment) else {
            if segment.is_empty() || !segment.chars().all(is_literal) || segment.chars().all(|c| c == '.') {
                let message = format!("path {path:?} has the segment {segment:?}");
                let remedy = "use segments of A-Z a-z 0-9 . _ ~ - or whole parameters such as {report_id}";
                problems.add(place.clone(), message, remedy);
            }
            continue;
        };
        let named = param.starts_with(|c: char| c.is_ascii_alphabetic())
            && param.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !named || params.contains(&param) {
            let message = format!("path {path:?} has the parameter {{{param}}}");
            problems.add(place.clone(), message, "give each parameter a name of its own: a letter, then A-Z a-z 0-9 _");
        }
        params.push(param);
    }
    for query in route.query.iter().filter(|query| query.name.starts_with('_')) {
        let message = format!("query parameter {} begins with _, which is reserved for the gateway", query.name);
        problems.add(route.places.of("query"), message, "rename it");
    }
    let queried = route.query.iter().map(|query| query.name.as_str());
    for name in queried.chain(params.iter().copied()).filter(|name| RESERVED_PARAMS.contains(name)) {
        problems.add(route.places.of("path"), format!("the parameter {name} is reserved for the gateway"), "rename it");
    }
    for query in route.query.iter().filter(|query| params.contains(&query.name.as_str())) {
        let message = format!("{} is a parameter of the path and of the query", query.name);
        problems.add(route.places.of("query"), message, "rename one of the two");
    }
}

fn is_literal(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '~' | '-')
}

fn is_built_in(path: &str) -> bool {
    let path = if path == "/" { path } else { path.trim_end_matches('/') };
    BUILT_IN.iter().any(|built_in| match built_in.strip_suffix('/').filter(|stem| !stem.is_empty()) {
        Some(stem) => path == stem || path.starts_with(built_in),
        None => path == *built_in,
    })
}

fn check_flow(route: &RouteSpec, problems: &mut Problems) {
    match &route.flow {
        Some(_) if route.reads_record() => {
            problems.add(route.places.of("flow"), "a route that reads records starts no flow", "remove the key flow");
        }
        Some(_) => {}
        None if route.reads_record() => {}
        None => problems.add(route.places.of("path"), "the route has no flow", "add flow = \"NAME\""),
    }
    if !(200..=299).contains(&route.status) || matches!(route.status, 204 | 205) {
        let message = format!("status {} cannot carry a success with an answer", route.status);
        problems.add(route.places.of("status"), message, "use 200 to 299, but not 204 or 205");
    }
}

fn check_record(route: &RouteSpec, problems: &mut Problems) {
    let is_form = matches!(route.body.kind, BodyKind::Form { .. });
    let Some(record) = &route.record else {
        if is_form {
            let remedy = "add record = { store = \"NAME\", id = \"PARAMETER\" }";
            problems.add(
                route.places.of("body"),
                "a form with a JSON part is stored as a record, and none is declared",
                remedy,
            );
        }
        return;
    };
    let place = route.places.of("record");
    if record.store.as_str().starts_with(RESERVED_STORES) {
        let message = format!("stores named {RESERVED_STORES}… are reserved for the gateway");
        problems.add(place.clone(), message, "give the store another name");
    }
    if route.reads_record() && !route.path_params().any(|param| param == record.id) {
        let message = format!("the path has no parameter {{{}}} that names the record", record.id);
        problems.add(place, message, format!("add {{{}}} to the path", record.id));
    } else if !route.reads_record() && !is_form {
        problems.add(
            place,
            "only a form with a JSON part makes a record",
            "use body = { form = { json = …, files = … } }",
        );
    }
}

fn check_body(route: &RouteSpec, problems: &mut Problems) {
    let bodiless = matches!(route.method, Method::Get | Method::Delete);
    if bodiless && route.body.kind != BodyKind::None {
        let message = format!("{} requests have no body", route.method.as_str());
        problems.add(route.places.of("body"), message, "use POST or PUT, or remove the body");
    }
    for pattern in &route.body.types {
        let whole = pattern.split_once('/').is_some_and(|(kind, own)| {
            let token =
                |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
            token(kind) && (own == "*" || token(own))
        });
        if !whole {
            let message = format!("{pattern:?} is not a media type");
            problems.add(route.places.of("body"), message, "write it as \"image/jpeg\" or \"image/*\"");
        }
    }
}
