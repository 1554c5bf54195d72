//! `[service]`: the name, the listener and its TLS.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::Proxies;

/// `[service]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServiceSpec {
    /// Shown by `/health` and the console.
    pub name: String,
    /// Where to listen, `HOST:PORT`; port 0 picks a free one.
    pub listen: String,
    /// How long a shutdown waits for open requests, in milliseconds.
    pub grace_ms: u64,
    /// Allows listening for other machines without authentication.
    pub insecure: bool,
    /// Networks of proxies whose forwarding headers, `X-Forwarded-For` or `Forwarded`, are trusted.
    pub trusted_proxies: Proxies,
    /// Origins of pages, besides our own, that may send requests that change something, read the answers (CORS), and
    /// open a WebSocket, such as `https://app.example`, or `capacitor://localhost` for a web view. On loopback without authentication, their hosts are also the only host names that
    /// requests may name, besides `localhost` and IP addresses.
    pub origins: Vec<String>,
    /// The certificate, if the service itself terminates TLS.
    pub tls: Option<TlsSpec>,
}

/// `tls = { cert = "chain.pem", key = "key.pem" }`. Both files are read again once a second.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsSpec {
    /// File of the certificate chain as PEM, the server's own certificate first.
    pub cert: PathBuf,
    /// File of its private key as PEM.
    pub key: PathBuf,
}

impl Default for ServiceSpec {
    fn default() -> Self {
        Self {
            name: "caudal".into(),
            listen: "127.0.0.1:8080".into(),
            grace_ms: 10_000,
            insecure: false,
            trusted_proxies: Proxies::default(),
            origins: Vec::new(),
            tls: None,
        }
    }
}

impl ServiceSpec {
    /// `grace_ms` as a duration.
    #[must_use]
    pub fn grace(&self) -> Duration {
        Duration::from_millis(self.grace_ms)
    }
}
