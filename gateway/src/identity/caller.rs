//! Who makes a request, for the handlers: an extension of every request.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use axum::http::StatusCode;
use pipeline::{RequestId, Token};

use super::{Principal, tenant};
use crate::problem::Problem;

/// Who makes a request.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Who they are; `None` where nobody is asked.
    pub principal: Option<Arc<Principal>>,
    /// Where they are.
    pub address: IpAddr,
}

/// What a limit counts by: somebody who was let in, else a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Client {
    /// Digest of tenant and subject.
    Principal(u128),
    /// An address, IPv6 by its /64, since a client owns all of one.
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
    /// What limits count their requests by.
    pub fn client(&self) -> Client {
        match &self.principal {
            Some(principal) => Client::of_principal(principal),
            None => Client::of_address(self.address),
        }
    }

    /// The tenant; `None` where nobody is asked.
    pub fn tenant(&self) -> Option<&str> {
        self.principal.as_ref().map(|principal| &*principal.tenant)
    }

    /// A fresh id for a request of theirs.
    pub fn mint(&self) -> RequestId {
        self.tenant().map_or_else(Token::random, tenant::mint)
    }

    /// Whether a request is theirs to see. Somebody who asks for another's is told that there is none.
    pub fn may_see(&self, id: &RequestId) -> bool {
        let Some(principal) = &self.principal else { return true };
        let may = principal.admin || tenant::owns(&principal.tenant, id);
        if !may {
            tracing::warn!(tenant = &*principal.tenant, subject = &*principal.subject, request = %id,
                "audit: asked for a request of somebody else");
        }
        may
    }

    /// Refuses whoever may not see what belongs to all.
    ///
    /// # Errors
    /// 403.
    pub fn expect_admin(&self) -> Result<(), Problem> {
        if self.principal.as_ref().is_none_or(|principal| principal.admin) {
            return Ok(());
        }
        let detail = "this is for administrators of the service: the key or token is not one's";
        Err(Problem::new(StatusCode::FORBIDDEN, "not_allowed", detail))
    }

    /// A key of a store, partitioned by tenant.
    pub fn record_key(&self, key: &Token) -> Token {
        self.tenant().map_or_else(|| key.clone(), |tenant| tenant::partitioned(tenant, key))
    }
}
