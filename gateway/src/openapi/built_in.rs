//! The built-in operations, which every service has.

use serde_json::{Value, json};

use super::parts::{Answers, path_param, security};
use super::setting::Setting;

/// One operation.
pub struct Operation {
    pub path: &'static str,
    pub method: &'static str,
    about: &'static str,
    /// Whether it needs no credential.
    public: bool,
    answers: Answers,
}

impl Operation {
    fn new(method: &'static str, path: &'static str, about: &'static str, answers: Answers) -> Self {
        Self { path, method, about, public: false, answers }
    }

    fn public(self) -> Self {
        Self { public: true, ..self }
    }

    pub fn describe(self, setting: Setting) -> Value {
        let segments = self.path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'));
        let params: Vec<Value> = segments.map(path_param).collect();
        json!({
            "summary": self.about,
            "parameters": params,
            "security": security(setting, self.public),
            "responses": self.answers.with_common(setting, self.method, self.public).into_value(),
        })
    }
}

/// Every operation.
pub fn operations(setting: Setting, open_metrics: bool) -> Vec<Operation> {
    let metrics = Operation::new("get", "/metrics", "metrics as Prometheus text", text(Answers::default()));
    let mut all = vec![
        Operation::new("get", "/health", "200 while the process lives", object()).public(),
        Operation::new("get", "/ready", "whether every component is ready", may_fail(object())).public(),
        if open_metrics { metrics.public() } else { metrics },
        Operation::new("get", "/openapi.json", "this document", object()),
        Operation::new("get", "/v1/flows", "the flows, their stages and live metrics", object()),
    ];
    all.extend(requests(setting));
    all.extend(dead_letters(setting));
    let ticket = Answers::default()
        .content(201, "the ticket, and the URL that it opens", "application/json", json!({ "type": "object" }))
        .problem(400, "the flow's name is malformed")
        .problem_if(setting.identity, 503, "the ticket cannot be stored");
    all.push(Operation::new("post", "/v1/tail/{flow}/ticket", "a ticket for the tail, for a browser", ticket));
    all.push(Operation::new(
        "get",
        "/v1/tail/{flow}",
        "live events as server-sent events, or as WebSocket",
        tail(setting),
    ));
    all
}

fn object() -> Answers {
    Answers::default().content(200, "success", "application/json", json!({ "type": "object" }))
}

fn text(answers: Answers) -> Answers {
    answers.content(200, "the metrics", "text/plain", json!({ "type": "string" }))
}

fn may_fail(answers: Answers) -> Answers {
    answers.problem(503, "the service cannot do this right now")
}

fn by_id(answers: Answers) -> Answers {
    may_fail(answers).problem(400, "the id is malformed").problem(404, "nothing has this id")
}

fn events(answers: Answers) -> Answers {
    answers.content(200, "events", "text/event-stream", json!({ "type": "string" }))
}

fn requests(setting: Setting) -> [Operation; 5] {
    let schema = json!({ "$ref": "#/components/schemas/Standing" });
    let status = Answers::default().content(200, "the status", "application/json", schema);
    let followed = by_id(events(Answers::default()))
        .empty(204, "no event follows")
        .problem(429, "this client has too many streams open");
    let result = by_id(Answers::default().content(200, "the result", "*/*", json!({})))
        .problem(409, "there is no result yet, or the request was cancelled")
        .otherwise("the problem that the request ended with");
    let cancelled = by_id(object()).problem(409, "the request has already ended");
    let ticket = Answers::default()
        .content(201, "the ticket, and the URL that it opens", "application/json", json!({ "type": "object" }))
        .problem(400, "the id is malformed")
        .problem_if(setting.identity, 404, "nothing has this id")
        .problem_if(setting.identity, 503, "the ticket cannot be stored");
    [
        Operation::new("get", "/v1/requests/{id}", "the status of a request", by_id(status)),
        Operation::new("delete", "/v1/requests/{id}", "cancels a request", cancelled),
        Operation::new("get", "/v1/requests/{id}/events", "the results of a request as they come", followed),
        Operation::new("get", "/v1/requests/{id}/result", "the result itself", result),
        Operation::new("post", "/v1/requests/{id}/ticket", "a ticket for the events, for a browser", ticket),
    ]
}

fn dead_letters(setting: Setting) -> [Operation; 4] {
    let admin = |answers: Answers| answers.problem_if(setting.identity, 403, "the caller is not an administrator");
    let list = admin(may_fail(object()).problem(400, "a parameter is malformed"));
    let retried = json!({ "$ref": "#/components/schemas/Later" });
    let retried = Answers::default().content(202, "the new request", "application/json", retried);
    let dropped = Answers::default().empty(204, "it is deleted");
    [
        Operation::new("get", "/v1/dead-letters", "the dead letters, oldest first", list),
        Operation::new("get", "/v1/dead-letters/{id}", "one dead letter", admin(by_id(object()))),
        Operation::new("delete", "/v1/dead-letters/{id}", "deletes a dead letter", admin(by_id(dropped))),
        Operation::new("post", "/v1/dead-letters/{id}/retry", "retries a dead letter", admin(by_id(retried))),
    ]
}

fn tail(_: Setting) -> Answers {
    events(may_fail(Answers::default()))
        .empty(101, "a WebSocket, if the client requests one")
        .problem(400, "the flow's name is malformed")
        .problem(403, "a page of another origin requests a WebSocket")
        .problem(404, "no flow has this name")
        .problem(429, "this client has too many streams open")
}
