//! Checks the headers that describe a body, before a byte of it is read.

use axum::http::{HeaderMap, header};

use super::media_type::{is_json, is_multipart};
use super::size_limit;
use crate::problem::{Problem, shown};
use crate::spec::{BodyKind, BodySpec};

/// Bytes that a form may have besides its files: boundaries, headers, small fields.
const FORM_OVERHEAD: u64 = 64 << 10;

/// What the headers say about a body that the route takes.
pub struct BodyHead {
    /// `Content-Type` as sent, or `application/octet-stream`.
    pub media_type: String,
    /// `Content-Length`.
    pub length: Option<u64>,
    /// Most bytes that may come.
    pub max_bytes: u64,
}

/// Checks a request's headers against what the route takes.
///
/// # Errors
/// 413 if the announced length is too large, 415 if the type or encoding is not supported.
pub fn check(spec: &BodySpec, headers: &HeaderMap) -> Result<BodyHead, Problem> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(encoding) = text(header::CONTENT_ENCODING).filter(|encoding| !encoding.eq_ignore_ascii_case("identity"))
    {
        let encoding = shown(encoding);
        let detail = format!("Content-Encoding {encoding:?} is not supported: send the body unencoded");
        return Err(Problem::unsupported("content_encoding", detail));
    }
    let given = text(header::CONTENT_TYPE).filter(|media_type| media_type.len() <= 255);
    let media_type = given.unwrap_or("application/octet-stream").to_owned();
    check_type(spec, &media_type, given.is_some())?;
    let is_form = is_multipart(&media_type);
    let max_bytes = spec.max_bytes.0 + if is_form { FORM_OVERHEAD } else { 0 };
    let length = text(header::CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
    if let Some(length) = length {
        size_limit::check_announced(length, max_bytes, spec.max_bytes)?;
    }
    Ok(BodyHead { media_type, length, max_bytes })
}

fn check_type(spec: &BodySpec, media_type: &str, given: bool) -> Result<(), Problem> {
    let (right, expected) = match &spec.kind {
        BodyKind::None | BodyKind::Open { .. } => return Ok(()),
        BodyKind::File(_) | BodyKind::Parts(_) | BodyKind::Files => {
            (is_multipart(media_type), "multipart/form-data".to_owned())
        }
        BodyKind::Form { .. } => {
            (is_multipart(media_type) || is_json(media_type), "multipart/form-data or application/json".to_owned())
        }
        BodyKind::Json => (is_json(media_type), "application/json".to_owned()),
        BodyKind::Raw => (spec.takes_type(media_type), spec.types.join(" or ")),
    };
    if right {
        return Ok(());
    }
    let shown = if given { format!("{media_type:?}") } else { "missing".to_owned() };
    Err(Problem::unsupported("media_type", format!("Content-Type is {shown}: this route takes {expected}")))
}
