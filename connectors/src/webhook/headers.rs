//! Request headers of a webhook call: Caudal's own, and those that a requester may add.

use std::collections::BTreeMap;

use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use pipeline::Rejection;
use pipeline::webhook::WebhookCall;

/// Most headers that a requester may add.
const MAX_HEADERS: usize = 16;

/// Longest name and value together, in bytes.
const MAX_BYTES: usize = 4 << 10;

/// Headers that frame the request, belong to one connection, or are Caudal's own.
const REFUSED: [&str; 19] = [
    "host",
    "content-length",
    "content-type",
    "content-encoding",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "upgrade",
    "expect",
    "http2-settings",
    "via",
    "forwarded",
    "x-real-ip",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "caudal-request",
];

/// Prefixes of further refused headers: a requester must not claim who connects.
const REFUSED_PREFIXES: [&str; 2] = ["proxy-", "x-forwarded-"];

/// Carry the request's id: Caudal's header, and the one that Gotenberg clients know.
const REQUEST: HeaderName = HeaderName::from_static("caudal-request");
const TRACE: HeaderName = HeaderName::from_static("gotenberg-trace");

const USER_AGENT: HeaderValue = HeaderValue::from_static(concat!("caudal/", env!("CARGO_PKG_VERSION")));

/// Checks and parses a requester's headers.
///
/// # Errors
/// 400 `webhook_header`; the message repeats no value.
pub fn read(headers: &BTreeMap<String, String>) -> Result<HeaderMap, Rejection> {
    let wrong = |why: String| Rejection::new(400, "webhook_header", why);
    if headers.len() > MAX_HEADERS {
        return Err(wrong(format!(
            "{} headers were given for the webhook, at most {MAX_HEADERS} are allowed",
            headers.len()
        )));
    }
    let mut lines = HeaderMap::new();
    for (name, value) in headers {
        // A wrong name may be of any length and hold any characters.
        let shown: String = name.chars().take(64).collect();
        let wrong = |why: &str| wrong(format!("the webhook header {shown:?} {why}"));
        if name.len() + value.len() > MAX_BYTES {
            return Err(wrong("is longer than 4096 bytes"));
        }
        let Ok(line) = HeaderName::from_bytes(name.as_bytes()) else { return Err(wrong("is not a header name")) };
        let text = line.as_str();
        if REFUSED.contains(&text) || REFUSED_PREFIXES.iter().any(|prefix| text.starts_with(prefix)) {
            return Err(wrong("must not be set by a requester: remove it"));
        }
        let Some(mut value) = ascii_value(value) else { return Err(wrong("has characters other than visible ASCII")) };
        value.set_sensitive(true);
        if lines.insert(line, value).is_some() {
            return Err(wrong("is given twice"));
        }
    }
    Ok(lines)
}

/// A header value; `None` for control characters, and for characters above ASCII: the library accepts them, but
/// receivers decode them in different ways.
fn ascii_value(text: &str) -> Option<HeaderValue> {
    HeaderValue::from_str(text).ok().filter(|_| text.is_ascii())
}

/// All headers of a call to `authority`. A requester's headers replace Caudal's own.
///
/// # Errors
/// As [`read`].
pub fn of(call: &WebhookCall, authority: &str) -> Result<HeaderMap, Rejection> {
    let theirs = read(&call.headers)?;
    let disposition = call.file_name.as_ref().map(|name| format!("attachment; filename=\"{name}\""));
    let media_type = ascii_value(&call.media_type).unwrap_or(HeaderValue::from_static("application/octet-stream"));
    let ours = [
        (header::HOST, ascii_value(authority)),
        (header::USER_AGENT, Some(USER_AGENT)),
        (header::CONTENT_TYPE, Some(media_type)),
        (header::CONTENT_LENGTH, Some(call.body.len().into())),
        (header::CONTENT_DISPOSITION, disposition.as_deref().and_then(ascii_value)),
        (REQUEST, ascii_value(call.request.as_str())),
        (TRACE, ascii_value(call.request.as_str())),
    ];
    let mut lines: HeaderMap = ours.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
    lines.extend(theirs);
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_one(name: &str, value: &str) -> Result<HeaderMap, Rejection> {
        read(&[(name.to_owned(), value.to_owned())].into())
    }

    #[test]
    fn headers_that_frame_or_break_the_request_are_refused() {
        for name in [
            "Host",
            "content-length",
            "Transfer-Encoding",
            "CONNECTION",
            "Keep-Alive",
            "Upgrade",
            "TE",
            "Trailer",
            "Expect",
            "Proxy-Authorization",
            "X-Forwarded-For",
            "Forwarded",
            "Caudal-Request",
            "Content-Type",
            "",
            "a b",
            "a:b",
            "a\r\nb",
            "ä",
        ] {
            let why = of_one(name, "secret").unwrap_err();
            assert_eq!((why.status, &*why.code), (400, "webhook_header"), "{name}");
            assert!(!why.detail.contains("secret"), "{}", why.detail);
        }
        for value in ["a\r\nHost: evil", "a\nb", "a\0", "ä", "\u{7f}"] {
            assert!(of_one("X-Token", value).is_err(), "{value:?}");
        }
    }

    #[test]
    fn other_headers_are_accepted_up_to_their_limits() {
        for name in ["Authorization", "X-Token", "Cookie", "User-Agent", "Content-Disposition", "Gotenberg-Trace"] {
            assert!(of_one(name, "value").is_ok(), "{name}");
        }
        assert!(of_one("x", &"v".repeat(4095)).is_ok() && of_one("x", &"v".repeat(4096)).is_err());
        let many = |count: usize| (0..count).map(|n| (format!("x-{n}"), "v".to_owned())).collect();
        assert!(read(&many(16)).is_ok() && read(&many(17)).is_err());
        let twice = [("X-A".to_owned(), "1".to_owned()), ("x-a".to_owned(), "2".to_owned())].into();
        assert!(read(&twice).unwrap_err().detail.contains("twice"));
    }
}
