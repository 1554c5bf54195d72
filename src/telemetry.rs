//! `[telemetry]`: exports traces to a collector by OTLP (HTTP, protobuf). Each names the process that it comes from.
//!
//! Spans wait in a bounded queue, and a thread of its own sends them in batches. Spans are dropped when the queue is full or the
//! collector is unreachable; nothing else is affected. Without a collector nothing runs.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use opentelemetry::trace::{SpanContext, SpanId, SpanKind as OtelKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue, Value};
use opentelemetry_http::{HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SpanData, SpanEvents, SpanLinks, SpanProcessor,
};
use pipeline::spec::{Places, Problems, Secret};
use pipeline::{Span, SpanKind, SpanValue, Spans, TraceContext};
use serde::Deserialize;
use tokio::runtime::Handle;

use crate::http_client;

/// The path for traces in the OTLP specification.
const PATH: &str = "/v1/traces";
/// Most spans that wait to be sent.
const QUEUE: usize = 4096;
/// Most spans in one message.
const BATCH: usize = 512;
/// How long a batch waits to fill up.
const LINGER: Duration = Duration::from_secs(1);
/// Timeout for one message.
const SEND_LIMIT: Duration = Duration::from_secs(5);
/// Timeout for the last spans when the service stops.
const FLUSH_LIMIT: Duration = Duration::from_secs(3);

/// `[telemetry]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetrySpec {
    /// Address of the collector, `http://HOST:4318` or `https://…`. Without it the variable
    /// `OTEL_EXPORTER_OTLP_ENDPOINT` counts; without both nothing is sent.
    pub otlp: Option<String>,
    /// Headers that the collector requires, for example `authorization = { env = "NAME" }`.
    pub headers: BTreeMap<String, Secret>,
    /// Share of requests that are traced, 0 to 1, if the request has no `traceparent` that decides it.
    pub sample: f64,
}

impl Default for TelemetrySpec {
    fn default() -> Self {
        Self { otlp: None, headers: BTreeMap::new(), sample: 1.0 }
    }
}

impl TelemetrySpec {
    /// Sets the collector that counts if the section names none. Unlike the section's, its address may have a path, below
    /// which the path for traces is. Empty text is none.
    ///
    /// # Errors
    /// If it is not the address of a collector.
    pub fn set_default_endpoint(&mut self, endpoint: &str) -> anyhow::Result<()> {
        if self.otlp.is_some() || endpoint.is_empty() {
            return Ok(());
        }
        // The text is left out: it may contain secrets.
        anyhow::ensure!(
            base_url(endpoint).is_some(),
            "OTEL_EXPORTER_OTLP_ENDPOINT is not the address of a collector: write it as http://HOST:4318, or unset it"
        );
        self.otlp = Some(endpoint.to_owned());
        Ok(())
    }

    /// Reports what is wrong with the section. Connects to nothing.
    pub fn check(&self, places: &Places, problems: &mut Problems) {
        if let Some(otlp) = self.otlp.as_deref().filter(|otlp| !is_collector(otlp)) {
            let remedy = "write it as http://HOST:4318 or https://HOST:4318";
            problems.add(places.of("otlp"), format!("{otlp:?} is not the address of a collector"), remedy);
        }
        if !(0.0..=1.0).contains(&self.sample) {
            let message = format!("sample is {}, outside of 0 to 1", self.sample);
            problems.add(places.of("sample"), message, "set a share from 0 to 1");
        }
        for name in self.headers.keys() {
            if reqwest::header::HeaderName::from_bytes(name.as_bytes()).is_err() {
                problems.add(places.of("headers"), format!("{name:?} is not the name of a header"), "rename it");
            }
        }
    }
}

/// Whether a text is `http://HOST:PORT` or `https://HOST:PORT` without a path, query or credentials.
fn is_collector(text: &str) -> bool {
    base_url(text).is_some_and(|url| url.path() == "/")
}

