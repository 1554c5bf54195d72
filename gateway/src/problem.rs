//! Error answers: RFC 9457 problems with a stable `code`. The cause inside the service goes to the log only.

use std::borrow::Cow;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use pipeline::{BoxError, MAX_DETAIL, Rejection, RequestId, TransportError, shortened};
use serde_json::{Value, json};

use crate::capacity::retry_after;

/// One error answer: `application/problem+json` with `type`, `title`, `status`, `code`, `detail` and, if it concerns
/// one, `request`.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{status} {code}: {detail}")]
pub struct Problem {
    status: StatusCode,
    code: Cow<'static, str>,
    detail: String,
    retry_after: Option<u64>,
    request: Option<RequestId>,
}

impl Problem {
    /// A problem with its status, a stable snake_case code and a sentence that names the field, the limit and the
    /// value.
    #[must_use]
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        let detail = shortened(&detail.into(), MAX_DETAIL);
        Self { status, code: Cow::Borrowed(code), detail, retry_after: None, request: None }
    }

    /// 400: malformed.
    #[must_use]
    pub fn malformed(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }

    /// 413: more bytes than the route takes.
    #[must_use]
    pub fn too_large(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail)
    }

    /// 415: a type the route does not take.
    #[must_use]
    pub fn unsupported(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, code, detail)
    }

    /// 503 with the default `Retry-After`.
    #[must_use]
    pub fn unavailable(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail).with_retry_after(retry_after::DEFAULT)
    }

    /// 500; the cause is in the log.
    #[must_use]
    pub fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the service failed; the cause is in its log")
    }

    /// Sets `Retry-After`.
    #[must_use]
    pub fn with_retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// Names the request that it concerns.
    #[must_use]
    pub fn with_request(mut self, request: &RequestId) -> Self {
        self.request = Some(request.clone());
        self
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The members of the problem.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut members = json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or("Error"),
            "status": self.status.as_u16(),
            "code": self.code,
            "detail": self.detail,
        });
        if let Some(request) = &self.request {
            members["request"] = Value::from(request.as_str());
        }
        members
    }

    /// The problem that aborted a body's stream; any other error means that the body could not be read.
    pub(crate) fn of_body(error: BoxError) -> Self {
        match error.downcast::<Self>() {
            Ok(problem) => *problem,
            Err(error) => {
                tracing::debug!(%error, "body unreadable");
                Self::malformed("body_unreadable", "the body could not be read to its end; send it again")
            }
        }
    }
}

impl From<Rejection> for Problem {
    fn from(rejection: Rejection) -> Self {
        let status = StatusCode::from_u16(rejection.status).ok().filter(|status| status.as_u16() >= 400);
        Self {
            status: status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            code: rejection.code,
            detail: shortened(&rejection.detail, MAX_DETAIL),
            retry_after: (rejection.status == 503).then_some(retry_after::DEFAULT),
            request: None,
        }
    }
}

impl From<TransportError> for Problem {
    fn from(error: TransportError) -> Self {
        match error {
            TransportError::Full { flow } => Self::unavailable(
                "queue_full",
                format!("the queue of flow {flow} is full; try again after Retry-After"),
            ),
            TransportError::NoFlow(flow) => {
                Self::new(StatusCode::NOT_IMPLEMENTED, "no_flow", format!("flow {flow} is not served here"))
            }
            TransportError::Claim { id, why } => {
                tracing::warn!(claim = %id, why, "claim unreadable");
                Self::new(StatusCode::GONE, "result_gone", "the file is no longer stored; send the request again")
            }
            TransportError::Body(error) => Self::of_body(error),
            TransportError::Unavailable(error) | TransportError::NotSent(error) => {
                tracing::warn!(error = &*error as &dyn std::error::Error, "broker unavailable");
                Self::unavailable("broker_unavailable", "the service cannot store requests right now; try again later")
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.to_json().to_string()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"caudal\""));
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// Longest piece of a request that a message quotes, in characters.
const MAX_SHOWN: usize = 64;

/// A name or a value of the request as a message quotes it.
#[must_use]
pub fn shown(text: &str) -> String {
    shortened(text, MAX_SHOWN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_inside_is_not_shown() {
        let inside = TransportError::unavailable("connect to 10.0.0.7:4222: refused");
        let problem = Problem::from(inside).to_json();
        assert_eq!(problem["status"], 503);
        assert_eq!(problem["code"], "broker_unavailable");
        assert!(!problem.to_string().contains("10.0.0.7"));
    }

    #[test]
    fn a_body_keeps_the_problem_that_aborted_it() {
        let cut = TransportError::Body(Box::new(Problem::too_large("too long")));
        assert_eq!(Problem::from(cut).status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(Problem::from(TransportError::Body("reset".into())).status(), StatusCode::BAD_REQUEST);
    }

    #[test]
    fn a_detail_is_bounded_wherever_it_comes_from() {
        let long = "x".repeat(1 << 20);
        let rejection = Rejection { status: 422, code: "c".into(), detail: long.clone() };
        for problem in [Problem::malformed("c", long), Problem::from(rejection)] {
            assert!(problem.to_json().to_string().len() < MAX_DETAIL + 200);
        }
    }

    #[test]
    fn a_rejection_with_a_status_below_400_is_an_internal_error() {
        assert_eq!(Problem::from(Rejection::new(200, "odd", "odd")).status().as_u16(), 500);
        assert_eq!(Problem::from(Rejection::unusable("empty", "no pixels")).status().as_u16(), 422);
    }
}
