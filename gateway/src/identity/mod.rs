//! Authentication: checks API keys and tokens, here and nowhere else.
//!
//! A credential is an API key or a JWT, in `Authorization: Bearer` or `X-API-Key`. The result of a check is cached for
//! a minute under the credential's SHA-256, so that the next request costs a hash and a look-up; a credential itself is
//! never stored, shown or logged. Every refusal looks the same to the client. The id of a request tells its tenant
//! ([`tenant`]), so that a refusal needs no look-up.

mod api_key;
mod cache;
pub mod caller;
mod credential;
mod error;
mod https_get;
mod issuer;
mod jwt_claims;
mod key_set;
mod principal;
pub mod tenant;
pub mod ticket;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::spec::AuthSpec;
use api_key::ApiKeys;
use cache::{Cache, Verdict};
use error::TokenError;
use issuer::Issuer;

pub use credential::of_headers as credential_of;
pub use error::{Denied, IdentityError};
pub use principal::{LEEWAY, Principal};

/// Longest token, in bytes.
const MAX_TOKEN_BYTES: usize = 8 << 10;

/// Checks credentials.
pub struct Identity {
    open_metrics: bool,
    keys: ApiKeys,
    issuers: Vec<Issuer>,
    cache: Cache,
    on: bool,
}

impl Identity {
    /// Reads the secrets that the config names. Starts no task and opens no connection.
    ///
    /// # Errors
    /// If a secret cannot be read or is not usable.
    pub fn open(spec: &AuthSpec) -> Result<Self, IdentityError> {
        Ok(Self {
            open_metrics: spec.open_metrics,
            keys: ApiKeys::open(&spec.keys)?,
            issuers: spec.issuers.iter().map(Issuer::open).collect::<Result<_, _>>()?,
            cache: Cache::new(),
            on: spec.is_on(),
        })
    }

    /// Whether callers must authenticate.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.on
    }

    /// Whether `/metrics` needs no credential.
    #[must_use]
    pub fn opens_metrics(&self) -> bool {
        !self.on || self.open_metrics
    }

    /// The caller that a credential belongs to.
    ///
    /// # Errors
    /// If the credential is not valid, or cannot be checked.
    pub async fn check(&self, credential: &str) -> Result<Arc<Principal>, Denied> {
        if credential.len() > MAX_TOKEN_BYTES {
            return Err(Denied::Invalid);
        }
        let digest = cache::digest(credential);
        match self.cache.get(&digest) {
            Some(Verdict::Valid(principal)) if principal.is_current() => return Ok(principal),
            Some(_) => return Err(Denied::Invalid),
            None => {}
        }
        let found = match self.keys.find(&digest) {
            Some(principal) => Ok(principal),
            None => self.check_token(credential).await,
        };
        match &found {
            Ok(principal) => self.cache.put(digest, Verdict::Valid(Arc::clone(principal))),
            Err(TokenError::Bad) => self.cache.put(digest, Verdict::Invalid),
            // The next reading of the key set may bring the key.
            Err(TokenError::UnknownKey | TokenError::NoKeys) => {}
        }
        found.map_err(|error| match error {
            TokenError::NoKeys => Denied::NoKeys,
            TokenError::Bad | TokenError::UnknownKey => Denied::Invalid,
        })
    }

    async fn check_token(&self, token: &str) -> Result<Arc<Principal>, TokenError> {
        let claims = jwt_claims::unverified(token).ok_or(TokenError::Bad)?;
        let issuer = self.issuers.iter().find(|issuer| issuer.issued(&claims)).ok_or(TokenError::Bad)?;
        issuer.check(token).await.map(Arc::new)
    }

    /// Spawns a task per issuer that reads its key set periodically, until `stop`.
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

    /// Clears the cache, so that a benchmark can measure a first check.
    #[doc(hidden)]
    pub fn forget(&self) {
        self.cache.clear();
    }
}
