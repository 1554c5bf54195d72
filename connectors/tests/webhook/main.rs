//! The webhook client against real sockets: what a receiver gets, what is retried, and what is never called.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod receiver;

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use connectors::webhook::{HttpCaller, Resolve, WebhookSpec};
use pipeline::webhook::{CallError, Method, WebhookCall, WebhookCaller};
use pipeline::{Rejection, Token};
use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use receiver::{Answer, Receiver};
use serde_json::json;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

/// Answers each query with the next of its lists, and with the last one from then on.
struct RebindingResolver {
    answers: Vec<Vec<IpAddr>>,
    queries: AtomicUsize,
}

impl RebindingResolver {
    fn new(answers: &[&[&str]]) -> Arc<Self> {
        let parse = |list: &&[&str]| list.iter().map(|text| text.parse().unwrap()).collect();
        Arc::new(Self { answers: answers.iter().map(parse).collect(), queries: AtomicUsize::new(0) })
    }
}

#[async_trait]
impl Resolve for RebindingResolver {
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let query = self.queries.fetch_add(1, Ordering::SeqCst);
        let answer = self.answers.get(query).or(self.answers.last()).cloned();
        answer.filter(|_| name == "hooks.test").ok_or_else(|| io::Error::other("this name does not exist"))
    }
}

fn spec(json: serde_json::Value) -> WebhookSpec {
    let spec: WebhookSpec = serde_json::from_value(json).unwrap();
    assert!(spec.check().is_empty(), "{:?}", spec.check());
    spec
}

/// May call `hooks.test`, which is this machine, on every port.
fn caller() -> HttpCaller {
    caller_of(spec(json!({"allow": ["hooks.test:*", "127.0.0.0/8:*"], "insecure_http": true})))
}

fn caller_of(spec: WebhookSpec) -> HttpCaller {
    HttpCaller::open(&spec).unwrap().with_resolver(RebindingResolver::new(&[&["127.0.0.1"]]))
}

fn call(url: String) -> WebhookCall {
    WebhookCall {
        method: Method::Post,
        url,
        headers: BTreeMap::new(),
        request: Token::new("r1").unwrap(),
        file_name: None,
        media_type: "application/json".into(),
        body: Bytes::from_static(b"{}"),
    }
}

fn hooks(receiver: &Receiver) -> String {
    format!("http://hooks.test:{}/", receiver.port())
}

fn refused(outcome: Result<(), CallError>) -> Rejection {
    match outcome {
        Err(CallError::Refused(why)) => why,
        other => panic!("{other:?}"),
    }
}

