//! Why a template cannot be compiled or typeset, and where.

use std::borrow::Cow;
use std::fmt;

use pipeline::Rejection;

/// Characters of a line that a message shows.
const SHOWN: usize = 120;

/// Where in a template: what a person needs to find the place in their editor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Which line, from 1.
    pub line: usize,
    /// Which character of the line, from 1.
    pub column: usize,
    /// How the line reads, without the blanks around it.
    pub text: String,
}

impl Place {
    /// The place of a byte of the source. Beyond its end it is the end.
    pub(super) fn of(source: &str, byte: usize) -> Self {
        let before = source.get(..byte).unwrap_or(source);
        let start = before.rfind('\n').map_or(0, |at| at + 1);
        let text = source[start..].lines().next().unwrap_or_default().trim();
        Self {
            line: before.matches('\n').count() + 1,
            column: before[start..].chars().count() + 1,
            text: text.chars().take(SHOWN).collect(),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {} ({:?})", self.line, self.column, self.text)
    }
}

/// Why a template was not compiled or not typeset.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct TypesetError {
    /// HTTP status that says the same: 400 for a template that is wrong, 413 for one that is too large, 422 for data that
    /// do not fit it and documents beyond the bounds.
    pub status: u16,
    /// Stable, snake_case.
    pub code: Cow<'static, str>,
    /// What is wrong, the limit, the value, what to do.
    pub message: String,
    /// Where in the template, if it is at one place.
    pub place: Option<Box<Place>>,
}

impl TypesetError {
    fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code: code.into(), message: message.into(), place: None }
    }

    /// 400: the template itself is wrong.
    pub(super) fn syntax(message: impl Into<String>) -> Self {
        Self::new(400, "template_syntax", message)
    }

    /// 413: the template is longer than allowed.
    pub(super) fn template_too_large(length: usize, limit: usize) -> Self {
        let message =
            format!("the template has {length} bytes, more than the {limit} allowed; move texts into the data");
        Self::new(413, "template_too_large", message)
    }

    /// 422: the data, or what became of them, do not fit.
    pub(super) fn data(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(422, code, message)
    }

    /// 500: a fault of ours; nothing of it is told.
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
