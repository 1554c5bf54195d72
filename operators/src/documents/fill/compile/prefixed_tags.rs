//! Tags with a prefix (`tr`, `tc`, `p`, `r`) replace the row, cell, paragraph or run around them, rows first.

use super::compilation::Compilation;
use crate::documents::fill::error::FillError;
use crate::documents::fill::tag::Level;

/// Elements in the order in which docxtpl replaces them.
const LEVELS: [(Level, &str, &str); 3] = [
    (Level::Row, "w:tr", "a row of a table"),
    (Level::Cell, "w:tc", "a cell of a table"),
    (Level::Paragraph, "w:p", "a paragraph"),
];

impl Compilation<'_> {
    /// Replaces rows, cells and paragraphs by their tags. Several tags of one element keep their order; the rest of its
    /// content is dropped.
    pub(super) fn replace_by_tags(&mut self) -> Result<(), FillError> {
        for (level, name, what) in LEVELS {
            for tag in 0..self.tags.len() {
                if self.tags[tag].level == level {
                    self.replace(tag, name, what)?;
                }
            }
        }
        self.check_runs()
    }

    fn replace(&mut self, tag: usize, name: &str, what: &str) -> Result<(), FillError> {
        let piece = self.piece_of(tag);
        let Some(element) = self.tree.around(piece, name) else {
            let message = format!("this tag replaces {what} but is not in one; remove its prefix");
            return Err(self.syntax(message, tag));
        };
        if let Some((_, tags)) = self.replaced.get_mut(&element) {
            tags.push(tag);
        } else if !self.tree.pieces[piece].gone {
            let end = self.tree.pieces[element].mate;
            self.tree.pieces[element..=end].iter_mut().for_each(|piece| piece.gone = true);
            self.replaced.insert(element, (end, vec![tag]));
        }
        Ok(())
    }

    /// Checks that each tag that replaces a run is in one.
    fn check_runs(&self) -> Result<(), FillError> {
        for (tag, found) in self.tags.iter().enumerate() {
            let piece = self.piece_of(tag);
            if found.level == Level::Run && !self.tree.pieces[piece].gone && self.run_of(piece).is_none() {
                return Err(self.syntax("this tag replaces a run but is not in one; remove its prefix", tag));
            }
        }
        Ok(())
    }

    /// The run that a piece of text belongs to.
    pub(super) fn run_of(&self, piece: usize) -> Option<usize> {
        let text = self.tree.pieces[piece].parent;
        let run = self.tree.pieces.get(text)?.parent;
        (self.tree.pieces.get(run)?.name == "w:r").then_some(run)
    }
}
