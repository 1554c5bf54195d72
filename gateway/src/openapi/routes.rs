//! The operations of the routes that the config declares.

use serde_json::{Map, Value, json};

use super::parts::{Answers, path_param, reference, security};
use super::schemas;
use super::setting::Setting;
use crate::spec::{BodyKind, BodySpec, QueryKind, QueryParam, RouteSpec};

/// One route of all that are declared.
pub fn describe(route: &RouteSpec, all: &[RouteSpec], setting: Setting) -> Value {
    let params: Vec<Value> = route.path_params().map(path_param).chain(route.query.iter().map(query_param)).collect();
    let answers = if route.reads_record() { of_record(route, all, setting) } else { of_flow(route, setting) };
    let mut operation = json!({
        "summary": summary(route),
        "parameters": params,
        "security": security(setting, false),
        "responses": answers.with_common(setting, route.method.as_str(), false).into_value(),
    });
    if route.reads_record() {
        return operation;
    }
    let key = json!({
        "name": "Idempotency-Key", "in": "header", "required": false,
        "description": "a repeat with the same key attaches to the first request, for 24 hours",
        "schema": { "type": "string", "minLength": 1, "maxLength": 255 },
    });
    operation["parameters"].as_array_mut().into_iter().for_each(|params| params.push(key.clone()));
    if route.webhook {
        let webhook = json!({
            "name": "Caudal-Webhook-Url", "in": "header", "required": false,
            "description": "the URL to call with the result; the request is answered at once (also Gotenberg-Webhook-Url)",
            "schema": { "type": "string", "format": "uri" },
        });
        operation["parameters"].as_array_mut().into_iter().for_each(|params| params.push(webhook.clone()));
        operation["responses"]["204"] =
            json!({ "description": "accepted; the webhook of Gotenberg-Webhook-Url will be called" });
    }
    if route.body.kind != BodyKind::None {
        operation["requestBody"] = json!({ "required": true, "content": body(&route.body) });
    }
    for answer in operation["responses"].as_object_mut().into_iter().flat_map(Map::values_mut) {
        answer["headers"]["Caudal-Request"] = json!({ "$ref": "#/components/headers/Caudal-Request" });
    }
    operation
}

fn is_limited(route: &RouteSpec, setting: Setting) -> bool {
    setting.limits && (route.limit.is_some() || route.class.is_some())
}

fn summary(route: &RouteSpec) -> String {
    match (&route.record, &route.flow) {
        (Some(record), None) => format!("reads a record of the store {}", record.store),
        (Some(record), Some(flow)) => {
            format!("writes a record of the store {} and starts the flow {flow}", record.store)
        }
        (None, Some(flow)) => format!("starts the flow {flow}"),
        (None, None) => String::new(),
    }
}

/// The schema of a route's record: what the form of its store makes.
fn record_of(route: &RouteSpec, all: &[RouteSpec]) -> Value {
    let store = route.record.as_ref().map(|record| &record.store);
    let of_store = |other: &&RouteSpec| other.record.as_ref().map(|record| &record.store) == store;
    let form = all.iter().filter(of_store).find_map(|other| match &other.body.kind {
        BodyKind::Form { json, .. } => Some(json),
        _ => None,
    });
    form.map_or_else(|| json!({ "type": "object" }), |name| schemas::record(name))
}

fn of_record(route: &RouteSpec, all: &[RouteSpec], setting: Setting) -> Answers {
    Answers::default()
        .content(200, "the record", "application/json", record_of(route, all))
        .problem(400, "the id is malformed")
        .problem(404, "no record has this id")
        .problem(503, "the service cannot do this right now")
        .problem_if(is_limited(route, setting), 429, "the client is over its rate limit")
}

/// The successes of a flow's route. A flow answers with JSON or with a file; which, is its operators' business.
fn results(route: &RouteSpec) -> Answers {
    if let BodyKind::Form { json: name, .. } = &route.body.kind {
        let about = "the record, stored; its event is processed afterwards";
        return Answers::default().content(route.status, about, "application/json", schemas::record(name));
    }
    let answers = Answers::default()
        .later("the request is accepted, and its result will be at Location")
        .content(route.status, "the result of the flow", "application/json", json!({}))
        .or(route.status, "*/*", reference("File"));
    let ignores_parts = matches!(route.body.kind, BodyKind::File(_) | BodyKind::Parts(_));
    let answers = if ignores_parts {
        answers.header(202, "Caudal-Ignored-Parts").header(route.status, "Caudal-Ignored-Parts")
    } else {
        answers
    };
    let (about, media_type) = ("all results as events, if Accept asks for them", "text/event-stream");
    match route.status {
        200 => answers.or(200, media_type, reference("Events")),
        _ => answers.content(200, about, media_type, reference("Events")),
    }
}

