//! Why a template cannot be read or filled, and where.

use std::fmt;

use pipeline::Rejection;

/// Where in a template: what a person needs to find the place in their word processor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Part of the package, for example `word/header1.xml`.
    pub part: String,
    /// Which paragraph of the part, from 1.
    pub paragraph: Option<usize>,
    /// How the paragraph begins.
    pub text: String,
    /// The tag as it was written.
    pub tag: Option<String>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(tag) = &self.tag {
            write!(f, "tag {tag} ")?;
        }
        if let Some(paragraph) = self.paragraph {
            write!(f, "in paragraph {paragraph} ({:?}) ", self.text)?;
        }
        write!(f, "of {}", self.part)
    }
}

/// Why a template was not read or not filled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct FillError {
    /// HTTP status that says the same: 400 for a template that is wrong, 422 for data that does not fit it, and those of
    /// the package checks.
    pub status: u16,
    /// Stable, snake_case.
    pub code: std::borrow::Cow<'static, str>,
    /// What is wrong, the limit, the value, what to do.
    pub message: String,
    /// Where, if it is at one place.
    pub place: Option<Box<Place>>,
}

impl FillError {
    /// 400: the template itself is wrong.
    pub(super) fn syntax(message: impl Into<String>, place: Place) -> Self {
        Self { status: 400, code: "template_syntax".into(), message: message.into(), place: Some(Box::new(place)) }
    }

    /// 422: what is to be filled in does not fit.
    pub(super) fn data(code: &'static str, message: impl Into<String>) -> Self {
        Self { status: 422, code: code.into(), message: message.into(), place: None }
    }

    pub(super) fn at(mut self, place: Place) -> Self {
        self.place.get_or_insert_with(|| Box::new(place));
        self
    }
}

impl From<Rejection> for FillError {
    fn from(why: Rejection) -> Self {
        Self { status: why.status, code: why.code, message: why.detail, place: None }
    }
}

impl From<FillError> for Rejection {
    fn from(why: FillError) -> Self {
        let detail = match &why.place {
            Some(place) => format!("{}: {place}", why.message),
            None => why.message,
        };
        Self { status: why.status, code: why.code, detail }
    }
}
