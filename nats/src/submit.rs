//! Storing an event in the queue of its flow.

use pipeline::{Submission, TransportError};

use crate::body;
use crate::codec;
use crate::jetstream::Inner;
use crate::publish::{Outgoing, publish};

/// Stores an event; a repeat with the same id within ten minutes is stored once.
pub async fn submit(inner: &Inner, submission: Submission) -> Result<(), TransportError> {
    let envelope = &submission.envelope;
    let flow = inner.flow(&envelope.flow)?;
    let subject = flow.subject(envelope.lane);
    let encoded = body::encode(&submission.payload)?;
    let build = || {
        let headers = codec::headers(envelope, &encoded)?;
        Ok(Outgoing { subject: subject.clone(), headers, payload: encoded.bytes.clone() })
    };
    match publish(&inner.publishing.context, build).await {
        Ok(_) => Ok(()),
        Err(failure) => Err(failure.of_flow(&envelope.flow)),
    }
}