/// The reason of a failure, as the log gets it.
fn failed(outcome: Result<(), CallError>) -> String {
    match outcome {
        Err(CallError::Failed(error)) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_result_arrives_byte_by_byte_with_its_headers() {
    let receiver = Receiver::new(Answer::status(204)).await;
    let body: Vec<u8> = (0..1 << 20).map(|n: u32| (n % 251) as u8).collect();
    let call = WebhookCall {
        method: Method::Put,
        headers: [("X-Key".into(), "k".into()), ("authorization".into(), "Bearer t".into())].into(),
        file_name: Some("r1.pdf".into()),
        media_type: "application/pdf".into(),
        body: body.clone().into(),
        ..call(format!("http://HOOKS.test.:{}/a/ä?q=1#x", receiver.port()))
    };
    caller().call(call).await.unwrap();
    let got = &receiver.requests()[0];
    assert_eq!(got.head[0], "PUT /a/%C3%A4?q=1 HTTP/1.1");
    let mut lines: Vec<String> = got.head[1..].to_vec();
    lines.sort();
    let mut expected = [
        format!("host: hooks.test:{}", receiver.port()),
        format!("user-agent: caudal/{}", env!("CARGO_PKG_VERSION")),
        "content-type: application/pdf".into(),
        "content-length: 1048576".into(),
        "content-disposition: attachment; filename=\"r1.pdf\"".into(),
        "caudal-request: r1".into(),
        "gotenberg-trace: r1".into(),
        "x-key: k".into(),
        "authorization: Bearer t".into(),
    ];
    expected.sort();
    assert_eq!(lines, expected);
    assert!(got.body == body, "the body was altered");
}

#[tokio::test]
async fn a_requester_may_set_file_name_and_trace_but_no_framing_headers() {
    let receiver = Receiver::new(Answer::status(200)).await;
    let theirs = [("Content-Disposition", "attachment; filename=\"mine.pdf\""), ("Gotenberg-Trace", "t1")];
    let headers = theirs.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let file_name = Some("r1.pdf".into());
    caller().call(WebhookCall { headers, file_name, ..call(hooks(&receiver)) }).await.unwrap();
    let head = receiver.requests()[0].head.join("\n");
    assert!(head.contains("filename=\"mine.pdf\"") && !head.contains("r1.pdf") && head.contains("gotenberg-trace: t1"));
    let headers = [("Host".to_owned(), "metadata.google.internal".to_owned())].into();
    let why = refused(caller().call(WebhookCall { headers, ..call(hooks(&receiver)) }).await);
    assert_eq!((why.status, &*why.code), (400, "webhook_header"));
    assert_eq!(receiver.connections(), 1);
}

#[tokio::test]
async fn an_empty_body_and_an_invalid_media_type_are_sent_anyway() {
    let receiver = Receiver::new(Answer::status(200)).await;
    let call = WebhookCall { body: Bytes::new(), media_type: "text/\r\nX: y".into(), ..call(hooks(&receiver)) };
    caller().call(call).await.unwrap();
    let head = &receiver.requests()[0].head;
    assert!(head.contains(&"content-length: 0".to_owned()), "{head:?}");
    assert!(head.contains(&"content-type: application/octet-stream".to_owned()), "{head:?}");
}

#[tokio::test]
async fn the_status_decides_whether_the_call_is_retried() {
    for status in [408, 425, 429, 500, 502, 503, 504] {
        let receiver = Receiver::new(Answer::status(status)).await;
        let why = failed(caller().call(call(format!("{}p?token=s3cret", hooks(&receiver)))).await);
        assert!(why.contains(&status.to_string()) && why.contains("hooks.test") && !why.contains("s3cret"), "{why}");
    }
    for status in [304, 400, 401, 403, 404, 410, 422] {
        let receiver = Receiver::new(Answer::status(status)).await;
        let why = refused(caller().call(call(format!("{}p?token=s3cret", hooks(&receiver)))).await);
        assert_eq!((why.status, &*why.code), (502, "webhook_refused"));
        let detail = why.detail;
        assert!(detail.contains(&status.to_string()) && detail.contains("hooks.test") && !detail.contains("s3cret"));
        assert_eq!(receiver.connections(), 1);
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let canary = Receiver::new(Answer::status(200)).await;
    let inside = ["http://169.254.169.254/latest/meta-data/".to_owned(), hooks(&canary)];
    for (status, location) in
        [301, 302, 303, 307, 308].into_iter().flat_map(|code| inside.iter().map(move |to| (code, to)))
    {
        let text = format!("HTTP/1.1 {status} Moved\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n");
        let receiver = Receiver::new(Answer::Text(text)).await;
        let why = refused(caller().call(call(hooks(&receiver))).await);
        assert_eq!(&*why.code, "webhook_refused");
        assert!(
            why.detail.contains("redirects are not followed") && !why.detail.contains("meta-data"),
            "{}",
            why.detail
        );
    }
    assert_eq!(canary.connections(), 0);
}

#[tokio::test]
async fn a_silent_receiver_is_abandoned_at_the_timeout() {
    let quick = json!({"allow": ["127.0.0.0/8:*"], "insecure_http": true, "timeout_ms": 300});
    let mut receiver = Receiver::new(Answer::Silence).await;
    let url = format!("http://127.0.0.1:{}/", receiver.port());
    let why = failed(caller_of(spec(quick)).call(call(url)).await);
    assert!(why.contains("300ms"), "{why}");
    receiver.hung_up().await;
}

#[tokio::test]
async fn an_endless_response_is_cut_off_and_its_status_counts() {
    let endless = |head: &str| Answer::Endless(head.to_owned());
    let mut receiver = Receiver::new(endless("HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n")).await;
    caller().call(call(hooks(&receiver))).await.unwrap();
    receiver.hung_up().await;
    // An endless head has no status.
    let mut receiver = Receiver::new(endless("HTTP/1.1 200 OK\r\nX-Long: ")).await;
    failed(caller().call(call(hooks(&receiver))).await);
    receiver.hung_up().await;
}

#[tokio::test]
async fn an_invalid_response_is_retried() {
    for text in ["", "SSH-2.0-OpenSSH_9.2\r\n", "HTTP/1.1 2"] {
        let receiver = Receiver::new(Answer::Text(text.to_owned())).await;
        failed(caller().call(call(hooks(&receiver))).await);
    }
}

#[tokio::test]
async fn an_unreachable_receiver_is_retried() {
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let why = failed(caller().call(call(format!("http://127.0.0.1:{}/", gone.port()))).await);
    assert!(why.contains("refused the connection"), "{why}");
    let list = spec(json!({"allow": ["*"]}));
    let why = failed(caller_of(list).call(call("https://unknown.test/".into())).await);
    assert!(why.contains("cannot be resolved"), "{why}");
}

#[tokio::test]
async fn a_name_of_this_machine_is_called_only_if_its_network_is_allowed() {
    let receiver = Receiver::new(Answer::status(200)).await;
    let url = || format!("http://localhost:{}/", receiver.port());
    let open = |allow: &[&str]| HttpCaller::open(&spec(json!({"allow": allow, "insecure_http": true}))).unwrap();
    let names = open(&["localhost:*", "*:*"]);
    assert!(names.check_url(&url()).is_ok());
    let why = refused(names.call(call(url())).await);
    assert_eq!((why.status, &*why.code), (403, "webhook_not_allowed"));
    let networks = open(&["127.0.0.0/8:*", "[::1]:*"]);
    assert_eq!(refused(networks.call(call(url())).await).status, 403);
    assert_eq!(receiver.connections(), 0);
    open(&["localhost:*", "127.0.0.0/8:*", "[::1]:*"]).call(call(url())).await.unwrap();
    assert_eq!(receiver.requests().len(), 1);
}

#[tokio::test]
async fn a_name_is_resolved_once_and_the_checked_address_is_called() {
    let receiver = Receiver::new(Answer::status(200)).await;
    let list = spec(json!({"allow": ["hooks.test:*", "127.0.0.1:*"], "insecure_http": true}));
    let rebinding = RebindingResolver::new(&[&["127.0.0.1"], &["127.0.0.2"]]);
    let caller = HttpCaller::open(&list).unwrap().with_resolver(rebinding.clone());
    caller.check_url(&hooks(&receiver)).unwrap();
    assert_eq!(rebinding.queries.load(Ordering::SeqCst), 0, "a check does not resolve");
    caller.call(call(hooks(&receiver))).await.unwrap();
    assert_eq!((rebinding.queries.load(Ordering::SeqCst), receiver.connections()), (1, 1));
    // The next call resolves again, and is refused for the new address.
    refused(caller.call(call(hooks(&receiver))).await);
    assert_eq!((rebinding.queries.load(Ordering::SeqCst), receiver.connections()), (2, 1));
}

#[tokio::test]
async fn one_internal_address_among_others_refuses_the_call() {
    let receiver = Receiver::new(Answer::status(200)).await;
    let list = spec(json!({"allow": ["hooks.test:*", "127.0.0.1:*"], "insecure_http": true}));
    for answer in [&["127.0.0.1", "10.0.0.1"], &["127.0.0.1", "::ffff:169.254.169.254"], &["fe80::1", "127.0.0.1"]] {
        let caller = HttpCaller::open(&list).unwrap().with_resolver(RebindingResolver::new(&[answer]));
        let why = refused(caller.call(call(hooks(&receiver))).await);
        assert_eq!(&*why.code, "webhook_not_allowed");
        assert!(!why.detail.contains("10.0.0.1"), "{}", why.detail);
    }
    assert_eq!(receiver.connections(), 0);
}

#[tokio::test]
async fn the_next_address_is_tried_if_one_refuses_the_connection() {
    let receiver = Receiver::new(Answer::status(200)).await;
    // Nothing listens on 127.0.0.9.
    let caller = caller().with_resolver(RebindingResolver::new(&[&["127.0.0.9", "127.0.0.1"]]));
    caller.call(call(hooks(&receiver))).await.unwrap();
    assert_eq!(receiver.requests().len(), 1);
}

/// A certificate for `hooks.test`, as a file and as a server has it.
fn certificate(folder: &std::path::Path) -> (std::path::PathBuf, TlsAcceptor) {
    let CertifiedKey { cert, signing_key }: CertifiedKey<KeyPair> =
        generate_simple_self_signed(["hooks.test".to_owned()]).unwrap();
    let path = folder.join("ca.pem");
    std::fs::write(&path, cert.pem()).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    (path, TlsAcceptor::from(Arc::new(config)))
}

#[tokio::test]
async fn tls_certificates_are_verified() {
    let folder = tempfile::tempdir().unwrap();
    let (ca, acceptor) = certificate(folder.path());
    let receiver = Receiver::with_tls(Answer::status(200), acceptor).await;
    let allow = ["hooks.test:*", "127.0.0.0/8:*"];
    let trusting = caller_of(spec(json!({"allow": allow, "ca": ca})));
    let url = format!("https://hooks.test:{}/", receiver.port());
    trusting.call(call(url.clone())).await.unwrap();
    assert_eq!(receiver.requests()[0].head[1], format!("host: hooks.test:{}", receiver.port()));
    // The certificate is not for its address, and without `ca` it is not trusted.
    failed(trusting.call(call(format!("https://127.0.0.1:{}/", receiver.port()))).await);
    failed(caller_of(spec(json!({"allow": allow}))).call(call(url)).await);
    assert_eq!(receiver.requests().len(), 1);
    // A receiver by plain http fails the TLS handshake.
    let plain = Receiver::new(Answer::status(200)).await;
    let quick = spec(json!({"allow": allow, "timeout_ms": 300}));
    failed(caller_of(quick).call(call(format!("https://hooks.test:{}/", plain.port()))).await);
}

#[test]
fn a_file_without_a_certificate_is_refused_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.pem");
    let open = || HttpCaller::open(&spec(json!({"ca": path}))).err().unwrap().to_string();
    assert!(open().contains("cannot read"));
    std::fs::write(&path, "no certificate").unwrap();
    assert!(open().contains("holds no certificate"));
}