fn of_flow(route: &RouteSpec, setting: Setting) -> Answers {
    let has_record = route.record.is_some();
    let has_body = route.body.kind != BodyKind::None;
    let answers = results(route);
    let answers = if has_record {
        answers
    } else {
        answers
            .problem(409, "the request was cancelled")
            .otherwise("the flow rejects the content, or the service fails")
    };
    answers
        .problem(400, "a parameter, the key or the body is malformed")
        .problem_if(has_body, 408, "the body came too slowly")
        .problem(413, "the body is too large")
        .problem(415, "the body's type or encoding is not supported")
        .problem(422, "the body is empty, or its key was used with another body")
        .problem_if(
            !has_record || is_limited(route, setting),
            429,
            "the client is over its rate limit, or has too many streams open",
        )
        .problem(503, "the service is full, or cannot store requests right now")
}

fn query_param(param: &QueryParam) -> Value {
    let mut schema = match &param.kind {
        QueryKind::Integer { min, max, .. } => {
            let mut schema = json!({ "type": "integer" });
            if *min != i64::MIN {
                schema["minimum"] = json!(min);
            }
            if *max != i64::MAX {
                schema["maximum"] = json!(max);
            }
            schema
        }
        QueryKind::Text { one_of, max_length, .. } if one_of.is_empty() => {
            json!({ "type": "string", "maxLength": max_length })
        }
        QueryKind::Text { one_of, .. } => json!({ "type": "string", "enum": one_of }),
    };
    match &param.kind {
        QueryKind::Integer { default: Some(default), .. } => schema["default"] = json!(default),
        QueryKind::Text { default: Some(default), .. } => schema["default"] = json!(default),
        _ => {}
    }
    json!({ "name": param.name, "in": "query", "required": false, "schema": schema })
}

/// The schemas of a body, by media type.
fn body(spec: &BodySpec) -> Value {
    let file = json!({ "type": "string", "format": "binary" });
    let form = |properties: Map<String, Value>, required: Vec<&String>| json!({ "schema": { "type": "object", "properties": properties, "required": required } });
    match &spec.kind {
        BodyKind::None => json!({}),
        BodyKind::File(name) => {
            json!({ "multipart/form-data": form(Map::from_iter([(name.clone(), file)]), vec![name]) })
        }
        BodyKind::Parts(names) => {
            let properties = names.iter().map(|name| (name.clone(), file.clone())).collect();
            json!({ "multipart/form-data": form(properties, names.iter().collect()) })
        }
        BodyKind::Files => {
            let fields = json!({ "type": "object", "additionalProperties": { "type": "string" } });
            json!({ "multipart/form-data": { "schema": fields } })
        }
        BodyKind::Form { json: name, files } => {
            let photos = json!({ "type": "array", "items": file, "maxItems": spec.max_parts });
            let properties = Map::from_iter([(name.clone(), json!({ "type": "object" })), (files.clone(), photos)]);
            let uris = json!({ "type": "array", "items": { "type": "string", "pattern": "^data:" } });
            let as_json = json!({ "schema": { "type": "object", "properties": { format!("{files}s"): uris } } });
            json!({ "multipart/form-data": form(properties, vec![name]), "application/json": as_json })
        }
        BodyKind::Json => json!({ "application/json": { "schema": {} } }),
        BodyKind::Raw if !spec.types.is_empty() => {
            spec.types.iter().map(|kind| (kind.clone(), json!({ "schema": file }))).collect::<Map<_, _>>().into()
        }
        BodyKind::Raw => json!({ "*/*": { "schema": file } }),
        BodyKind::Open { json: true } => {
            json!({ "application/json": { "schema": {} }, "*/*": { "schema": file } })
        }
        BodyKind::Open { json: false } => json!({ "*/*": { "schema": file } }),
    }
}
