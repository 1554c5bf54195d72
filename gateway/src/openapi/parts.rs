//! The parts that operations of the OpenAPI document share: answers, parameters, headers.

use serde_json::{Map, Value, json};

use super::setting::Setting;

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

    /// A success with JSON of a schema of the components.
    pub fn json(self, status: u16, about: &str, schema: &str) -> Self {
        self.content(status, about, "application/json", reference(schema))
    }

    /// A request that goes on, with where it can be found.
    pub fn later(self, about: &str) -> Self {
        self.json(202, about, "Later").header(202, "Location")
    }

    /// A header of the components, of a success that is listed already.
    pub fn header(mut self, status: u16, name: &str) -> Self {
        self.0[&status.to_string()]["headers"][name] = json!({ "$ref": format!("#/components/headers/{name}") });
        self
    }

    /// Another media type of a success that is listed already.
    pub fn or(mut self, status: u16, media_type: &str, schema: Value) -> Self {
        self.0[&status.to_string()]["content"][media_type] = json!({ "schema": schema });
        self
    }

    /// A success without content.
    pub fn empty(mut self, status: u16, about: &str) -> Self {
        self.0.insert(status.to_string(), json!({ "description": about }));
        self
    }

    /// A problem; 429 and 503 have `Retry-After`.
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

    /// Adds the answers of the middleware: headers or a URI that are too long, pages of other sites, missing
    /// credentials.
    pub fn with_common(self, setting: Setting, method: &str, public: bool) -> Self {
        let is_safe = method.eq_ignore_ascii_case("get");
        let foreign = (setting.checks_host || !is_safe) && !self.0.contains_key("403");
        let authenticated = setting.identity && !public;
        let counted = authenticated && setting.limits && !self.0.contains_key("429");
        self.empty(431, "there are too many headers, or they are too long")
            .problem(414, "the URI is longer than 8 KiB")
            .problem_if(foreign, 403, "a page of another site sent the request, or it names a foreign host")
            .problem_if(authenticated, 401, "the key or token is missing or not valid")
            .problem_if(counted, 429, "this address has sent too many keys or tokens that are not valid")
    }

    pub fn into_value(self) -> Value {
        Value::Object(self.0)
    }
}

fn problem(status: u16, about: &str) -> Value {
    let content = json!({ "application/problem+json": { "schema": reference("Problem") } });
    let mut answer = json!({ "description": about, "content": content });
    if matches!(status, 429 | 503) {
        answer["headers"] = json!({ "Retry-After": { "$ref": "#/components/headers/Retry-After" } });
    }
    answer
}

/// The credentials that an operation needs.
pub fn security(setting: Setting, public: bool) -> Value {
    if setting.identity && !public { json!([{ "bearer": [] }, { "key": [] }]) } else { json!([]) }
}

pub fn security_schemes() -> Value {
    json!({
        "bearer": { "type": "http", "scheme": "bearer", "description": "an API key, or a JWT" },
        "key": { "type": "apiKey", "in": "header", "name": "X-API-Key" },
    })
}

pub fn headers() -> Value {
    json!({
        "Caudal-Ignored-Parts": {
            "description": "names of the parts of the form that the route has no use for, a list of quoted texts",
            "schema": { "type": "string" },
        },
        "Caudal-Request": { "description": "id of the request", "schema": { "$ref": "#/components/schemas/Id" } },
        "Location": {
            "description": "path of the request, whose status and result are there",
            "schema": { "type": "string", "format": "uri-reference" },
        },
        "Retry-After": {
            "description": "seconds until the client should try again",
            "schema": { "type": "integer", "minimum": 1 },
        },
    })
}

/// A schema of the components.
pub fn reference(schema: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}

/// A parameter of the path.
pub fn path_param(name: &str) -> Value {
    json!({ "name": name, "in": "path", "required": true, "schema": reference("Id") })
}
