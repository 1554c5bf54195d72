//! The last pass over a rendered part: puts typed values in, turns control characters of texts into breaks, and sets
//! right what repeating and leaving out of cells has made wrong.
//!
//! It reads every token, so what comes out is well-formed, or the rendering ends in an error.

mod grid;
mod write;

use super::engine::MARK;
use super::error::FillError;
use super::values::Typed;
use crate::office::xml::{Token, TokenKind, Tokens};
use grid::Table;
pub(super) use write::{Links, Target};

/// Ids of drawings are given anew, from here on, so that copies in a loop do not share one.
const FIRST_DRAWING: u32 = 1_001;

/// What the parts of one document share.
pub(super) struct Shared<'d> {
    pub(super) typed: &'d [Typed],
    /// The next drawing's id.
    pub(super) drawing: u32,
    /// Longest part, in bytes.
    pub(super) limit: usize,
    pub(super) max_depth: usize,
}

impl<'d> Shared<'d> {
    pub(super) fn new(typed: &'d [Typed], limit: usize, max_depth: usize) -> Self {
        Self { typed, drawing: FIRST_DRAWING, limit, max_depth }
    }
}

/// An element that is open.
struct Open<'x> {
    name: &'x str,
    raw: &'x str,
    /// `w:pPr` of a paragraph or `w:rPr` of a run.
    properties: &'x str,
    /// Whether a cell holds a block yet.
    filled: bool,
}

/// Where a value is put in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Around {
    Text,
    Run,
    Paragraph,
    Block,
}

struct Pass<'x, 's, 'd> {
    xml: &'x str,
    out: String,
    open: Vec<Open<'x>>,
    tables: Vec<Table>,
    shared: &'s mut Shared<'d>,
    links: &'s mut Links,
}

/// Finishes one part.
///
/// # Errors
/// 422 `render_malformed` if what was rendered is not well-formed, `render_too_large` beyond the bound, and
/// `value_misplaced` for a typed value in an attribute or outside of the document's text.
pub(super) fn finish(xml: &str, shared: &mut Shared<'_>, links: &mut Links) -> Result<String, FillError> {
    let mut tokens = Tokens::new(xml, shared.max_depth);
    let out = String::with_capacity(xml.len() + xml.len() / 16);
    let mut pass = Pass { xml, out, open: Vec::new(), tables: Vec::new(), shared, links };
    while let Some(token) = tokens.read().map_err(|why| malformed(&why.to_string()))? {
        pass.token(&token)?;
        if pass.out.len() > pass.shared.limit {
            return Err(too_large(pass.shared.limit));
        }
    }
    Ok(pass.out)
}

fn malformed(why: &str) -> FillError {
    let message = format!(
        "what was rendered is no document any more: {why}; a loop or condition begins in one cell or paragraph and ends in \
         another, or text holds markup"
    );
    FillError::data("render_malformed", message)
}

/// 422: more than the bound came out.
pub(super) fn too_large(limit: usize) -> FillError {
    let message = format!("the document grows beyond {limit} bytes; give it fewer rows, or divide it");
    FillError::data("render_too_large", message)
}

impl<'x> Pass<'x, '_, '_> {
    fn token(&mut self, token: &Token<'x>) -> Result<(), FillError> {
        match token.kind {
            TokenKind::Open | TokenKind::Empty => self.tag(token),
            TokenKind::Close => {
                self.close(token);
                Ok(())
            }
            TokenKind::Text if self.open.last().is_some_and(|open| open.name == "w:t") => {
                self.text(token.raw);
                Ok(())
            }
            TokenKind::Other if token.raw.starts_with(MARK) => self.mark(token.raw),
            _ => {
                self.plain(token.raw);
                Ok(())
            }
        }
    }

    /// Markup as it is; control characters that only mean something in a text are left out.
    fn plain(&mut self, raw: &str) {
        if raw.contains(['\u{7}', '\u{c}']) {
            self.out.extend(raw.chars().filter(|c| !matches!(c, '\u{7}' | '\u{c}')));
        } else {
            self.out.push_str(raw);
        }
    }

    fn tag(&mut self, token: &Token<'x>) -> Result<(), FillError> {
        if token.raw.contains(MARK) {
            let message = "a typed value (image, rich text) stands in an attribute; only text can be there";
            return Err(FillError::data("value_misplaced", message));
        }
        let name = token.name();
        match name {
            "w:p" | "w:tbl" | "w:sdt" => {
                if let Some(cell) = self.open.last_mut() {
                    cell.filled = true;
                }
            }
            _ => {}
        }
        if name == "w:tbl" && token.kind == TokenKind::Open {
            self.tables.push(Table::default());
        }
        let parent = self.open.last().map_or("", |open| open.name);
        if let Some(table) = self.tables.last_mut() {
            table.tag(token, name, parent, self.out.len());
        }
        if name == "wp:docPr" {
            let id = self.shared.drawing.to_string();
            self.shared.drawing += 1;
            let raw = write::with_attribute(token.raw, "id", &id);
            self.plain(&raw);
        } else {
            self.plain(token.raw);
        }
        if token.kind == TokenKind::Open {
            self.open.push(Open { name, raw: token.raw, properties: "", filled: false });
            if matches!(name, "w:pPr" | "w:rPr") {
                // Where it begins is kept until it ends.
                self.remember(token.at);
            }
        }
        Ok(())
    }

