//! `[auth]`: the credentials that are accepted. `[auth.key.NAME]` is an API key, `[auth.jwt.NAME]` an issuer of tokens.
//!
//! Without the section authentication is off, and the service listens on loopback only.

use std::sync::Arc;

use pipeline::spec::{Problems, Secret, Section};
use serde::Deserialize;

use super::jwt::IssuerSpec;
use super::names::checked_name;

/// Tenant of an API key that names none.
const DEFAULT_TENANT: &str = "default";

/// `[auth]`.
#[derive(Clone, Debug, Default)]
pub struct AuthSpec {
    /// Whether `/metrics` needs no credential.
    pub open_metrics: bool,
    /// API keys.
    pub keys: Vec<KeySpec>,
    /// Issuers of tokens.
    pub issuers: Vec<IssuerSpec>,
}

/// `[auth.key.NAME]`.
#[derive(Clone, Debug)]
pub struct KeySpec {
    /// The caller it stands for; by default its name.
    pub subject: Arc<str>,
    /// The tenant whose requests it sees.
    pub tenant: Arc<str>,
    /// Whether it sees dead letters and every tenant's requests.
    pub admin: bool,
    /// The key itself, or its digest.
    pub key: KeySource,
}

/// Where a key comes from; it is never in the config as it is.
#[derive(Clone, Debug)]
pub enum KeySource {
    /// Its SHA-256.
    Sha256([u8; 32]),
    /// Read from the environment or a file.
    Secret(Secret),
}

/// `[auth]` as written in TOML, without the tables of keys and issuers, which are taken out before.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct AuthToml {
    #[serde(default)]
    open_metrics: bool,
}

/// `[auth.key.NAME]` as written in TOML.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyToml {
    subject: Option<String>,
    tenant: Option<String>,
    #[serde(default)]
    admin: bool,
    sha256: Option<String>,
    key: Option<Secret>,
}

impl AuthSpec {
    /// Whether callers must authenticate.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.keys.is_empty() || !self.issuers.is_empty()
    }

    /// Reads the section and reports every problem in it.
    pub fn read(mut section: Section<'_>, problems: &mut Problems) -> Self {
        let place = section.place();
        let (keys, issuers) = (section.take_named("key", problems), section.take_named("jwt", problems));
        let text: AuthToml = section.read(problems).unwrap_or_default();
        let declared = keys.len() + issuers.len();
        if declared == 0 {
            let remedy = "add [auth.key.NAME] or [auth.jwt.NAME], or remove [auth]";
            problems.add(place, "[auth] accepts no credential: it has no key and no issuer", remedy);
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
    let text: KeyToml = section.read(problems)?;
    let subject = checked_name("subject", text.subject.as_deref().unwrap_or(name), &places, problems);
    let tenant = checked_name("tenant", text.tenant.as_deref().unwrap_or(DEFAULT_TENANT), &places, problems);
    let key = match (text.sha256, text.key) {
        (Some(hex), None) => match parse_sha256(&hex) {
            Some(digest) => KeySource::Sha256(digest),
            None => {
                let message = format!("sha256 has {} characters, expected 64 hexadecimal digits", hex.chars().count());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_64_hexadecimal_digits() {
        assert_eq!(parse_sha256(&"0f".repeat(32)), Some([15; 32]));
        for wrong in ["", "0f", &"0g".repeat(32), &"ä".repeat(32), &"+f".repeat(32)] {
            assert_eq!(parse_sha256(wrong), None, "{wrong}");
        }
    }
}
