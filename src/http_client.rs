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

/// What to do about a 401.
pub const UNAUTHORIZED: &str = "give an API key or token of the service with --token, or in CAUDAL_TOKEN";

/// Says that a service cannot be reached, and what to do.
pub fn unreachable(base: &str) -> String {
    format!("no service answers at {base}: start it, or give its address with --to")
}

/// The value of `--to`, if it is the address of a service.
///
/// # Errors
/// What is wrong with it, and how to write it.
pub fn service_url(text: &str) -> Result<String, String> {
    if !text.contains("://") {
        return Err(format!(
            "it has no scheme: write http://{text}, or https://{text} if the service has a certificate"
        ));
    }
    match reqwest::Url::parse(text) {
        Ok(url) if !matches!(url.scheme(), "http" | "https") => {
            Err(format!("the scheme {} is not http or https", url.scheme()))
        }
        Ok(_) => Ok(text.to_owned()),
        Err(why) => Err(format!("{why}: write http://HOST:PORT")),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_a_service_has_a_scheme() {
        assert!(service_url("http://127.0.0.1:8080").is_ok() && service_url("https://caudal.example/below").is_ok());
        for (wrong, said) in [
            ("127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("localhost:8080", "https://localhost:8080"),
            ("ftp://host", "ftp is not http"),
            ("http://", "http://HOST:PORT"),
        ] {
            let error = service_url(wrong).unwrap_err();
            assert!(error.contains(said), "{wrong}: {error}");
        }
    }
}
