//! Tickets: one-time credentials for an event stream, because a browser cannot set headers when it opens one.
//!
//! A client that may see a stream requests a ticket with its key or token and opens the stream with `?ticket=…`: once,
//! within a minute, on any gateway, that stream only. The broker stores the ticket's digest, never the ticket.

use std::sync::Arc;
use std::time::Duration;

use pipeline::{Token, Transport};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::principal::Principal;
use super::tenant;
use crate::expiring_store::{Entry, ExpiringStore, ExpiringStoreError, until};
use crate::problem::Problem;

/// How long a ticket is valid.
pub const AGE: Duration = Duration::from_secs(60);

/// Digits of a ticket: 244 random bits.
const DIGITS: usize = 64;

/// At most 32,768 tickets are valid at one time; a record of them has at most some 20 KB.
const TICKETS: ExpiringStore = ExpiringStore { store: "caudal-tickets", records: 1024, entries_per_record: 32 };

/// The path that a ticket opens, and the caller that it stands for.
#[derive(Serialize, Deserialize)]
struct Holder {
    path: String,
    tenant: String,
    subject: String,
    admin: bool,
    /// In seconds since 1970.
    expires: Option<i64>,
}

/// A new ticket for `path`.
///
/// # Errors
/// 503 if the broker cannot store it.
pub async fn issue(transport: &dyn Transport, principal: &Principal, path: &str) -> Result<String, Problem> {
    let ticket = format!("{}{}", Token::random(), Token::random());
    let holder = Holder {
        path: path.to_owned(),
        tenant: principal.tenant.to_string(),
        subject: principal.subject.to_string(),
        admin: principal.admin,
        expires: principal.expires.map(OffsetDateTime::unix_timestamp),
    };
    let value = serde_json::to_value(holder).map_err(|_| Problem::internal())?;
    let (key, until) = (key_of(&ticket), until(AGE));
    let added = TICKETS.change(transport, &key, |entries| {
        entries.push(Entry { key: key.clone(), until, value: value.clone() });
        ((), true)
    });
    added.await.map_err(|error| match error {
        ExpiringStoreError::Full => {
            Problem::unavailable("tickets_full", "too many tickets are unused; try again later")
        }
        ExpiringStoreError::Transport(error) => error.into(),
    })?;
    Ok(ticket)
}

/// The caller that a ticket stands for, if it is valid for `path`. The ticket cannot be used again.
///
/// # Errors
/// 503 if the broker does not answer.
pub async fn redeem(transport: &dyn Transport, ticket: &str, path: &str) -> Result<Option<Arc<Principal>>, Problem> {
    if ticket.len() != DIGITS || !ticket.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(None);
    }
    let key = key_of(ticket);
    let redeemed = TICKETS.change(transport, &key, |entries| {
        let place = entries.iter().position(|entry| entry.key == key);
        (place.map(|place| entries.swap_remove(place).value), place.is_some())
    });
    let value = redeemed.await.map_err(|error| match error {
        ExpiringStoreError::Full => Problem::internal(),
        ExpiringStoreError::Transport(error) => error.into(),
    })?;
    let holder = value.and_then(|value| serde_json::from_value::<Holder>(value).ok());
    let principal = holder.filter(|holder| holder.path == path).map(|holder| Principal {
        tenant: holder.tenant.into(),
        subject: holder.subject.into(),
        admin: holder.admin,
        expires: holder.expires.and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok()),
    });
    Ok(principal.filter(Principal::is_current).map(Arc::new))
}

fn key_of(ticket: &str) -> String {
    tenant::digits(&["ticket", ticket], 32)
}
