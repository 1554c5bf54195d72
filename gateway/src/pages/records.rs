//! `GET` of a route with `record`: reads the record that the path names.

use axum::extract::RawPathParams;
use axum::extract::rejection::RawPathParamsRejection;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use pipeline::Params;
use serde_json::Value;

use crate::identity::caller::Caller;
use crate::intake::params;
use crate::problem::Problem;
use crate::spec::RecordSpec;
use crate::state::GatewayState;

/// The record that the path names.
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
        _ => Err(Problem::new(StatusCode::NOT_FOUND, "no_record", format!("no record has the {} {key}", spec.id))),
    }
}
