//! Records: the last value of each key in a named store, on `rec.<store>.<key>`, or `own.<store>.<key>` for stores of
//! the service itself.

use async_nats::HeaderMap;
use async_nats::header::{HeaderValue, NATS_EXPECTED_LAST_SUBJECT_SEQUENCE};
use bytes::Bytes;
use pipeline::{Record, Token, TransportError};

use crate::link::broker::Broker;
use crate::link::direct_get;
use crate::link::publish::{Confirmation, OutgoingMessage, PublishFailure, admit, publish};
use crate::wire::headers;
use crate::wire::subjects;

/// Writes a record and returns its revision, which is its sequence in the stream.
pub async fn put(broker: &Broker, store: &Token, key: &Token, value: Bytes) -> Result<u64, TransportError> {
    let confirmation = write(broker, store, key, &value, None).await;
    Ok(confirmation.map_err(|failure| failure.of_store("records"))?.sequence)
}

/// Writes a record if the last one has this revision; returns whether it was written.
pub async fn replace(
    broker: &Broker,
    store: &Token,
    key: &Token,
    revision: u64,
    value: Bytes,
) -> Result<bool, TransportError> {
    match write(broker, store, key, &value, Some(revision)).await {
        Ok(_) => Ok(true),
        // The first send was not confirmed, so the record that is there may be our own.
        Err(PublishFailure::Fenced { repeated: true }) => {
            Ok(get(broker, store, key).await?.is_some_and(|last| last.value == value))
        }
        Err(PublishFailure::Fenced { repeated: false }) => Ok(false),
        Err(failure) => Err(failure.of_store("records")),
    }
}

async fn write(
    broker: &Broker,
    store: &Token,
    key: &Token,
    value: &Bytes,
    expected: Option<u64>,
) -> Result<Confirmation, PublishFailure> {
    admit(broker, subjects::records_stream(store))?;
    let subject = subjects::record_subject(store, key);
    let write = Token::random();
    let build = || {
        let mut headers = HeaderMap::new();
        headers::put_message_id(&mut headers, write.as_str())?;
        if let Some(revision) = expected {
            headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, HeaderValue::from(revision));
        }
        Ok(OutgoingMessage { subject: subject.clone(), headers, payload: value.clone() })
    };
    publish(broker, &broker.publishing, build).await
}

/// Reads a record from the stream's leader: always the last one written.
pub async fn get(broker: &Broker, store: &Token, key: &Token) -> Result<Option<Record>, TransportError> {
    let subject = subjects::record_subject(store, key);
    let stored = direct_get::last(&broker.publishing.context, subjects::records_stream(store), &subject).await?;
    Ok(stored.map(|stored| Record { value: stored.payload, revision: stored.sequence }))
}
