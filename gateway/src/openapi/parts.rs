//! What operations of the OpenAPI document share.

use serde_json::{Map, Value, json};

use super::Setting;

/// Answers of an operation, by status.
#[derive(Default)]
pub struct Answers(Map<String, Value>);

impl Answers {
    /// A success with content of a media type that matches a schema.
    pub fn content(mut self, status: u16, about: &str, media_type: &str, schema: Value) -> Self {
        let content = json!({ media_type: { "schema": schema } });
        self.0.insert(status.to_string(), json!({ "description": about, "content": content }));
        self
    }

    /// A success without content.
    pub fn empty(mut self, status: u16, about: &str) -> Self {
        self.0.insert(status.to_string(), json!({ "description": about }));
        self
    }

    /// A problem; 429 and 503 say when to come again.
    pub fn problem(mut self, status: u16, about: &str) -> Self {
        self.0.insert(status.to_string(), problem(status, about));
        self
    }

    pub fn problem_if(self, condition: bool, status: u16, about: &str) -> Self {
        if condition { self.problem(status, about) } else { self }
    }

    /// Every other problem.
    pub fn otherwise(mut self, about: &str) -> Self {
        self.0.insert("default".into(), problem(0, about));
        self
    }

    /// What is answered before any handler: headers or a URI that are too long; pages of other sites; whoever is not known.
    pub fn guarded(self, setting: Setting, method: &str, open: bool) -> Self {
        let is_safe = method.eq_ignore_ascii_case("get");
        let foreign = (setting.names || !is_safe) && !self.0.contains_key("403");
        let known = setting.identity && !open;
        let tried = known && setting.limits && !self.0.contains_key("429");
        self.empty(431, "the headers are too many or too long")
            .problem(414, "the URI is longer than 8 KiB")
            .problem_if(foreign, 403, "a page of another site sent it, or it names a host that is not ours")
            .problem_if(known, 401, "no good key or token was sent")
            .problem_if(tried, 429, "too many keys or tokens that are no good came from this address")
    }

    pub fn into_value(self) -> Value {
        Value::Object(self.0)
    }
}

fn problem(status: u16, about: &str) -> Value {
    let schema = json!({ "$ref": "#/components/schemas/Problem" });
    let mut answer = json!({ "description": about, "content": { "application/problem+json": { "schema": schema } } });
    if matches!(status, 429 | 503) {
        answer["headers"] = json!({ "Retry-After": { "$ref": "#/components/headers/Retry-After" } });
    }
    answer
}

/// What an operation demands of its caller.
pub fn security(setting: Setting, open: bool) -> Value {
    if setting.identity && !open { json!([{ "bearer": [] }, { "key": [] }]) } else { json!([]) }
}

pub fn security_schemes() -> Value {
    json!({
        "bearer": { "type": "http", "scheme": "bearer", "description": "an API key, or a JWT" },
        "key": { "type": "apiKey", "in": "header", "name": "X-API-Key" },
    })
}

pub fn headers() -> Value {
    json!({
        "Caudal-Request": { "description": "id of the request", "schema": { "$ref": "#/components/schemas/Id" } },
        "Retry-After": { "description": "seconds until it is worth coming again", "schema": { "type": "integer", "minimum": 1 } },
    })
}

/// A parameter of the path.
pub fn path_param(name: &str) -> Value {
    json!({ "name": name, "in": "path", "required": true, "schema": { "$ref": "#/components/schemas/Id" } })
}

pub fn schemas() -> Value {
    let text = json!({ "type": "string" });
    let statuses = json!({ "enum": ["queued", "running", "done", "failed", "cancelled"] });
    json!({
        "Id": { "type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$" },
        "Problem": {
            "description": "RFC 9457",
            "type": "object",
            "required": ["type", "title", "status", "code", "detail"],
            "properties": {
                "type": text, "title": text, "status": { "type": "integer" }, "detail": text, "request": text,
                "code": { "type": "string", "description": "stable; what programs look at" },
            },
        },
        "Later": {
            "type": "object",
            "required": ["id", "status"],
            "properties": {
                "id": { "$ref": "#/components/schemas/Id" }, "status": statuses,
                "position": { "type": ["integer", "null"] }, "expected_wait_ms": { "type": ["integer", "null"] },
            },
        },
        "Standing": {
            "type": "object",
            "required": ["id", "flow", "status", "created", "updated"],
            "properties": {
                "id": { "$ref": "#/components/schemas/Id" }, "flow": text, "status": statuses,
                "created": { "type": "string", "format": "date-time" },
                "updated": { "type": "string", "format": "date-time" },
                "result": { "description": "the answer if it is JSON, else where it is" },
                "result_type": text, "result_length": { "type": "integer" },
                "error": { "$ref": "#/components/schemas/Problem" },
            },
        },
    })
}
