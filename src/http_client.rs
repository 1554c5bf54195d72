//! The HTTP client of the command line and the trace exporter, with the machine's trusted certificates.

use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Client, ClientBuilder};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// Timeout for connecting.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// A client that trusts the machine's certificates, or those of `SSL_CERT_FILE`. Reads them from disk (blocking). Without any
/// certificate, plain HTTP still works.
///
/// # Errors
/// If the TLS provider supports no protocol version.
pub fn builder() -> anyhow::Result<ClientBuilder> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config.with_safe_default_protocol_versions()?.with_root_certificates(roots).with_no_client_auth();
    Ok(Client::builder().tls_backend_preconfigured(config))
}

/// A client for calls to a service, with its API key or token if it needs one.
///
/// # Errors
/// If the token has characters that a header value cannot have.
pub fn to_service(token: Option<&str>) -> anyhow::Result<Client> {
    let mut headers = HeaderMap::new();
    if let Some(token) = token.filter(|token| !token.is_empty()) {
        // The library's error is left out: it might show the token.
        let Ok(mut value) = HeaderValue::from_str(&format!("Bearer {token}")) else {
            bail!("the token has characters that an HTTP header cannot carry");
        };
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    Ok(builder()?.connect_timeout(CONNECT_LIMIT).default_headers(headers).build()?)
}
