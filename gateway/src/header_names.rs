//! Names of headers that several parts read or write.

use axum::http::HeaderName;

/// The id of a request, on every answer of a flow's route.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("caudal-request");

/// The id that a client of Gotenberg gives its request; it comes back with the answer.
pub const GOTENBERG_TRACE: HeaderName = HeaderName::from_static("gotenberg-trace");

/// Names of the parts of a form that its route has no use for.
pub const IGNORED_PARTS: HeaderName = HeaderName::from_static("caudal-ignored-parts");

/// The trace context (W3C): the caller's in a request, the event's in its answer.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
