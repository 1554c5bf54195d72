//! Records: the last value of a key in a named store, on `rec.<store>.<key>`, or `own.<store>.<key>` of the service's own.

use async_nats::HeaderMap;
use async_nats::header::{HeaderValue, NATS_EXPECTED_LAST_SUBJECT_SEQUENCE};
use bytes::Bytes;
use pipeline::{Record, Token, TransportError};

use crate::codec;
use crate::direct;
use crate::jetstream::Inner;
use crate::names;
use crate::publish::{Confirmed, Failure, Outgoing, publish};

/// Writes a record; its revision is its place in the stream.
pub async fn put(inner: &Inner, store: &Token, key: &Token, value: Bytes) -> Result<u64, TransportError> {
    let confirmed = write(inner, store, key, &value, None).await;
    Ok(confirmed.map_err(|failure| failure.of_store("records"))?.sequence)
}

/// Writes a record if the last one has this revision.
pub async fn replace(
    inner: &Inner,
    store: &Token,
    key: &Token,
    revision: u64,
    value: Bytes,
) -> Result<bool, TransportError> {
    match write(inner, store, key, &value, Some(revision)).await {
        Ok(_) => Ok(true),
        // After a send that was not confirmed, what stands there may be our own.
        Err(Failure::Fenced { repeated: true }) => {
            Ok(get(inner, store, key).await?.is_some_and(|last| last.value == value))
        }
        Err(Failure::Fenced { repeated: false }) => Ok(false),
        Err(failure) => Err(failure.of_store("records")),
    }
}

async fn write(
    inner: &Inner,
    store: &Token,
    key: &Token,
    value: &Bytes,
    expected: Option<u64>,
) -> Result<Confirmed, Failure> {
    let subject = names::record_subject(store, key);
    let write = Token::random();
    let build = || {
        let mut headers = HeaderMap::new();
        codec::put_message_id(&mut headers, write.as_str())?;
        if let Some(revision) = expected {
            headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, HeaderValue::from(revision));
        }
        Ok(Outgoing { subject: subject.clone(), headers, payload: value.clone() })
    };
    publish(&inner.publishing.context, build).await
}

/// Reads a record from the stream's leader: always the last one written.
pub async fn get(inner: &Inner, store: &Token, key: &Token) -> Result<Option<Record>, TransportError> {
    let subject = names::record_subject(store, key);
    let stored = direct::last(&inner.publishing.context, names::records_of(store), &subject).await?;
    Ok(stored.map(|stored| Record { value: stored.payload, revision: stored.sequence }))
}
