//! What was found out about credentials, for a minute, under their SHA-256.
//!
//! Good and bad ones are remembered apart, so that a flood of made-up tokens pushes out no good one.

use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::Principal;

/// Good credentials remembered.
const KNOWN: u64 = 50_000;

/// Bad credentials remembered.
const REFUSED: u64 = 10_000;

/// How long. A key that was withdrawn is good for so much longer.
const AGE: Duration = Duration::from_secs(60);

/// What was found out.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// Whose it is.
    Known(Arc<Principal>),
    /// It is no good, and will not be.
    Refused,
}

/// The SHA-256 of a credential.
pub type Fingerprint = [u8; 32];

pub fn digest(credential: &str) -> Fingerprint {
    Sha256::digest(credential).into()
}

/// See the module.
pub struct Cache {
    known: moka::sync::Cache<Fingerprint, Arc<Principal>>,
    refused: moka::sync::Cache<Fingerprint, ()>,
}

impl Cache {
    pub fn new() -> Self {
        let known = moka::sync::Cache::builder().max_capacity(KNOWN).time_to_live(AGE).build();
        let refused = moka::sync::Cache::builder().max_capacity(REFUSED).time_to_live(AGE).build();
        Self { known, refused }
    }

    pub fn get(&self, digest: &Fingerprint) -> Option<Verdict> {
        let known = self.known.get(digest).map(Verdict::Known);
        known.or_else(|| self.refused.get(digest).map(|()| Verdict::Refused))
    }

    pub fn put(&self, digest: Fingerprint, verdict: Verdict) {
        match verdict {
            Verdict::Known(principal) => self.known.insert(digest, principal),
            Verdict::Refused => self.refused.insert(digest, ()),
        }
    }

    pub fn clear(&self) {
        self.known.invalidate_all();
        self.refused.invalidate_all();
    }
}
