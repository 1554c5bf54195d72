//! The schemas that operations of the OpenAPI document refer to.

use serde_json::{Map, Value, json};

use super::parts::reference;

/// Every schema, by name.
pub fn all() -> Value {
    let parts = [requests(), service(), dead_letters()];
    parts.into_iter().flat_map(|part| part.as_object().cloned().unwrap_or_default()).collect::<Map<_, _>>().into()
}

/// An object whose `required` properties are always there. Others may be added in later versions.
fn object(required: &[&str], properties: Value) -> Value {
    json!({ "type": "object", "required": required, "properties": properties })
}

/// The record that a form of this name makes.
pub fn record(form: &str) -> Value {
    let fields = object(&["id"], json!({ "id": reference("Id") }));
    object(&[form, "request"], json!({ form: fields, "request": reference("Id") }))
}

fn requests() -> Value {
    let text = json!({ "type": "string" });
    let time = json!({ "type": "string", "format": "date-time" });
    let problem = json!({
        "type": text, "title": text, "status": { "type": "integer" }, "detail": text, "request": text,
        "code": { "type": "string", "description": "stable, for programs" },
    });
    let later = json!({
        "id": reference("Id"), "flow": text, "status": reference("Status"),
        "position": { "type": ["integer", "null"], "description": "requests before this one in the queue" },
        "expected_wait_ms": { "type": ["integer", "null"] },
    });
    let standing = json!({
        "id": reference("Id"), "flow": text, "status": reference("Status"), "created": time, "updated": time,
        "result": { "description": "the result if it is JSON, else its URL" },
        "result_type": text, "result_length": { "type": "integer" }, "error": reference("Problem"),
    });
    let ticket = json!({
        "ticket": { "type": ["string", "null"], "description": "null if authentication is off" },
        "url": { "type": "string", "format": "uri-reference", "description": "opens the stream once" },
        "expires_in": { "type": ["integer", "null"], "description": "seconds" },
    });
    let mut problem = object(&["type", "title", "status", "code", "detail"], problem);
    problem["description"] = json!("RFC 9457");
    let cancelled = json!({ "id": reference("Id"), "flow": text, "status": reference("Status") });
    json!({
        "Id": { "type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$" },
        "Status": { "enum": ["queued", "running", "done", "failed", "cancelled"] },
        "Problem": problem,
        "Later": object(&["id", "status"], later),
        "Standing": object(&["id", "flow", "status", "created", "updated"], standing),
        "Cancelled": object(&["id", "flow", "status"], cancelled),
        "Ticket": object(&["ticket", "url", "expires_in"], ticket),
        "Events": {
            "type": "string",
            "description": "server-sent events: id, a number; event, one of accepted, progress, data, done, failed, \
                            cancelled; data, JSON, or a URL if the content is not JSON",
        },
        "File": { "type": "string", "format": "binary" },
    })
}

fn service() -> Value {
    let text = json!({ "type": "string" });
    let backlog = object(&["interactive", "bulk"], json!({ "interactive": count(), "bulk": count() }));
    let flow = json!({
        "name": text, "about": text, "open": { "type": "boolean", "description": "whether /v1/flows/NAME takes events" },
        "stages": { "type": "array", "items": { "type": "object" } },
        "backlog": { "anyOf": [backlog, { "type": "null" }], "description": "events that wait in the broker, by lane" },
        "backlog_limit": count(),
    });
    let flow = object(&["name", "about", "open", "stages", "backlog", "backlog_limit"], flow);
    let route = json!({ "path": text, "method": text, "flow": { "type": ["string", "null"] } });
    let flows = json!({
        "service": text,
        "flows": { "type": "array", "items": flow },
        "routes": { "type": "array", "items": object(&["path", "method", "flow"], route) },
    });
    let ready = json!({
        "status": { "enum": ["ready", "degraded"] },
        "degraded": { "type": "array", "items": text, "description": "what waits or does not drain" },
    });
    json!({
        "Health": object(&["status", "service"], json!({ "status": { "enum": ["ok"] }, "service": text })),
        "Readiness": object(&["status", "degraded"], ready),
        "Flows": object(&["service", "flows", "routes"], flows),
    })
}

fn dead_letters() -> Value {
    let text = json!({ "type": "string" });
    let cause = json!({ "status": { "type": "integer" }, "code": text, "detail": text });
    let letter = json!({
        "id": count(), "flow": text, "event": reference("Id"), "request": { "type": ["string", "null"] },
        "lane": { "enum": ["interactive", "bulk"] }, "time": { "type": ["string", "null"], "format": "date-time" },
        "stage": text, "attempts": count(), "deliveries": count(),
        "cause": object(&["status", "code", "detail"], cause), "error": { "type": ["string", "null"] },
        "payload_kind": text, "payload_bytes": count(),
        "params": { "type": "object", "description": "only of one letter" },
        "payload": { "description": "only of one letter: the payload if it is text, else its type and length" },
    });
    let page = json!({
        "dead_letters": { "type": "array", "items": reference("DeadLetter") },
        "next": { "type": ["integer", "null"], "description": "the parameter from of the next page" },
    });
    json!({
        "DeadLetter": object(&["id", "flow", "event", "lane", "stage", "attempts", "cause", "payload_kind"], letter),
        "DeadLetters": object(&["dead_letters", "next"], page),
    })
}

fn count() -> Value {
    json!({ "type": "integer", "minimum": 0 })
}
