//! Fetches a short document over HTTP or HTTPS: with the machine's root certificates, without redirects, within a time
//! and a size.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Uri, header};
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// How long a fetch may take.
pub const TIMEOUT: Duration = Duration::from_secs(5);

/// The document at `url`, of at most `most` bytes. The error is for the log and does not contain the URL's query.
pub async fn get(url: &str, most: usize) -> Result<Vec<u8>, String> {
    let read = async {
        let uri: Uri = url.parse().map_err(|_| "the URL is malformed".to_owned())?;
        let host = uri.host().ok_or("the URL has no host")?;
        let secure = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let name = host.trim_start_matches('[').trim_end_matches(']');
        let stream = TcpStream::connect((name, port)).await.map_err(|error| error.to_string())?;
        if !secure {
            return ask(stream, &uri, most).await;
        }
        let server = ServerName::try_from(name.to_owned()).map_err(|error| error.to_string())?;
        let connector = tokio::task::spawn_blocking(connector).await.map_err(|error| error.to_string())?;
        let connector = connector.map_err(|error| error.to_string())?;
        let stream = connector.connect(server, stream).await.map_err(|error| error.to_string())?;
        ask(stream, &uri, most).await
    };
    tokio::time::timeout(TIMEOUT, read).await.unwrap_or_else(|_| Err(format!("no answer within {TIMEOUT:?}")))
}

/// Reads the machine's root certificates from the disk.
fn connector() -> io::Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(io::Error::other("this machine has no root certificates: install ca-certificates"));
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(io::Error::other)?;
    Ok(TlsConnector::from(Arc::new(builder.with_root_certificates(roots).with_no_client_auth())))
}

async fn ask<S>(stream: S, uri: &Uri, most: usize) -> Result<Vec<u8>, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let host = uri.authority().map_or("", |authority| authority.as_str());
    let request = Request::get(path)
        .header(header::HOST, host)
        .header(header::ACCEPT, "application/json")
        .body(Body::empty())
        .map_err(|error| error.to_string())?;
    let answer = async move {
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        if !response.status().is_success() {
            return Err(format!("the answer is {}", response.status()));
        }
        let body = Limited::new(response.into_body(), most).collect().await.map_err(|error| error.to_string())?;
        Ok(Bytes::into(body.to_bytes()))
    };
    // The connection is driven until the answer has come, and dropped with it.
    tokio::pin!(connection);
    tokio::pin!(answer);
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        _ = &mut connection => answer.await,
    }
}
