//! What is wrong with a config, where, and what to do about it.

use std::ops::Range;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use serde::Serialize;

use super::Sources;

/// A byte range within all loaded texts taken together; [`Sources`] knows the file, line and column.
pub type Place = Range<usize>;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where; `None` when the whole config lacks something.
    pub place: Option<Place>,
    /// What is wrong, with the value and the limit.
    pub message: String,
    /// What to do.
    pub remedy: String,
}

/// One problem for programs (`caudal check --json`).
#[derive(Debug, Serialize)]
pub struct Located<'a> {
    /// File as given on the command line.
    pub file: &'a str,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// What is wrong.
    pub message: &'a str,
    /// What to do.
    pub remedy: &'a str,
}

/// Every problem found so far.
#[derive(Debug, Default)]
pub struct Problems {
    found: Vec<Problem>,
}

impl Problems {
    /// Adds a problem at a place.
    pub fn add(&mut self, place: impl Into<Option<Place>>, message: impl Into<String>, remedy: impl Into<String>) {
        self.found.push(Problem { place: place.into(), message: message.into(), remedy: remedy.into() });
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// The problems in the order of the text.
    #[must_use]
    pub fn sorted(&self) -> Vec<&Problem> {
        let mut sorted: Vec<&Problem> = self.found.iter().collect();
        sorted.sort_by_key(|problem| problem.place.as_ref().map_or(0, |place| place.start));
        sorted
    }

    /// The problems with file, line and column.
    #[must_use]
    pub fn located<'a>(&'a self, sources: &'a Sources) -> Vec<Located<'a>> {
        let locate = |problem: &'a Problem| {
            let position = sources.locate(problem.place.clone().unwrap_or_default());
            Located {
                file: position.file,
                line: position.line,
                column: position.column,
                message: &problem.message,
                remedy: &problem.remedy,
            }
        };
        self.sorted().into_iter().map(locate).collect()
    }

    /// The problems for a person: the line in question, what is wrong, what to do. `color` styles for a terminal.
    #[must_use]
    pub fn render(&self, sources: &Sources, color: bool) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let blocks: Vec<String> =
            self.sorted().into_iter().map(|problem| render_one(problem, sources, &renderer)).collect();
        blocks.join("\n\n")
    }
}

fn render_one(problem: &Problem, sources: &Sources, renderer: &Renderer) -> String {
    let position = sources.locate(problem.place.clone().unwrap_or_default());
    let snippet = Snippet::source(position.text)
        .path(position.file)
        .annotation(AnnotationKind::Primary.span(position.span.clone()));
    let report = [Level::ERROR
        .primary_title(problem.message.as_str())
        .element(snippet)
        .element(Level::HELP.message(problem.remedy.as_str()))];
    renderer.render(&report).to_string()
}
