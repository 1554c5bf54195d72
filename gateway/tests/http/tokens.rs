//! Issuers and tokens for tests, valid and invalid ones.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use time::OffsetDateTime;

/// A shared secret of 32 bytes, in `keys/secret.txt` too.
pub const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

/// The path of a key for tests.
pub fn key_file(name: &str) -> String {
    format!("{}/tests/http/keys/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn key(name: &str) -> Vec<u8> {
    std::fs::read(key_file(name)).unwrap()
}

pub fn now() -> i64 {
    OffsetDateTime::now_utc().unix_timestamp()
}

/// `[auth]` with one issuer for each algorithm: `https://hs`, `https://rs`, `https://es`, `https://ed`.
pub fn issuers() -> String {
    let issuer = |name: &str, algorithm: &str, key: String| {
        format!(
            "[auth.jwt.{name}]\nalgorithm = \"{algorithm}\"\nissuer = \"https://{name}\"\naudience = \"caudal\"\n\
             tenant_claim = \"org\"\n{key}\n"
        )
    };
    let public = |name: &str| format!("public_key = {{ file = \"{}\" }}", key_file(name));
    [
        issuer("hs", "HS256", format!("secret = {{ file = \"{}\" }}", key_file("secret.txt"))),
        issuer("rs", "RS256", public("rsa.pub.pem")),
        issuer("es", "ES256", public("ec.pub.pem")),
        issuer("ed", "EdDSA", public("ed.pub.pem")),
    ]
    .concat()
}

/// The claims of a valid token of an issuer.
pub fn claims(issuer: &str, tenant: &str) -> Value {
    json!({
        "iss": format!("https://{issuer}"), "aud": "caudal", "sub": "ann", "org": tenant, "exp": now() + 600,
    })
}

/// A token signed as the issuer of that name would.
pub fn sign(issuer: &str, claims: &Value) -> String {
    let (algorithm, key) = match issuer {
        "hs" => (Algorithm::HS256, EncodingKey::from_secret(SECRET)),
        "rs" => (Algorithm::RS256, EncodingKey::from_rsa_pem(&key("rsa.pem")).unwrap()),
        "es" => (Algorithm::ES256, EncodingKey::from_ec_pem(&key("ec.pem")).unwrap()),
        _ => (Algorithm::EdDSA, EncodingKey::from_ed_pem(&key("ed.pem")).unwrap()),
    };
    encode(&Header::new(algorithm), claims, &key).unwrap()
}

/// A valid token of a tenant.
pub fn good(tenant: &str) -> String {
    sign("hs", &claims("hs", tenant))
}

/// A token of tenant `org`, signed with the Ed25519 key under a key id.
pub fn with_key_id(key_id: &str, claims: &Value) -> String {
    let header = Header { kid: Some(key_id.to_owned()), ..Header::new(Algorithm::EdDSA) };
    encode(&header, claims, &EncodingKey::from_ed_pem(&key("ed.pem")).unwrap()).unwrap()
}

/// A token with a given header and claims, signed with the shared secret.
pub fn signed_text(header: &str, claims: &str) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &EncodingKey::from_secret(SECRET), Algorithm::HS256);
    format!("{message}.{}", signature.unwrap())
}

/// A token signed with the public key as if it were a shared secret.
pub fn signed_with_public_key(claims: &Value) -> String {
    encode(&Header::new(Algorithm::HS256), claims, &EncodingKey::from_secret(&key("rsa.pub.pem"))).unwrap()
}

/// A token without a signature.
pub fn unsigned(claims: &Value) -> String {
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT"}"#);
    format!("{header}.{}.", URL_SAFE_NO_PAD.encode(claims.to_string()))
}
