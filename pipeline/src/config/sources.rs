//! The texts a config is read from, and the file, line and column of a place in them.
//!
//! All texts share one address space: each is parsed behind as many spaces as the texts before it are long, so that a
//! span alone says which file it is from, also after tables of several files were merged.

use std::ops::Range;

use toml::de::DeTable;

/// A byte range within all loaded texts taken together; [`Sources`] knows the file, line and column.
pub type Place = Range<usize>;

pub(super) struct Source {
    /// The file as given on the command line, or `--set` with the override.
    pub name: String,
    /// Where this text begins in the shared address space.
    base: usize,
    /// The text behind `base` spaces, as it is parsed.
    pub padded: String,
    /// Whether it replaces values of earlier texts instead of adding to them.
    pub overrides: bool,
}

/// The texts a config was read from, in order of precedence: later texts win.
#[derive(Default)]
pub struct Sources {
    pub(super) sources: Vec<Source>,
}

/// A place as a person reads it.
pub struct Position<'a> {
    /// Name of the file, or the override as given.
    pub file: &'a str,
    /// The file's text.
    pub text: &'a str,
    /// Byte range within `text`.
    pub span: Range<usize>,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
}

impl Sources {
    /// Adds a file's text under the name that problems will show.
    pub fn add(&mut self, name: impl Into<String>, text: &str) {
        self.push(name.into(), text, false);
    }

    /// Adds an override `key.path=value`; a value that is not TOML is taken as a string.
    pub fn add_override(&mut self, assignment: &str) {
        let name = format!("--set {assignment}");
        let Some((key, value)) = assignment.split_once('=') else {
            return self.push(name, assignment, true);
        };
        let as_toml = format!("{key} = {value}");
        if DeTable::parse(&as_toml).is_ok() {
            return self.push(name, &as_toml, true);
        }
        self.push(name, &format!("{key} = {}", toml::Value::String(value.into())), true);
    }

    fn push(&mut self, name: String, text: &str, overrides: bool) {
        let base = self.sources.last().map_or(0, |last| last.padded.len() + 1);
        self.sources.push(Source { name, base, padded: " ".repeat(base) + text, overrides });
    }

    /// The file, line and column of a place.
    ///
    /// # Panics
    /// If no text was ever added: there is then no place to ask for.
    #[must_use]
    pub fn locate(&self, place: Place) -> Position<'_> {
        let source = self
            .sources
            .iter()
            .rfind(|source| source.base <= place.start)
            .expect("a place comes from a text that was added");
        let text = &source.padded[source.base..];
        let clamp = |at: usize| floor_char(text, at.saturating_sub(source.base).min(text.len()));
        let span = clamp(place.start)..clamp(place.end.max(place.start));
        let before = &text[..span.start];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Position {
            file: &source.name,
            text,
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            span,
        }
    }
}

/// The last character boundary at or before `at`.
fn floor_char(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}
