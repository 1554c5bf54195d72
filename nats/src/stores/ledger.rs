//! The ledger of ended events: a stream of messages that hold [`ENTRY_BYTES`] for each event, written by whoever ended them
//! and read by every process from its oldest message on.

use async_nats::{HeaderMap, Message};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use pipeline::{ENTRY_BYTES, Entry, News, Token, TransportError};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::mpsc;

use crate::codec;
use crate::follow::{Begin, Follower, Reader};
use crate::jetstream::Inner;
use crate::names;
use crate::publish::{Outgoing, publish};

/// Messages of the ledger that may wait to be taken in.
const WAITING: usize = 256;

/// When the message was written: the one header of its own.
const NOTED: &str = "ce-time";

/// Stores entries in one message.
pub async fn note(inner: &Inner, entries: &[Entry]) -> Result<(), TransportError> {
    let mut payload = BytesMut::with_capacity(entries.len() * ENTRY_BYTES);
    entries.iter().for_each(|entry| payload.extend_from_slice(&entry.to_bytes()));
    let (payload, write) = (payload.freeze(), Token::random());
    let now = codec::rfc3339(OffsetDateTime::now_utc())?;
    let build = || {
        let mut headers = HeaderMap::new();
        codec::put_message_id(&mut headers, write.as_str())?;
        codec::put(&mut headers, NOTED, &now)?;
        Ok(Outgoing { subject: names::LEDGER_SUBJECT.into(), headers, payload: payload.clone() })
    };
    publish(&inner.results.context, build).await.map_err(|failure| failure.of_store("ledger"))?;
    Ok(())
}

/// Reads the ledger from its oldest message on, until the receiver is dropped.
pub async fn read(inner: &Inner) -> Result<mpsc::Receiver<News>, TransportError> {
    let (news, told) = mpsc::channel(WAITING);
    let stop = inner.stop.child_token();
    let reader = Telling { news: news.clone() };
    let mut follower = Follower::new(names::LEDGER, Begin::Oldest, reader, inner.live.clone(), stop.clone());
    let following = follower.begin().await.map_err(TransportError::Unavailable)?;
    inner.tasks.spawn(async move {
        tokio::select! {
            () = follower.run(following) => {}
            () = news.closed() => {}
        }
    });
    Ok(told)
}

struct Telling {
    news: mpsc::Sender<News>,
}

#[async_trait]
impl Reader for Telling {
    async fn read(&mut self, message: Message) {
        let headers = message.headers.as_ref();
        let noted = headers.and_then(|headers| OffsetDateTime::parse(codec::get(headers, NOTED)?, &Rfc3339).ok());
        let noted = noted.unwrap_or_else(OffsetDateTime::now_utc);
        // Refused only when nobody listens any more.
        let _ = self.news.send(News::Noted(noted, entries(&message.payload))).await;
    }

    async fn caught_up(&mut self) {
        let _ = self.news.send(News::CaughtUp).await;
    }
}

fn entries(payload: &Bytes) -> Vec<Entry> {
    let (entries, _) = payload.as_chunks::<ENTRY_BYTES>();
    entries.iter().copied().map(Entry::from_bytes).collect()
}
