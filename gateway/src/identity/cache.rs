//! Caches the results of credential checks for a minute, by SHA-256.
//!
//! Valid and invalid credentials have separate caches, so that a flood of made-up tokens evicts no valid one.

use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::principal::Principal;

/// Valid credentials cached.
const MAX_VALID: u64 = 50_000;

/// Invalid credentials cached.
const MAX_INVALID: u64 = 10_000;

/// How long. A revoked credential stays valid for this long.
const AGE: Duration = Duration::from_secs(60);

/// The result of a check.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// The caller it belongs to.
    Valid(Arc<Principal>),
    /// It is not valid and never will be.
    Invalid,
}

/// The SHA-256 of a credential.
pub type Fingerprint = [u8; 32];

pub fn digest(credential: &str) -> Fingerprint {
    Sha256::digest(credential).into()
}

/// See the module.
pub struct Cache {
    valid: moka::sync::Cache<Fingerprint, Arc<Principal>>,
    invalid: moka::sync::Cache<Fingerprint, ()>,
}

impl Cache {
    pub fn new() -> Self {
        let valid = moka::sync::Cache::builder().max_capacity(MAX_VALID).time_to_live(AGE).build();
        let invalid = moka::sync::Cache::builder().max_capacity(MAX_INVALID).time_to_live(AGE).build();
        Self { valid, invalid }
    }

    pub fn get(&self, digest: &Fingerprint) -> Option<Verdict> {
        let valid = self.valid.get(digest).map(Verdict::Valid);
        valid.or_else(|| self.invalid.get(digest).map(|()| Verdict::Invalid))
    }

    pub fn put(&self, digest: Fingerprint, verdict: Verdict) {
        match verdict {
            Verdict::Valid(principal) => self.valid.insert(digest, principal),
            Verdict::Invalid => self.invalid.insert(digest, ()),
        }
    }

    pub fn clear(&self) {
        self.valid.invalidate_all();
        self.invalid.invalidate_all();
    }
}
