//! The `[index]` section: which kind of index, and how to reach it. Its checks are in `mod.rs`, beside the list of
//! kinds.

use std::num::NonZeroU64;

use pipeline::spec::Secret;
use serde::Deserialize;

/// Where vectors are stored. An absent section means the embedded index.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IndexSpec {
    /// `embedded` or `qdrant`. Absent: `qdrant` if there is a `url`, else `embedded`.
    #[serde(default)]
    pub kind: Option<String>,
    /// gRPC address of a Qdrant server, for example `http://127.0.0.1:6334`.
    #[serde(default)]
    pub url: Option<String>,
    /// The server's API key: `{ env = "NAME" }` or `{ file = "PATH" }`.
    #[serde(default)]
    pub api_key: Option<Secret>,
    /// Timeout of one call to the server, in milliseconds.
    #[serde(default)]
    pub timeout_ms: Option<NonZeroU64>,
}

impl IndexSpec {
    /// Keys that are set, besides `kind`.
    pub(super) fn present_keys(&self) -> Vec<&'static str> {
        let keys = [
            ("url", self.url.is_some()),
            ("api_key", self.api_key.is_some()),
            ("timeout_ms", self.timeout_ms.is_some()),
        ];
        keys.into_iter().filter_map(|(key, present)| present.then_some(key)).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn is_refused(json: serde_json::Value) -> bool {
        serde_json::from_value::<IndexSpec>(json).is_err()
    }

    #[test]
    fn a_timeout_of_zero_is_refused() {
        assert!(is_refused(json!({"timeout_ms": 0})));
    }

    #[test]
    fn an_api_key_written_into_the_config_is_refused() {
        assert!(is_refused(json!({"url": "http://x", "api_key": "k"})));
    }

    #[test]
    fn unknown_keys_are_refused() {
        assert!(is_refused(json!({"uri": "http://x"})));
    }
}
