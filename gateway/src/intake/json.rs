//! JSON bodies: read whole under the memory budget, parsed off the runtime where that takes time.

use std::io;

use axum::http::StatusCode;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use pipeline::spec::ByteSize;
use pipeline::{INLINE_LIMIT, Payload};
use serde_json::Value;

use super::feed::Feed;
use super::{Head, Taken};
use crate::memory::Share;
use crate::problem::Problem;
use crate::state::Shared;

/// Longest text parsed on the runtime, in bytes: well below 500 µs. So short a body waits for no share of the budget.
const QUICK_BYTES: usize = 32 << 10;

/// Memory a body takes per byte of it while it is read and taken apart: as it comes, and joined.
const FOOTPRINT: u64 = 2;

/// Bytes of a body between two looks at the budget.
const STEP: u64 = 64 << 10;

/// Whether a media type says JSON.
pub fn is_json(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

/// A JSON document as the event's payload.
pub async fn take(shared: &Shared, mut head: Head, feed: Feed) -> Result<Taken, Problem> {
    // What an event carries inline is the narrower limit on routes that take other bodies too.
    head.max_bytes = head.max_bytes.min(INLINE_LIMIT as u64);
    let (text, _reserved) = read(shared, &head, feed).await?;
    let value = if text.len() <= QUICK_BYTES { parse(&text) } else { off_runtime(move || parse(&text)).await? };
    Ok(Taken { payload: Payload::json(value?), record: None, fields: None })
}

/// A whole body and its share of the memory budget, which is taken as the body comes: what is only announced takes
/// nothing from others.
pub async fn read<'s>(shared: &'s Shared, head: &Head, mut feed: Feed) -> Result<(Bytes, Share<'s>), Problem> {
    let mut share = shared.memory.share();
    let mut text = BytesMut::with_capacity(head.length.unwrap_or(0).min(STEP) as usize);
    while let Some(chunk) = feed.next().await {
        let chunk = chunk.map_err(Problem::of_body)?;
        let length = (text.len() + chunk.len()) as u64;
        if length > head.max_bytes {
            return Err(Problem::too_large(format!(
                "the JSON goes on after {}, the most taken here",
                ByteSize(head.max_bytes)
            )));
        }
        if length > QUICK_BYTES as u64 {
            share.grow(length.next_multiple_of(STEP).saturating_mul(FOOTPRINT)).await?;
        }
        text.extend_from_slice(&chunk);
    }
    Ok((text.freeze(), share))
}

/// Runs what takes longer than the runtime may be kept.
pub async fn off_runtime<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        tracing::error!(%error, "parsing failed");
        Problem::internal()
    })
}

fn parse(text: &[u8]) -> Result<Value, Problem> {
    let value: Value = serde_json::from_slice(text).map_err(|error| malformed(&error))?;
    // Numbers such as 1e15 grow when they are written again, and the event must still fit.
    let mut length = Counter(0);
    if serde_json::to_writer(&mut length, &value).is_err() || length.0 > 2 * INLINE_LIMIT {
        return Err(Problem::too_large(format!("written out, the JSON has more than {} bytes", 2 * INLINE_LIMIT)));
    }
    Ok(value)
}

/// 400 with the place and kind of the error; the parser's messages quote nothing of the text.
pub fn malformed(error: &serde_json::Error) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "malformed_json", format!("the JSON is malformed: {error}"))
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
    fn json_is_known_by_its_type() {
        assert!(is_json("application/json; charset=utf-8") && is_json("application/cloudevents+json"));
        assert!(!is_json("text/plain") && !is_json("text/json+x") && !is_json(""));
    }

    #[test]
    fn deep_and_swelling_documents_are_refused() {
        assert_eq!(parse("[".repeat(200_000).as_bytes()).unwrap_err().status().as_u16(), 400);
        let swelling = format!("[{}1]", "1e15,".repeat(50_000));
        assert_eq!(parse(swelling.as_bytes()).unwrap_err().status().as_u16(), 413);
        assert_eq!(parse(b"{\"a\": 1e400}").unwrap_err().status().as_u16(), 400);
    }
}
