//! `[auth]`: who is let in. `[auth.key.NAME]` is an API key, `[auth.jwt.NAME]` an issuer of tokens.
//!
//! Without the section everybody is let in, and the service listens on loopback alone.

use std::net::IpAddr;
use std::sync::Arc;

use pipeline::spec::{Places, Problems, Secret, Section};
use serde::Deserialize;

use super::jwt::IssuerSpec;

/// Tenant of an API key that names none.
const DEFAULT_TENANT: &str = "default";

/// Longest name of a tenant or subject, in bytes.
pub const MAX_NAME_BYTES: usize = 256;

/// `[auth]`.
#[derive(Clone, Debug, Default)]
pub struct AuthSpec {
    /// Whether `/metrics` is open to everybody.
    pub open_metrics: bool,
    /// API keys.
    pub keys: Vec<KeySpec>,
    /// Issuers of tokens.
    pub issuers: Vec<IssuerSpec>,
}

/// `[auth.key.NAME]`.
#[derive(Clone, Debug)]
pub struct KeySpec {
    /// Who has it; by default its name.
    pub subject: Arc<str>,
    /// Whose requests it sees.
    pub tenant: Arc<str>,
    /// Whether it sees what belongs to all: dead letters, every tenant's requests.
    pub admin: bool,
    /// What is compared with.
    pub key: KeySource,
}

/// The key itself is never in the config.
#[derive(Clone, Debug)]
pub enum KeySource {
    /// Its SHA-256.
    Sha256([u8; 32]),
    /// Where it is.
    Secret(Secret),
}

/// As written; the tables of keys and issuers are taken out before.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct AuthText {
    #[serde(default)]
    open_metrics: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyText {
    subject: Option<String>,
    tenant: Option<String>,
    #[serde(default)]
    admin: bool,
    sha256: Option<String>,
    key: Option<Secret>,
}

impl AuthSpec {
    /// Whether anybody has to say who they are.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.keys.is_empty() || !self.issuers.is_empty()
    }

    /// Reads the section; every problem within it is reported.
    pub fn read(mut section: Section<'_>, problems: &mut Problems) -> Self {
        let place = section.place();
        let (keys, issuers) = (section.take_named("key", problems), section.take_named("jwt", problems));
        let text: AuthText = section.read(problems).unwrap_or_default();
        let declared = keys.len() + issuers.len();
        if declared == 0 {
            let remedy = "add [auth.key.NAME] or [auth.jwt.NAME], or remove [auth]";
            problems.add(place, "[auth] lets nobody in: it has no key and no issuer", remedy);
        }
        let keys = keys.into_iter().filter_map(|(name, section)| read_key(name.get_ref(), section, problems));
        let keys = keys.collect();
        let issuers: Vec<IssuerSpec> = issuers
            .into_iter()
            .filter_map(|(name, section)| IssuerSpec::read(name.get_ref(), section, problems))
            .collect();
        Self { open_metrics: text.open_metrics, keys, issuers }
    }
}

fn read_key(name: &str, section: Section<'_>, problems: &mut Problems) -> Option<KeySpec> {
    let (place, places) = (section.place(), section.places());
    let text: KeyText = section.read(problems)?;
    let subject = checked_name("subject", text.subject.as_deref().unwrap_or(name), &places, problems);
    let tenant = checked_name("tenant", text.tenant.as_deref().unwrap_or(DEFAULT_TENANT), &places, problems);
    let key = match (text.sha256, text.key) {
        (Some(hex), None) => match parse_sha256(&hex) {
            Some(digest) => KeySource::Sha256(digest),
            None => {
                let message =
                    format!("sha256 has {} characters, 64 hexadecimal digits are needed", hex.chars().count());
                let remedy = "write the output of: printf %s \"$KEY\" | sha256sum";
                problems.add(places.of("sha256"), message, remedy);
                return None;
            }
        },
        (None, Some(secret)) => KeySource::Secret(secret),
        (Some(_), Some(_)) | (None, None) => {
            let remedy = "give one of sha256 = \"…\", key = { env = \"NAME\" }, key = { file = \"PATH\" }";
            problems.add(place, format!("the key {name} has no value, or two"), remedy);
            return None;
        }
    };
    Some(KeySpec { subject: subject?, tenant: tenant?, admin: text.admin, key })
}

/// A tenant or subject that the config names.
pub fn checked_name(key: &str, name: &str, places: &Places, problems: &mut Problems) -> Option<Arc<str>> {
    if is_name(name) {
        return Some(name.into());
    }
    let message = format!("{key} must be 1 to {MAX_NAME_BYTES} bytes without control characters");
    problems.add(places.of(key), message, format!("give {key} a plain name"));
    None
}

/// Whether a text can stand for somebody.
pub fn is_name(text: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&text.len()) && !text.chars().any(char::is_control)
}

fn parse_sha256(hex: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    if hex.len() != 64 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, pair) in digest.iter_mut().zip(hex.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(digest)
}

/// Whether an address `HOST:PORT` can be reached from this machine alone.
#[must_use]
pub fn is_loopback(listen: &str) -> bool {
    let host = listen.rsplit_once(':').map_or(listen, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_to_be_loopback_is_not() {
        for inside in ["127.0.0.1:80", "127.9.9.9:0", "[::1]:8080", "localhost:1", "[::ffff:127.0.0.1]:1"] {
            assert!(is_loopback(inside), "{inside}");
        }
        for outside in ["0.0.0.0:80", "[::]:80", "10.0.0.1:80", "example.org:80", ":80", "localhost.evil.org:80"] {
            assert!(!is_loopback(outside), "{outside}");
        }
    }

    #[test]
    fn a_digest_is_64_hexadecimal_digits() {
        assert_eq!(parse_sha256(&"0f".repeat(32)), Some([15; 32]));
        for wrong in ["", "0f", &"0g".repeat(32), &"ä".repeat(32), &"+f".repeat(32)] {
            assert_eq!(parse_sha256(wrong), None, "{wrong}");
        }
    }
}
