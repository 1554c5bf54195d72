//! Names and ids that become NATS subject tokens, metric labels and path segments.
//!
//! Each matches `[A-Za-z0-9_-]{1,64}`. The check happens once, where the text comes in; after that the type is the proof,
//! so that client input can widen no subject, filter or file name.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

use crate::parse_message::shortened;

/// Longest name or id, in bytes.
pub const MAX_TOKEN_BYTES: usize = 64;

/// Why a text is not a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The text is empty.
    #[error("is empty: 1 to {MAX_TOKEN_BYTES} of A-Z a-z 0-9 _ - are needed")]
    Empty,
    /// The text is longer than [`MAX_TOKEN_BYTES`].
    #[error("has {0} bytes: at most {MAX_TOKEN_BYTES} are allowed")]
    TooLong(usize),
    /// The text holds a character that could widen a subject or a path.
    #[error("holds {0:?}: only A-Z a-z 0-9 _ - are allowed")]
    Character(char),
}

/// Text that is safe as one NATS subject token, one path segment and one header value.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(Arc<str>);

/// The id of one event; the same on every redelivery.
pub type EventId = Token;
/// The id of one client request. The event that carries the request has the same id.
pub type RequestId = Token;
/// The name of a flow.
pub type FlowName = Token;

impl Token {
    /// Checks `text` and keeps a copy.
    ///
    /// # Errors
    /// If the text is empty, longer than 64 bytes, or holds anything but `A-Z a-z 0-9 _ -`.
    pub fn new(text: &str) -> Result<Self, TokenError> {
        if text.is_empty() {
            return Err(TokenError::Empty);
        }
        if text.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::TooLong(text.len()));
        }
        match text.chars().find(|c| !(c.is_ascii_alphanumeric() || *c == '_' || *c == '-')) {
            Some(bad) => Err(TokenError::Character(bad)),
            None => Ok(Self(text.into())),
        }
    }

    /// A fresh id with 122 random bits: 32 hexadecimal digits.
    #[must_use]
    pub fn random() -> Self {
        Self(Uuid::new_v4().simple().to_string().into())
    }

    /// The id of the `ordinal`-th child that `stage` makes of this event: always the same one (UUID version 5).
    #[must_use]
    pub fn child(&self, stage: &str, ordinal: u32) -> Self {
        let name = format!("{self}/{stage}/{ordinal}");
        Self(Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes()).simple().to_string().into())
    }

    /// The text itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl std::str::FromStr for Token {
    type Err = TokenError;
    fn from_str(text: &str) -> Result<Self, TokenError> {
        Self::new(text)
    }
}

impl std::borrow::Borrow<str> for Token {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Serialize for Token {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Token {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::new(&text)
            .map_err(|why| serde::de::Error::custom(format!("{:?} {why}", shortened(&text, MAX_TOKEN_BYTES))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_widen_a_subject_is_refused() {
        for bad in ["", ".", "a.b", "*", ">", "a b", "x\r\nPUB", "ä", "a/b", "a\0", "..", &"x".repeat(65)] {
            assert!(Token::new(bad).is_err(), "{bad:?}");
        }
        for good in ["a", "A-Z_09", &"x".repeat(64)] {
            assert_eq!(Token::new(good).unwrap().as_str(), good);
        }
    }

    #[test]
    fn a_child_has_the_same_id_on_every_attempt_and_its_siblings_another() {
        let parent = Token::new("p").unwrap();
        assert_eq!(parent.child("split", 0), parent.child("split", 0));
        assert_ne!(parent.child("split", 0), parent.child("split", 1));
        assert_ne!(parent.child("split", 0), parent.child("embed", 0));
    }
}
