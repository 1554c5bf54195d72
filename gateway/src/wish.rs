//! How a client wants its answer: `Prefer` (RFC 7240) and `Accept`.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, header};

/// When and as what the answer should come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// The terminal result, or 202 after a while.
    Wait,
    /// All results as server-sent events.
    Stream,
    /// 202 at once.
    Later,
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// When and as what.
    pub how: How,
    /// `Prefer: wait=N`; shortens the route's own time, never lengthens it.
    pub wait: Option<Duration>,
}

impl Wish {
    /// Reads the headers. What cannot be understood is ignored, as RFC 7240 asks for.
    pub fn read(headers: &HeaderMap) -> Self {
        let mut wish = Self { how: How::Wait, wait: None };
        if accepts_event_stream(headers) {
            wish.how = How::Stream;
        }
        for preference in tokens(headers, &HeaderName::from_static("prefer")) {
            let preference = preference.split(';').next().unwrap_or_default().trim();
            match preference.split_once('=') {
                None if preference.eq_ignore_ascii_case("respond-async") => wish.how = How::Later,
                Some((name, seconds)) if name.trim().eq_ignore_ascii_case("wait") => {
                    wish.wait = seconds.trim().trim_matches('"').parse().ok().map(Duration::from_secs).or(wish.wait);
                }
                _ => {}
            }
        }
        wish
    }
}

fn accepts_event_stream(headers: &HeaderMap) -> bool {
    tokens(headers, &header::ACCEPT)
        .any(|range| range.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("text/event-stream")))
}

fn tokens<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h str> {
    headers
        .get_all(name)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','))
        .map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[(&'static str, &str)]) -> Wish {
        let headers =
            lines.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect();
        Wish::read(&headers)
    }

    #[test]
    fn preferences_are_read_in_any_company() {
        assert_eq!(read(&[]), Wish { how: How::Wait, wait: None });
        assert_eq!(read(&[("prefer", "return=minimal, Respond-Async")]).how, How::Later);
        assert_eq!(read(&[("prefer", "wait=2")]).wait, Some(Duration::from_secs(2)));
        assert_eq!(read(&[("prefer", "wait=soon")]).wait, None);
        assert_eq!(read(&[("accept", "text/html, text/event-stream;q=0.9")]).how, How::Stream);
        assert_eq!(read(&[("accept", "text/event-stream"), ("prefer", "respond-async")]).how, How::Later);
    }
}
