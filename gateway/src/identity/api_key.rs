//! API keys: compared by SHA-256, against every key and in constant time.

use std::sync::Arc;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::error::IdentityError;
use super::principal::Principal;
use crate::spec::{KeySource, KeySpec};

/// Shortest key, in bytes: a shorter one can be guessed.
const MIN_BYTES: usize = 16;

/// The configured keys.
pub struct ApiKeys {
    keys: Vec<([u8; 32], Arc<Principal>)>,
}

impl ApiKeys {
    pub fn open(specs: &[KeySpec]) -> Result<Self, IdentityError> {
        let keys =
            specs.iter().map(|spec| Ok((digest_of(spec)?, Arc::new(principal(spec))))).collect::<Result<_, _>>()?;
        Ok(Self { keys })
    }

    /// The owner of the key with this SHA-256. Takes the same time whichever key it is.
    pub fn find(&self, digest: &[u8; 32]) -> Option<Arc<Principal>> {
        let mut found = None;
        for (known, principal) in &self.keys {
            if bool::from(known.ct_eq(digest)) {
                found = Some(Arc::clone(principal));
            }
        }
        found
    }
}

fn principal(spec: &KeySpec) -> Principal {
    Principal { tenant: spec.tenant.clone(), subject: spec.subject.clone(), admin: spec.admin, expires: None }
}

fn digest_of(spec: &KeySpec) -> Result<[u8; 32], IdentityError> {
    let secret = match &spec.key {
        KeySource::Sha256(digest) => return Ok(*digest),
        KeySource::Secret(secret) => secret,
    };
    let name = || format!("[auth.key] {}", spec.subject);
    let text = secret.read().map_err(|error| IdentityError::Secret(name(), error))?;
    if text.expose().len() < MIN_BYTES {
        return Err(IdentityError::Key(name(), format!("it is shorter than {MIN_BYTES} bytes")));
    }
    Ok(Sha256::digest(text.expose()).into())
}
