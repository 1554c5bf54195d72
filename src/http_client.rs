//! The HTTP client of the program's own calls: TLS as the machine trusts it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Client, ClientBuilder};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// Longest wait for a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// A client that trusts the machine's certificates, or those of `SSL_CERT_FILE`. Reads them from the disk. A machine without
/// any still reaches plain HTTP.
///
/// # Errors
/// If there is no version of TLS to speak.
pub fn builder() -> anyhow::Result<ClientBuilder> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config.with_safe_default_protocol_versions()?.with_root_certificates(roots).with_no_client_auth();
    Ok(Client::builder().tls_backend_preconfigured(config))
}

/// For calls to a service that may want a key or token.
///
/// # Errors
/// If the token cannot stand in a header.
pub fn to_service(token: Option<&str>) -> anyhow::Result<Client> {
    let mut headers = HeaderMap::new();
    if let Some(token) = token.filter(|token| !token.is_empty()) {
        // Not with the error's words, which might show it.
        let Ok(mut value) = HeaderValue::from_str(&format!("Bearer {token}")) else {
            bail!("the token holds characters that a header cannot");
        };
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    Ok(builder()?.connect_timeout(CONNECT_LIMIT).default_headers(headers).build()?)
}
