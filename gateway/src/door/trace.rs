//! Trace context (W3C) and spans of requests.

use std::sync::Arc;

use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use pipeline::{Span, SpanKind, Spans, TraceContext, wall_time};
use tokio::time::Instant;

use super::metrics::method_label;
use crate::header_names::{REQUEST_ID, TRACEPARENT};
use crate::state::GatewayState;

/// Routes that machines and the console poll; their spans would only be noise.
const UNTRACED: [&str; 4] = ["/health", "/ready", "/metrics", "/v1/flows"];

/// The caller's trace context, if it is well-formed.
pub fn of_caller(headers: &HeaderMap) -> Option<TraceContext> {
    TraceContext::parse(headers.get(TRACEPARENT)?.to_str().ok()?)
}

/// The trace context of a request's event: within the request's span, or the caller's if spans are off.
pub fn context_of(parts: &Parts) -> TraceContext {
    let own = parts.extensions.get::<TraceContext>().copied();
    own.or_else(|| of_caller(&parts.headers)).unwrap_or_else(|| TraceContext::fresh(true))
}

/// The span of a request; recorded when the request is answered, or its client has disconnected.
pub struct RequestSpan {
    spans: Arc<dyn Spans>,
    span: Span,
    begun: Instant,
}

impl RequestSpan {
    /// Begins the span of a request and adds its context to the request's extensions; `None` if it is not recorded.
    pub fn begin(state: &GatewayState, route: &str, parts: &mut Parts) -> Option<Self> {
        let spans = state.spans.as_ref()?;
        if UNTRACED.contains(&route) || route == "/" || route.starts_with("/console/") {
            return None;
        }
        let parent = of_caller(&parts.headers);
        let context = spans.place(parent);
        parts.extensions.insert(context);
        let begun = Instant::now();
        let method = method_label(&parts.method);
        let span = Span {
            context,
            parent: parent.map(|parent| parent.span),
            name: format!("{method} {route}"),
            kind: SpanKind::Server,
            begun: wall_time(begun),
            took: std::time::Duration::ZERO,
            attributes: vec![("http.request.method", method.into()), ("http.route", route.into())],
            error: Some("the client disconnected".into()),
        };
        context.sampled.then(|| Self { spans: Arc::clone(spans), span, begun })
    }

    /// Records the answer, which has begun.
    pub fn answered(mut self, response: &Response) {
        let status = response.status();
        self.span.attributes.push(("http.response.status_code", u32::from(status.as_u16()).into()));
        let request = response.headers().get(REQUEST_ID).and_then(|id| id.to_str().ok());
        self.span.attributes.extend(request.map(|id| ("caudal.request", id.into())));
        self.span.error = (status >= StatusCode::INTERNAL_SERVER_ERROR).then(|| status.as_u16().to_string());
    }
}

impl Drop for RequestSpan {
    fn drop(&mut self) {
        let took = self.begun.elapsed();
        self.spans.take(Span { took, ..self.span.clone() });
    }
}
