//! Errors of compiling and rendering a typst template.

use std::borrow::Cow;

use pipeline::Rejection;

use super::place::Place;

/// Why a template was not compiled or not typeset.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct TypesetError {
    /// HTTP status: 400 for an invalid template, 413 for one that is too large, 422 for data that do not fit it and for
    /// documents beyond the limits.
    pub status: u16,
    /// Stable, snake_case.
    pub code: Cow<'static, str>,
    /// What is wrong, the limit, the value, and what to do.
    pub message: String,
    /// The place in the template, if the error has one.
    pub place: Option<Box<Place>>,
}

impl TypesetError {
    fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code: code.into(), message: message.into(), place: None }
    }

    /// 400: the template itself is invalid.
    pub(super) fn syntax(message: impl Into<String>) -> Self {
        Self::new(400, "template_syntax", message)
    }

    /// 413: the template is too long.
    pub(super) fn template_too_large(length: usize, limit: usize) -> Self {
        let message = format!("the template has {length} bytes; the limit is {limit}: move text into the data");
        Self::new(413, "template_too_large", message)
    }

    /// 422: the data do not fit the template, or the document exceeds a limit.
    pub(super) fn data(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(422, code, message)
    }

    /// 500: an internal error, without details.
    pub(super) fn internal() -> Self {
        Self::new(500, "internal", "the document could not be typeset")
    }

    pub(super) fn at(mut self, place: Place) -> Self {
        self.place.get_or_insert_with(|| Box::new(place));
        self
    }
}

impl From<TypesetError> for Rejection {
    fn from(why: TypesetError) -> Self {
        let detail = match &why.place {
            Some(place) => format!("{}: {place}", why.message),
            None => why.message,
        };
        Self { status: why.status, code: why.code, detail }
    }
}
