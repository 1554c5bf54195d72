//! A double of a collector of traces: takes OTLP over HTTP as a real one does, decodes it and keeps it, or misbehaves.

use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use prost::Message;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// How the double answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// Takes everything.
    Good,
    /// Answers 503.
    Full,
    /// Reads, and never answers.
    Silent,
}

/// A span as it arrived.
#[derive(Clone, Debug)]
pub struct Arrived {
    pub service: String,
    pub trace: String,
    pub id: String,
    pub parent: String,
    pub name: String,
    pub kind: i32,
    pub failed: bool,
    /// Nanoseconds since 1970.
    pub begun: u64,
    pub ended: u64,
    pub attributes: Vec<(String, String)>,
}

/// See the module; stops when dropped.
pub struct Collector {
    pub url: String,
    kept: Arc<Kept>,
    server: JoinHandle<()>,
}

#[derive(Default)]
struct Kept {
    spans: Mutex<Vec<Arrived>>,
    /// Request lines and headers.
    heads: Mutex<Vec<String>>,
}

impl Collector {
    /// Listens on a free port.
    pub async fn start(mood: Mood) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let kept = Arc::<Kept>::default();
        let keeping = Arc::clone(&kept);
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&keeping), mood));
            }
        });
        Self { url, kept, server }
    }

    pub fn spans(&self) -> Vec<Arrived> {
        self.kept.spans.lock().unwrap().clone()
    }

    pub fn heads(&self) -> Vec<String> {
        self.kept.heads.lock().unwrap().clone()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// One connection, message after message.
async fn serve(stream: TcpStream, kept: Arc<Kept>, mood: Mood) {
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
        let mut body = vec![0; length.expect("messages say how long they are")];
        if stream.read_exact(&mut body).await.is_err() {
            return;
        }
        kept.heads.lock().unwrap().push(head);
        let answer = match mood {
            Mood::Good => "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n",
            Mood::Full => "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n",
            Mood::Silent => return std::future::pending().await,
        };
        let request = ExportTraceServiceRequest::decode(body.as_slice()).expect("it is what OTLP says");
        kept.spans.lock().unwrap().extend(arrived(request));
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

fn arrived(request: ExportTraceServiceRequest) -> Vec<Arrived> {
    let mut all = Vec::new();
    for of_resource in request.resource_spans {
        let resource = pairs(of_resource.resource.map(|resource| resource.attributes).unwrap_or_default());
        let service = resource.iter().find(|(name, _)| name == "service.name").map(|(_, value)| value.clone());
        for span in of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            all.push(Arrived {
                service: service.clone().unwrap_or_default(),
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
