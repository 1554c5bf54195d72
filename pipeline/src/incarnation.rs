//! The incarnation of a process: a random id by which other processes find out whether it lives.
//!
//! A note that names an incarnation stands for a death only once that incarnation is gone. It is announced when the first
//! note is about to be written: a process that writes none costs the broker nothing.

use tokio::sync::OnceCell;

use crate::names::Token;
use crate::transport::{Announcement, Transport, TransportError};

/// This process, from its start to its end.
pub struct Incarnation {
    id: Token,
    /// In force from the first note until the process ends.
    announcement: OnceCell<Announcement>,
}

impl Default for Incarnation {
    fn default() -> Self {
        Self { id: Token::random(), announcement: OnceCell::new() }
    }
}

impl Incarnation {
    /// Its id, known to others as alive when this returns.
    ///
    /// # Errors
    /// If the broker does not take the announcement.
    pub async fn announced(&self, transport: &dyn Transport) -> Result<&Token, TransportError> {
        self.announcement.get_or_try_init(|| transport.announce(&self.id)).await?;
        Ok(&self.id)
    }

    /// Its id, whether others know it or not.
    pub fn id(&self) -> &Token {
        &self.id
    }
}
