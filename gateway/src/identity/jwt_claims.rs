//! JWT claims, parsed strictly: a duplicate claim makes the token invalid.
//!
//! Parsers differ in which of two equal claims they take; a token must not rely on that.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::Value;

/// Claims of one token, at most.
const MAX_CLAIMS: usize = 100;

/// A token's claims.
#[derive(Clone, Debug)]
pub struct JwtClaims(BTreeMap<String, Value>);

impl JwtClaims {
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str()
    }

    /// A time in whole seconds since 1970.
    pub fn seconds(&self, name: &str) -> Option<i64> {
        let value = self.0.get(name)?;
        value.as_i64().or_else(|| value.as_f64().filter(|seconds| seconds.is_finite()).map(|seconds| seconds as i64))
    }

    pub fn is_list(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(Value::is_array)
    }

    /// Whether a claim contains this word, in a list or separated by spaces.
    pub fn has_word(&self, name: &str, word: &str) -> bool {
        match self.0.get(name) {
            Some(Value::String(words)) => words.split(' ').any(|one| one == word),
            Some(Value::Array(words)) => words.iter().any(|one| one == word),
            _ => false,
        }
    }
}

/// The claims of a token whose signature is not verified yet. Only for choosing the issuer that must have signed it.
pub fn unverified(token: &str) -> Option<JwtClaims> {
    jsonwebtoken::dangerous::insecure_decode_claims(token).ok()
}

impl<'de> Deserialize<'de> for JwtClaims {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ClaimsVisitor;
        impl<'de> Visitor<'de> for ClaimsVisitor {
            type Value = JwtClaims;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("claims")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<JwtClaims, A::Error> {
                let mut claims = BTreeMap::new();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    if claims.insert(name, value).is_some() || claims.len() > MAX_CLAIMS {
                        return Err(A::Error::custom("a claim is duplicate, or there are too many claims"));
                    }
                }
                Ok(JwtClaims(claims))
            }
        }
        deserializer.deserialize_map(ClaimsVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duplicate_claim_is_refused() {
        let read = |text: &str| serde_json::from_str::<JwtClaims>(text);
        assert!(read(r#"{"sub": "a", "sub": "b"}"#).is_err());
        assert!(read(r#"{"x": 1, "x": 1}"#).is_err());
        let claims = read(r#"{"exp": 12.9, "scope": "a b", "scp": ["c"], "sub": 7}"#).unwrap();
        assert_eq!((claims.seconds("exp"), claims.text("sub")), (Some(12), None));
        assert!(claims.has_word("scope", "b") && claims.has_word("scp", "c") && !claims.has_word("scope", "a b"));
    }
}
