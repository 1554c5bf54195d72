//! Vector indexes: embedded in the process (qdrant-edge), or a Qdrant server or cluster.
//!
//! Every kind stores the model's fingerprint beside the vectors of a collection and refuses vectors of another model.
//! Point ids come from the caller, so storing a point again replaces it. A write is durable once it was answered. To
//! add a kind: one file that defines an [`IndexKind`], and an entry in [`KINDS`].

mod checks;
mod embedded;
mod error;
mod kind;
mod qdrant;
mod spec;

use std::path::Path;
use std::sync::Arc;

use pipeline::spec::did_you_mean;
use pipeline::{KeyProblem, VectorIndex};

pub use embedded::{EmbeddedIndex, Limits};
pub use error::OpenError;
pub use kind::{IndexKind, OpenIndex};
pub use qdrant::QdrantIndex;
pub use spec::IndexSpec;

/// Every kind that `[index] kind` may name. Without `kind`, the first one whose `is_implied_by` says yes is used.
pub static KINDS: [IndexKind; 2] = [embedded::KIND, qdrant::KIND];

/// Opens the index of `[index]`; the embedded one lives in `data_dir`/index.
///
/// The embedded index reads its collections here, which blocks (milliseconds for each). A server is not contacted yet.
///
/// # Errors
/// See [`OpenError`].
pub fn open(spec: &IndexSpec, data_dir: &Path) -> Result<Arc<dyn VectorIndex>, OpenError> {
    match spec.index_kind() {
        Some(kind) => (kind.open)(spec, data_dir),
        None => Err(OpenError::UnknownKind { kind: spec.kind.clone().unwrap_or_default(), kinds: kind_names() }),
    }
}

impl IndexSpec {
    /// The kind that `kind` names or, without it, the one that the other keys imply; `None` if `kind` names no kind.
    #[must_use]
    pub fn index_kind(&self) -> Option<&'static IndexKind> {
        KINDS.iter().find(|kind| match &self.kind {
            Some(name) => name == kind.name,
            None => (kind.is_implied_by)(self),
        })
    }

    /// Whether several processes can use the index; false if each process has its own.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.index_kind().is_some_and(|kind| kind.shared)
    }

    /// Everything that is wrong with the section, as far as can be told without files or a connection.
    #[must_use]
    pub fn check(&self) -> Vec<KeyProblem> {
        let Some(kind) = self.index_kind() else {
            let kind = self.kind.as_deref().unwrap_or_default();
            let otherwise = format!("use one of: {}", kind_names());
            let remedy = did_you_mean(kind, KINDS.iter().map(|known| known.name), &otherwise);
            return vec![KeyProblem { key: "kind", message: format!("{kind:?} is not a kind of index"), remedy }];
        };
        let foreign_keys = self.present_keys().into_iter().filter(|key| !kind.keys.contains(key));
        let mut key_problems: Vec<KeyProblem> = foreign_keys.map(|key| foreign_key(key, kind)).collect();
        key_problems.extend((kind.check)(self));
        key_problems
    }
}

/// The problem about a key that belongs to another kind.
fn foreign_key(key: &'static str, kind: &IndexKind) -> KeyProblem {
    let owners = KINDS.iter().filter(|other| other.keys.contains(&key));
    let owners: Vec<String> = owners.map(|owner| format!("kind = {:?} with its keys", owner.name)).collect();
    KeyProblem {
        key,
        message: format!("the {} index does not take `{key}`", kind.name),
        remedy: format!("remove `{key}`, or use {}", owners.join(" or ")),
    }
}

