//! The write canary: a confirmed write on the same connection as events, to check whether an event could be accepted
//! now.
//!
//! A broker with a full disk reports that it is healthy; only a write shows that it does not store. It may refuse one
//! stream and go on with the others, so what is known of every stream counts as well.

use std::time::Duration;

use async_nats::HeaderMap;
use pipeline::{Token, TransportError};

use crate::link::broker::Broker;
use crate::link::publish::{OutgoingMessage, publish};
use crate::wire::headers;
use crate::wire::subjects;

/// Timeout for the canary.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Writes a canary and waits for the acknowledgement. Then names the streams that refuse writes.
pub async fn write(broker: &Broker) -> Result<(), TransportError> {
    let canary = tokio::time::timeout(TIMEOUT, write_without_timeout(broker))
        .await
        .unwrap_or_else(|_| Err(TransportError::unavailable("the broker did not confirm a write within 2 s")));
    let refusing = broker.health.refusing();
    if refusing.is_empty() {
        return canary;
    }
    let names = refusing.into_iter().map(|(stream, _)| stream).collect::<Vec<_>>().join(", ");
    Err(TransportError::unavailable(format!("these streams refuse every write: {names}")))
}

async fn write_without_timeout(broker: &Broker) -> Result<(), TransportError> {
    let mut headers = HeaderMap::new();
    headers::put_message_id(&mut headers, Token::random().as_str())?;
    let build = || {
        let headers = headers.clone();
        Ok(OutgoingMessage { subject: subjects::CANARY_SUBJECT.into(), headers, payload: "canary".into() })
    };
    publish(broker, &broker.publishing, build).await.map_err(|failure| failure.of_store("canaries"))?;
    Ok(())
}
