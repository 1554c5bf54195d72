//! `[index]` as the user writes it.

use std::num::NonZeroU64;

use pipeline::Complaint;
use pipeline::spec::Secret;
use serde::Deserialize;

/// Where vectors are kept. An absent section means the embedded index.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IndexSpec {
    /// gRPC address of a Qdrant server, for example `http://127.0.0.1:6334`. Absent: embedded, under `data_dir`.
    #[serde(default)]
    pub url: Option<String>,
    /// Where the server's key is: `{ env = "NAME" }` or `{ file = "PATH" }`.
    #[serde(default)]
    pub api_key: Option<Secret>,
    /// How long one call to the server may take, in milliseconds.
    #[serde(default)]
    pub timeout_ms: Option<NonZeroU64>,
}

impl IndexSpec {
    /// What is wrong with it, as far as can be told without a connection.
    #[must_use]
    pub fn check(&self) -> Vec<Complaint> {
        let complain = |key, message: String, remedy: &str| Complaint { key, message, remedy: remedy.into() };
        let mut complaints = Vec::new();
        match &self.url {
            Some(url) if !is_address(url) => {
                let message = format!("{url:?} is not the address of a server");
                complaints.push(complain("url", message, "write it as http://HOST:6334 (the gRPC port), or https://…"));
            }
            Some(_) => {}
            None => {
                let only = |key, set: bool| {
                    set.then(|| complain(key, format!("{key} is for a server"), "add `url`, or remove it"))
                };
                complaints.extend(only("api_key", self.api_key.is_some()));
                complaints.extend(only("timeout_ms", self.timeout_ms.is_some()));
            }
        }
        complaints
    }
}

fn is_address(url: &str) -> bool {
    let Ok(uri) = url.parse::<tonic::transport::Uri>() else { return false };
    matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(|host| !host.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_said_before_anything_is_opened() {
        let keys = |json: serde_json::Value| -> Vec<&str> {
            let spec: IndexSpec = serde_json::from_value(json).unwrap();
            spec.check().iter().map(|complaint| complaint.key).collect()
        };
        assert_eq!(keys(serde_json::json!({})), [""; 0]);
        assert_eq!(
            keys(serde_json::json!({"url": "http://[::1]:6334", "api_key": {"env": "K"}, "timeout_ms": 100})),
            [""; 0]
        );
        assert_eq!(keys(serde_json::json!({"url": "localhost:6334"})), ["url"]);
        assert_eq!(keys(serde_json::json!({"url": "ftp://x"})), ["url"]);
        assert_eq!(keys(serde_json::json!({"api_key": {"env": "K"}, "timeout_ms": 1})), ["api_key", "timeout_ms"]);
        assert!(serde_json::from_value::<IndexSpec>(serde_json::json!({"timeout_ms": 0})).is_err());
        // A secret does not stand in a config.
        assert!(serde_json::from_value::<IndexSpec>(serde_json::json!({"url": "http://x", "api_key": "k"})).is_err());
        assert!(serde_json::from_value::<IndexSpec>(serde_json::json!({"uri": "http://x"})).is_err());
    }
}
