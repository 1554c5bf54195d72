//! Whether "accepted" could be promised right now: a write, confirmed, through the path that events take.
//!
//! A broker with a full disk says it is healthy; only a write that comes back proves the contrary.

use std::time::Duration;

use async_nats::HeaderMap;
use pipeline::{Token, TransportError};

use crate::codec;
use crate::jetstream::Inner;
use crate::names;
use crate::publish::{Outgoing, judge, queue};

/// How long the canary may take.
const LIMIT: Duration = Duration::from_secs(2);

/// Writes and confirms a canary.
pub async fn ready(inner: &Inner) -> Result<(), TransportError> {
    let write = async {
        let mut headers = HeaderMap::new();
        codec::put_message_id(&mut headers, Token::random().as_str())?;
        let canary = Outgoing { subject: names::CANARY_SUBJECT.into(), headers, payload: "canary".into() };
        let confirmation = async { queue(&inner.publishing.context, canary).await?.await };
        match confirmation.await {
            Ok(_) => Ok(()),
            Err(error) => Err(judge(error, false).of_store("canaries")),
        }
    };
    tokio::time::timeout(LIMIT, write)
        .await
        .unwrap_or_else(|_| Err(TransportError::unavailable("the broker did not confirm a write within 2 s")))
}
