//! Config problems and warnings: what is wrong, where, and what to do about it.

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use serde::Serialize;

use super::{Place, Sources};

/// Whether the config can be used in spite of a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It cannot be used.
    Error,
    /// It can, for now.
    Warning,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where; `None` when the whole config lacks something.
    pub place: Option<Place>,
    /// What is wrong, with the value and the limit.
    pub message: String,
    /// What to do.
    pub remedy: String,
    /// Whether the config can be used in spite of it.
    pub severity: Severity,
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
    /// `error` or `warning`.
    pub severity: Severity,
    /// What is wrong.
    pub message: &'a str,
    /// What to do.
    pub remedy: &'a str,
}

/// Every error and warning found so far.
#[derive(Debug, Default)]
pub struct Problems {
    found: Vec<Problem>,
}

impl Problems {
    /// Adds an error at a place: the config cannot be used.
    pub fn add(&mut self, place: impl Into<Option<Place>>, message: impl Into<String>, remedy: impl Into<String>) {
        self.push(Severity::Error, place.into(), message.into(), remedy.into());
    }

    /// Adds a warning at a place: the config can be used, but should be changed.
    pub fn warn(&mut self, place: impl Into<Option<Place>>, message: impl Into<String>, remedy: impl Into<String>) {
        self.push(Severity::Warning, place.into(), message.into(), remedy.into());
    }

    fn push(&mut self, severity: Severity, place: Option<Place>, message: String, remedy: String) {
        self.found.push(Problem { place, message, remedy, severity });
    }

    /// Whether there is no error; there may be warnings.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.of(Severity::Error).is_empty()
    }

    /// The errors in the order of the text, without warnings.
    #[must_use]
    pub fn sorted(&self) -> Vec<&Problem> {
        self.of(Severity::Error)
    }

    /// The warnings in the order of the text.
    #[must_use]
    pub fn warnings(&self) -> Vec<&Problem> {
        self.of(Severity::Warning)
    }

    fn of(&self, severity: Severity) -> Vec<&Problem> {
        let mut sorted: Vec<&Problem> = self.found.iter().filter(|problem| problem.severity == severity).collect();
        sorted.sort_by_key(|problem| problem.place.as_ref().map_or(0, |place| place.start));
        sorted
    }

    /// Errors, then warnings, each in the order of the text.
    fn all(&self) -> impl Iterator<Item = &Problem> {
        self.sorted().into_iter().chain(self.warnings())
    }

    /// Errors, then warnings, with file, line and column.
    #[must_use]
    pub fn located<'a>(&'a self, sources: &'a Sources) -> Vec<Located<'a>> {
        let locate = |problem: &'a Problem| {
            let position = sources.locate(problem.place.clone().unwrap_or_default());
            Located {
                file: position.file,
                line: position.line,
                column: position.column,
                severity: problem.severity,
                message: &problem.message,
                remedy: &problem.remedy,
            }
        };
        self.all().map(locate).collect()
    }

    /// Errors, then warnings, for a person: the line in question, what is wrong, what to do. `color` styles for a
    /// terminal. Empty if there is neither.
    #[must_use]
    pub fn render(&self, sources: &Sources, color: bool) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let blocks: Vec<String> = self.all().map(|problem| render_one(problem, sources, &renderer)).collect();
        blocks.join("\n\n")
    }

    /// Logs each warning with file, line and column; for a service that starts in spite of them.
    pub fn log_warnings(&self, sources: &Sources) {
        for found in self.located(sources) {
            if found.severity == Severity::Warning {
                let Located { file, line, column, message, remedy, .. } = found;
                tracing::warn!(file, line, column, remedy, "config: {message}");
            }
        }
    }
}

fn render_one(problem: &Problem, sources: &Sources, renderer: &Renderer) -> String {
    let position = sources.locate(problem.place.clone().unwrap_or_default());
    let snippet = Snippet::source(position.text)
        .path(position.file)
        .annotation(AnnotationKind::Primary.span(position.span.clone()));
    let level = match problem.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let report = [level
        .primary_title(problem.message.as_str())
        .element(snippet)
        .element(Level::HELP.message(problem.remedy.as_str()))];
    renderer.render(&report).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources() -> Sources {
        let mut sources = Sources::default();
        sources.add("a.toml", "first = 1\nsecond = 2\n");
        sources
    }

    #[test]
    fn a_warning_alone_leaves_the_config_usable() {
        let mut problems = Problems::default();
        problems.warn(0..5, "old", "rename it");
        assert!(problems.is_empty() && problems.sorted().is_empty());
        assert_eq!(problems.warnings().len(), 1);
    }

    #[test]
    fn an_error_makes_the_config_unusable() {
        let mut problems = Problems::default();
        problems.add(0..5, "wrong", "right it");
        assert!(!problems.is_empty() && problems.warnings().is_empty());
    }

    #[test]
    fn errors_come_first_and_each_kind_in_the_order_of_the_text() {
        let mut problems = Problems::default();
        problems.warn(0..5, "w1", "-");
        problems.add(10..16, "e2", "-");
        problems.add(0..5, "e1", "-");
        let sources = sources();
        let found: Vec<_> = problems.located(&sources).iter().map(|one| (one.message, one.line)).collect();
        assert_eq!(found, [("e1", 1), ("e2", 2), ("w1", 1)]);
    }

    #[test]
    fn a_warning_is_rendered_with_its_line_as_a_warning() {
        let mut problems = Problems::default();
        problems.warn(10..16, "`second` is now `other`", "rename it");
        let text = problems.render(&sources(), false);
        for expected in ["warning: `second` is now `other`", "a.toml:2:1", "help: rename it"] {
            assert!(text.contains(expected), "{expected}\n{text}");
        }
    }

    #[test]
    fn programs_read_the_severity_as_a_word() {
        let mut problems = Problems::default();
        problems.warn(0..5, "m", "r");
        let sources = sources();
        let json = serde_json::to_value(problems.located(&sources)).unwrap();
        assert_eq!(json[0]["severity"], "warning");
    }
}
