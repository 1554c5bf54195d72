//! Reading and writing NATS headers, and the errors for headers and payloads that are not allowed.

use std::str::FromStr;

use async_nats::HeaderMap;
use async_nats::header::{HeaderName, HeaderValue, NATS_MESSAGE_ID};
use pipeline::{Claim, Rejection, TransportError};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Longest single header value, in bytes; the server takes 64 KiB for all headers together.
pub const MAX_HEADER: usize = 32 << 10;
/// Bytes of the sentence about a malformed message: it must fit into a header of the dead letter.
const MAX_DETAIL: usize = 1 << 10;

pub const TIME: &str = "ce-time";
pub const CONTENT_TYPE: &str = "content-type";
pub const CLAIM: &str = "Caudal-Claim";

/// Adds a header; refuses a value that contains a line break or is too long.
pub fn put(headers: &mut HeaderMap, name: &'static str, text: &str) -> Result<(), TransportError> {
    headers.insert(HeaderName::from_static(name), value(name, text)?);
    Ok(())
}

/// Reads a header. Case makes no difference: client libraries write `Content-Type` and `Ce-Id`, while NATS compares names
/// by their bytes. Of several spellings the documented one is read, else the first in the order of bytes.
pub fn get<'a>(headers: &'a HeaderMap, name: &'static str) -> Option<&'a str> {
    if let Some(value) = headers.get(HeaderName::from_static(name)) {
        return Some(value.as_str());
    }
    let spellings = headers.iter().map(|(given, values)| (AsRef::<str>::as_ref(given), values));
    let (_, values) =
        spellings.filter(|(given, _)| given.eq_ignore_ascii_case(name)).min_by_key(|(given, _)| *given)?;
    values.first().map(HeaderValue::as_str)
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
    Rejection::new(400, code, cut(detail, MAX_DETAIL))
}

/// At most `most` bytes of a text, with a sign if something is missing.
pub fn cut(mut text: String, most: usize) -> String {
    if text.len() > most {
        text.truncate(text.floor_char_boundary(most));
        text.push('…');
    }
    text
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

    #[test]
    fn the_case_of_a_name_makes_no_difference() {
        for given in ["ce-id", "Ce-Id", "CE-ID"] {
            let mut headers = HeaderMap::new();
            headers.insert(given, "e1");
            assert_eq!(get(&headers, "ce-id"), Some("e1"), "{given}");
        }
        let mut headers = HeaderMap::new();
        headers.insert("nats-msg-id", "m1");
        headers.insert("caudal-params", "{}");
        assert_eq!((get(&headers, "Nats-Msg-Id"), get(&headers, "Caudal-Params")), (Some("m1"), Some("{}")));
    }

    #[test]
    fn of_several_spellings_the_documented_one_is_read() {
        let mut headers = HeaderMap::new();
        for (name, value) in [("Ce-Id", "2"), ("CE-ID", "1"), ("ce-id", "3")] {
            headers.insert(name, value);
        }
        assert_eq!(get(&headers, "ce-id"), Some("3"));
        let mut headers = HeaderMap::new();
        headers.insert("Ce-Id", "2");
        headers.insert("CE-ID", "1");
        assert_eq!(get(&headers, "ce-id"), Some("1"));
    }

    #[test]
    fn a_detail_is_bounded_between_characters() {
        let detail = malformed("bad_header", "ä".repeat(MAX_DETAIL)).detail;
        assert_eq!(detail.len(), MAX_DETAIL + '…'.len_utf8());
    }
}
