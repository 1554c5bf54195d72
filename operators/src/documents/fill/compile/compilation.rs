//! The state of compiling one part: its XML tree, the text of its runs, and the tags found in it.

use std::collections::HashMap;

use crate::documents::fill::error::{FillError, Place};
use crate::documents::fill::tag::Tag;
use crate::documents::fill::xml_tree::Tree;

/// A part as a template of the engine.
pub(in crate::documents::fill) struct Source {
    pub(in crate::documents::fill) text: String,
    /// The position of each tag in `text`, in order.
    pub(in crate::documents::fill) sites: Vec<Site>,
}

/// The position of a tag in the source and in the part.
pub(in crate::documents::fill) struct Site {
    pub(in crate::documents::fill) offset: usize,
    /// For a statement: its keyword and the rest.
    pub(super) statement: Option<(String, String)>,
    pub(in crate::documents::fill) place: Place,
}

/// The text of one run, and its new content.
pub(super) struct Segment {
    /// Its piece in the tree.
    pub(super) piece: usize,
    /// Offset of its text in the text of all runs.
    pub(super) start: usize,
    pub(super) container: usize,
    pub(super) paragraph: usize,
    /// The last following segment in the same container without a break: a tag must end there.
    pub(super) last: usize,
    /// The segment that its content was merged into; itself if none.
    pub(super) home: usize,
    pub(super) bits: Vec<Bit>,
}

/// A piece of a segment's new content.
#[derive(Clone)]
pub(super) enum Bit {
    /// A range of the text of all runs.
    Text(std::ops::Range<usize>),
    /// A tag, by its index.
    Tag(usize),
}

/// A part that is being compiled.
pub(super) struct Compilation<'x> {
    pub(super) part: &'x str,
    pub(super) tree: Tree<'x>,
    /// The concatenated text of all runs.
    pub(super) all: String,
    pub(super) segments: Vec<Segment>,
    pub(super) tags: Vec<Tag>,
    /// The segment in which each tag begins.
    pub(super) seats: Vec<usize>,
    /// Elements that are replaced by tags: their end, and the tags.
    pub(super) replaced: HashMap<usize, (usize, Vec<usize>)>,
    /// Cells that change.
    pub(super) cells: HashMap<usize, CellEdit>,
    /// Tags that the compiler has executed, which are not written out.
    pub(super) consumed: Vec<bool>,
}

/// Changes to a cell, as expressions of the engine.
#[derive(Default)]
pub(super) struct CellEdit {
    /// Number of columns it spans.
    pub(super) span: Option<String>,
    /// Background colour, six hexadecimal digits.
    pub(super) shade: Option<String>,
    /// Merge it with its copies in a loop over rows.
    pub(super) down: bool,
    /// Merge it with its copies in a loop over columns.
    pub(super) across: bool,
}

impl Compilation<'_> {
    /// The segment that now contains the content of `segment`.
    pub(super) fn home(&self, mut segment: usize) -> usize {
        while self.segments[segment].home != segment {
            segment = self.segments[segment].home;
        }
        segment
    }

    /// The piece that contains a tag.
    pub(super) fn piece_of(&self, tag: usize) -> usize {
        self.segments[self.home(self.seats[tag])].piece
    }

    pub(super) fn place(&self, piece: usize, tag: Option<&Tag>) -> Place {
        Place {
            part: self.part.to_owned(),
            paragraph: Some(self.tree.pieces[piece].paragraph).filter(|&paragraph| paragraph > 0),
            text: self.tree.paragraph_text(piece),
            tag: tag.map(Tag::shown),
        }
    }

    pub(super) fn syntax(&self, message: impl Into<String>, tag: usize) -> FillError {
        FillError::syntax(message, self.place(self.piece_of(tag), Some(&self.tags[tag])))
    }
}
