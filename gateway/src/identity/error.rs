//! Why a credential, or the config of credentials, is refused.

use axum::http::StatusCode;
use pipeline::spec::SecretError;

use crate::problem::Problem;

/// Why a caller was not authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// There is no credential, or no valid one; the client does not learn which.
    Invalid,
    /// The issuer's keys have never been read, so the token cannot be checked.
    NoKeys,
}

impl From<Denied> for Problem {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Invalid => Self::new(
                StatusCode::UNAUTHORIZED,
                "unauthenticated",
                "a valid key or token is needed: send it as Authorization: Bearer …",
            ),
            Denied::NoKeys => Self::unavailable(
                "identity_unavailable",
                "the keys of the token's issuer cannot be read; try again later",
            ),
        }
    }
}

/// Why the config of credentials cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A secret cannot be read.
    #[error("cannot read the key of {0}")]
    Secret(String, #[source] SecretError),
    /// A key is malformed or too weak.
    #[error("the key of {0} is not usable: {1}")]
    Key(String, String),
}

/// What is wrong with a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenError {
    /// It is not a valid token of a configured issuer, and never will be.
    Bad,
    /// Its key is not in the key set as last read.
    UnknownKey,
    /// The key set was never read.
    NoKeys,
}
