//! The caller of a request: an extension of every request, set by the authentication middleware.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use axum::http::StatusCode;
use pipeline::{RequestId, Token};

use super::principal::Principal;
use super::tenant;
use crate::problem::Problem;

/// The caller of a request.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Who they are; `None` if the route needs no credential.
    pub principal: Option<Arc<Principal>>,
    /// Their network address.
    pub address: IpAddr,
}

/// What limits count by: an authenticated caller, else a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Client {
    /// Digest of tenant and subject.
    Principal(u128),
    /// An address; an IPv6 one by its /64, because a client owns all of one.
    Network(IpAddr),
}

impl Client {
    /// By address alone.
    pub fn of_address(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(address) => Self::Network(Ipv6Addr::from(u128::from(address) & !u128::from(u64::MAX)).into()),
            v4 => Self::Network(v4),
        }
    }

    fn of_principal(principal: &Principal) -> Self {
        let digits = tenant::digits(&["client", &principal.tenant, &principal.subject], 32);
        Self::Principal(u128::from_str_radix(&digits, 16).unwrap_or_default())
    }
}

impl Caller {
    /// What limits count this caller's requests by.
    pub fn client(&self) -> Client {
        match &self.principal {
            Some(principal) => Client::of_principal(principal),
            None => Client::of_address(self.address),
        }
    }

    /// The tenant; `None` if authentication is off.
    pub fn tenant(&self) -> Option<&str> {
        self.principal.as_ref().map(|principal| &*principal.tenant)
    }

    /// A fresh id for a request of this caller.
    pub fn mint(&self) -> RequestId {
        self.tenant().map_or_else(Token::random, tenant::mint)
    }

    /// Whether the caller may see a request. To a caller who may not, it is as if it did not exist.
    pub fn may_see(&self, id: &RequestId) -> bool {
        let Some(principal) = &self.principal else { return true };
        let may = principal.admin || tenant::owns(&principal.tenant, id);
        if !may {
            tracing::warn!(tenant = &*principal.tenant, subject = &*principal.subject, request = %id,
                "audit: request of another tenant refused");
        }
        may
    }

    /// Refuses callers who are no administrators.
    ///
    /// # Errors
    /// 403.
    pub fn expect_admin(&self) -> Result<(), Problem> {
        if self.principal.as_ref().is_none_or(|principal| principal.admin) {
            return Ok(());
        }
        let detail = "only administrators of the service may do this; the key or token is not an administrator's";
        Err(Problem::new(StatusCode::FORBIDDEN, "not_allowed", detail))
    }

    /// A key of a record store, partitioned by tenant.
    pub fn record_key(&self, key: &Token) -> Token {
        self.tenant().map_or_else(|| key.clone(), |tenant| tenant::partitioned(tenant, key))
    }
}
