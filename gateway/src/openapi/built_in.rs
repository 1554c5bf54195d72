//! The built-in operations, which every service has.

use serde_json::{Value, json};

use super::parts::{Answers, path_param, reference, security};
use super::setting::Setting;

/// One operation.
pub struct Operation {
    pub path: &'static str,
    pub method: &'static str,
    /// Its name in generated clients.
    pub id: &'static str,
    about: &'static str,
    /// Parameters besides those of the path.
    params: Vec<Value>,
    /// Whether it needs no credential.
    public: bool,
    answers: Answers,
}

impl Operation {
    /// `line` is `METHOD /path`.
    fn new(id: &'static str, line: &'static str, about: &'static str, answers: Answers) -> Self {
        let (method, path) = line.split_once(' ').expect("a method and a path");
        Self { path, method, id, about, params: Vec::new(), public: false, answers }
    }

    fn with_params(self, params: Vec<Value>) -> Self {
        Self { params, ..self }
    }

    fn public(self) -> Self {
        Self { public: true, ..self }
    }

    pub fn describe(self, setting: Setting) -> Value {
        let segments = self.path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'));
        let params: Vec<Value> = segments.map(path_param).chain(self.params).collect();
        json!({
            "operationId": self.id,
            "summary": self.about,
            "parameters": params,
            "security": security(setting, self.public),
            "responses": self.answers.with_common(setting, self.method, self.public).into_value(),
        })
    }
}

/// Every operation.
pub fn operations(setting: Setting, open_metrics: bool) -> Vec<Operation> {
    let text = Answers::default().content(200, "the metrics", "text/plain", json!({ "type": "string" }));
    let metrics = Operation::new("metrics", "get /metrics", "metrics as Prometheus text", text);
    let health = success("it lives", "Health");
    let ready = may_fail(success("every component is ready", "Readiness"));
    let document = Answers::default().content(200, "the document", "application/json", json!({ "type": "object" }));
    let flows = success("the flows and routes", "Flows");
    let mut all = vec![
        Operation::new("health", "get /health", "whether the process lives", health).public(),
        Operation::new("ready", "get /ready", "whether every component is ready", ready).public(),
        if open_metrics { metrics.public() } else { metrics },
        Operation::new("openapi", "get /openapi.json", "this document", document),
        Operation::new("list_flows", "get /v1/flows", "the flows, their stages and live metrics", flows),
    ];
    all.extend(requests(setting));
    all.extend(dead_letters(setting));
    all.extend(tails(setting));
    all
}

fn success(about: &str, schema: &str) -> Answers {
    Answers::default().json(200, about, schema)
}

fn may_fail(answers: Answers) -> Answers {
    answers.problem(503, "the service cannot do this right now")
}

fn by_id(answers: Answers) -> Answers {
    may_fail(answers).problem(400, "the id is malformed").problem(404, "nothing has this id")
}

fn events() -> Answers {
    Answers::default().content(200, "events as they come", "text/event-stream", reference("Events"))
}

fn query(name: &str, about: &str, schema: Value) -> Value {
    json!({ "name": name, "in": "query", "required": false, "description": about, "schema": schema })
}

fn ticket() -> Answers {
    Answers::default().json(201, "the ticket, and the URL that it opens", "Ticket")
}

/// The ticket of a stream, which stands in for a credential.
fn ticket_param(setting: Setting) -> Option<Value> {
    let about = "a ticket, in place of a key or token";
    setting.identity.then(|| query("ticket", about, json!({ "type": "string" })))
}

/// Where a stream of a request resumes.
fn resume_params() -> [Value; 2] {
    let about = "the id of the last event that the client has: the stream begins after it";
    let id = json!({ "type": "integer", "minimum": 0 });
    let header = json!({
        "name": "Last-Event-ID", "in": "header", "required": false, "description": about, "schema": id.clone(),
    });
    [header, query("lastEventId", "the same, for clients that cannot set headers; the header goes before it", id)]
}

fn requests(setting: Setting) -> [Operation; 5] {
    let status = success("the status", "Standing");
    let followed = by_id(events()).empty(204, "no event follows").problem(429, "this client has too many streams open");
    let result =
        by_id(Answers::default().content(200, "the result, with its media type", "application/json", json!({})))
            .or(200, "*/*", reference("File"))
            .problem(409, "there is no result yet, or the request was cancelled")
            .otherwise("the problem that the request ended with");
    let cancelled = by_id(success("it is cancelled", "Cancelled")).problem(409, "the request has already ended");
    let ticket = ticket()
        .problem(400, "the id is malformed")
        .problem_if(setting.identity, 404, "nothing has this id")
        .problem_if(setting.identity, 503, "the ticket cannot be stored");
    let resumed = resume_params().into_iter().chain(ticket_param(setting)).collect();
    let stream = "the results of a request as they come";
    [
        Operation::new("show_request", "get /v1/requests/{id}", "the status of a request", by_id(status)),
        Operation::new("cancel_request", "delete /v1/requests/{id}", "cancels a request", cancelled),
        Operation::new("follow_request", "get /v1/requests/{id}/events", stream, followed).with_params(resumed),
        Operation::new("read_result", "get /v1/requests/{id}/result", "the result itself", result),
        Operation::new(
            "issue_request_ticket",
            "post /v1/requests/{id}/ticket",
            "a ticket for the events, for a browser",
            ticket,
        ),
    ]
}

fn dead_letters(setting: Setting) -> [Operation; 4] {
    let admin = |answers: Answers| answers.problem_if(setting.identity, 403, "the caller is not an administrator");
    let list = admin(may_fail(success("a page of letters", "DeadLetters")).problem(400, "a parameter is malformed"));
    let number = |minimum: u64| json!({ "type": "integer", "minimum": minimum });
    let selection = vec![
        query("flow", "only letters of this flow", json!({ "type": "string" })),
        query("from", "the least id", number(0)),
        query("limit", "letters in one answer, at most 100", number(1)),
    ];
    let retried = Answers::default().later("the new request");
    let dropped = Answers::default().empty(204, "it is deleted");
    let one = by_id(success("the letter", "DeadLetter"));
    let (all, by) = ("get /v1/dead-letters", "get /v1/dead-letters/{id}");
    let (drop, retry) = ("delete /v1/dead-letters/{id}", "post /v1/dead-letters/{id}/retry");
    [
        Operation::new("list_dead_letters", all, "the dead letters, oldest first", list).with_params(selection),
        Operation::new("show_dead_letter", by, "one dead letter", admin(one)),
        Operation::new("drop_dead_letter", drop, "deletes a dead letter", admin(by_id(dropped))),
        Operation::new("retry_dead_letter", retry, "retries a dead letter", admin(by_id(retried))),
    ]
}

fn tails(setting: Setting) -> [Operation; 2] {
    let ticket = ticket().problem(400, "the flow's name is malformed").problem_if(
        setting.identity,
        503,
        "the ticket cannot be stored",
    );
    let about = "live events as server-sent events, or as WebSocket";
    let opened = ticket_param(setting).into_iter().collect();
    [
        Operation::new(
            "issue_tail_ticket",
            "post /v1/tail/{flow}/ticket",
            "a ticket for the tail, for a browser",
            ticket,
        ),
        Operation::new("tail_flow", "get /v1/tail/{flow}", about, tail()).with_params(opened),
    ]
}

fn tail() -> Answers {
    may_fail(events())
        .empty(101, "a WebSocket, if the client requests one")
        .problem(400, "the flow's name is malformed")
        .problem(403, "a page of another origin requests a WebSocket")
        .problem(404, "no flow has this name")
        .problem(429, "this client has too many streams open")
}
