//! The `[webhook]` section: the allow-list, timeout and trusted certificates of webhook calls.

use std::path::PathBuf;

use pipeline::KeyProblem;
use serde::Deserialize;

use super::allow_entry::AllowEntry;
use super::allow_list::AllowList;

/// Limits of `timeout_ms`.
const MIN_TIMEOUT_MS: u64 = 100;
const MAX_TIMEOUT_MS: u64 = 600_000;

/// Which webhook receivers may be called, and how.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WebhookSpec {
    /// Receivers that may be called; none if empty. An entry is a host (`hooks.example.org`), the subdomains of one
    /// (`*.internal.example`), any name (`*`), or a network (`10.0.0.0/8`, `fd00::/8`), each with a port (`:8080`,
    /// `[fd00::/8]:8080`), any port (`:*`), or the default port of the scheme. A name that resolves to an address that
    /// is not public is called only if a network entry also covers that address.
    pub allow: Vec<String>,
    /// Whether `http://` URLs are allowed too.
    pub insecure_http: bool,
    /// Timeout of one call, resolution and connection included, in milliseconds: 100 to 600000.
    pub timeout_ms: u64,
    /// PEM file of further certificate authorities to trust, for your own receivers.
    pub ca: Option<PathBuf>,
}

impl Default for WebhookSpec {
    fn default() -> Self {
        Self { allow: Vec::new(), insecure_http: false, timeout_ms: 30_000, ca: None }
    }
}

impl WebhookSpec {
    /// Everything that is wrong with the section.
    #[must_use]
    pub fn check(&self) -> Vec<KeyProblem> {
        let wrong = self.allow.iter().filter_map(|text| Some((text, AllowEntry::parse(text).err()?)));
        let mut key_problems: Vec<KeyProblem> = wrong
            .map(|(text, why)| KeyProblem {
                key: "allow",
                message: format!("{text:?} is not a valid entry: {why}"),
                remedy: "write, for example, \"hooks.example.org\", \"*.internal.example\" or \"10.0.0.0/8:8080\""
                    .into(),
            })
            .collect();
        if !(MIN_TIMEOUT_MS..=MAX_TIMEOUT_MS).contains(&self.timeout_ms) {
            let message = format!("timeout_ms is {}", self.timeout_ms);
            key_problems.push(KeyProblem {
                key: "timeout_ms",
                message,
                remedy: format!("give {MIN_TIMEOUT_MS} to {MAX_TIMEOUT_MS}"),
            });
        }
        key_problems
    }

    /// The valid entries; [`check`](Self::check) reports the others.
    pub(super) fn allow_list(&self) -> AllowList {
        let entries = self.allow.iter().filter_map(|text| AllowEntry::parse(text).ok()).collect();
        AllowList { entries, insecure_http: self.insecure_http }
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
    fn each_invalid_entry_is_reported() {
        assert!(WebhookSpec::default().check().is_empty());
        assert!(spec(json!({"allow": ["a.example", "*.b.example:*", "[fd00::/8]:8080"]})).check().is_empty());
        let wrong = spec(json!({"allow": ["a.example", "https://a.example/", "0.0.0.0/0"], "timeout_ms": 5})).check();
        let keys: Vec<_> = wrong.iter().map(|problem| problem.key).collect();
        assert_eq!(keys, ["allow", "allow", "timeout_ms"]);
        assert!(wrong[0].message.contains("https://a.example/") && wrong[1].message.contains("/8"));
        assert!(serde_json::from_value::<WebhookSpec>(json!({"deny": []})).is_err());
    }

    #[test]
    fn an_invalid_entry_allows_nothing() {
        assert!(spec(json!({"allow": ["https://a.example/"]})).allow_list().check_url("https://a.example/").is_err());
    }
}