fn kind_names() -> String {
    KINDS.iter().map(|kind| kind.name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec(json: serde_json::Value) -> IndexSpec {
        serde_json::from_value(json).unwrap()
    }

    fn complaint_keys(json: serde_json::Value) -> Vec<&'static str> {
        spec(json).check().iter().map(|problem| problem.key).collect()
    }

    /// The only problem about the section.
    fn problem(json: serde_json::Value) -> KeyProblem {
        let mut key_problems = spec(json).check();
        assert_eq!(key_problems.len(), 1, "{key_problems:?}");
        key_problems.remove(0)
    }

    fn kind_of(json: serde_json::Value) -> &'static str {
        spec(json).index_kind().unwrap().name
    }

    #[test]
    fn without_kind_a_url_means_qdrant() {
        assert_eq!(kind_of(json!({"url": "http://127.0.0.1:6334"})), "qdrant");
    }

    #[test]
    fn without_kind_and_url_the_index_is_embedded() {
        assert_eq!(kind_of(json!({})), "embedded");
    }

    #[test]
    fn a_named_kind_is_used() {
        assert_eq!(kind_of(json!({"kind": "embedded"})), "embedded");
        assert_eq!(kind_of(json!({"kind": "qdrant", "url": "http://127.0.0.1:6334"})), "qdrant");
    }

    #[test]
    fn only_a_server_is_shared_by_processes() {
        assert!(!spec(json!({})).is_shared());
        assert!(spec(json!({"url": "http://127.0.0.1:6334"})).is_shared());
    }

    #[test]
    fn every_kind_has_a_name_of_its_own_and_one_is_implied_by_an_empty_section() {
        let names: std::collections::BTreeSet<_> = KINDS.iter().map(|kind| kind.name).collect();
        assert_eq!(names.len(), KINDS.len());
        assert_eq!(KINDS.iter().filter(|kind| (kind.is_implied_by)(&IndexSpec::default())).count(), 1);
    }

    #[test]
    fn a_right_section_has_no_key_problems() {
        for right in [
            json!({}),
            json!({"kind": "embedded"}),
            json!({"url": "http://[::1]:6334", "api_key": {"env": "K"}, "timeout_ms": 100}),
            json!({"kind": "qdrant", "url": "https://qdrant.example:6334"}),
        ] {
            assert_eq!(complaint_keys(right.clone()), [""; 0], "{right}");
        }
    }

    #[test]
    fn an_unknown_kind_is_refused_with_the_kinds_there_are() {
        let problem = problem(json!({"kind": "milvus", "url": "http://127.0.0.1:19530"}));
        assert_eq!(problem.key, "kind");
        assert!(problem.message.contains("milvus"), "{}", problem.message);
        assert!(problem.remedy.contains("embedded, qdrant"), "{}", problem.remedy);
    }

    #[test]
    fn an_embedded_index_takes_no_url() {
        let problem = problem(json!({"kind": "embedded", "url": "http://127.0.0.1:6334"}));
        assert_eq!(problem.key, "url");
        assert!(problem.remedy.contains("remove `url`") && problem.remedy.contains("kind = \"qdrant\""));
    }

    #[test]
    fn an_embedded_index_takes_no_api_key() {
        let problem = problem(json!({"kind": "embedded", "api_key": {"env": "K"}}));
        assert_eq!(problem.key, "api_key");
        assert!(problem.remedy.contains("remove `api_key`") && problem.remedy.contains("kind = \"qdrant\""));
    }

    #[test]
    fn without_a_url_the_keys_of_a_server_are_refused() {
        assert_eq!(complaint_keys(json!({"api_key": {"env": "K"}, "timeout_ms": 1})), ["api_key", "timeout_ms"]);
    }

    #[test]
    fn qdrant_needs_a_url() {
        let problem = problem(json!({"kind": "qdrant", "api_key": {"env": "K"}}));
        assert_eq!(problem.key, "url");
        assert!(problem.remedy.contains("url = \"http://HOST:6334\""), "{}", problem.remedy);
    }

    #[test]
    fn a_url_that_is_no_server_address_is_refused() {
        assert_eq!(complaint_keys(json!({"url": "localhost:6334"})), ["url"]);
        assert_eq!(complaint_keys(json!({"url": "ftp://x"})), ["url"]);
    }

    #[test]
    fn an_unknown_kind_opens_nothing() {
        let refused = open(&spec(json!({"kind": "milvus"})), Path::new("")).map(|_| ()).unwrap_err();
        assert!(refused.to_string().contains("milvus"), "{refused}");
    }
}
