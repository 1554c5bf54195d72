//! Measures the check of a token: cached, and for the first time. A cached check must stay below 50 µs.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement prints, and ends where it cannot go on")]

use std::hint::black_box;

use gateway::Identity;
use gateway::spec::GatewaySpec;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use pipeline::DeclaredNames;
use pipeline::spec::{Problems, Sources};
use serde_json::json;
use tokio::time::Instant;

/// Limit of a cached check.
const LIMIT_MICROS: f64 = 50.0;

fn identity(config: &str) -> Identity {
    let mut sources = Sources::default();
    sources.add("bench.toml", config);
    let mut problems = Problems::default();
    let spec = GatewaySpec::read(&mut sources.parse(&mut problems).root, &DeclaredNames::default(), &mut problems);
    assert!(problems.is_empty(), "{problems:?}");
    Identity::open(&spec.auth).unwrap()
}

fn keys() -> String {
    format!("{}/tests/http/keys", env!("CARGO_MANIFEST_DIR"))
}

fn token(issuer: &str) -> String {
    let read = |name: &str| std::fs::read(format!("{}/{name}", keys())).unwrap();
    let (algorithm, key) = match issuer {
        "HS256" => (Algorithm::HS256, EncodingKey::from_secret(read("secret.txt").trim_ascii_end())),
        "RS256" => (Algorithm::RS256, EncodingKey::from_rsa_pem(&read("rsa.pem")).unwrap()),
        "ES256" => (Algorithm::ES256, EncodingKey::from_ec_pem(&read("ec.pem")).unwrap()),
        _ => (Algorithm::EdDSA, EncodingKey::from_ed_pem(&read("ed.pem")).unwrap()),
    };
    let claims = json!({"iss": issuer, "aud": "caudal", "sub": "ann", "org": "acme", "exp": 4_000_000_000_u64});
    encode(&Header::new(algorithm), &claims, &key).unwrap()
}

/// Microseconds of one check, over `count` of them.
async fn micros(identity: &Identity, token: &str, count: u32, forget: bool) -> f64 {
    let begun = Instant::now();
    for _ in 0..count {
        if forget {
            identity.forget();
        }
        black_box(identity.check(black_box(token)).await.unwrap());
    }
    begun.elapsed().as_secs_f64() * 1e6 / f64::from(count)
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let issuer = |name: &str, key: &str| {
        format!(
            "[auth.jwt.{name}]\nalgorithm = \"{name}\"\nissuer = \"{name}\"\naudience = \"caudal\"\ntenant_claim = \
             \"org\"\n{key}\n"
        )
    };
    let public = |file: &str| format!("public_key = {{ file = \"{}/{file}\" }}", keys());
    let config = [
        issuer("HS256", &format!("secret = {{ file = \"{}/secret.txt\" }}", keys())),
        issuer("RS256", &public("rsa.pub.pem")),
        issuer("ES256", &public("ec.pub.pem")),
        issuer("EdDSA", &public("ed.pub.pem")),
    ];
    let identity = identity(&config.concat());
    println!("{:8} {:>14} {:>14}", "", "cached", "first time");
    for name in ["HS256", "RS256", "ES256", "EdDSA"] {
        let token = token(name);
        let first = micros(&identity, &token, 300, true).await;
        let remembered = micros(&identity, &token, 100_000, false).await;
        println!("{name:8} {remembered:>11.2} µs {first:>11.2} µs");
        assert!(remembered < LIMIT_MICROS, "a cached check takes {remembered} µs");
    }
}
