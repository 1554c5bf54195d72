//! Records: what a report's route writes before its event, and what a `GET` reads back.

use axum::extract::RawPathParams;
use axum::extract::rejection::RawPathParamsRejection;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use pipeline::{Envelope, Params, RequestId, Token};
use serde_json::{Map, Value, json};

use crate::identity::caller::Caller;
use crate::identity::tenant;
use crate::params;
use crate::problem::Problem;
use crate::spec::{BodyKind, RecordSpec};
use crate::state::GatewayState;

/// A record that was written for an event that is about to be submitted.
pub struct Record {
    store: Token,
    key: Token,
    /// As written.
    pub value: Bytes,
    revision: u64,
    before: Option<Bytes>,
}

impl Record {
    /// Makes `{"<name>": {…}, "request": id}` under the report's own id, or one that follows from its request's, and notes
    /// it in the event. Nothing is written.
    pub fn prepare(
        spec: &RecordSpec,
        envelope: &mut Envelope,
        body: &BodyKind,
        mut fields: Map<String, Value>,
    ) -> Result<Draft, Problem> {
        let BodyKind::Form { json: name, .. } = body else { return Err(Problem::internal()) };
        let key = key_of(name, &fields, &envelope.id)?;
        fields.insert("id".into(), Value::from(key.as_str()));
        envelope.params.insert(spec.id.clone(), Value::from(key.as_str()));
        let value = json!({ name.as_str(): fields, "request": envelope.id });
        // Tenants have their own.
        let key = match envelope.tenant() {
            Some(tenant) => tenant::partitioned(tenant, &key),
            None => key,
        };
        Ok(Draft { store: spec.store.clone(), key, value: Bytes::from(value.to_string()) })
    }

    /// Puts back what was there, unless somebody has written since; nothing is written as an empty record.
    pub async fn take_back(&self, state: &GatewayState) {
        let before = self.before.clone().unwrap_or_default();
        let restored = state.transport.replace_record(&self.store, &self.key, self.revision, before).await;
        if let Err(error) = restored {
            tracing::error!(store = %self.store, key = %self.key, %error, "record of a refused event not taken back");
        }
    }
}

/// A record that is not written yet.
pub struct Draft {
    store: Token,
    key: Token,
    /// What will be written.
    pub value: Bytes,
}

impl Draft {
    /// Writes it, replacing what was there.
    pub async fn write(self, state: &GatewayState) -> Result<Record, Problem> {
        let Self { store, key, value } = self;
        let before = state.transport.get_record(&store, &key).await?.map(|before| before.value);
        let revision = state.transport.put_record(&store, &key, value.clone()).await?;
        Ok(Record { store, key, value, revision, before })
    }
}

/// The record's key: its own `id`, which must then be a token, or one that follows from the request's id.
fn key_of(name: &str, fields: &Map<String, Value>, request: &RequestId) -> Result<Token, Problem> {
    let field = format!("{name}.id");
    match fields.get("id") {
        None | Some(Value::Null) => Ok(request.child("record", 0)),
        Some(Value::String(text)) => params::token(&field, text),
        Some(Value::Number(number)) => params::token(&field, &number.to_string()),
        Some(_) => Err(Problem::malformed("bad_parameter", format!("{field} must be text or a number"))),
    }
}

/// Answers with the record that the path names.
pub async fn read(
    state: GatewayState,
    caller: Caller,
    spec: RecordSpec,
    path: Result<RawPathParams, RawPathParamsRejection>,
) -> Result<Response, Problem> {
    let mut params = Params::new();
    params::of_path(path, &mut params)?;
    let key = params.get(&spec.id).and_then(Value::as_str).unwrap_or_default();
    let key = params::token(&spec.id, key)?;
    match state.transport.get_record(&spec.store, &caller.record_key(&key)).await? {
        Some(record) if !record.value.is_empty() => {
            Ok(([(header::CONTENT_TYPE, "application/json")], record.value).into_response())
        }
        _ => Err(Problem::new(StatusCode::NOT_FOUND, "no_record", format!("nothing is kept under {} {key}", spec.id))),
    }
}
