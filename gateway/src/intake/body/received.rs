//! The result of reading a body.

use axum::http::StatusCode;
use pipeline::Payload;
use serde_json::{Map, Value};

use crate::problem::Problem;

/// A body that was read to its end.
pub struct ReceivedBody {
    /// The event's payload.
    pub payload: Payload,
    /// The fields of the record, if the route writes one.
    pub record: Option<Map<String, Value>>,
    /// The fields of a form, if the route takes any.
    pub fields: Option<Map<String, Value>>,
    /// Names of a form's parts that were not used, in the order of the form.
    pub ignored_parts: Vec<String>,
}

impl ReceivedBody {
    /// A body that is nothing but a payload.
    pub fn payload(payload: Payload) -> Self {
        Self { payload, record: None, fields: None, ignored_parts: Vec::new() }
    }
}

/// 422: a file without content.
pub fn empty(what: &str) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "empty_file", format!("{what} is empty: send a file with content"))
}
