//! How a client wants its answer: `Prefer` (RFC 7240) and `Accept`.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, header};

/// How a request is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerMode {
    /// With the terminal result, or 202 after a timeout.
    Wait,
    /// With all results as server-sent events.
    Stream,
    /// With 202 at once.
    Async,
}

/// The preferences of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preferences {
    pub mode: AnswerMode,
    /// `Prefer: wait=N`; it can shorten the route's own timeout, not lengthen it.
    pub wait: Option<Duration>,
}

impl Preferences {
    /// Reads the headers. Unknown and malformed preferences are ignored, as RFC 7240 demands.
    pub fn read(headers: &HeaderMap) -> Self {
        let mut preferences = Self { mode: AnswerMode::Wait, wait: None };
        if accepts_event_stream(headers) {
            preferences.mode = AnswerMode::Stream;
        }
        for preference in tokens(headers, &HeaderName::from_static("prefer")) {
            let preference = preference.split(';').next().unwrap_or_default().trim();
            match preference.split_once('=') {
                None if preference.eq_ignore_ascii_case("respond-async") => preferences.mode = AnswerMode::Async,
                Some((name, seconds)) if name.trim().eq_ignore_ascii_case("wait") => {
                    preferences.wait =
                        seconds.trim().trim_matches('"').parse().ok().map(Duration::from_secs).or(preferences.wait);
                }
                _ => {}
            }
        }
        preferences
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

    fn read(lines: &[(&'static str, &str)]) -> Preferences {
        let headers =
            lines.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect();
        Preferences::read(&headers)
    }

    #[test]
    fn by_default_a_client_waits() {
        assert_eq!(read(&[]), Preferences { mode: AnswerMode::Wait, wait: None });
    }

    #[test]
    fn respond_async_is_read_among_others_in_any_case() {
        assert_eq!(read(&[("prefer", "return=minimal, Respond-Async")]).mode, AnswerMode::Async);
    }

    #[test]
    fn wait_is_in_seconds() {
        assert_eq!(read(&[("prefer", "wait=2")]).wait, Some(Duration::from_secs(2)));
    }

    #[test]
    fn a_malformed_wait_is_ignored() {
        assert_eq!(read(&[("prefer", "wait=soon")]).wait, None);
    }

    #[test]
    fn a_client_that_accepts_event_streams_gets_one() {
        assert_eq!(read(&[("accept", "text/html, text/event-stream;q=0.9")]).mode, AnswerMode::Stream);
    }

    #[test]
    fn respond_async_wins_over_accept() {
        let lines = [("accept", "text/event-stream"), ("prefer", "respond-async")];
        assert_eq!(read(&lines).mode, AnswerMode::Async);
    }
}
