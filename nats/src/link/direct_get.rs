//! Direct get: reading stored messages without a consumer.
//!
//! [`read`] is JetStream's batched direct get (nats-server 2.11; the client library has no call for it). One request
//! gets many answers without flow control, so a page is a few MiB at most. Any replica of a stream may answer. [`last`]
//! asks the stream's leader and therefore sees the last write.

use std::time::Duration;

use async_nats::jetstream::Context;
use async_nats::jetstream::stream::LastRawMessageErrorKind;
use async_nats::{HeaderMap, Message, Subject, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use pipeline::TransportError;

use crate::link::connection::Connection;
use crate::wire::headers;

/// Timeout for the next message of a page.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a page is requested again if its answers stop before the end.
const REPEATS: u32 = 1;

/// Bounds of one page.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    /// Messages, at most.
    pub messages: u32,
    /// Bytes, at most; a page has at least one message.
    pub bytes: u32,
}

/// One message as stored.
pub struct StoredMessage {
    /// Position in the stream.
    pub sequence: u64,
    /// Headers as published, and the `Nats-*` headers of the answer.
    pub headers: HeaderMap,
    /// Body as published.
    pub payload: Bytes,
}

/// Calls `each` for every stored message whose subject matches `filter`, oldest first, until `each` returns `false`.
pub async fn read(
    connection: &Connection,
    stream: &'static str,
    filter: &str,
    page: Page,
    each: &mut (dyn FnMut(StoredMessage) -> bool + Send),
) -> Result<(), TransportError> {
    read_from(connection, stream, 1, filter, page, each).await
}

/// Like [`read`], starting at a sequence.
pub async fn read_from(
    connection: &Connection,
    stream: &'static str,
    mut from: u64,
    filter: &str,
    page: Page,
    each: &mut (dyn FnMut(StoredMessage) -> bool + Send),
) -> Result<(), TransportError> {
    let mut repeats = 0;
    loop {
        let before = from;
        match read_page(connection, stream, filter, page, &mut from, each).await {
            Ok(PageEnd::Last) => return Ok(()),
            Ok(PageEnd::MoreFollows) => repeats = 0,
            Err(error) => {
                repeats = if before == from { repeats + 1 } else { 0 };
                if repeats > REPEATS {
                    return Err(error);
                }
                tracing::debug!(stream, %error, "a page broke off, requesting it again");
            }
        }
    }
}

/// Whether there are further pages.
enum PageEnd {
    MoreFollows,
    Last,
}

/// Reads one page and sets `from` to the sequence after the last message that arrived.
async fn read_page(
    connection: &Connection,
    stream: &str,
    filter: &str,
    page: Page,
    from: &mut u64,
    each: &mut (dyn FnMut(StoredMessage) -> bool + Send),
) -> Result<PageEnd, TransportError> {
    let mut answers = within_timeout(request_page(connection, stream, filter, page, *from)).await??;
    loop {
        let answer = within_timeout(answers.next()).await?;
        let Some(message) = answer else {
            return Err(TransportError::unavailable("the connection to the broker closed"));
        };
        if let Some(status) = message.status {
            return match status.as_u16() {
                204 if number(&message, "Nats-Num-Pending") == Some(0) => Ok(PageEnd::Last),
                204 => Ok(PageEnd::MoreFollows),
                404 => Ok(PageEnd::Last),
                code => Err(TransportError::unavailable(format!(
                    "reading {stream}: {code} {}",
                    message.description.unwrap_or_default()
                ))),
            };
        }
        let Some(sequence) = number(&message, "Nats-Sequence") else {
            return Err(TransportError::unavailable(format!("reading {stream}: an answer has no sequence")));
        };
        *from = sequence + 1;
        let stored = StoredMessage { sequence, headers: message.headers.unwrap_or_default(), payload: message.payload };
        if !each(stored) {
            return Ok(PageEnd::Last);
        }
    }
}

async fn request_page(
    connection: &Connection,
    stream: &str,
    filter: &str,
    page: Page,
    from: u64,
) -> Result<Subscriber, TransportError> {
    let client = connection.client();
    let inbox = client.new_inbox();
    let request = serde_json::json!({
        "seq": from, "next_by_subj": filter, "batch": page.messages, "max_bytes": page.bytes,
    });
    let answers = client.subscribe(inbox.clone()).await.map_err(TransportError::unavailable)?;
    let subject = format!("$JS.API.DIRECT.GET.{stream}");
    let sent = client.publish_with_reply(subject, inbox, request.to_string().into()).await;
    sent.map_err(TransportError::unavailable)?;
    Ok(answers)
}

fn number(message: &Message, header: &'static str) -> Option<u64> {
    headers::get(message.headers.as_ref()?, header)?.parse().ok()
}

async fn within_timeout<T>(wait: impl Future<Output = T>) -> Result<T, TransportError> {
    tokio::time::timeout(MESSAGE_TIMEOUT, wait)
        .await
        .map_err(|_| TransportError::unavailable("the broker did not answer in time"))
}

/// The last message of a subject, from the stream's leader.
pub async fn last(
    context: &Context,
    stream: &'static str,
    subject: &Subject,
) -> Result<Option<StoredMessage>, TransportError> {
    let stream = context.get_stream_no_info(stream).await.map_err(TransportError::unavailable)?;
    match stream.get_last_raw_message_by_subject(subject).await {
        Ok(message) => {
            Ok(Some(StoredMessage { sequence: message.sequence, headers: message.headers, payload: message.payload }))
        }
        Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
        Err(error) => Err(TransportError::unavailable(error)),
    }
}
