//! TLS: both HTTP versions, clients that do not complete their handshake, and certificate renewal.

use std::path::Path;
use std::sync::Arc;

use gateway::Tls;
use gateway::spec::TlsSpec;
use pipeline::testing::MemoryTransport;
use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::http2;
use crate::service::{FLOWS, Service, read_to_end, soon};

/// A self-signed certificate for `localhost`.
fn certificate() -> CertifiedKey<KeyPair> {
    generate_simple_self_signed(["localhost".to_owned()]).unwrap()
}

fn write(folder: &Path, certified: &CertifiedKey<KeyPair>) -> TlsSpec {
    let spec = TlsSpec { cert: folder.join("cert.pem"), key: folder.join("key.pem") };
    std::fs::write(&spec.cert, certified.cert.pem()).unwrap();
    std::fs::write(&spec.key, certified.signing_key.serialize_pem()).unwrap();
    spec
}

struct Secure {
    service: Service,
    roots: RootCertStore,
    folder: TempDir,
}

impl Secure {
    async fn start(config: &str) -> Self {
        let (folder, certified) = (tempfile::tempdir().unwrap(), certificate());
        let tls = Tls::open(&write(folder.path(), &certified)).unwrap();
        let service = Service::start_with(MemoryTransport::with_flows(FLOWS), config, Vec::new(), Some(tls)).await;
        let mut roots = RootCertStore::empty();
        roots.add(certified.cert.der().clone()).unwrap();
        Self { service, roots, folder }
    }

    async fn connect(&self, protocols: &[&str]) -> std::io::Result<TlsStream<TcpStream>> {
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let mut config = builder.with_root_certificates(self.roots.clone()).with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        let stream = TcpStream::connect(self.service.address).await?;
        let name = ServerName::try_from("localhost").unwrap();
        soon(TlsConnector::from(Arc::new(config)).connect(name, stream)).await
    }

    async fn is_served(&self) {
        let mut stream = self.connect(&[]).await.unwrap();
        stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        soon(stream.read_to_string(&mut answer)).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

#[tokio::test]
async fn both_protocols_are_negotiated_and_served() {
    let secure = Secure::start("").await;
    secure.is_served().await;
    for (offered, agreed) in [(["http/1.1", "h2"], "h2"), (["http/1.1", "spdy/3"], "http/1.1")] {
        let stream = secure.connect(&offered).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(agreed.as_bytes()));
    }
    // Index 8 of the static table: `:status: 200`.
    assert_eq!(http2::health(Box::new(secure.connect(&["h2"]).await.unwrap())).await, 0x88);
    http2::ends_on_ping_flood(Box::new(secure.connect(&["h2"]).await.unwrap())).await;
    secure.is_served().await;
}

#[tokio::test]
async fn a_large_upload_and_its_answer_pass() {
    let secure = Secure::start("").await;
    secure.service.echo("describe").await;
    let stream = secure.connect(&["http/1.1"]).await.unwrap();
    let (mut reader, mut writer) = tokio::io::split(stream);
    let body: Vec<u8> = (0..3 << 20).map(|i| (i % 251) as u8).collect();
    let head = format!(
        "POST /v1/flows/describe HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let sum: u64 = body.iter().map(|byte| u64::from(*byte)).sum();
    let sending = async {
        writer.write_all(head.as_bytes()).await.unwrap();
        writer.write_all(&body).await.unwrap();
    };
    let mut answer = String::new();
    let (_, read) = tokio::join!(sending, soon(reader.read_to_string(&mut answer)));
    read.unwrap();
    assert!(answer.contains(&format!("\"sum\":{sum}")), "{answer}");
}

#[tokio::test]
async fn handshakes_time_out_and_plain_text_is_not_served() {
    let secure = Secure::start("[limits]\nheader_ms = 400\n").await;
    let mut refused = Vec::new();
    for text in [b"".as_slice(), b"\x16\x03\x01", b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"] {
        refused.push(secure.service.raw(text).await);
    }
    // Completes its handshake, then sends nothing.
    let mut silent = secure.connect(&[]).await.unwrap();
    secure.is_served().await;
    for mut stream in refused {
        let answer = read_to_end(&mut stream).await;
        assert!(!answer.contains("200"), "{answer}");
    }
    let _ = soon(silent.read_to_end(&mut Vec::new())).await;
}

#[tokio::test]
async fn a_shutdown_ends_encrypted_connections_too() {
    let secure = Secure::start("").await;
    let mut stream = secure.connect(&[]).await.unwrap();
    let ask = "GET /v1/tail/documents HTTP/1.1\r\nHost: localhost\r\n\r\n";
    stream.write_all(ask.as_bytes()).await.unwrap();
    assert!(soon(stream.read(&mut [0; 4096])).await.unwrap() > 0);
    let _silent = TcpStream::connect(secure.service.address).await.unwrap();
    let stopped = tokio::spawn(secure.service.stop());
    let mut rest = Vec::new();
    soon(stream.read_to_end(&mut rest)).await.unwrap();
    assert!(rest.ends_with(b"0\r\n\r\n"), "ended, not cut: {rest:?}");
    soon(stopped).await.unwrap();
}

#[tokio::test]
async fn a_certificate_is_renewed_and_a_broken_one_ignored() {
    let mut secure = Secure::start("").await;
    std::fs::write(secure.folder.path().join("cert.pem"), "half of a certificate").unwrap();
    let next = certificate();
    secure.roots.add(next.cert.der().clone()).unwrap();
    let shown = async |secure: &Secure| -> CertificateDer<'static> {
        let stream = secure.connect(&[]).await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
    };
    assert_ne!(&shown(&secure).await, next.cert.der());
    write(secure.folder.path(), &next);
    let renewed = async {
        while &shown(&secure).await != next.cert.der() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    soon(renewed).await;
    secure.is_served().await;
}

#[test]
fn a_malformed_certificate_is_refused_with_a_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let opened = |spec: &TlsSpec| Tls::open(spec).err().map(|error| error.to_string()).unwrap_or_default();
    let spec = write(folder.path(), &certificate());
    assert_eq!(opened(&spec), "");
    std::fs::write(&spec.key, certificate().signing_key.serialize_pem()).unwrap();
    assert!(opened(&spec).contains("do not fit"), "{}", opened(&spec));
    std::fs::write(&spec.key, "secret text").unwrap();
    assert!(
        opened(&spec).contains("contains no private key") && !opened(&spec).contains("secret"),
        "{}",
        opened(&spec)
    );
    std::fs::write(&spec.cert, "").unwrap();
    assert!(opened(&spec).contains("contains no certificate"), "{}", opened(&spec));
    std::fs::remove_file(&spec.cert).unwrap();
    assert!(opened(&spec).contains("cert.pem") && opened(&spec).contains("give the path"), "{}", opened(&spec));
}
