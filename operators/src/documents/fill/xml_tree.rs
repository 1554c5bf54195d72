//! The XML tree of a part: a list of pieces with parent links, so that elements around tags can be replaced and joined.

use crate::documents::office::xml::{TokenKind, Tokens, XmlError};

/// The index that means "none".
pub(super) const NONE: usize = usize::MAX;

/// A token of the part, with its position in the tree.
pub(super) struct Piece<'x> {
    pub(super) kind: TokenKind,
    pub(super) raw: &'x str,
    pub(super) name: &'x str,
    /// Index of the start of the enclosing element; [`NONE`] for the root.
    pub(super) parent: usize,
    /// For the start of an element its end, and vice versa; for other pieces their own index.
    pub(super) mate: usize,
    /// Its paragraph, from 1; 0 before the first.
    pub(super) paragraph: usize,
    /// Removed from the part.
    pub(super) gone: bool,
}

/// All pieces of one part.
pub(super) struct Tree<'x> {
    pub(super) pieces: Vec<Piece<'x>>,
}

impl<'x> Tree<'x> {
    pub(super) fn read(text: &'x str, max_depth: usize) -> Result<Self, XmlError> {
        let mut tokens = Tokens::new(text, max_depth);
        let (mut pieces, mut open, mut paragraph) = (Vec::new(), Vec::new(), 0);
        while let Some(token) = tokens.read()? {
            let (place, name) = (pieces.len(), token.name());
            let mut mate = place;
            if token.kind == TokenKind::Close {
                mate = open.pop().unwrap_or(place);
                if let Some(Piece { mate, .. }) = pieces.get_mut(mate) {
                    *mate = place;
                }
            }
            if name == "w:p" && token.kind != TokenKind::Close {
                paragraph += 1;
            }
            let parent = open.last().copied().unwrap_or(NONE);
            pieces.push(Piece { kind: token.kind, raw: token.raw, name, parent, mate, paragraph, gone: false });
            if token.kind == TokenKind::Open {
                open.push(place);
            }
        }
        Ok(Self { pieces })
    }

    /// The innermost element of that name around a piece.
    pub(super) fn around(&self, place: usize, name: &str) -> Option<usize> {
        let mut at = self.pieces[place].parent;
        while at != NONE {
            if self.pieces[at].name == name {
                return Some(at);
            }
            at = self.pieces[at].parent;
        }
        None
    }

    /// Whether a piece is the text of a run.
    pub(super) fn is_run_text(&self, place: usize) -> bool {
        let piece = &self.pieces[place];
        piece.kind == TokenKind::Text && piece.parent != NONE && self.pieces[piece.parent].name == "w:t"
    }

    /// The element that contains the paragraph of a piece: the body, a cell, a text box.
    pub(super) fn container(&self, place: usize) -> usize {
        self.around(place, "w:p").map_or(NONE, |paragraph| self.pieces[paragraph].parent)
    }

    /// The direct child of an element with that name.
    pub(super) fn child(&self, parent: usize, name: &str) -> Option<usize> {
        let mut at = parent + 1;
        let end = self.pieces[parent].mate;
        while at < end {
            let piece = &self.pieces[at];
            if piece.name == name && !piece.gone {
                return Some(at);
            }
            at = if piece.kind == TokenKind::Open { piece.mate + 1 } else { at + 1 };
        }
        None
    }

    /// The beginning of a paragraph's text, for messages.
    pub(super) fn paragraph_text(&self, place: usize) -> String {
        const SHOWN: usize = 80;
        let Some(paragraph) = self.around(place, "w:p") else {
            return self.pieces[place].raw.chars().take(SHOWN).collect();
        };
        let mut text = String::new();
        for at in paragraph..self.pieces[paragraph].mate {
            if text.len() > 4 * SHOWN {
                break;
            }
            if self.is_run_text(at) {
                text.push_str(self.pieces[at].raw);
            }
        }
        let text = quick_xml::escape::unescape(&text).map(|text| text.into_owned()).unwrap_or_default();
        text.chars().take(SHOWN).collect()
    }

    /// Removes everything between two pieces, if the rest stays well-formed: the elements that end in between and those
    /// that begin there must have the same names. Returns whether it did.
    pub(super) fn join(&mut self, from: usize, to: usize) -> bool {
        let (mut closed, mut opened) = (Vec::new(), Vec::new());
        for at in from + 1..to {
            let piece = &self.pieces[at];
            match piece.kind {
                _ if piece.gone => {}
                TokenKind::Open if piece.mate > to => opened.push(at),
                TokenKind::Close if piece.mate < from => closed.push(at),
                _ => {}
            }
        }
        let pairs = || closed.iter().zip(opened.iter().rev());
        let same = |(close, open): (&usize, &usize)| self.pieces[*close].name == self.pieces[*open].name;
        if closed.len() != opened.len() || !pairs().all(same) {
            return false;
        }
        for (&close, &open) in pairs() {
            let (begin, end) = (self.pieces[close].mate, self.pieces[open].mate);
            self.pieces[begin].mate = end;
            self.pieces[end].mate = begin;
            self.adopt(open, begin);
        }
        self.pieces[from + 1..to].iter_mut().for_each(|piece| piece.gone = true);
        true
    }

    /// Moves the children of a removed element to another one.
    fn adopt(&mut self, gone: usize, by: usize) {
        let mut at = gone + 1;
        let end = self.pieces[by].mate;
        while at < end {
            if self.pieces[at].parent == gone {
                self.pieces[at].parent = by;
            }
            let piece = &self.pieces[at];
            // An element that closes before the end is skipped with its content.
            at = if piece.kind == TokenKind::Open && piece.mate > at && piece.mate < end {
                piece.mate + 1
            } else {
                at + 1
            };
        }
    }
}
