//! Secrets: `{ env = "NAME" }` or `{ file = "PATH" }` in a config, read when the service starts.
//!
//! A config is checked without its secrets, so that it can be checked anywhere. A secret is never shown: neither the spec
//! nor the value prints it.

use std::fmt;
use std::path::PathBuf;

use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};

/// Longest secret, in bytes: a key file is far shorter.
const MAX_BYTES: usize = 64 << 10;

/// Where a secret is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Secret {
    /// In an environment variable.
    Env(String),
    /// In a file. Line breaks at its end are not part of the secret.
    File(PathBuf),
}

/// The text of a secret. It prints as dots.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText(String);

impl SecretText {
    /// The secret itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for SecretText {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// Why a secret could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The variable is not set, or is not UTF-8.
    #[error("the environment variable {0} is not set")]
    NotSet(String),
    /// The file cannot be read.
    #[error("cannot read the secret in {0}")]
    Unreadable(PathBuf, #[source] std::io::Error),
    /// It is empty or longer than any key.
    #[error("the secret in {0} is empty or longer than 64 KiB")]
    Size(String),
}

impl Secret {
    /// Reads the secret from the disk or the environment.
    ///
    /// # Errors
    /// If it does not exist, is empty or is too long.
    pub fn read(&self) -> Result<SecretText, SecretError> {
        let text = match self {
            Self::Env(name) => {
                #[expect(clippy::disallowed_methods, reason = "the config says which variable, and for what")]
                let text = std::env::var(name).map_err(|_| SecretError::NotSet(name.clone()))?;
                text
            }
            Self::File(path) => {
                std::fs::read_to_string(path).map_err(|error| SecretError::Unreadable(path.clone(), error))?
            }
        };
        let text = text.trim_end_matches(['\r', '\n']);
        if text.is_empty() || text.len() > MAX_BYTES {
            return Err(SecretError::Size(self.to_string()));
        }
        Ok(SecretText(text.to_owned()))
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "the environment variable {name}"),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SecretVisitor;
        impl<'de> Visitor<'de> for SecretVisitor {
            type Value = Secret;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("{ env = \"NAME\" } or { file = \"PATH\" }: a secret does not stand in the config")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Secret, A::Error> {
                let wrong =
                    || de::Error::custom("a secret has one place, expected { env = \"NAME\" } or { file = \"PATH\" }");
                let secret = match map.next_key::<String>()?.as_deref() {
                    Some("env") => Secret::Env(map.next_value()?),
                    Some("file") => Secret::File(map.next_value()?),
                    _ => return Err(wrong()),
                };
                if map.next_key::<String>()?.is_some() { Err(wrong()) } else { Ok(secret) }
            }
        }
        deserializer.deserialize_any(SecretVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Secret, String> {
        #[derive(serde::Deserialize)]
        struct Holder {
            key: Secret,
        }
        toml::from_str::<Holder>(text).map(|holder| holder.key).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn a_secret_is_a_place_and_never_the_text() {
        assert_eq!(read("key = { env = \"TOKEN\" }").unwrap(), Secret::Env("TOKEN".into()));
        assert_eq!(read("key = { file = \"/run/key\" }").unwrap(), Secret::File("/run/key".into()));
        for wrong in ["key = \"s3cret\"", "key = {}", "key = { env = \"A\", file = \"b\" }", "key = { path = \"a\" }"] {
            let message = read(wrong).unwrap_err();
            assert!(message.contains("{ env = \"NAME\" }"), "{wrong}: {message}");
        }
    }

    #[test]
    fn what_was_read_is_not_shown() {
        let file = std::env::temp_dir().join(format!("caudal-secret-{}", crate::Token::random()));
        std::fs::write(&file, "s3cret\n").unwrap();
        let text = Secret::File(file.clone()).read().unwrap();
        assert_eq!((text.expose(), format!("{text:?}").as_str()), ("s3cret", "…"));
        std::fs::write(&file, "\n").unwrap();
        assert!(Secret::File(file.clone()).read().is_err());
        std::fs::remove_file(&file).unwrap();
        assert!(Secret::File(file).read().is_err());
    }
}
