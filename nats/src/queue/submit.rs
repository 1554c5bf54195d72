//! Storing an event in the queue of its flow.

use pipeline::{Envelope, Submission, Submitted, Token, TransportError};

use crate::body;
use crate::codec;
use crate::jetstream::Inner;
use crate::names;
use crate::publish::{Outgoing, publish};

/// Stores an event; a repeat with the same id within ten minutes is stored once.
pub async fn submit(inner: &Inner, submission: Submission) -> Result<Submitted, TransportError> {
    let envelope = &submission.envelope;
    let flow = inner.flow(&envelope.flow)?;
    let subject = match &flow.declared.order_by {
        None => flow.subject(envelope.lane).clone(),
        Some(parameter) => names::keyed_subject(&flow.name, envelope.lane, &key(envelope, parameter)),
    };
    let encoded = body::encode(&submission.payload)?;
    let build = || {
        let headers = codec::headers(envelope, &encoded)?;
        Ok(Outgoing { subject: subject.clone(), headers, payload: encoded.bytes.clone() })
    };
    match publish(&inner.publishing.context, build).await {
        // After a send of ours that was not confirmed, the one the broker knows may be that.
        Ok(confirmed) if confirmed.duplicate && !confirmed.repeated => Ok(Submitted::Known),
        Ok(_) => Ok(Submitted::Stored),
        Err(failure) => Err(failure.of_flow(&envelope.flow)),
    }
}

/// The value of the ordering parameter as a subject token; what is no token is named by its digest.
fn key(envelope: &Envelope, parameter: &str) -> Token {
    let text = match envelope.params.get(parameter) {
        None => return envelope.id.clone(),
        Some(serde_json::Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    let by_digest = |_| Token::new("key").unwrap_or_else(|_| Token::random()).child(&text, 0);
    Token::new(&text).unwrap_or_else(by_digest)
}
