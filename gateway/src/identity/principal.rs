//! An authenticated caller.

use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;

/// How far the clocks of an issuer and of this machine may differ.
pub const LEEWAY: Duration = Duration::from_secs(60);

/// An authenticated caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// The tenant whose requests they see.
    pub tenant: Arc<str>,
    /// Their name within the tenant.
    pub subject: Arc<str>,
    /// Whether they see what belongs to all tenants.
    pub admin: bool,
    /// When their credential expires.
    pub expires: Option<OffsetDateTime>,
}

impl Principal {
    /// Whether their credential has not expired.
    pub fn is_current(&self) -> bool {
        self.expires.is_none_or(|expires| expires + LEEWAY > OffsetDateTime::now_utc())
    }
}
