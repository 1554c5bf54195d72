//! Compiles the XML of one part into a template of the engine.
//!
//! The text of all runs is read as one, so that a tag is found even if it is spread over runs ([`find_tags`]); it keeps
//! the formatting of the run in which it begins. Then tags with a prefix replace the row, cell, paragraph or run around
//! them ([`prefixed_tags`]), cells get their spans and colours ([`cell_tags`]), and the template is written ([`emit`]),
//! with everything that is not a tag unchanged.

mod cell_tags;
mod compilation;
mod emit;
mod find_tags;
mod prefixed_tags;
#[cfg(test)]
mod tests;
mod unclosed_blocks;

use std::collections::HashMap;

use super::error::{FillError, Place};
use super::xml_tree::Tree;
use compilation::Compilation;
pub(super) use compilation::{Site, Source};

/// Whether a part has tags; a part without tags is copied unchanged.
pub(super) fn has_tags(text: &str) -> bool {
    // A delimiter may be spread over runs, so a single brace counts; `{_{` prints braces.
    let braces = memchr::memchr_iter(b'{', text.as_bytes());
    let relevant = |at: &usize| matches!(text.as_bytes().get(at + 1), Some(b'{' | b'%' | b'#' | b'_' | b'<'));
    braces.into_iter().any(|at| relevant(&at))
}

/// Compiles one part.
///
/// # Errors
/// 400 `template_syntax`, with the place, for tags that are not closed, misplaced or unknown.
pub(super) fn compile(part: &str, text: &str, max_depth: usize) -> Result<Source, FillError> {
    let place = || Place { part: part.to_owned(), ..Place::default() };
    let tree = Tree::read(text, max_depth).map_err(|why| FillError::syntax(why.to_string(), place()))?;
    let mut work = Compilation {
        part,
        tree,
        all: String::new(),
        segments: Vec::new(),
        tags: Vec::new(),
        seats: Vec::new(),
        replaced: HashMap::new(),
        cells: HashMap::new(),
        consumed: Vec::new(),
    };
    work.find_tags()?;
    work.merge_by_signs();
    work.replace_by_tags()?;
    work.edit_cells()?;
    let source = work.emit();
    unclosed_blocks::check(&source.sites)?;
    Ok(source)
}
