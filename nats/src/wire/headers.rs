//! Reading and writing NATS headers, and the errors for headers and payloads that are not allowed.

use std::str::FromStr;

use async_nats::HeaderMap;
use async_nats::header::{HeaderName, HeaderValue, NATS_MESSAGE_ID};
use pipeline::{Claim, Rejection, TransportError};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Longest single header value, in bytes; the server takes 64 KiB for all headers together.
const MAX_HEADER: usize = 32 << 10;

pub const TIME: &str = "ce-time";
pub const CONTENT_TYPE: &str = "content-type";
pub const CLAIM: &str = "Caudal-Claim";

/// Adds a header; refuses a value that contains a line break or is too long.
pub fn put(headers: &mut HeaderMap, name: &'static str, text: &str) -> Result<(), TransportError> {
    headers.insert(HeaderName::from_static(name), value(name, text)?);
    Ok(())
}

/// Reads a header.
pub fn get<'a>(headers: &'a HeaderMap, name: &'static str) -> Option<&'a str> {
    headers.get(HeaderName::from_static(name)).map(HeaderValue::as_str)
}

/// Sets the message id by which the broker detects duplicates.
pub fn put_message_id(headers: &mut HeaderMap, id: &str) -> Result<(), TransportError> {
    headers.insert(NATS_MESSAGE_ID, value("Nats-Msg-Id", id)?);
    Ok(())
}

/// Adds a claim.
pub fn put_claim(headers: &mut HeaderMap, claim: &Claim) -> Result<(), TransportError> {
    let text = serde_json::to_string(claim).map_err(TransportError::unavailable)?;
    put(headers, CLAIM, &text)
}

/// A moment as header text.
pub fn rfc3339(moment: OffsetDateTime) -> Result<String, TransportError> {
    moment.format(&Rfc3339).map_err(|_| refused(format!("{moment} is outside the years 0 to 9999")))
}

fn value(name: &str, text: &str) -> Result<HeaderValue, TransportError> {
    if text.len() > MAX_HEADER {
        let length = text.len();
        return Err(refused(format!(
            "{name} has {length} bytes, at most {MAX_HEADER} are allowed: move it to the payload"
        )));
    }
    HeaderValue::from_str(text).map_err(|_| refused(format!("{name} contains a line break: remove it")))
}

/// Error for an event that cannot be stored as it is, neither now nor later.
pub fn refused(why: String) -> TransportError {
    TransportError::Body(why.into())
}

/// Rejection with status 400 for a message that does not follow the format.
pub fn malformed(code: &'static str, detail: String) -> Rejection {
    Rejection::new(400, code, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_with_a_line_break_is_refused() {
        assert!(put(&mut HeaderMap::new(), "ce-type", "a\r\nNats-Rollup: all").is_err());
    }

    #[test]
    fn a_value_longer_than_the_limit_is_refused() {
        let mut headers = HeaderMap::new();
        assert!(put(&mut headers, "ce-type", &"x".repeat(MAX_HEADER)).is_ok());
        assert!(put(&mut headers, "ce-type", &"x".repeat(MAX_HEADER + 1)).is_err());
    }
}
