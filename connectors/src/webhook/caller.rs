//! Makes the calls: one connection, one request, one status.

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
use pipeline::webhook::{Call, CallError, Caller, Method};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use super::dial::{Resolve, SystemResolver, dial, failed};
use super::guard::Guard;
use super::headers;
use super::spec::WebhookSpec;
use super::target::{Host, Target};
use super::tls::{self, OpenError};

/// Most bytes of an answer that are read, head and body each.
const MOST_ANSWERED: usize = 64 << 10;

/// How long an answer's body is read. The status is known by then; a receiver that still writes should not fail for it.
const READ_ON: Duration = Duration::from_secs(1);

/// Calls by HTTP/1.1, a connection for each call.
pub struct HttpCaller {
    guard: Guard,
    resolver: Arc<dyn Resolve>,
    tls: TlsConnector,
    limit: Duration,
}

impl HttpCaller {
    /// Reads the certificates that are trusted, which blocks for some milliseconds; calls nobody.
    ///
    /// # Errors
    /// If `ca` cannot be used.
    pub fn open(spec: &WebhookSpec) -> Result<Self, OpenError> {
        Ok(Self {
            guard: spec.guard(),
            resolver: Arc::new(SystemResolver),
            tls: tls::connector(spec.ca.as_deref())?,
            limit: Duration::from_millis(spec.timeout_ms),
        })
    }

    /// With names resolved by another than the machine.
    #[must_use]
    pub fn with_resolver(self, resolver: Arc<dyn Resolve>) -> Self {
        Self { resolver, ..self }
    }

    /// A connection that the request can be written to.
    async fn connect(&self, target: &Target) -> Result<Box<dyn Connection>, CallError> {
        let stream = dial(&self.guard, self.resolver.as_ref(), target).await?;
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
        Ok(Box::new(stream.map_err(|error| failed(target, &format!("does not speak TLS as it should: {error}")))?))
    }
}

#[async_trait]
impl Caller for HttpCaller {
    fn check_url(&self, url: &str) -> Result<(), Rejection> {
        self.guard.check(url).map(|_| ())
    }

    fn check_headers(&self, headers: &BTreeMap<String, String>) -> Result<(), Rejection> {
        headers::read(headers).map(|_| ())
    }

    async fn call(&self, call: Call) -> Result<(), CallError> {
        let target = self.guard.check(&call.url).map_err(CallError::Refused)?;
        let request = request(&target, call).map_err(CallError::Refused)?;
        let deadline = Instant::now() + self.limit;
        let late = |_| failed(&target, &format!("has not answered within {:?}", self.limit));
        let connection = timeout_at(deadline, self.connect(&target)).await.map_err(late)??;
        let status = exchange(connection, request, deadline).await.map_err(late)?;
        verdict(&target, status.map_err(|error| failed(&target, &format!("broke off: {error}")))?)
    }
}

fn request(target: &Target, call: Call) -> Result<Request<Full<Bytes>>, Rejection> {
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

/// What a status means: done, to be repeated, or never.
fn verdict(target: &Target, status: StatusCode) -> Result<(), CallError> {
    match status.as_u16() {
        200..=299 => Ok(()),
        408 | 425 | 429 | 500..=599 => Err(failed(target, &format!("answered {}", status.as_u16()))),
        code => {
            let why = if status.is_redirection() { ", and redirects are not followed" } else { "" };
            let detail = format!("the webhook's receiver {} answered {code}{why}", target.host);
            Err(CallError::Refused(Rejection::new(502, "webhook_refused", detail)))
        }
    }
}

/// What a request is written to, plain or by TLS.
trait Connection: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Connection for S {}

/// Sends the request and reads the status until `deadline`, and a while longer what comes after it.
async fn exchange(
    stream: Box<dyn Connection>,
    request: Request<Full<Bytes>>,
    deadline: Instant,
) -> Result<hyper::Result<StatusCode>, Elapsed> {
    let mut builder = http1::Builder::new();
    builder.max_buf_size(MOST_ANSWERED);
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
        let _ = timeout(READ_ON, throw_away(response.into_body())).await;
        Ok(Ok(status))
    };
    // The connection is driven for as long as the answer takes, and dropped with it.
    tokio::pin!(connection);
    tokio::pin!(answer);
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        _ = &mut connection => answer.await,
    }
}

/// Reads a body to its end, its first error or the limit.
async fn throw_away(mut body: Incoming) {
    let mut read = 0;
    while read < MOST_ANSWERED
        && let Some(Ok(frame)) = body.frame().await
    {
        read += frame.data_ref().map_or(0, Bytes::len);
    }
}