/// An HTTP address without query or credentials.
fn base_url(text: &str) -> Option<reqwest::Url> {
    let url = reqwest::Url::parse(text).ok()?;
    let bare = url.query().is_none() && url.fragment().is_none();
    let anonymous = url.username().is_empty() && url.password().is_none();
    (matches!(url.scheme(), "http" | "https") && url.has_host() && bare && anonymous).then_some(url)
}

/// Which process spans come from. Made once per process: its instance is new each time.
pub struct ProcessIdentity {
    service: String,
    role: &'static str,
    instance: String,
    host: String,
}

impl ProcessIdentity {
    /// This process, of a service and in a role.
    pub fn new(service: &str, role: &'static str) -> Self {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned();
        Self { service: service.to_owned(), role, instance: uuid::Uuid::new_v4().to_string(), host }
    }

    /// By the names of OpenTelemetry's semantic conventions.
    fn resource(&self) -> Resource {
        let attributes = [
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", self.instance.clone()),
            KeyValue::new("host.name", self.host.clone()),
            KeyValue::new("caudal.role", self.role),
        ];
        Resource::builder().with_service_name(self.service.clone()).with_attributes(attributes).build()
    }
}

/// The exporter of spans.
pub struct Telemetry {
    processor: BatchSpanProcessor,
    scope: InstrumentationScope,
    sample: f64,
}

impl Telemetry {
    /// Prepares the exporter, if a collector is configured. Sends nothing yet.
    ///
    /// # Errors
    /// If a secret cannot be read.
    pub fn open(spec: &TelemetrySpec, process: &ProcessIdentity, runtime: Handle) -> anyhow::Result<Option<Arc<Self>>> {
        let Some(otlp) = &spec.otlp else { return Ok(None) };
        let mut headers = HashMap::new();
        for (name, secret) in &spec.headers {
            let value = secret.read().with_context(|| format!("[telemetry] headers.{name}"))?;
            headers.insert(name.clone(), value.expose().to_owned());
        }
        let client = http_client::builder()?.no_proxy().timeout(SEND_LIMIT).build()?;
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Collector { client, runtime, lost: AtomicBool::new(false) })
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(format!("{}{PATH}", otlp.trim_end_matches('/')))
            .with_timeout(SEND_LIMIT)
            .with_headers(headers)
            .build()?;
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(QUEUE)
            .with_max_export_batch_size(BATCH)
            .with_scheduled_delay(LINGER)
            .build();
        let mut processor = BatchSpanProcessor::builder(exporter).with_batch_config(batches).build();
        processor.set_resource(&process.resource());
        let scope = InstrumentationScope::builder("caudal").with_version(env!("CARGO_PKG_VERSION")).build();
        Ok(Some(Arc::new(Self { processor, scope, sample: spec.sample })))
    }

    /// Sends the remaining spans within [`FLUSH_LIMIT`].
    pub async fn close(self: Arc<Self>) {
        let closing = tokio::task::spawn_blocking(move || self.processor.shutdown_with_timeout(FLUSH_LIMIT));
        if let Ok(Err(error)) = closing.await {
            tracing::warn!(%error, "the last spans could not be sent");
        }
    }
}

impl Spans for Telemetry {
    fn place(&self, parent: Option<TraceContext>) -> TraceContext {
        parent.map_or_else(|| TraceContext::fresh(rand::random::<f64>() < self.sample), TraceContext::child)
    }

    fn take(&self, span: Span) {
        metrics::counter!("caudal_trace_spans_total").increment(1);
        self.processor.on_end(exported(span, &self.scope));
    }
}

/// A span as OpenTelemetry's type.
fn exported(span: Span, scope: &InstrumentationScope) -> SpanData {
    let flags = if span.context.sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
    let (trace, own) = (TraceId::from(span.context.trace), SpanId::from(span.context.span));
    let value = |value: SpanValue| match value {
        SpanValue::Text(text) => Value::from(text),
        SpanValue::Number(number) => Value::from(number),
    };
    let attributes = span.attributes.into_iter().map(|(name, of)| KeyValue::new(name, value(of))).collect();
    SpanData {
        span_context: SpanContext::new(trace, own, flags, false, TraceState::default()),
        parent_span_id: span.parent.map_or(SpanId::INVALID, SpanId::from),
        parent_span_is_remote: span.parent.is_some() && span.kind != SpanKind::Internal,
        span_kind: match span.kind {
            SpanKind::Server => OtelKind::Server,
            SpanKind::Consumer => OtelKind::Consumer,
            SpanKind::Internal => OtelKind::Internal,
        },
        name: span.name.into(),
        start_time: span.begun.into(),
        end_time: (span.begun + span.took).into(),
        attributes,
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: span.error.map_or(Status::Unset, Status::error),
        instrumentation_scope: scope.clone(),
    }
}

