//! Loads and merges config files and `--set` overrides, keeping every value's place.
//!
//! All texts share one address space: each is parsed behind as many spaces as the texts before it are long, so that a
//! span alone says which file it is from, also after tables of several files were merged.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Place, Problems, Section};

struct Source {
    name: String,
    base: usize,
    /// The padded text that was parsed.
    text: String,
}

/// The texts a config was read from.
#[derive(Default)]
pub struct Sources {
    sources: Vec<Source>,
}

/// A place in the terms of a person.
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
        let base = self.sources.last().map_or(0, |last| last.text.len() + 1);
        self.sources.push(Source { name: name.into(), base, text: " ".repeat(base) + text });
    }

    /// Adds an override `key.path=value`; a value that is not TOML is taken as a string.
    pub fn add_override(&mut self, assignment: &str) {
        let name = format!("--set {assignment}");
        let Some((key, value)) = assignment.split_once('=') else {
            return self.add(name, assignment);
        };
        let as_toml = format!("{key} = {value}");
        if DeTable::parse(&as_toml).is_ok() {
            return self.add(name, &as_toml);
        }
        self.add(name, &format!("{key} = {}", toml::Value::String(value.into())));
    }

    /// Parses all texts and merges them in order: tables are joined, lists of tables (`[[route]]`) appended, other values
    /// replaced by the later one. A flow or model declared twice is a problem.
    pub fn parse<'s>(&'s self, problems: &mut Problems) -> Document<'s> {
        let mut merged = DeTable::new();
        for source in &self.sources {
            let (table, errors) = DeTable::parse_recoverable(&source.text);
            for error in errors {
                problems.add(error.span(), error.message(), "write it as TOML 1.0 (https://toml.io) allows");
            }
            merge(&mut merged, table.into_inner(), source.name.starts_with("--set"), &mut Vec::new(), problems);
        }
        Document { root: Section::new(merged, 0..0) }
    }

    /// Where a place is.
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
        let text = &source.text[source.base..];
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

fn floor_char(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// The merged config, to be taken apart section by section.
pub struct Document<'s> {
    /// The top-level table.
    pub root: Section<'s>,
}

/// Sections whose members may be declared only once, so that two files cannot silently mix their stages.
const DECLARED_ONCE: [&str; 2] = ["flow", "model"];

fn merge<'s>(
    into: &mut DeTable<'s>,
    from: DeTable<'s>,
    overriding: bool,
    path: &mut Vec<String>,
    problems: &mut Problems,
) {
    for (key, value) in from {
        let name = key.get_ref().to_string();
        let Some(present) = into.get_mut(name.as_str()) else {
            into.insert(key, value);
            continue;
        };
        let once = !overriding && path.len() == 1 && DECLARED_ONCE.contains(&path[0].as_str());
        if once {
            let what = &path[0];
            problems.add(key.span(), format!("{what} {name:?} is declared twice"), "rename one of the two");
            continue;
        }
        path.push(name);
        merge_value(present, value, overriding, path, problems);
        path.pop();
    }
}

fn merge_value<'s>(
    present: &mut Spanned<DeValue<'s>>,
    value: Spanned<DeValue<'s>>,
    overriding: bool,
    path: &mut Vec<String>,
    problems: &mut Problems,
) {
    let span = value.span();
    match (present.get_mut(), value.into_inner()) {
        (DeValue::Table(present), DeValue::Table(more)) => merge(present, more, overriding, path, problems),
        (DeValue::Array(present), DeValue::Array(more)) if !overriding => {
            more.into_iter().for_each(|v| present.push(v))
        }
        (_, other) => *present = Spanned::new(span, other),
    }
}
