//! The gateway's Prometheus metrics. Labels are route templates, known methods and statuses: their sets are bounded.

use std::time::Duration;

use axum::http::{Method, StatusCode};
use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use tokio::time::Instant;

const REQUESTS: &str = "caudal_http_requests_total";
const DURATION: &str = "caudal_http_request_duration_seconds";
const IN_FLIGHT: &str = "caudal_http_requests_in_flight";
const UPLOADED: &str = "caudal_http_upload_bytes_total";
const COMPONENT_READY: &str = "caudal_component_ready";
const STREAMS: &str = "caudal_http_event_streams";

/// Describes every metric to the installed recorder; called once, after it is installed.
pub fn describe() {
    describe_counter!(
        REQUESTS,
        "Requests answered, by route, method and status; 499 if the client disconnected first."
    );
    describe_histogram!(DURATION, metrics::Unit::Seconds, "Time to the head of the answer, by route.");
    describe_gauge!(COMPONENT_READY, "1 while a component that /ready checks is ready.");
    describe_gauge!(IN_FLIGHT, "Requests whose answer has not begun.");
    describe_counter!(UPLOADED, metrics::Unit::Bytes, "Bytes of request bodies read.");
    describe_gauge!(STREAMS, "Event streams that are open.");
}

/// Counts one request from its head to the head of its answer.
pub struct RequestMetrics {
    route: String,
    method: &'static str,
    begun: Instant,
    status: Option<StatusCode>,
}

impl RequestMetrics {
    /// Begins to count a request of a route, given by its template.
    pub fn begin(route: &str, method: &Method) -> Self {
        gauge!(IN_FLIGHT).increment(1.0);
        Self { route: route.to_owned(), method: method_label(method), begun: Instant::now(), status: None }
    }

    /// Records the answer.
    pub fn answered(mut self, status: StatusCode) {
        self.status = Some(status);
    }
}

impl Drop for RequestMetrics {
    fn drop(&mut self) {
        gauge!(IN_FLIGHT).decrement(1.0);
        let status = self.status.map_or(499, |status| status.as_u16()).to_string();
        let took: Duration = self.begun.elapsed();
        histogram!(DURATION, "route" => self.route.clone()).record(took.as_secs_f64());
        let route = std::mem::take(&mut self.route);
        counter!(REQUESTS, "route" => route, "method" => self.method, "status" => status).increment(1);
    }
}

/// Counts one open event stream.
pub struct OpenStreamGauge;

impl OpenStreamGauge {
    pub fn begin() -> Self {
        gauge!(STREAMS).increment(1.0);
        Self
    }
}

impl Drop for OpenStreamGauge {
    fn drop(&mut self) {
        gauge!(STREAMS).decrement(1.0);
    }
}

/// Counts bytes of a request's body.
pub fn count_upload(bytes: usize) {
    counter!(UPLOADED).increment(bytes as u64);
}

/// Records whether a component is ready.
pub fn set_ready(component: &str, is_ready: bool) {
    gauge!(COMPONENT_READY, "component" => component.to_owned()).set(f64::from(u8::from(is_ready)));
}

/// The label of a method. Clients can invent methods: unknown ones share one label.
pub fn method_label(method: &Method) -> &'static str {
    const KNOWN: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"];
    KNOWN.into_iter().find(|known| *known == method.as_str()).unwrap_or("other")
}
