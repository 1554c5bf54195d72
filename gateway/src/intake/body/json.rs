//! JSON bodies: read whole under the memory budget, and parsed off the runtime if they are long.

use std::io;

use axum::http::StatusCode;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use pipeline::{INLINE_LIMIT, Payload, parse_message};
use serde_json::Value;

use super::channel::BodyReceiver;
use super::head::BodyHead;
use super::received::ReceivedBody;
use super::size_limit::SizeLimit;
use crate::capacity::memory_budget::MemoryShare;
use crate::intake::blocking;
use crate::problem::Problem;
use crate::state::Shared;

/// Longest text parsed on the runtime, in bytes: it takes well below 500 µs. A body this short needs no memory share.
const QUICK_BYTES: usize = 32 << 10;

/// Bytes of memory per byte of a body while it is read and parsed.
const FOOTPRINT: u64 = 2;

/// The memory share grows in steps of this many bytes of the body.
const STEP: u64 = 64 << 10;

/// Reads a JSON document as the event's payload.
pub async fn read(shared: &Shared, mut head: BodyHead, body: BodyReceiver) -> Result<ReceivedBody, Problem> {
    // The document travels inside the event, so the inline limit holds even if the route takes longer bodies.
    head.max_bytes = head.max_bytes.min(INLINE_LIMIT as u64);
    let (text, _share) = read_text(shared, &head, body).await?;
    let value = if text.len() <= QUICK_BYTES { parse(&text) } else { blocking::run(move || parse(&text)).await? };
    Ok(ReceivedBody::payload(Payload::json(value?)))
}

/// A whole body and its share of the memory budget. The share grows as the body comes: an announced length takes
/// nothing from others.
pub async fn read_text<'s>(
    shared: &'s Shared,
    head: &BodyHead,
    mut body: BodyReceiver,
) -> Result<(Bytes, MemoryShare<'s>), Problem> {
    let mut share = shared.memory.share();
    let mut limit = SizeLimit::new("the JSON", head.max_bytes);
    let mut text = BytesMut::with_capacity(head.length.unwrap_or(0).min(STEP) as usize);
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(Problem::of_body)?;
        limit.add(chunk.len())?;
        if limit.read() > QUICK_BYTES as u64 {
            share.grow(limit.read().next_multiple_of(STEP).saturating_mul(FOOTPRINT)).await?;
        }
        text.extend_from_slice(&chunk);
    }
    Ok((text.freeze(), share))
}

fn parse(text: &[u8]) -> Result<Value, Problem> {
    let value: Value = serde_json::from_slice(without_mark(text)).map_err(|error| malformed(&error))?;
    // Numbers such as 1e15 grow when they are serialised again, and the event must still fit.
    let mut length = Counter(0);
    if serde_json::to_writer(&mut length, &value).is_err() || length.0 > 2 * INLINE_LIMIT {
        return Err(Problem::too_large(format!("serialised again, the JSON has more than {} bytes", 2 * INLINE_LIMIT)));
    }
    Ok(value)
}

/// A text without the byte order mark that some clients write before it.
pub fn without_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text)
}

/// 400 with the position and kind of the error, and nothing of the text.
pub fn malformed(error: &serde_json::Error) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "malformed_json", format!("the JSON is malformed: {}", parse_message(error)))
}

struct Counter(usize);

impl io::Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deep_document_is_malformed() {
        assert_eq!(parse("[".repeat(200_000).as_bytes()).unwrap_err().status().as_u16(), 400);
    }

    #[test]
    fn a_document_that_grows_when_serialised_is_too_large() {
        let growing = format!("[{}1]", "1e15,".repeat(50_000));
        assert_eq!(parse(growing.as_bytes()).unwrap_err().status().as_u16(), 413);
    }

    #[test]
    fn a_number_out_of_range_is_malformed() {
        assert_eq!(parse(b"{\"a\": 1e400}").unwrap_err().status().as_u16(), 400);
    }
}
