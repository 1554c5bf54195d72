//! `[webhook]` as the user writes it.

use std::path::PathBuf;

use pipeline::Complaint;
use serde::Deserialize;

use super::allow::Entry;
use super::guard::Guard;

/// Bounds of `timeout_ms`.
const LEAST_MS: u64 = 100;
const MOST_MS: u64 = 600_000;

/// Whom requesters may have called, and how.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WebhookSpec {
    /// Who may be called; nobody, where it is empty. A host (`hooks.example.org`), what is below one
    /// (`*.internal.example`), every name (`*`), or a network (`10.0.0.0/8`, `fd00::/8`), each with a port (`:8080`,
    /// `[fd00::/8]:8080`), all of them (`:*`), or the usual one. A name that leads to an address that is not public is called
    /// only if a network holds that address too.
    pub allow: Vec<String>,
    /// Whether `http://` is taken as well.
    pub insecure_http: bool,
    /// How long one call may take, with everything, in milliseconds: 100 to 600000.
    pub timeout_ms: u64,
    /// PEM file of further authorities whose certificates are trusted, for receivers of one's own.
    pub ca: Option<PathBuf>,
}

impl Default for WebhookSpec {
    fn default() -> Self {
        Self { allow: Vec::new(), insecure_http: false, timeout_ms: 30_000, ca: None }
    }
}

impl WebhookSpec {
    /// What is wrong with it.
    #[must_use]
    pub fn check(&self) -> Vec<Complaint> {
        let wrong = self.allow.iter().filter_map(|text| Some((text, Entry::parse(text).err()?)));
        let mut complaints: Vec<Complaint> = wrong
            .map(|(text, why)| Complaint {
                key: "allow",
                message: format!("{text:?} cannot be allowed: {why}"),
                remedy: "write \"hooks.example.org\", \"*.internal.example\", \"10.0.0.0/8:8080\" or the like".into(),
            })
            .collect();
        if !(LEAST_MS..=MOST_MS).contains(&self.timeout_ms) {
            let message = format!("timeout_ms is {}", self.timeout_ms);
            complaints.push(Complaint { key: "timeout_ms", message, remedy: format!("give {LEAST_MS} to {MOST_MS}") });
        }
        complaints
    }

    /// Who may be called, by the entries that can be read; [`check`](Self::check) has told of the others.
    pub(super) fn guard(&self) -> Guard {
        let entries = self.allow.iter().filter_map(|text| Entry::parse(text).ok()).collect();
        Guard { entries, insecure_http: self.insecure_http }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec(json: serde_json::Value) -> WebhookSpec {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn what_is_wrong_is_said_by_entry() {
        assert!(WebhookSpec::default().check().is_empty());
        assert!(spec(json!({"allow": ["a.example", "*.b.example:*", "[fd00::/8]:8080"]})).check().is_empty());
        let wrong = spec(json!({"allow": ["a.example", "https://a.example/", "0.0.0.0/0"], "timeout_ms": 5})).check();
        let keys: Vec<_> = wrong.iter().map(|complaint| complaint.key).collect();
        assert_eq!(keys, ["allow", "allow", "timeout_ms"]);
        assert!(wrong[0].message.contains("https://a.example/") && wrong[1].message.contains("/8"));
        assert!(serde_json::from_value::<WebhookSpec>(json!({"deny": []})).is_err());
    }

    #[test]
    fn an_entry_that_cannot_be_read_allows_nobody() {
        assert!(spec(json!({"allow": ["https://a.example/"]})).guard().check("https://a.example/").is_err());
    }
}
