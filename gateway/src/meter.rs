//! The gateway's own metrics. Labels are route templates, known methods and statuses: their sets are bounded.

use std::time::Duration;

use axum::http::{Method, StatusCode};
use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use tokio::time::Instant;

const REQUESTS: &str = "http_requests_total";
const DURATION: &str = "http_request_duration_seconds";
const IN_FLIGHT: &str = "http_requests_in_flight";
const UPLOADED: &str = "http_upload_bytes_total";
const STREAMS: &str = "http_event_streams";

/// Describes every metric to the installed recorder; called once, after it was installed.
pub fn describe() {
    describe_counter!(REQUESTS, "Requests answered, by route, method and status; 499 where the client left first.");
    describe_histogram!(DURATION, metrics::Unit::Seconds, "Time to the head of the answer, by route.");
    describe_gauge!("caudal_part_usable", "1 while a part that /ready asks about is usable.");
    describe_gauge!(IN_FLIGHT, "Requests whose answer has not begun.");
    describe_counter!(UPLOADED, metrics::Unit::Bytes, "Bytes of request bodies read.");
    describe_gauge!(STREAMS, "Event streams that are open.");
}

/// Counts one request from its head to the head of its answer.
pub struct RequestMeter {
    route: String,
    method: &'static str,
    begun: Instant,
    status: Option<StatusCode>,
}

impl RequestMeter {
    /// A request of a route, by its template.
    pub fn begin(route: &str, method: &Method) -> Self {
        gauge!(IN_FLIGHT).increment(1.0);
        Self { route: route.to_owned(), method: label_of(method), begun: Instant::now(), status: None }
    }

    /// Its answer.
    pub fn answered(mut self, status: StatusCode) {
        self.status = Some(status);
    }
}

impl Drop for RequestMeter {
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
pub struct StreamMeter;

impl StreamMeter {
    pub fn begin() -> Self {
        gauge!(STREAMS).increment(1.0);
        Self
    }
}

impl Drop for StreamMeter {
    fn drop(&mut self) {
        gauge!(STREAMS).decrement(1.0);
    }
}

/// Counts bytes of a request's body.
pub fn uploaded(bytes: usize) {
    counter!(UPLOADED).increment(bytes as u64);
}

/// Methods are the client's to invent: those not known share one label.
pub fn label_of(method: &Method) -> &'static str {
    const KNOWN: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"];
    KNOWN.into_iter().find(|known| *known == method.as_str()).unwrap_or("other")
}
