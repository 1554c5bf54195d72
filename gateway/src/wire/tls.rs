//! TLS: the server's certificate, its reload, and the handshake.
//!
//! The files of the certificate and its key are read once a second, so that a renewal needs no signal or restart; open
//! connections continue with theirs. If the new files are not usable, the old certificate stays in use. A signature
//! with an RSA key takes a worker of the runtime about a millisecond, one with an ECDSA key a twentieth: prefer ECDSA.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::server::TlsStream;

use crate::spec::TlsSpec;

/// How often the files are read.
const PERIOD: Duration = Duration::from_secs(1);

/// Longest file that may be a certificate or key, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The protocols offered by ALPN, preferred first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {0}, named by [service] tls: give the path of a PEM file that this user may read")]
    Read(PathBuf, #[source] io::Error),
    /// The certificate file contains no certificate.
    #[error("{0}, named by [service] tls.cert, contains no certificate: give the chain as PEM, the server's own first")]
    NoCertificate(PathBuf),
    /// The key file contains no key.
    #[error("{0}, named by [service] tls.key, contains no private key: give it as PEM, without a passphrase")]
    NoKey(PathBuf),
    /// They do not belong together, or are of an unsupported kind.
    #[error("the certificate {0} and the key {1} of [service] tls do not fit: {2}")]
    Unfit(PathBuf, PathBuf, String),
}

/// The certificate in use, and the files that it comes from.
pub struct Tls {
    acceptor: TlsAcceptor,
    current: Arc<CurrentCertificate>,
    /// The contents that `current` was made of.
    contents: [Vec<u8>; 2],
    spec: TlsSpec,
}

/// The contents of the two files, or why they cannot be read.
type Contents = Result<[Vec<u8>; 2], String>;

/// The certificate for new handshakes.
#[derive(Debug)]
struct CurrentCertificate(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for CurrentCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl Tls {
    /// Reads the files. Blocks.
    ///
    /// # Errors
    /// If they cannot be read, or are not a certificate with its key.
    pub fn open(spec: &TlsSpec) -> Result<Self, TlsError> {
        let contents = contents(spec)?;
        let current = Arc::new(CurrentCertificate(RwLock::new(Arc::new(certified(spec, &contents)?))));
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions();
        let builder = builder
            .map_err(|error| TlsError::Unfit(spec.cert.clone(), spec.key.clone(), error.to_string()))?
            .with_no_client_auth();
        let mut config = builder.with_cert_resolver(Arc::clone(&current) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).into();
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), current, contents, spec: spec.clone() })
    }

    /// Performs the handshake. The caller limits its time.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        self.acceptor.accept(stream).await
    }

    /// Reads the files periodically, for ever.
    pub async fn renew(&self) {
        let mut seen: Contents = Ok(self.contents.clone());
        let mut ticks = tokio::time::interval(PERIOD);
        loop {
            ticks.tick().await;
            let spec = self.spec.clone();
            let read = tokio::task::spawn_blocking(move || contents(&spec).map_err(|error| error.to_string()));
            let Ok(now) = read.await else { continue };
            if now == seen {
                continue;
            }
            let renewed =
                now.clone().and_then(|contents| certified(&self.spec, &contents).map_err(|error| error.to_string()));
            seen = now;
            match renewed {
                Ok(key) => {
                    *self.current.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(key);
                    tracing::info!(cert = %self.spec.cert.display(), "certificate renewed");
                }
                // While a pair is being replaced, one new file does not fit the other old one; the second write is
                // another change.
                Err(why) => tracing::warn!(why, "new certificate not usable; the old one stays in use"),
            }
        }
    }
}

fn contents(spec: &TlsSpec) -> Result<[Vec<u8>; 2], TlsError> {
    Ok([read(&spec.cert)?, read(&spec.key)?])
}

fn certified(spec: &TlsSpec, [cert, key]: &[Vec<u8>; 2]) -> Result<CertifiedKey, TlsError> {
    let certificates: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(cert).collect();
    let certificates = certificates.ok().filter(|chain| !chain.is_empty());
    let certificates = certificates.ok_or_else(|| TlsError::NoCertificate(spec.cert.clone()))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| TlsError::NoKey(spec.key.clone()))?;
    CertifiedKey::from_der(certificates, key, &ring::default_provider())
        .map_err(|error| TlsError::Unfit(spec.cert.clone(), spec.key.clone(), error.to_string()))
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let wrong = |error| TlsError::Read(path.to_owned(), error);
    if fs::metadata(path).map_err(wrong)?.len() > MAX_FILE_BYTES {
        return Err(wrong(io::Error::other(format!("it is longer than {MAX_FILE_BYTES} bytes"))));
    }
    let mut bytes = Vec::new();
    File::open(path).map_err(wrong)?.take(MAX_FILE_BYTES).read_to_end(&mut bytes).map_err(wrong)?;
    Ok(bytes)
}
