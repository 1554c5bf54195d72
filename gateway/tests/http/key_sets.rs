//! Key sets of issuers: read from a URL, read again when they change, and at a limited rate.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::routing::get;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::service::{Service, problem, soon};
use crate::tokens::{claims, with_key_id};

/// The public half of `keys/ed.pem`.
const PUBLIC: &str = "dFyeeZ43fXOHYs8K0GQVZfq92bXN-LyYYD0zISw1Bjo";

/// An issuer's server: its answer can be changed, and its requests are counted.
struct Issuer {
    url: String,
    key_id: watch::Sender<&'static str>,
    asked: Arc<AtomicUsize>,
}

impl Issuer {
    async fn start(key_id: &'static str) -> Self {
        let (key_id, answer) = watch::channel(key_id);
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&asked);
        let handler = move || {
            counter.fetch_add(1, Ordering::SeqCst);
            let key = json!({"kty": "OKP", "crv": "Ed25519", "x": PUBLIC, "kid": *answer.borrow(), "use": "sig"});
            async move { json!({ "keys": [key] }).to_string() }
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/jwks.json", listener.local_addr().unwrap());
        let app = Router::new().route("/jwks.json", get(handler));
        let app = hyper_util::service::TowerToHyperService::new(app);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let io = hyper_util::rt::TokioIo::new(stream);
                tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(io, app.clone()));
            }
        });
        Self { url, key_id, asked }
    }

    fn config(&self) -> String {
        format!(
            "[auth.jwt.ed]\nalgorithm = \"EdDSA\"\nissuer = \"https://ed\"\naudience = \"caudal\"\ntenant_claim = \"org\"\n\
             jwks = \"{}\"\n",
            self.url
        )
    }
}

async fn flows(service: &Service, token: &str) -> reqwest::Response {
    soon(service.get("/v1/flows").bearer_auth(token).send()).await.unwrap()
}

#[tokio::test]
async fn keys_are_read_from_a_url_and_read_again_when_they_change() {
    let issuer = Issuer::start("one").await;
    let service = Service::start(&issuer.config()).await;
    let first = with_key_id("one", &claims("ed", "acme"));
    assert_eq!(flows(&service, &first).await.status(), 200);
    issuer.key_id.send_replace("two");
    let second = with_key_id("two", &claims("ed", "acme"));
    assert_eq!(flows(&service, &second).await.status(), 200, "an unknown key has the set read again");
    let asked = issuer.asked.load(Ordering::SeqCst);
    for number in 0..50 {
        let unknown = with_key_id(&format!("../{number}"), &claims("ed", "acme"));
        problem(flows(&service, &unknown).await, 401, "unauthenticated").await;
    }
    assert!(issuer.asked.load(Ordering::SeqCst) <= asked + 1, "made-up keys cause a bounded number of readings");
    assert_eq!(flows(&service, &second).await.status(), 200);
}

#[tokio::test]
async fn without_any_keys_tokens_cannot_be_checked() {
    let issuer = Issuer::start("one").await;
    let config = issuer.config().replace("/jwks.json", "/nothing");
    let service = Service::start(&config).await;
    let token = with_key_id("one", &claims("ed", "acme"));
    let refused = flows(&service, &token).await;
    assert!(refused.headers().contains_key("retry-after"));
    let body = problem(refused, 503, "identity_unavailable").await;
    assert!(!body.to_string().contains("127.0.0.1"), "{body}");
}
