//! A route that starts a flow, as its handler uses it.

use std::sync::Arc;

use axum::http::StatusCode;
use pipeline::FlowName;

use crate::door::rate_limit::ClientLimit;
use crate::spec::RouteSpec;

/// A route that starts a flow.
pub struct Route {
    pub spec: RouteSpec,
    pub flow: FlowName,
    /// Status of a success.
    pub status: StatusCode,
    pub limit: Option<Arc<ClientLimit>>,
}

impl Route {
    pub fn new(spec: RouteSpec, flow: FlowName, limit: Option<Arc<ClientLimit>>) -> Self {
        let status = StatusCode::from_u16(spec.status).unwrap_or(StatusCode::OK);
        Self { spec, flow, status, limit }
    }
}
