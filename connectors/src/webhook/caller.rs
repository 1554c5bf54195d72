//! The webhook client: one connection, one HTTP/1.1 request and one status per call.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use pipeline::Rejection;
use pipeline::webhook::{CallError, Method, WebhookCall, WebhookCaller};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use super::allow_list::AllowList;
use super::dial::{Resolve, SystemResolver, dial, failed};
use super::headers;
use super::spec::WebhookSpec;
use super::target_url::{Host, TargetUrl};
use super::tls::{self, OpenError};

/// Most bytes of a response that are read, head and body each.
const MAX_RESPONSE_BYTES: usize = 64 << 10;

/// How long a response body is read after the status is known, so that a receiver that is still writing does not see an
/// error.
const BODY_TIMEOUT: Duration = Duration::from_secs(1);

/// Calls webhook receivers by HTTP/1.1, with a new connection for each call.
pub struct HttpCaller {
    allow_list: AllowList,
    resolver: Arc<dyn Resolve>,
    tls: TlsConnector,
    timeout: Duration,
}

impl HttpCaller {
    /// Reads the trusted certificates, which blocks for some milliseconds. Makes no call.
    ///
    /// # Errors
    /// If `ca` cannot be used.
    pub fn open(spec: &WebhookSpec) -> Result<Self, OpenError> {
        Ok(Self {
            allow_list: spec.allow_list(),
            resolver: Arc::new(SystemResolver),
            tls: tls::connector(spec.ca.as_deref())?,
            timeout: Duration::from_millis(spec.timeout_ms),
        })
    }

    /// Replaces the system's name resolution.
    #[must_use]
    pub fn with_resolver(self, resolver: Arc<dyn Resolve>) -> Self {
        Self { resolver, ..self }
    }

    /// Connects, with TLS for https.
    async fn connect(&self, target: &TargetUrl) -> Result<Box<dyn Connection>, CallError> {
        let stream = dial(&self.allow_list, self.resolver.as_ref(), target).await?;
        if !target.secure {
            return Ok(Box::new(stream));
        }
        let name = match &target.host {
            Host::Name(name) => {
                ServerName::try_from(name.clone()).map_err(|error| failed(target, &error.to_string()))?
            }
            Host::Address(address) => ServerName::from(*address),
        };
        let stream = self.tls.connect(name, stream).await;
        Ok(Box::new(stream.map_err(|error| failed(target, &format!("failed the TLS handshake: {error}")))?))
    }
}

#[async_trait]
impl WebhookCaller for HttpCaller {
    fn check_url(&self, url: &str) -> Result<(), Rejection> {
        self.allow_list.check_url(url).map(|_| ())
    }

    fn check_headers(&self, headers: &BTreeMap<String, String>) -> Result<(), Rejection> {
        headers::read(headers).map(|_| ())
    }

    async fn call(&self, call: WebhookCall) -> Result<(), CallError> {
        let target = self.allow_list.check_url(&call.url).map_err(CallError::Refused)?;
        let request = request(&target, call).map_err(CallError::Refused)?;
        let deadline = Instant::now() + self.timeout;
        let late = |_| failed(&target, &format!("did not answer within {:?}", self.timeout));
        let connection = timeout_at(deadline, self.connect(&target)).await.map_err(late)??;
        let status = exchange(connection, request, deadline).await.map_err(late)?;
        outcome_of(&target, status.map_err(|error| failed(&target, &format!("broke the connection: {error}")))?)
    }
}

fn request(target: &TargetUrl, call: WebhookCall) -> Result<Request<Full<Bytes>>, Rejection> {
    let lines = headers::of(&call, &target.authority())?;
    let mut request = Request::new(Full::new(call.body));
    *request.method_mut() = match call.method {
        Method::Post => hyper::Method::POST,
        Method::Put => hyper::Method::PUT,
        Method::Patch => hyper::Method::PATCH,
    };
    *request.uri_mut() = Uri::from(target.path.clone());
    *request.headers_mut() = lines;
    Ok(request)
}

/// Whether a status means success, a failure to retry, or a final refusal.
fn outcome_of(target: &TargetUrl, status: StatusCode) -> Result<(), CallError> {
    match status.as_u16() {
        200..=299 => Ok(()),
        408 | 425 | 429 | 500..=599 => Err(failed(target, &format!("answered {}", status.as_u16()))),
        code => {
            let why = if status.is_redirection() { ", and redirects are not followed" } else { "" };
            let detail = format!("the webhook receiver {} answered {code}{why}", target.host);
            Err(CallError::Refused(Rejection::new(502, "webhook_refused", detail)))
        }
    }
}

/// A connection, plain or TLS.
trait Connection: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Connection for S {}

/// Sends the request and reads the status until `deadline`, then the body for at most [`BODY_TIMEOUT`].
async fn exchange(
    stream: Box<dyn Connection>,
    request: Request<Full<Bytes>>,
    deadline: Instant,
) -> Result<hyper::Result<StatusCode>, Elapsed> {
    let mut builder = http1::Builder::new();
    builder.max_buf_size(MAX_RESPONSE_BYTES);
    let (mut sender, connection) = match builder.handshake(TokioIo::new(stream)).await {
        Ok(parts) => parts,
        Err(error) => return Ok(Err(error)),
    };
    let answer = async move {
        let response = match timeout_at(deadline, sender.send_request(request)).await? {
            Ok(response) => response,
            Err(error) => return Ok(Err(error)),
        };
        let status = response.status();
        let _ = timeout(BODY_TIMEOUT, discard(response.into_body())).await;
        Ok(Ok(status))
    };
    // The connection is polled until the answer is there, and dropped with it.
    tokio::pin!(connection);
    tokio::pin!(answer);
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        _ = &mut connection => answer.await,
    }
}

/// Reads and discards a body until its end, its first error or the size limit.
async fn discard(mut body: Incoming) {
    let mut read = 0;
    while read < MAX_RESPONSE_BYTES
        && let Some(Ok(frame)) = body.frame().await
    {
        read += frame.data_ref().map_or(0, Bytes::len);
    }
}
