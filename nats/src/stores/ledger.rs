//! The ledger of ended events: a stream whose messages hold [`ENTRY_BYTES`] for each event. The process that ended the
//! events writes them; every process reads the stream from its oldest message on.

use async_nats::{HeaderMap, Message};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use pipeline::{ENTRY_BYTES, Entry, LedgerUpdate, Token, TransportError};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::mpsc;

use crate::link::broker::Broker;
use crate::link::follower::{Follower, StartAt, StreamReader};
use crate::link::publish::{OutgoingMessage, publish};
use crate::wire::headers;
use crate::wire::subjects;

/// Messages of the ledger that may wait for their reader; following the stream pauses while the channel is full.
const WAITING: usize = 256;

/// Stores entries in one message.
pub async fn append(broker: &Broker, entries: &[Entry]) -> Result<(), TransportError> {
    let payload = encode(entries);
    let write = Token::random();
    let now = headers::rfc3339(OffsetDateTime::now_utc())?;
    let build = || {
        let mut headers = HeaderMap::new();
        headers::put_message_id(&mut headers, write.as_str())?;
        headers::put(&mut headers, headers::TIME, &now)?;
        Ok(OutgoingMessage { subject: subjects::LEDGER_SUBJECT.into(), headers, payload: payload.clone() })
    };
    publish(broker, &broker.results, build).await.map_err(|failure| failure.of_store("ledger"))?;
    Ok(())
}

/// Reads the ledger from its oldest message on, until the receiver is dropped.
pub async fn read(broker: &Broker) -> Result<mpsc::Receiver<LedgerUpdate>, TransportError> {
    let (sender, news) = mpsc::channel(WAITING);
    let stop = broker.stop.child_token();
    let reader = LedgerReader { news: sender.clone() };
    let mut follower = Follower::new(subjects::LEDGER, StartAt::Oldest, reader, broker.live.clone(), stop.clone());
    let consumer = follower.begin().await.map_err(TransportError::Unavailable)?;
    broker.tasks.spawn(async move {
        tokio::select! {
            () = follower.run(consumer) => {}
            () = sender.closed() => {}
        }
    });
    Ok(news)
}

struct LedgerReader {
    news: mpsc::Sender<LedgerUpdate>,
}

#[async_trait]
impl StreamReader for LedgerReader {
    async fn read(&mut self, message: Message) {
        let noted = noted_at(message.headers.as_ref()).unwrap_or_else(OffsetDateTime::now_utc);
        // Fails only if the receiver was dropped.
        let _ = self.news.send(LedgerUpdate::Noted(noted, decode(&message.payload))).await;
    }

    async fn caught_up(&mut self) {
        let _ = self.news.send(LedgerUpdate::CaughtUp).await;
    }
}

/// When the message was written.
fn noted_at(headers: Option<&HeaderMap>) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(headers::get(headers?, headers::TIME)?, &Rfc3339).ok()
}

fn encode(entries: &[Entry]) -> Bytes {
    let mut payload = BytesMut::with_capacity(entries.len() * ENTRY_BYTES);
    entries.iter().for_each(|entry| payload.extend_from_slice(&entry.to_bytes()));
    payload.freeze()
}

/// Decodes the whole entries; bytes of an incomplete one at the end are ignored.
fn decode(payload: &Bytes) -> Vec<Entry> {
    let (entries, _) = payload.as_chunks::<ENTRY_BYTES>();
    entries.iter().copied().map(Entry::from_bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use pipeline::End;

    fn entries() -> Vec<Entry> {
        let flow = Token::new("f").unwrap();
        ["a", "b"].map(|id| Entry::new(&flow, &Token::new(id).unwrap(), End::Settled)).to_vec()
    }

    #[test]
    fn entries_survive_encoding_and_decoding() {
        let decoded = decode(&encode(&entries()));
        assert_eq!(decoded.len(), 2);
        assert_eq!(encode(&decoded), encode(&entries()));
    }

    #[test]
    fn an_incomplete_entry_at_the_end_is_ignored() {
        let encoded = encode(&entries());
        assert_eq!(decode(&encoded.slice(..encoded.len() - 1)).len(), 1);
    }

    #[test]
    fn the_time_of_a_message_is_in_its_header() {
        let mut given = HeaderMap::new();
        headers::put(&mut given, headers::TIME, "1970-01-01T00:00:00Z").unwrap();
        assert_eq!(noted_at(Some(&given)), Some(OffsetDateTime::UNIX_EPOCH));
        assert_eq!(noted_at(None), None);
    }
}
