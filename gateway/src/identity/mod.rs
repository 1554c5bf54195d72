//! Who calls: API keys and tokens, checked here and nowhere else.
//!
//! A credential is an API key or a JWT, in `Authorization: Bearer` or `X-API-Key`. What was found out about it is
//! remembered under its SHA-256 for a minute, so that a second request costs a hash and a look-up; a credential is never
//! kept, shown or logged. Every refusal looks alike to the client. Tenants are kept apart by the ids of requests
//! ([`tenant`]), so that nothing has to be looked up to refuse.

mod api_key;
mod cache;
pub mod caller;
mod claims;
mod credential;
mod fetch;
mod issuer;
mod key_set;
pub mod tenant;
pub mod ticket;

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use pipeline::spec::SecretError;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use crate::problem::Problem;
use crate::spec::AuthSpec;
use api_key::ApiKeys;
use cache::{Cache, Verdict};
use issuer::Issuer;

pub use credential::of_headers as credential_of;

/// How far the clocks of an issuer and this machine may be apart.
pub const LEEWAY: Duration = Duration::from_secs(60);

/// Longest token, in bytes.
const MAX_TOKEN_BYTES: usize = 8 << 10;

/// Somebody who was let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// Whose requests they see.
    pub tenant: Arc<str>,
    /// Who they are, within the tenant.
    pub subject: Arc<str>,
    /// Whether they see what belongs to all.
    pub admin: bool,
    /// Until when they are let in.
    pub expires: Option<OffsetDateTime>,
}

impl Principal {
    /// Whether what let them in is still good.
    fn is_current(&self) -> bool {
        self.expires.is_none_or(|expires| expires + LEEWAY > OffsetDateTime::now_utc())
    }
}

/// Why somebody was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// There is no credential, or none that is good; which of them is nobody's business.
    Invalid,
    /// The issuer's keys have never been read: it cannot be told.
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
            Denied::NoKeys => {
                Self::unavailable("identity_unavailable", "the keys of the token's issuer cannot be read; come again")
            }
        }
    }
}

/// Why nobody can be let in with this config.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A secret cannot be read.
    #[error("cannot read the key of {0}")]
    Secret(String, #[source] SecretError),
    /// A key is not what it should be.
    #[error("the key of {0} is not usable: {1}")]
    Key(String, String),
}

/// Everybody who may be let in.
pub struct Identity {
    open_metrics: bool,
    keys: ApiKeys,
    issuers: Vec<Issuer>,
    cache: Cache,
    on: bool,
}

impl Identity {
    /// Reads the secrets that the config names. Starts nothing and asks nobody.
    ///
    /// # Errors
    /// If one of them is not there, or not usable.
    pub fn open(spec: &AuthSpec) -> Result<Self, IdentityError> {
        Ok(Self {
            open_metrics: spec.open_metrics,
            keys: ApiKeys::open(&spec.keys)?,
            issuers: spec.issuers.iter().map(Issuer::open).collect::<Result<_, _>>()?,
            cache: Cache::new(),
            on: spec.is_on(),
        })
    }

    /// Whether anybody has to say who they are.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.on
    }

    /// Whether `/metrics` asks nobody.
    #[must_use]
    pub fn opens_metrics(&self) -> bool {
        !self.on || self.open_metrics
    }

    /// Whom a credential belongs to.
    ///
    /// # Errors
    /// If it is no good, or nobody can tell.
    pub async fn check(&self, credential: &str) -> Result<Arc<Principal>, Denied> {
        if credential.len() > MAX_TOKEN_BYTES {
            return Err(Denied::Invalid);
        }
        let digest = cache::digest(credential);
        match self.cache.get(&digest) {
            Some(Verdict::Known(principal)) if principal.is_current() => return Ok(principal),
            Some(_) => return Err(Denied::Invalid),
            None => {}
        }
        let found = match self.keys.find(&digest) {
            Some(principal) => Ok(principal),
            None => self.check_token(credential).await,
        };
        match &found {
            Ok(principal) => self.cache.put(digest, Verdict::Known(Arc::clone(principal))),
            Err(TokenError::Bad) => self.cache.put(digest, Verdict::Refused),
            // Their key may come with the next reading of the set.
            Err(TokenError::UnknownKey | TokenError::NoKeys) => {}
        }
        found.map_err(|error| match error {
            TokenError::NoKeys => Denied::NoKeys,
            TokenError::Bad | TokenError::UnknownKey => Denied::Invalid,
        })
    }

    async fn check_token(&self, token: &str) -> Result<Arc<Principal>, TokenError> {
        let claimed = claims::unproven(token).ok_or(TokenError::Bad)?;
        let issuer = self.issuers.iter().find(|issuer| issuer.made(&claimed)).ok_or(TokenError::Bad)?;
        issuer.check(token).await.map(Arc::new)
    }

    /// Reads the key sets, again and again, until `stop`.
    pub fn start(self: &Arc<Self>, stop: &CancellationToken) {
        for index in 0..self.issuers.len() {
            let (identity, stop) = (Arc::clone(self), stop.clone());
            tokio::spawn(async move {
                tokio::select! {
                    () = identity.issuers[index].refresh() => {}
                    () = stop.cancelled() => {}
                }
            });
        }
    }

    /// Forgets what was found out, for a measurement of how long that takes.
    #[doc(hidden)]
    pub fn forget(&self) {
        self.cache.clear();
    }
}

/// What is wrong with a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TokenError {
    /// It is no token of ours, now or ever.
    Bad,
    /// Its key is not among those that were read.
    UnknownKey,
    /// No keys were ever read.
    NoKeys,
}
