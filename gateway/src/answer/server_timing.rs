//! `Server-Timing` (W3C): how long the parts of an answer took.
//!
//! `intake` is the time until the request was stored, `flow` from then to its result; of `flow`, `queue` is the time in
//! which no stage worked on it, and each stage has an entry of its own. `total` is all of it.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;

/// Stages that an answer names, at most.
const MAX_STAGES: usize = 16;

/// The time until a request was stored; an extension of its response.
#[derive(Clone, Copy)]
pub struct IntakeTime(pub Duration);

/// The time that each stage took; an extension of the response.
#[derive(Clone)]
pub struct StageTimes(pub Vec<(Arc<str>, Duration)>);

/// Writes the header from the response's extensions, which are removed.
pub fn write(total: Duration, response: &mut Response) {
    let mut text = String::new();
    let mut entry = |name: &str, time: Duration| {
        // Writing to a string does not fail.
        let _ = write!(text, "{name};dur={:.1}, ", time.as_secs_f64() * 1e3);
    };
    if let Some(IntakeTime(intake)) = response.extensions_mut().remove() {
        let flow = total.saturating_sub(intake);
        entry("intake", intake);
        entry("flow", flow);
        if let Some(StageTimes(stages)) = response.extensions_mut().remove() {
            entry("queue", flow.saturating_sub(stages.iter().map(|(_, took)| *took).sum()));
            for (stage, took) in stages.iter().take(MAX_STAGES).filter(|(stage, _)| is_token(stage)) {
                entry(stage, *took);
            }
        }
    }
    entry("total", total);
    if let Ok(value) = HeaderValue::from_str(text.trim_end_matches(", ")) {
        response.headers_mut().insert(HeaderName::from_static("server-timing"), value);
    }
}

/// Whether a name can stand in a header as it is.
fn is_token(name: &str) -> bool {
    pipeline::Token::new(name).is_ok()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn written(intake: Option<Duration>, stages: &[(&str, Duration)]) -> String {
        let mut response = Response::new(Body::empty());
        if let Some(intake) = intake {
            response.extensions_mut().insert(IntakeTime(intake));
        }
        if !stages.is_empty() {
            let times = stages.iter().map(|(name, took)| (Arc::from(*name), *took)).collect();
            response.extensions_mut().insert(StageTimes(times));
        }
        write(MS * 100, &mut response);
        response.headers()["server-timing"].to_str().unwrap().to_owned()
    }

    #[test]
    fn a_refused_request_has_only_a_total() {
        assert_eq!(written(None, &[]), "total;dur=100.0");
    }

    #[test]
    fn without_a_result_the_flow_has_no_stages() {
        assert_eq!(written(Some(MS * 10), &[]), "intake;dur=10.0, flow;dur=90.0, total;dur=100.0");
    }

    #[test]
    fn stages_are_named_and_the_rest_of_the_flow_is_queue() {
        let text = written(Some(MS * 10), &[("decode", MS * 20), ("embed", MS * 40)]);
        assert_eq!(
            text,
            "intake;dur=10.0, flow;dur=90.0, queue;dur=30.0, decode;dur=20.0, embed;dur=40.0, total;dur=100.0"
        );
    }

    #[test]
    fn a_name_that_is_no_token_is_left_out() {
        assert!(!written(Some(MS), &[("a b,c", MS)]).contains("a b"));
    }

    #[test]
    fn a_long_flow_names_its_first_stages() {
        let names: Vec<String> = (0..40).map(|number| format!("s{number}")).collect();
        let stages: Vec<(&str, Duration)> = names.iter().map(|name| (name.as_str(), MS)).collect();
        let text = written(Some(MS), &stages);
        assert!(text.contains("s15;") && !text.contains("s16;"), "{text}");
    }
}
