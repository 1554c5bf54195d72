//! TLS to webhook receivers: trusts the system's root certificates and those of `[webhook] ca`.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

/// Why the webhook client cannot be created.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file that `ca` names cannot be read.
    #[error("cannot read {0}, named by [webhook] ca: give the path of a PEM file that this user may read")]
    Read(PathBuf, #[source] io::Error),
    /// That file holds no certificate.
    #[error("{0}, named by [webhook] ca, holds no certificate: give one or more as PEM")]
    NoCertificate(PathBuf),
    /// The TLS library cannot be configured.
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
}

/// Reads the root certificates, which blocks.
pub fn connector(ca: Option<&Path>) -> Result<TlsConnector, OpenError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = ca {
        add(&mut roots, path)?;
    }
    if roots.is_empty() {
        // Not an error: receivers by plain http can still be called.
        tracing::warn!(
            "this machine has no root certificates, so every https webhook will fail: install ca-certificates"
        );
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions()?;
    Ok(TlsConnector::from(Arc::new(builder.with_root_certificates(roots).with_no_client_auth())))
}

fn add(roots: &mut RootCertStore, path: &Path) -> Result<(), OpenError> {
    let text = std::fs::read(path).map_err(|error| OpenError::Read(path.to_path_buf(), error))?;
    let none = || OpenError::NoCertificate(path.to_path_buf());
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let (added, unusable) = roots.add_parsable_certificates(certificates.map_err(|_| none())?);
    if added == 0 || unusable > 0 { Err(none()) } else { Ok(()) }
}
