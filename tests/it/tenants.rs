//! Tenant isolation over HTTP: a search finds only the tenant's own photos. No secret is logged.

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};

use crate::caudal::{Caudal, Folder, TIMEOUT};
use crate::test_images::{jpeg, scene};

/// Secrets that the service reads from its environment.
const SHELTER: &str = "shelter-key-5f1d0f6f2c9b4f0e";
const OPERATOR: &str = "operator-key-a9a2f1f6b7c84d5d";
const SIGNING: &str = "signing-secret-0123456789abcdef01234567";

/// A JWT issuer in addition to the keys of `config/keys.toml`.
const ISSUER: [&str; 5] = [
    "auth.jwt.login.algorithm=\"HS256\"",
    "auth.jwt.login.issuer=\"https://login\"",
    "auth.jwt.login.audience=\"caudal\"",
    "auth.jwt.login.tenant_claim=\"org\"",
    "auth.jwt.login.secret={env=\"CAUDAL_SIGNING\"}",
];

/// PetAlert with API keys and JWTs, logging at level `trace`.
pub async fn with_auth() -> Caudal {
    let mut args = vec!["config/petalert.toml", "config/keys.toml", "--log", "trace"];
    args.extend(ISSUER.iter().flat_map(|set| ["--set", set]));
    let secrets = [("CAUDAL_KEY_SHELTER", SHELTER), ("CAUDAL_KEY_OPERATOR", OPERATOR), ("CAUDAL_SIGNING", SIGNING)];
    Caudal::serve_with(Folder::new(), &args, &secrets).await
}

/// A valid key of the service that [`with_auth`] starts.
pub fn api_key() -> &'static str {
    SHELTER
}

/// A JWT of a tenant that has no API key.
fn token_of(tenant: &str) -> String {
    let expires = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() + 600;
    let claims = json!({ "iss": "https://login", "aud": "caudal", "sub": "ann", "org": tenant, "exp": expires });
    encode(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(SIGNING.as_bytes())).unwrap()
}

/// Posts a photo with a key or token, and returns the status and the answer.
async fn post(caudal: &Caudal, credential: &str, path: &str, photo: Vec<u8>) -> (u16, Value) {
    let form = Form::new().part("file", Part::bytes(photo).file_name("photo"));
    let request = caudal.client.post(caudal.url(path)).bearer_auth(credential).multipart(form);
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

/// The reports that a caller finds, with their scores.
async fn search(caudal: &Caudal, credential: &str, number: u32) -> Vec<(String, f64)> {
    let photo = jpeg(&scene(number, 320, 240), 90);
    let (status, answer) = post(caudal, credential, "/embeddings/search_image?limit=100", photo).await;
    assert_eq!(status, 200, "{answer}");
    let of = |entry: &Value| (entry["report_id"].as_str().unwrap().to_owned(), entry["score"].as_f64().unwrap());
    answer["matches"].as_array().unwrap().iter().map(of).collect()
}

#[tokio::test]
async fn tenants_find_only_their_own_photos_and_no_secret_is_logged() {
    let caudal = with_auth().await;
    let token = token_of("zoo");
    // Tenants index overlapping photos under the same report ids.
    for (credential, numbers) in [(SHELTER, 0..3), (OPERATOR, 2..5), (&*token, 4..6)] {
        for number in numbers {
            let path = format!("/embeddings/index/r{number}");
            let (status, answer) = post(&caudal, credential, &path, jpeg(&scene(number, 320, 240), 90)).await;
            assert_eq!(status, 200, "{answer}");
        }
    }
    for (credential, theirs) in
        [(SHELTER, ["r0", "r1", "r2"].as_slice()), (OPERATOR, &["r2", "r3", "r4"]), (&token, &["r4", "r5"])]
    {
        for number in 0..6 {
            let matches = search(&caudal, credential, number).await;
            let mut ids: Vec<&str> = matches.iter().map(|(id, _)| id.as_str()).collect();
            ids.sort_unstable();
            assert_eq!(ids, theirs, "photo {number}");
            let own = format!("r{number}");
            assert_eq!(matches[0].1 > 0.9999, ids.contains(&own.as_str()), "photo {number}: {matches:?}");
        }
    }

    for wrong in ["shelter-key-5f1d0f6f2c9b4f0f", &token_of("zoo").replace('.', ".A")] {
        let refused = caudal.client.get(caudal.url("/v1/flows")).bearer_auth(wrong).send().await.unwrap();
        assert_eq!(refused.status(), 401);
    }
    let ticket = use_ticket(&caudal).await;
    let output = metrics_and_log(caudal).await;
    assert!(output.contains("TRACE") && output.contains("/v1/requests"), "trace logging is on");
    let signature = token.rsplit('.').next().unwrap();
    for secret in [SHELTER, OPERATOR, SIGNING, &token, signature, &ticket, "shelter-key-5f1d"] {
        assert!(!output.contains(secret), "{secret:?} is in the log or in /metrics");
    }
}

/// Opens an event stream with a ticket, and checks that the ticket is refused the second time. Returns the ticket.
async fn use_ticket(caudal: &Caudal) -> String {
    let photo = Form::new().part("file", Part::bytes(jpeg(&scene(1, 320, 240), 90)).file_name("photo"));
    let request = caudal.client.post(caudal.url("/embeddings/generate")).bearer_auth(SHELTER);
    let accepted = request.header("prefer", "respond-async").multipart(photo).send().await.unwrap();
    let id = accepted.headers()["caudal-request"].to_str().unwrap().to_owned();
    let request = caudal.client.post(caudal.url(&format!("/v1/requests/{id}/ticket"))).bearer_auth(SHELTER);
    let issued: Value = request.send().await.unwrap().json().await.unwrap();
    let url = issued["url"].as_str().unwrap();
    let stream = caudal.get(url).await;
    assert_eq!(stream.status(), 200);
    assert!(stream.text().await.unwrap().contains("event: done"));
    assert_eq!(caudal.get(url).await.status(), 401, "a ticket opens a stream once");
    issued["ticket"].as_str().unwrap().to_owned()
}

/// Stops the service and returns its `/metrics` and its whole log.
async fn metrics_and_log(mut caudal: Caudal) -> String {
    let request = caudal.client.get(caudal.url("/metrics")).bearer_auth(OPERATOR);
    let metrics = request.send().await.unwrap().text().await.unwrap();
    std::process::Command::new("kill").args(["-TERM", &caudal.pid().to_string()]).status().unwrap();
    let status = tokio::time::timeout(TIMEOUT, caudal.child.wait()).await.expect("the service stops").unwrap();
    assert!(status.success(), "{status}");
    format!("{metrics}\n{}", caudal.log())
}
