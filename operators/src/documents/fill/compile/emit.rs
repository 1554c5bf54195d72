//! Writes the engine's template, with everything that is not a tag unchanged, and records the position of each tag.

use super::compilation::{Bit, Compilation, Site, Source};
use crate::documents::fill::tag::{Level, Tag, TagKind, begins, next_begin, read};
use crate::documents::fill::xml_tree::NONE;
use crate::documents::office::xml::TokenKind;

/// docxtpl's notation for literal braces.
const BRACES: [(&str, &str); 4] = [("{_{", "{{"), ("}_}", "}}"), ("{_%", "{%"), ("%_}", "%}")];

impl Compilation<'_> {
    pub(super) fn emit(&self) -> Source {
        let size = self.tree.pieces.iter().map(|piece| piece.raw.len()).sum();
        let mut source = Source { text: String::with_capacity(size), sites: Vec::with_capacity(self.tags.len()) };
        self.emit_range(0, self.tree.pieces.len(), &mut source);
        source
    }

    pub(super) fn emit_range(&self, from: usize, to: usize, source: &mut Source) {
        let mut at = from;
        while at < to {
            if let Some((end, tags)) = self.replaced.get(&at) {
                for &tag in tags {
                    self.emit_tag(tag, source);
                }
                at = end + 1;
                continue;
            }
            let piece = &self.tree.pieces[at];
            if piece.gone {
                at += 1;
            } else if let Some(edit) = self.cells.get(&at) {
                self.emit_cell(at, edit, source);
                at = piece.mate + 1;
            } else {
                self.emit_piece(at, source);
                at += 1;
            }
        }
    }

    fn emit_piece(&self, at: usize, source: &mut Source) {
        let piece = &self.tree.pieces[at];
        match (piece.kind, self.segment_of(at)) {
            (TokenKind::Text, Some(segment)) => self.emit_segment(segment, source),
            (TokenKind::Open, _) if piece.name == "w:t" && self.changes(at + 1) && !piece.raw.contains("xml:space") => {
                source.text.push_str(r#"<w:t xml:space="preserve""#);
                source.text.push_str(piece.raw.strip_prefix("<w:t").unwrap_or(">"));
            }
            (TokenKind::Other | TokenKind::Close, _) => source.text.push_str(piece.raw),
            _ => self.emit_inline(at, source),
        }
    }

    fn segment_of(&self, piece: usize) -> Option<usize> {
        let segment = self.segments.binary_search_by_key(&piece, |segment| segment.piece).ok()?;
        (self.segments[segment].home == segment).then_some(segment)
    }

    /// Whether a run's text has tags or was merged with another.
    fn changes(&self, piece: usize) -> bool {
        let bits = self.segment_of(piece).map(|segment| self.segments[segment].bits.as_slice());
        bits.is_some_and(|bits| bits.len() > 1 || bits.iter().any(|bit| matches!(bit, Bit::Tag(_))))
    }

    fn emit_segment(&self, segment: usize, source: &mut Source) {
        let piece = self.segments[segment].piece;
        for bit in &self.segments[segment].bits {
            match bit {
                Bit::Text(range) => literal(&mut source.text, &self.all[range.clone()], true),
                Bit::Tag(tag) if self.tags[*tag].level == Level::Run => self.emit_run_tag(*tag, piece, source),
                Bit::Tag(tag) => self.emit_tag(*tag, source),
            }
        }
    }

    /// Ends the run before the tag and reopens it after the tag, with its formatting.
    fn emit_run_tag(&self, tag: usize, piece: usize, source: &mut Source) {
        source.text.push_str("</w:t></w:r>");
        self.emit_tag(tag, source);
        source.text.push_str("<w:r>");
        if let Some(place) = self.run_of(piece).and_then(|run| self.tree.child(run, "w:rPr")) {
            let end = self.tree.pieces[place].mate;
            self.tree.pieces[place..=end].iter().for_each(|piece| source.text.push_str(piece.raw));
        }
        source.text.push_str(r#"<w:t xml:space="preserve">"#);
    }

    fn emit_tag(&self, tag: usize, source: &mut Source) {
        let found = &self.tags[tag];
        if self.consumed[tag] || found.kind == TagKind::Comment {
            return;
        }
        let place = self.place(self.piece_of(tag), Some(found));
        source.sites.push(Site { offset: source.text.len(), statement: statement(found), place });
        source.text.push_str(&found.source());
    }

    /// Writes tags in attributes, and in text outside runs: each tag within one piece.
    fn emit_inline(&self, at: usize, source: &mut Source) {
        let raw = self.tree.pieces[at].raw;
        let mut done = 0;
        let mut looked = 0;
        while let Some(begin) = next_begin(raw, looked) {
            let Some(tag) = read(raw, begin, raw.len()).filter(is_plain) else {
                looked = begin + 2;
                continue;
            };
            literal(&mut source.text, &raw[done..begin], false);
            let place = if self.tree.pieces[at].parent == NONE { 0 } else { at };
            let place = self.place(place, Some(&tag));
            source.sites.push(Site { offset: source.text.len(), statement: statement(&tag), place });
            if tag.kind != TagKind::Comment {
                source.text.push_str(&tag.source());
            }
            (done, looked) = (tag.range.1, tag.range.1);
        }
        literal(&mut source.text, &raw[done..], false);
    }
}

fn statement(tag: &Tag) -> Option<(String, String)> {
    let (keyword, rest) = tag.keyword();
    (tag.kind == TagKind::Statement).then(|| (keyword.to_owned(), rest.to_owned()))
}

fn is_plain(tag: &Tag) -> bool {
    tag.level == Level::Text
}

/// Writes literal text. Delimiters in it become expressions that print them.
fn literal(out: &mut String, text: &str, braces: bool) {
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}', '%']) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let printed = BRACES.iter().find(|(written, _)| braces && rest.starts_with(written));
        if let Some((written, meant)) = printed {
            out.push_str(&format!("{{{{ '{meant}' }}}}"));
            rest = &rest[written.len()..];
        } else if begins(rest, 0).is_some() {
            out.push_str(&format!("{{{{ '{}' }}}}", &rest[..2]));
            rest = &rest[2..];
        } else {
            out.push_str(&rest[..1]);
            rest = &rest[1..];
        }
    }
    out.push_str(rest);
}
