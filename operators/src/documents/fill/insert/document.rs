//! The last pass over a rendered part: inserts typed values, turns control characters into breaks, and repairs tables
//! whose cells were repeated or left out.
//!
//! It reads every token, so the result is well-formed XML, or the rendering fails.

use super::content;
use super::context::InsertContext;
use super::table_grid::Table;
use crate::documents::fill::engine::PLACEHOLDER;
use crate::documents::fill::error::FillError;
use crate::documents::fill::relationships::NewRelationships;
use crate::documents::fill::values::TypedValue;
use crate::documents::office::xml::{Token, TokenKind, Tokens};

/// An open element.
struct OpenElement<'x> {
    name: &'x str,
    raw: &'x str,
    /// `w:pPr` of a paragraph or `w:rPr` of a run.
    properties: &'x str,
    /// Whether a cell already contains a block.
    filled: bool,
}

/// What surrounds the position of a value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Surroundings {
    Text,
    Run,
    Paragraph,
    Block,
}

struct Pass<'x, 's, 'd> {
    xml: &'x str,
    out: String,
    open: Vec<OpenElement<'x>>,
    tables: Vec<Table>,
    context: &'s mut InsertContext<'d>,
    links: &'s mut NewRelationships,
}

/// Inserts the values of one part.
///
/// # Errors
/// 422 `render_malformed` if the rendered XML is not well-formed, `render_too_large` beyond the limit, and
/// `value_misplaced` for a typed value in an attribute or outside the document's text.
pub(in crate::documents::fill) fn finish(
    xml: &str,
    context: &mut InsertContext<'_>,
    links: &mut NewRelationships,
) -> Result<String, FillError> {
    let mut tokens = Tokens::new(xml, context.max_depth);
    let out = String::with_capacity(xml.len() + xml.len() / 16);
    let mut pass = Pass { xml, out, open: Vec::new(), tables: Vec::new(), context, links };
    while let Some(token) = tokens.read().map_err(|why| malformed(&why.to_string()))? {
        pass.token(&token)?;
        if pass.out.len() > pass.context.limit {
            return Err(too_large(pass.context.limit));
        }
    }
    Ok(pass.out)
}

fn malformed(why: &str) -> FillError {
    let message = format!(
        "the rendered document is not valid XML: {why}; check that each loop or condition begins and ends in the same cell \
         or paragraph, and that text contains no markup"
    );
    FillError::data("render_malformed", message)
}

/// 422: the document exceeds the limit.
pub(in crate::documents::fill) fn too_large(limit: usize) -> FillError {
    let message = format!("the document exceeds {limit} bytes, the limit; give it fewer rows, or split it");
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
            TokenKind::Other if token.raw.starts_with(PLACEHOLDER) => self.placeholder(token.raw),
            _ => {
                self.plain(token.raw);
                Ok(())
            }
        }
    }

    /// Copies markup; drops control characters that have a meaning only in text.
    fn plain(&mut self, raw: &str) {
        if raw.contains(['\u{7}', '\u{c}']) {
            self.out.extend(raw.chars().filter(|c| !matches!(c, '\u{7}' | '\u{c}')));
        } else {
            self.out.push_str(raw);
        }
    }

    fn tag(&mut self, token: &Token<'x>) -> Result<(), FillError> {
        if token.raw.contains(PLACEHOLDER) {
            let message = "a typed value (image, rich text) is in an attribute, where only text is allowed";
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
            let id = self.context.drawing.to_string();
            self.context.drawing += 1;
            let raw = content::with_attribute(token.raw, "id", &id);
            self.plain(&raw);
        } else {
            self.plain(token.raw);
        }
        if token.kind == TokenKind::Open {
            self.open.push(OpenElement { name, raw: token.raw, properties: "", filled: false });
            if matches!(name, "w:pPr" | "w:rPr") {
                self.mark_start(token.at);
            }
        }
        Ok(())
    }

    /// Remembers where the properties begin until they end.
    fn mark_start(&mut self, at: usize) {
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
            // A cell must contain a paragraph; its only paragraph may have been a tag.
            "w:tc" if !closed.filled => self.out.push_str("<w:p/>"),
            "w:tbl" => {
                if let Some(table) = self.tables.pop() {
                    table.repair(&mut self.out);
                }
            }
            _ => {}
        }
        if let Some(table) = self.tables.last_mut() {
            table.close(closed.name, self.out.len());
        }
        self.plain(token.raw);
    }

    /// Text of a run: tabs, line breaks, new paragraphs (`\a`) and new pages (`\f`).
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

    /// Ends the open paragraph and begins another with the same properties; `between` goes between them.
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
                // The ids of a paragraph are not repeated.
                "w:p" => self.out.push_str("<w:p>"),
                "w:t" => self.out.push_str(r#"<w:t xml:space="preserve">"#),
                _ => self.out.push_str(open.raw),
            }
            // The end of a section belongs to one paragraph only.
            if !open.properties.contains("<w:sectPr") {
                self.out.push_str(open.properties);
            }
        }
    }

    /// Inserts a typed value in place of its placeholder.
    fn placeholder(&mut self, raw: &str) -> Result<(), FillError> {
        let index = raw[PLACEHOLDER.len()..].trim_end_matches("?>").trim().parse::<usize>().ok();
        // A template may contain placeholders of its own; they are dropped.
        let Some((index, value)) = index.and_then(|index| Some((index, self.context.typed.get(index)?))) else {
            return Ok(());
        };
        let content = content::content(value, index, self.context, self.links);
        let block = matches!(value, TypedValue::RichParagraph(_));
        let (around, from) = self.surroundings();
        match (around, block) {
            (Surroundings::Block, true) | (Surroundings::Paragraph, false) => self.out.push_str(&content),
            (Surroundings::Block, false) => {
                self.out.push_str("<w:p>");
                self.out.push_str(&content);
                self.out.push_str("</w:p>");
            }
            (Surroundings::Paragraph | Surroundings::Run | Surroundings::Text, true) => self.new_paragraph(&content),
            (Surroundings::Run | Surroundings::Text, false) => {
                for open in self.open[from..].iter().rev() {
                    self.out.push_str(&format!("</{}>", open.name));
                }
                self.out.push_str(&content);
                self.reopen(from);
            }
        }
        if around == Surroundings::Block
            && let Some(cell) = self.open.last_mut()
        {
            cell.filled = true;
        }
        Ok(())
    }

    /// What surrounds the current position, and the index of the run to interrupt there.
    fn surroundings(&self) -> (Surroundings, usize) {
        for (place, open) in self.open.iter().enumerate().rev() {
            match open.name {
                "w:r" => {
                    let inner = self.open.last().is_some_and(|last| last.name == "w:t");
                    return (if inner { Surroundings::Text } else { Surroundings::Run }, place);
                }
                "w:p" => return (Surroundings::Paragraph, place),
                "w:tc" | "w:body" | "w:hdr" | "w:ftr" | "w:footnote" | "w:txbxContent" => {
                    return (Surroundings::Block, place);
                }
                _ => {}
            }
        }
        (Surroundings::Block, 0)
    }
}
