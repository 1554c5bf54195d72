//! SHA-256 digests: names of contents.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// A SHA-256 digest.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of what `operation` makes of the content with this digest. The same operation on the same content has
    /// the same digest in every attempt and process, and no other has it; so the operation's parameters belong to its name,
    /// for example `"blur 3"`.
    #[must_use]
    pub fn derive(&self, operation: &str) -> Self {
        Self(Sha256::new().chain_update(self.0).chain_update(operation).finalize().into())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl std::str::FromStr for Digest {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("a text of {} bytes is not a SHA-256 digest: 64 hexadecimal digits are needed", text.len());
        let mut digest = [0; 32];
        if text.len() != 64 || !text.is_ascii() {
            return Err(wrong());
        }
        for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| wrong())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
        }
        Ok(Self(digest))
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_survives_its_text() {
        let digest = Digest(std::array::from_fn(|i| i as u8));
        assert_eq!(digest.to_string().parse(), Ok(digest));
        assert!("abc".parse::<Digest>().is_err());
        assert!("zz".repeat(32).parse::<Digest>().is_err());
    }

    #[test]
    fn a_derived_digest_depends_on_content_and_operation_alone() {
        let digest = Digest([1; 32]);
        assert_eq!(digest.derive("blur 3"), digest.derive("blur 3"));
        assert_ne!(digest.derive("blur 3"), digest);
        assert_ne!(digest.derive("blur 3"), digest.derive("blur 5"));
        assert_ne!(digest.derive("blur 3"), Digest([2; 32]).derive("blur 3"));
    }
}
