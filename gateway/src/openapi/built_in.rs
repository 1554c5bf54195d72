//! The operations of every service.

use serde_json::{Value, json};

use super::Setting;
use super::parts::{Answers, path_param, security};

/// One operation.
pub struct Operation {
    pub path: &'static str,
    pub method: &'static str,
    about: &'static str,
    /// Whether it asks nobody who they are.
    open: bool,
    answers: Answers,
}

impl Operation {
    fn new(method: &'static str, path: &'static str, about: &'static str, answers: Answers) -> Self {
        Self { path, method, about, open: false, answers }
    }

    fn open(self) -> Self {
        Self { open: true, ..self }
    }

    pub fn describe(self, setting: Setting) -> Value {
        let segments = self.path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'));
        let params: Vec<Value> = segments.map(path_param).collect();
        json!({
            "summary": self.about,
            "parameters": params,
            "security": security(setting, self.open),
            "responses": self.answers.guarded(setting, self.method, self.open).into_value(),
        })
    }
}

/// Every operation.
pub fn operations(setting: Setting, open_metrics: bool) -> Vec<Operation> {
    let metrics = Operation::new("get", "/metrics", "metrics as Prometheus text", text(Answers::default()));
    let mut all = vec![
        Operation::new("get", "/health", "200 while the process lives", object()).open(),
        Operation::new("get", "/ready", "whether every part is usable", kept(object())).open(),
        if open_metrics { metrics.open() } else { metrics },
        Operation::new("get", "/openapi.json", "this document", object()),
        Operation::new("get", "/v1/flows", "the flows, their stages and live figures", object()),
    ];
    all.extend(requests(setting));
    all.extend(dead_letters(setting));
    let ticket = Answers::default()
        .content(201, "the ticket, and the address that it opens", "application/json", json!({ "type": "object" }))
        .problem(400, "the flow's name is none")
        .problem_if(setting.identity, 503, "the ticket cannot be kept");
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
    Answers::default().content(200, "it is so", "application/json", json!({ "type": "object" }))
}

fn text(answers: Answers) -> Answers {
    answers.content(200, "the metrics", "text/plain", json!({ "type": "string" }))
}

fn kept(answers: Answers) -> Answers {
    answers.problem(503, "the service cannot do this right now")
}

fn named(answers: Answers) -> Answers {
    kept(answers).problem(400, "the id is none").problem(404, "nothing is known under this id")
}

fn events(answers: Answers) -> Answers {
    answers.content(200, "events", "text/event-stream", json!({ "type": "string" }))
}

fn requests(setting: Setting) -> [Operation; 5] {
    let standing = json!({ "$ref": "#/components/schemas/Standing" });
    let standing = Answers::default().content(200, "where it stands", "application/json", standing);
    let followed = named(events(Answers::default()))
        .empty(204, "nothing follows")
        .problem(429, "this client has too many streams open");
    let result = named(Answers::default().content(200, "the answer", "*/*", json!({})))
        .problem(409, "there is no result yet, or the request was cancelled")
        .otherwise("the problem that the request ended with");
    let cancelled = named(object()).problem(409, "it has ended already");
    let ticket = Answers::default()
        .content(201, "the ticket, and the address that it opens", "application/json", json!({ "type": "object" }))
        .problem(400, "the id is none")
        .problem_if(setting.identity, 404, "nothing is known under this id")
        .problem_if(setting.identity, 503, "the ticket cannot be kept");
    [
        Operation::new("get", "/v1/requests/{id}", "where a request stands", named(standing)),
        Operation::new("delete", "/v1/requests/{id}", "cancels a request", cancelled),
        Operation::new("get", "/v1/requests/{id}/events", "the results of a request as they come", followed),
        Operation::new("get", "/v1/requests/{id}/result", "the answer itself", result),
        Operation::new("post", "/v1/requests/{id}/ticket", "a ticket for the events, for a browser", ticket),
    ]
}

fn dead_letters(setting: Setting) -> [Operation; 4] {
    let admin = |answers: Answers| answers.problem_if(setting.identity, 403, "only administrators may");
    let list = admin(kept(object()).problem(400, "a parameter is not what it should be"));
    let retried = json!({ "$ref": "#/components/schemas/Later" });
    let retried = Answers::default().content(202, "the new request", "application/json", retried);
    let dropped = Answers::default().empty(204, "it is gone");
    [
        Operation::new("get", "/v1/dead-letters", "what ended in failure, oldest first", list),
        Operation::new("get", "/v1/dead-letters/{id}", "one of them", admin(named(object()))),
        Operation::new("delete", "/v1/dead-letters/{id}", "forgets one of them", admin(named(dropped))),
        Operation::new("post", "/v1/dead-letters/{id}/retry", "sends one of them again", admin(named(retried))),
    ]
}

fn tail(_: Setting) -> Answers {
    events(kept(Answers::default()))
        .empty(101, "a WebSocket, for whoever asked for one")
        .problem(400, "the flow's name is none")
        .problem(403, "the page that asks for a WebSocket is not ours")
        .problem(404, "no flow has this name")
        .problem(429, "this client has too many streams open")
}
