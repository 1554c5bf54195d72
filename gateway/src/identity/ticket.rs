//! Tickets: how a browser opens an event stream, for it can set no header there.
//!
//! Whoever may see a stream asks for a ticket with their key or token, and opens the stream with `?ticket=…`: once, within a
//! minute, on any gateway, that stream and no other. The broker keeps the ticket's digest, never the ticket.

use std::sync::Arc;
use std::time::Duration;

use pipeline::{Token, Transport};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{Principal, tenant};
use crate::problem::Problem;
use crate::slots::{Note, SlotError, Slots, until};

/// How long a ticket holds.
pub const AGE: Duration = Duration::from_secs(60);

/// Digits of a ticket: 244 random bits.
const DIGITS: usize = 64;

/// At most 32,768 tickets hold at one time; a record of them is at most some 20 KB.
const TICKETS: Slots = Slots { store: "caudal-tickets", count: 1024, most: 32 };

/// What a ticket is good for, and whose it is.
#[derive(Serialize, Deserialize)]
struct Holder {
    path: String,
    tenant: String,
    subject: String,
    admin: bool,
    /// In seconds since 1970.
    expires: Option<i64>,
}

/// A fresh ticket for `path`.
///
/// # Errors
/// 503 if the broker does not keep it.
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
    let added = TICKETS.change(transport, &key, |notes| {
        notes.push(Note { key: key.clone(), until, value: value.clone() });
        ((), true)
    });
    added.await.map_err(|error| match error {
        SlotError::Full => Problem::unavailable("tickets_full", "too many tickets are waiting to be used; come again"),
        SlotError::Transport(error) => error.into(),
    })?;
    Ok(ticket)
}

/// Whose ticket this is, if it is good for `path`; it is good for nothing afterwards.
///
/// # Errors
/// 503 if the broker does not say.
pub async fn redeem(transport: &dyn Transport, ticket: &str, path: &str) -> Result<Option<Arc<Principal>>, Problem> {
    if ticket.len() != DIGITS || !ticket.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(None);
    }
    let key = key_of(ticket);
    let taken = TICKETS.change(transport, &key, |notes| {
        let place = notes.iter().position(|note| note.key == key);
        (place.map(|place| notes.swap_remove(place).value), place.is_some())
    });
    let value = taken.await.map_err(|error| match error {
        SlotError::Full => Problem::internal(),
        SlotError::Transport(error) => error.into(),
    })?;
    let holder = value.and_then(|value| serde_json::from_value::<Holder>(value).ok());
    let good = holder.filter(|holder| holder.path == path).map(|holder| Principal {
        tenant: holder.tenant.into(),
        subject: holder.subject.into(),
        admin: holder.admin,
        expires: holder.expires.and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok()),
    });
    Ok(good.filter(Principal::is_current).map(Arc::new))
}

fn key_of(ticket: &str) -> String {
    tenant::digits(&["ticket", ticket], 32)
}
