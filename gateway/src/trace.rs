//! The place of a request in its trace, and the span that it leaves there when it was answered.

use std::sync::Arc;

use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::Response;
use pipeline::{Span, SpanKind, Spans, TraceContext, wall_time};
use tokio::time::Instant;

use crate::ask::REQUEST_HEADER;
use crate::meter::label_of;
use crate::state::GatewayState;

/// The caller's trace context in a request, that of the event in its answer.
pub const TRACE_HEADER: HeaderName = HeaderName::from_static("traceparent");

/// Routes that are asked again and again by machines and the console, and tell nothing.
const UNTRACED: [&str; 4] = ["/health", "/ready", "/metrics", "/v1/flows"];

/// The caller's trace context, if it is well-formed.
pub fn of_caller(headers: &HeaderMap) -> Option<TraceContext> {
    TraceContext::parse(headers.get(TRACE_HEADER)?.to_str().ok()?)
}

/// Where the event of a request belongs: within the request's span, or where spans are not kept the caller's.
pub fn place_of(parts: &Parts) -> TraceContext {
    let own = parts.extensions.get::<TraceContext>().copied();
    own.or_else(|| of_caller(&parts.headers)).unwrap_or_else(|| TraceContext::fresh(true))
}

/// A request whose span is kept; taken when it is answered, or its client has left.
pub struct Traced {
    spans: Arc<dyn Spans>,
    span: Span,
    begun: Instant,
}

impl Traced {
    /// Begins the span of a request, and notes its place in it; `None` where nobody would keep it.
    pub fn begin(state: &GatewayState, route: &str, parts: &mut Parts) -> Option<Self> {
        let spans = state.spans.as_ref()?;
        if UNTRACED.contains(&route) || route == "/" || route.starts_with("/console/") {
            return None;
        }
        let parent = of_caller(&parts.headers);
        let context = spans.place(parent);
        parts.extensions.insert(context);
        let begun = Instant::now();
        let method = label_of(&parts.method);
        let span = Span {
            context,
            parent: parent.map(|parent| parent.span),
            name: format!("{method} {route}"),
            kind: SpanKind::Server,
            begun: wall_time(begun),
            took: std::time::Duration::ZERO,
            attributes: vec![("http.request.method", method.into()), ("http.route", route.into())],
            error: Some("the client left".into()),
        };
        context.sampled.then(|| Self { spans: Arc::clone(spans), span, begun })
    }

    /// Its answer has begun.
    pub fn answered(mut self, response: &Response) {
        let status = response.status();
        self.span.attributes.push(("http.response.status_code", u32::from(status.as_u16()).into()));
        let request = response.headers().get(REQUEST_HEADER).and_then(|id| id.to_str().ok());
        self.span.attributes.extend(request.map(|id| ("caudal.request", id.into())));
        self.span.error = (status >= StatusCode::INTERNAL_SERVER_ERROR).then(|| status.as_u16().to_string());
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        let took = self.begun.elapsed();
        self.spans.take(Span { took, ..self.span.clone() });
    }
}
