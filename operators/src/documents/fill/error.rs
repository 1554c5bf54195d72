//! Errors of compiling and filling a DOCX template, with their place.

use std::fmt;

use pipeline::Rejection;

/// A place in a template, as the author finds it in a word processor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Part of the package, for example `word/header1.xml`.
    pub part: String,
    /// Paragraph of the part, from 1.
    pub paragraph: Option<usize>,
    /// Beginning of the paragraph's text.
    pub text: String,
    /// The tag as written.
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

/// Why a template was not compiled or not filled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct FillError {
    /// HTTP status: 400 for an invalid template, 422 for data that do not fit it, and those of the package checks.
    pub status: u16,
    /// Stable, snake_case.
    pub code: std::borrow::Cow<'static, str>,
    /// What is wrong, the limit, the value, and what to do.
    pub message: String,
    /// The place, if the error has one.
    pub place: Option<Box<Place>>,
}

impl FillError {
    /// 400: the template itself is invalid.
    pub(super) fn syntax(message: impl Into<String>, place: Place) -> Self {
        Self { status: 400, code: "template_syntax".into(), message: message.into(), place: Some(Box::new(place)) }
    }

    /// 422: the data do not fit the template.
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
