//! The claims of a token, read strictly: none may stand there twice.
//!
//! Parsers differ in which of two equal claims they take; a token that relies on that is no good.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::Value;

/// Claims of one token, at most.
const MAX_CLAIMS: usize = 100;

/// A token's claims.
#[derive(Clone, Debug)]
pub struct Claims(BTreeMap<String, Value>);

impl Claims {
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

    /// Whether a claim holds this word: separated by spaces, or in a list.
    pub fn has_word(&self, name: &str, word: &str) -> bool {
        match self.0.get(name) {
            Some(Value::String(words)) => words.split(' ').any(|one| one == word),
            Some(Value::Array(words)) => words.iter().any(|one| one == word),
            _ => false,
        }
    }
}

/// What a token says of itself, before its signature was looked at. To choose who must have signed it, for nothing else.
pub fn unproven(token: &str) -> Option<Claims> {
    jsonwebtoken::dangerous::insecure_decode_claims(token).ok()
}

impl<'de> Deserialize<'de> for Claims {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ClaimsVisitor;
        impl<'de> Visitor<'de> for ClaimsVisitor {
            type Value = Claims;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("claims")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Claims, A::Error> {
                let mut claims = BTreeMap::new();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    if claims.insert(name, value).is_some() || claims.len() > MAX_CLAIMS {
                        return Err(A::Error::custom("a claim stands twice, or there are too many"));
                    }
                }
                Ok(Claims(claims))
            }
        }
        deserializer.deserialize_map(ClaimsVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_stands_once() {
        let read = |text: &str| serde_json::from_str::<Claims>(text);
        assert!(read(r#"{"sub": "a", "sub": "b"}"#).is_err());
        assert!(read(r#"{"x": 1, "x": 1}"#).is_err());
        let claims = read(r#"{"exp": 12.9, "scope": "a b", "scp": ["c"], "sub": 7}"#).unwrap();
        assert_eq!((claims.seconds("exp"), claims.text("sub")), (Some(12), None));
        assert!(claims.has_word("scope", "b") && claims.has_word("scp", "c") && !claims.has_word("scope", "a b"));
    }
}
