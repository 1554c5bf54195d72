//! The write canary: a confirmed write on the same connection as events, to check whether an event could be accepted
//! now.
//!
//! A broker with a full disk reports that it is healthy; only a write shows that it does not store.

use std::time::Duration;

use async_nats::HeaderMap;
use pipeline::{Token, TransportError};

use crate::link::broker::Broker;
use crate::link::publish::{OutgoingMessage, classify, queue};
use crate::wire::headers;
use crate::wire::subjects;

/// Timeout for the canary.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Writes a canary and waits for the acknowledgement.
pub async fn write(broker: &Broker) -> Result<(), TransportError> {
    tokio::time::timeout(TIMEOUT, write_without_timeout(broker))
        .await
        .unwrap_or_else(|_| Err(TransportError::unavailable("the broker did not confirm a write within 2 s")))
}

async fn write_without_timeout(broker: &Broker) -> Result<(), TransportError> {
    let mut headers = HeaderMap::new();
    headers::put_message_id(&mut headers, Token::random().as_str())?;
    let canary = OutgoingMessage { subject: subjects::CANARY_SUBJECT.into(), headers, payload: "canary".into() };
    let acknowledgement = async { queue(&broker.publishing.context, canary).await?.await };
    match acknowledgement.await {
        Ok(_) => Ok(()),
        Err(error) => Err(classify(error, false).of_store("canaries")),
    }
}
