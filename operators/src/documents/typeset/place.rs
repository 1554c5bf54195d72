//! A place in a template, for error messages: line, column and the text of the line.

use std::fmt;

use typst::syntax::{DiagSpan, DiagSpanKind, Source};

/// Characters of a line shown in a message.
const SHOWN: usize = 120;

/// A place in a template, as the author finds it in an editor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Line, from 1.
    pub line: usize,
    /// Character of the line, from 1.
    pub column: usize,
    /// Text of the line, trimmed.
    pub text: String,
}

impl Place {
    /// The place of a byte offset. An offset past the end gives the end.
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

/// The byte offset of a span in the source that is evaluated.
pub(super) fn start_of(source: &Source, span: DiagSpan) -> Option<usize> {
    if span.id() != Some(source.id()) {
        return None;
    }
    match span.get() {
        DiagSpanKind::Detached => None,
        DiagSpanKind::Number { num, sub_range, .. } => source.range(num, sub_range).map(|range| range.start),
        DiagSpanKind::Range { range, .. } => Some(range.start),
    }
}