/// Sends the exporter's messages. The exporter has a thread of its own and hands each message to the async runtime.
#[derive(Debug)]
struct Collector {
    client: reqwest::Client,
    runtime: Handle,
    /// Whether the last message failed: only changes are logged.
    lost: AtomicBool,
}

#[async_trait::async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (parts, body) = request.into_parts();
        let request = self.client.request(parts.method, parts.uri.to_string()).headers(parts.headers).body(body);
        let sending = self.runtime.spawn(async move {
            let response = request.send().await?.error_for_status()?;
            let status = response.status();
            response.bytes().await.map(|body| (status, body))
        });
        let sent = sending.await?;
        let outcome = if sent.is_ok() { "sent" } else { "failed" };
        metrics::counter!("caudal_trace_exports_total", "outcome" => outcome).increment(1);
        if self.lost.swap(sent.is_err(), Ordering::Relaxed) != sent.is_err() {
            match &sent {
                Ok(_) => tracing::info!("the trace collector accepts spans again"),
                // The address is left out: it may contain secrets.
                Err(error) => tracing::warn!(status = ?error.status(), timeout = error.is_timeout(),
                    "the trace collector does not accept spans; they are dropped"),
            }
        }
        let (status, body) = sent.map_err(reqwest::Error::without_url)?;
        Ok(Response::builder().status(status).body(body)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_names_the_process() {
        let process = ProcessIdentity::new("petalert", "worker");
        let text = |name: &'static str| process.resource().get(&name.into()).unwrap().to_string();
        let parts = [text("service.name"), text("service.version"), text("caudal.role")];
        assert_eq!(parts, ["petalert", env!("CARGO_PKG_VERSION"), "worker"]);
        assert!(!text("host.name").is_empty());
        assert_eq!(text("service.instance.id").len(), 36);
        let other = ProcessIdentity::new("petalert", "worker").resource();
        assert_ne!(other.get(&"service.instance.id".into()).unwrap().to_string(), text("service.instance.id"));
    }

    #[test]
    fn the_default_endpoint_counts_only_if_the_section_has_none() {
        let mut spec = TelemetrySpec::default();
        spec.set_default_endpoint("").unwrap();
        assert_eq!(spec.otlp, None);
        spec.set_default_endpoint("https://otlp.example/otlp").unwrap();
        assert_eq!(spec.otlp.as_deref(), Some("https://otlp.example/otlp"));
        spec.set_default_endpoint("http://other:4318").unwrap();
        assert_eq!(spec.otlp.as_deref(), Some("https://otlp.example/otlp"));
    }

    #[test]
    fn a_default_endpoint_that_is_no_address_is_refused_by_the_variables_name() {
        let error = TelemetrySpec::default().set_default_endpoint("collector:4318").unwrap_err().to_string();
        assert!(error.contains("OTEL_EXPORTER_OTLP_ENDPOINT"), "{error}");
    }

    #[test]
    fn a_collector_has_an_address_and_no_path() {
        for good in ["http://127.0.0.1:4318", "http://collector:4318/", "http://[::1]:4318", "https://x:4318"] {
            assert!(is_collector(good), "{good}");
        }
        for bad in [
            "",
            "127.0.0.1:4318",
            "grpc://x:4317",
            "ftp://x:4318",
            "http://x/v1/traces",
            "http://a:b@x",
            "http://x?k=1",
        ] {
            assert!(!is_collector(bad), "{bad}");
        }
    }
}
