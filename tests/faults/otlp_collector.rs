//! A test double of an OpenTelemetry collector: receives OTLP over HTTP and stores the spans, or misbehaves.

use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use prost::Message;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// How the collector answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseMode {
    /// Accepts everything.
    Accept,
    /// Answers 503.
    Unavailable,
    /// Reads the request and never answers.
    NeverAnswer,
}

/// A span as received.
#[derive(Clone, Debug)]
pub struct ReceivedSpan {
    /// Attributes of the process that it comes from.
    pub resource: Vec<(String, String)>,
    pub trace: String,
    pub id: String,
    pub parent: String,
    pub name: String,
    pub kind: i32,
    pub failed: bool,
    /// Nanoseconds since the Unix epoch, as `ended`.
    pub begun: u64,
    pub ended: u64,
    pub attributes: Vec<(String, String)>,
}

impl ReceivedSpan {
    /// An attribute of the process that it comes from.
    pub fn of_process(&self, name: &str) -> &str {
        self.resource.iter().find(|(of, _)| of == name).map_or("", |(_, value)| value)
    }
}

/// The running collector; dropping it stops it.
pub struct Collector {
    pub url: String,
    requests: Arc<Requests>,
    server: JoinHandle<()>,
}

/// What was received.
#[derive(Default)]
struct Requests {
    spans: Mutex<Vec<ReceivedSpan>>,
    /// Request lines and headers.
    heads: Mutex<Vec<String>>,
}

impl Collector {
    /// Listens on a free port.
    pub async fn start(mode: ResponseMode) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::<Requests>::default();
        let received = Arc::clone(&requests);
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&received), mode));
            }
        });
        Self { url, requests, server }
    }

    pub fn spans(&self) -> Vec<ReceivedSpan> {
        self.requests.spans.lock().unwrap().clone()
    }

    pub fn heads(&self) -> Vec<String> {
        self.requests.heads.lock().unwrap().clone()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Serves one connection.
async fn serve(stream: TcpStream, requests: Arc<Requests>, mode: ResponseMode) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head).await.unwrap_or(0) == 0 {
                return;
            }
        }
        let length =
            head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
        let mut body = vec![0; length.expect("requests have a content-length")];
        if stream.read_exact(&mut body).await.is_err() {
            return;
        }
        requests.heads.lock().unwrap().push(head);
        let answer = match mode {
            ResponseMode::Accept => {
                "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n"
            }
            ResponseMode::Unavailable => "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n",
            ResponseMode::NeverAnswer => return std::future::pending().await,
        };
        let request = ExportTraceServiceRequest::decode(body.as_slice()).expect("the body is OTLP");
        requests.spans.lock().unwrap().extend(spans_of(request));
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

fn spans_of(request: ExportTraceServiceRequest) -> Vec<ReceivedSpan> {
    let mut all = Vec::new();
    for resource_spans in request.resource_spans {
        let resource = pairs(resource_spans.resource.map(|resource| resource.attributes).unwrap_or_default());
        for span in resource_spans.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            all.push(ReceivedSpan {
                resource: resource.clone(),
                trace: hex(&span.trace_id),
                id: hex(&span.span_id),
                parent: hex(&span.parent_span_id),
                name: span.name,
                kind: span.kind,
                failed: span.status.is_some_and(|status| status.code == 2),
                begun: span.start_time_unix_nano,
                ended: span.end_time_unix_nano,
                attributes: pairs(span.attributes),
            });
        }
    }
    all
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn pairs(attributes: Vec<KeyValue>) -> Vec<(String, String)> {
    let text = |value: Option<AnyValue>| match value.and_then(|value| value.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    };
    attributes.into_iter().map(|pair| (pair.key, text(pair.value))).collect()
}
