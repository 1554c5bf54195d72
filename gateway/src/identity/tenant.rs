//! Tenants: request ids that prove their tenant, and keys that tenants do not share.
//!
//! An id is 32 random hexadecimal digits, a dash, and 16 digits of the SHA-256 of those and the tenant. So the tenant
//! of a request is known without a look-up and without storing anything, on every gateway and after every restart. A
//! client that derives an id of its own tenant from another tenant's id names a request that does not exist.

use std::fmt::Write;

use pipeline::{Envelope, RequestId, TENANT_PARAM, Token};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::principal::Principal;

/// The event parameter that holds the subject.
pub const SUBJECT_PARAM: &str = "_subject";

/// Digits of the digest in an id.
const TAG_DIGITS: usize = 16;

/// A fresh request id of a tenant.
pub fn mint(tenant: &str) -> RequestId {
    tagged(&Token::random(), tenant)
}

/// The request id of a tenant that begins with the first part of `random`.
pub fn tagged(random: &Token, tenant: &str) -> RequestId {
    let first = first_part(random);
    Token::new(&format!("{first}-{}", tag(first, tenant))).unwrap_or_else(|_| random.clone())
}

/// Whether a request id belongs to this tenant.
pub fn owns(tenant: &str, id: &RequestId) -> bool {
    id.as_str().rsplit_once('-').is_some_and(|(first, given)| given == tag(first, tenant))
}

/// Adds tenant and subject to an event's parameters, for the operators.
pub fn add_to(principal: &Principal, envelope: &mut Envelope) {
    envelope.params.insert(TENANT_PARAM.into(), Value::from(&*principal.tenant));
    envelope.params.insert(SUBJECT_PARAM.into(), Value::from(&*principal.subject));
}

/// A tenant's own key for a store that all tenants share; no other tenant can name it.
pub fn partitioned(tenant: &str, key: &Token) -> Token {
    let digits = digits(&["record", tenant, key.as_str()], 32);
    Token::new(&digits).unwrap_or_else(|_| key.clone())
}

fn first_part(id: &Token) -> &str {
    id.as_str().split('-').next().unwrap_or_default()
}

fn tag(first: &str, tenant: &str) -> String {
    digits(&["request", tenant, first], TAG_DIGITS)
}

/// The first digits of the SHA-256 of several texts, each prefixed with its length.
pub fn digits(texts: &[&str], count: usize) -> String {
    let mut hasher = Sha256::new();
    for text in texts {
        hasher.update((text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    }
    hex(&hasher.finalize(), count)
}

/// The first hexadecimal digits of some bytes.
pub fn hex(bytes: &[u8], count: usize) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        write!(text, "{byte:02x}").expect("writing to a string does not fail");
    }
    text.truncate(count);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_belongs_to_one_tenant() {
        let id = mint("acme");
        assert_eq!(id.as_str().len(), 32 + 1 + TAG_DIGITS);
        assert!(owns("acme", &id) && !owns("other", &id) && !owns("", &id));
        let stolen = tagged(&id, "other");
        assert!(owns("other", &stolen) && stolen != id);
        for foreign in ["x", "a-b", "-", &Token::random().to_string()] {
            assert!(!owns("acme", &Token::new(foreign).unwrap()), "{foreign}");
        }
    }

    #[test]
    fn tenants_share_no_record_key() {
        let key = Token::new("r1").unwrap();
        assert_ne!(partitioned("a", &key), partitioned("b", &key));
        assert_eq!(partitioned("a", &key), partitioned("a", &key));
        // Texts that are equal only when concatenated have other digests too.
        assert_ne!(digits(&["ab", "c"], 32), digits(&["a", "bc"], 32));
    }
}
