//! Reading stored messages without a consumer.
//!
//! [`read`] is JetStream's batched direct get (nats-server 2.11; the client library has no call for it): one request, many
//! answers, no flow control, so pages stay at a few MiB. Any copy of a stream may answer it. [`last`] asks the leader and so
//! reads what was written last.

use std::time::Duration;

use async_nats::jetstream::Context;
use async_nats::jetstream::stream::LastRawMessageErrorKind;
use async_nats::{HeaderMap, Message, Subject};
use bytes::Bytes;
use futures_util::StreamExt;
use pipeline::TransportError;

use crate::connection::Connection;

/// How long the next message of a page is awaited.
const MESSAGE_LIMIT: Duration = Duration::from_secs(2);
/// Times a page is asked for again when its answer breaks off.
const REPEATS: u32 = 1;

/// Bounds of one page.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    /// Most messages.
    pub messages: u32,
    /// Most bytes; at least one message comes.
    pub bytes: u32,
}

/// One message as stored.
pub struct Stored {
    /// Position in the stream.
    pub sequence: u64,
    /// Headers as published, and `Nats-*` ones of the answer.
    pub headers: HeaderMap,
    /// Body as published.
    pub payload: Bytes,
}

/// Calls `each` for every stored message whose subject matches `filter`, oldest first, until it gives `false`.
pub async fn read(
    connection: &Connection,
    stream: &'static str,
    filter: &str,
    page: Page,
    each: &mut (dyn FnMut(Stored) -> bool + Send),
) -> Result<(), TransportError> {
    read_from(connection, stream, 1, filter, page, each).await
}

/// As [`read`], from a sequence on.
pub async fn read_from(
    connection: &Connection,
    stream: &'static str,
    mut from: u64,
    filter: &str,
    page: Page,
    each: &mut (dyn FnMut(Stored) -> bool + Send),
) -> Result<(), TransportError> {
    let mut repeats = 0;
    loop {
        let before = from;
        match read_page(connection, stream, filter, page, &mut from, each).await {
            Ok(More::No) => return Ok(()),
            Ok(More::Yes) => repeats = 0,
            Err(error) => {
                repeats = if before == from { repeats + 1 } else { 0 };
                if repeats > REPEATS {
                    return Err(error);
                }
                tracing::debug!(stream, %error, "page asked for again");
            }
        }
    }
}

enum More {
    Yes,
    No,
}

/// Reads one page and moves `from` behind the last message that came.
async fn read_page(
    connection: &Connection,
    stream: &str,
    filter: &str,
    page: Page,
    from: &mut u64,
    each: &mut (dyn FnMut(Stored) -> bool + Send),
) -> Result<More, TransportError> {
    let client = connection.client();
    let inbox = client.new_inbox();
    let request = serde_json::json!({
        "seq": *from, "next_by_subj": filter, "batch": page.messages, "max_bytes": page.bytes,
    });
    let ask = async {
        let answers = client.subscribe(inbox.clone()).await.map_err(TransportError::unavailable)?;
        let subject = format!("$JS.API.DIRECT.GET.{stream}");
        let sent = client.publish_with_reply(subject, inbox, request.to_string().into()).await;
        sent.map_err(TransportError::unavailable)?;
        Ok::<_, TransportError>(answers)
    };
    let mut answers = bounded(ask).await??;
    loop {
        let answer = bounded(answers.next()).await?;
        let Some(message) = answer else {
            return Err(TransportError::unavailable("the connection to the broker closed"));
        };
        if let Some(status) = message.status {
            return match status.as_u16() {
                204 => Ok(if header(&message, "Nats-Num-Pending") == Some(0) { More::No } else { More::Yes }),
                404 => Ok(More::No),
                code => Err(TransportError::unavailable(format!(
                    "reading {stream}: {code} {}",
                    message.description.unwrap_or_default()
                ))),
            };
        }
        let Some(sequence) = header(&message, "Nats-Sequence") else {
            return Err(TransportError::unavailable(format!("reading {stream}: an answer has no sequence")));
        };
        *from = sequence + 1;
        let stored = Stored { sequence, headers: message.headers.unwrap_or_default(), payload: message.payload };
        if !each(stored) {
            return Ok(More::No);
        }
    }
}

fn header(message: &Message, name: &'static str) -> Option<u64> {
    crate::codec::get(message.headers.as_ref()?, name)?.parse().ok()
}

async fn bounded<T>(wait: impl Future<Output = T>) -> Result<T, TransportError> {
    tokio::time::timeout(MESSAGE_LIMIT, wait)
        .await
        .map_err(|_| TransportError::unavailable("the broker did not answer in time"))
}

/// The last message of a subject, from the stream's leader.
pub async fn last(
    context: &Context,
    stream: &'static str,
    subject: &Subject,
) -> Result<Option<Stored>, TransportError> {
    let stream = context.get_stream_no_info(stream).await.map_err(TransportError::unavailable)?;
    match stream.get_last_raw_message_by_subject(subject).await {
        Ok(message) => {
            Ok(Some(Stored { sequence: message.sequence, headers: message.headers, payload: message.payload }))
        }
        Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
        Err(error) => Err(TransportError::unavailable(error)),
    }
}
