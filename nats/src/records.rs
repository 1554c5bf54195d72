//! Records: the last value of a key in a named store, on `rec.<store>.<key>`.

use async_nats::HeaderMap;
use bytes::Bytes;
use pipeline::{Token, TransportError};

use crate::codec;
use crate::direct;
use crate::jetstream::Inner;
use crate::names;
use crate::publish::{Outgoing, publish};

/// Writes a record.
pub async fn put(inner: &Inner, store: &Token, key: &Token, value: Bytes) -> Result<(), TransportError> {
    let subject = names::record_subject(store, key);
    let write = Token::random();
    let build = || {
        let mut headers = HeaderMap::new();
        codec::put_message_id(&mut headers, write.as_str())?;
        Ok(Outgoing { subject: subject.clone(), headers, payload: value.clone() })
    };
    publish(&inner.publishing.context, build).await.map_err(|failure| failure.of_store("records"))?;
    Ok(())
}

/// Reads a record from the stream's leader: always the last one written.
pub async fn get(inner: &Inner, store: &Token, key: &Token) -> Result<Option<Bytes>, TransportError> {
    let subject = names::record_subject(store, key);
    let stored = direct::last(&inner.publishing.context, names::RECORDS, &subject).await?;
    Ok(stored.map(|stored| stored.payload))
}
