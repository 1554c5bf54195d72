//! Turns the XML of one part into a template of the engine.
//!
//! The characters of all runs are read as one text, in which tags are found whatever runs they are spread over
//! ([`collect`]); a tag keeps the formatting of the run in which it begins. Then tags with a prefix take the place of the
//! row, cell, paragraph or run around them ([`hoist`]), cells get their spans and colours ([`cells`]), and the whole is
//! written out ([`emit`]), everything that is no tag as it was.

mod balance;
mod cells;
mod collect;
mod emit;
mod hoist;

use std::collections::HashMap;

use super::error::{FillError, Place};
use super::tag::Tag;
use super::tree::Tree;
use cells::CellEdit;

/// A part as the engine reads it.
pub(super) struct Source {
    pub(super) text: String,
    /// Where each tag stands in `text`, in its order.
    pub(super) sites: Vec<Site>,
}

/// Where a tag of the source is in the part.
pub(super) struct Site {
    pub(super) offset: usize,
    /// Where it is a statement: its keyword, and what follows.
    statement: Option<(String, String)>,
    pub(super) place: Place,
}

/// The text of one run, and what it becomes.
struct Segment {
    /// Its piece of the tree.
    piece: usize,
    /// Where its characters begin in the text of all runs.
    start: usize,
    container: usize,
    paragraph: usize,
    /// The last of the segments behind it that are in the same container without a break: a tag ends there.
    last: usize,
    /// The segment that has taken its content over; itself if none has.
    home: usize,
    bits: Vec<Bit>,
}

/// A piece of a segment's new content.
#[derive(Clone)]
enum Bit {
    /// Characters of the text of all runs.
    Text(std::ops::Range<usize>),
    /// A tag, by its place in the list.
    Tag(usize),
}

/// A part being worked on.
struct Work<'x> {
    part: &'x str,
    tree: Tree<'x>,
    /// The characters of all runs, one after another.
    all: String,
    segments: Vec<Segment>,
    tags: Vec<Tag>,
    /// The segment each tag began in.
    seats: Vec<usize>,
    /// Elements that tags take the place of: their end, and the tags.
    replaced: HashMap<usize, (usize, Vec<usize>)>,
    /// Cells that change.
    cells: HashMap<usize, CellEdit>,
    /// Tags that are carried out by the compiler.
    consumed: Vec<bool>,
}

/// Whether there is anything to fill in; a part without goes on as it is.
pub(super) fn has_tags(text: &str) -> bool {
    // A delimiter may be spread over runs, so one brace is a hint already; `{_{` prints braces.
    let braces = memchr::memchr_iter(b'{', text.as_bytes());
    let relevant = |at: &usize| matches!(text.as_bytes().get(at + 1), Some(b'{' | b'%' | b'#' | b'_' | b'<'));
    braces.into_iter().any(|at| relevant(&at))
}

/// Compiles one part.
///
/// # Errors
/// 400 `template_syntax`, with the place, for tags that do not end, stand where they cannot, or are not known.
pub(super) fn compile(part: &str, text: &str, max_depth: usize) -> Result<Source, FillError> {
    let place = || Place { part: part.to_owned(), ..Place::default() };
    let tree = Tree::read(text, max_depth).map_err(|why| FillError::syntax(why.to_string(), place()))?;
    let mut work = Work {
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
    work.collect()?;
    work.merge_by_signs();
    work.hoist()?;
    work.edit_cells()?;
    let source = work.emit();
    balance::check(&source.sites)?;
    Ok(source)
}

impl Work<'_> {
    /// The segment that holds what was once in `segment`.
    fn home(&self, mut segment: usize) -> usize {
        while self.segments[segment].home != segment {
            segment = self.segments[segment].home;
        }
        segment
    }

    /// The piece that holds a tag.
    fn piece_of(&self, tag: usize) -> usize {
        self.segments[self.home(self.seats[tag])].piece
    }

    fn place(&self, piece: usize, tag: Option<&Tag>) -> Place {
        Place {
            part: self.part.to_owned(),
            paragraph: Some(self.tree.pieces[piece].paragraph).filter(|&paragraph| paragraph > 0),
            text: self.tree.paragraph_text(piece),
            tag: tag.map(Tag::shown),
        }
    }

    fn syntax(&self, message: impl Into<String>, tag: usize) -> FillError {
        FillError::syntax(message, self.place(self.piece_of(tag), Some(&self.tags[tag])))
    }
}

#[cfg(test)]
mod tests;