    fn remember(&mut self, at: usize) {
        if let Some(open) = self.open.last_mut() {
            open.raw = &self.xml[at..];
        }
    }

    fn close(&mut self, token: &Token<'x>) {
        let Some(closed) = self.open.pop() else { return };
        match closed.name {
            "w:pPr" | "w:rPr" => {
                let wanted = if closed.name == "w:pPr" { "w:p" } else { "w:r" };
                let begin = self.xml.len() - closed.raw.len();
                if let Some(parent) = self.open.last_mut().filter(|parent| parent.name == wanted) {
                    parent.properties = &self.xml[begin..token.at + token.raw.len()];
                }
            }
            // A cell must hold a paragraph; its only one may have been a tag.
            "w:tc" if !closed.filled => self.out.push_str("<w:p/>"),
            "w:tbl" => {
                if let Some(table) = self.tables.pop() {
                    table.mend(&mut self.out);
                }
            }
            _ => {}
        }
        if let Some(table) = self.tables.last_mut() {
            table.close(closed.name, self.out.len());
        }
        self.plain(token.raw);
    }

    /// Characters of a run: tabs, line breaks, new paragraphs (`\a`) and pages (`\f`).
    fn text(&mut self, raw: &str) {
        let mut rest = raw;
        while let Some(at) = rest.find(['\t', '\n', '\u{7}', '\u{c}']) {
            self.out.push_str(&rest[..at]);
            match rest.as_bytes()[at] {
                b'\t' => self.out.push_str(r#"</w:t><w:tab/><w:t xml:space="preserve">"#),
                b'\n' => self.out.push_str(r#"</w:t><w:br/><w:t xml:space="preserve">"#),
                7 => self.new_paragraph(""),
                _ => self.new_paragraph(r#"<w:p><w:r><w:br w:type="page"/></w:r></w:p>"#),
            }
            rest = &rest[at + 1..];
        }
        self.out.push_str(rest);
    }

    /// Ends the paragraph that is open and begins one like it, with `between` between them.
    fn new_paragraph(&mut self, between: &str) {
        let Some(from) = self.open.iter().rposition(|open| open.name == "w:p") else { return };
        for open in self.open[from..].iter().rev() {
            self.out.push_str(&format!("</{}>", open.name));
        }
        self.out.push_str(between);
        self.reopen(from);
    }

    fn reopen(&mut self, from: usize) {
        for open in &self.open[from..] {
            match open.name {
                // Ids of a paragraph are its own.
                "w:p" => self.out.push_str("<w:p>"),
                "w:t" => self.out.push_str(r#"<w:t xml:space="preserve">"#),
                _ => self.out.push_str(open.raw),
            }
            // The end of a section belongs to one paragraph alone.
            if !open.properties.contains("<w:sectPr") {
                self.out.push_str(open.properties);
            }
        }
    }

    /// Puts a typed value in.
    fn mark(&mut self, raw: &str) -> Result<(), FillError> {
        let place = raw[MARK.len()..].trim_end_matches("?>").trim().parse::<usize>().ok();
        // A template may have marks of its own making; they mean nothing.
        let Some((place, value)) = place.and_then(|place| Some((place, self.shared.typed.get(place)?))) else {
            return Ok(());
        };
        let content = write::content(value, place, self.shared, self.links);
        let block = matches!(value, Typed::RichParagraph(_));
        let (around, from) = self.around();
        match (around, block) {
            (Around::Block, true) | (Around::Paragraph, false) => self.out.push_str(&content),
            (Around::Block, false) => {
                self.out.push_str("<w:p>");
                self.out.push_str(&content);
                self.out.push_str("</w:p>");
            }
            (Around::Paragraph | Around::Run | Around::Text, true) => self.new_paragraph(&content),
            (Around::Run | Around::Text, false) => {
                for open in self.open[from..].iter().rev() {
                    self.out.push_str(&format!("</{}>", open.name));
                }
                self.out.push_str(&content);
                self.reopen(from);
            }
        }
        if around == Around::Block
            && let Some(cell) = self.open.last_mut()
        {
            cell.filled = true;
        }
        Ok(())
    }

    /// What is around the place that is being written, and the run that would have to be interrupted there.
    fn around(&self) -> (Around, usize) {
        for (place, open) in self.open.iter().enumerate().rev() {
            match open.name {
                "w:r" => {
                    let inner = self.open.last().is_some_and(|last| last.name == "w:t");
                    return (if inner { Around::Text } else { Around::Run }, place);
                }
                "w:p" => return (Around::Paragraph, place),
                "w:tc" | "w:body" | "w:hdr" | "w:ftr" | "w:footnote" | "w:txbxContent" => {
                    return (Around::Block, place);
                }
                _ => {}
            }
        }
        (Around::Block, 0)
    }
}
