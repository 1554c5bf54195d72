//! The tags that change their table cell: `colspan`, `cellbg` (background), `vm` and `hm` (vertical and horizontal
//! merge).

use super::compilation::{CellEdit, Compilation, Source};
use crate::documents::fill::error::FillError;
use crate::documents::fill::tag::Level;
use crate::documents::office::xml::{Token, TokenKind};

/// Children of `w:tcPr` in the order that the schema requires (ECMA-376 part 1, 17.4.69).
const ORDER: [&str; 13] = [
    "w:cnfStyle",
    "w:tcW",
    "w:gridSpan",
    "w:hMerge",
    "w:vMerge",
    "w:tcBorders",
    "w:shd",
    "w:noWrap",
    "w:tcMar",
    "w:textDirection",
    "w:tcFitText",
    "w:vAlign",
    "w:hideMark",
];

const IF_FIRST: &str = "{% if loop.first %}";
const ENDIF: &str = "{% endif %}";

impl Compilation<'_> {
    /// Removes these tags and records the changes they make.
    pub(super) fn edit_cells(&mut self) -> Result<(), FillError> {
        for tag in 0..self.tags.len() {
            let (keyword, rest) = self.tags[tag].keyword();
            let cell_tag = matches!(keyword, "colspan" | "cellbg" | "vm" | "hm");
            if !cell_tag || self.tags[tag].level != Level::Text || self.tree.pieces[self.piece_of(tag)].gone {
                continue;
            }
            let (keyword, rest) = (keyword.to_owned(), rest.to_owned());
            let Some(cell) = self.tree.around(self.piece_of(tag), "w:tc") else {
                return Err(
                    self.syntax(format!("{keyword} changes a table cell but is not in one; put it into a cell"), tag)
                );
            };
            let edit = self.cells.entry(cell).or_default();
            match keyword.as_str() {
                "colspan" => edit.span = Some(rest),
                "cellbg" => edit.shade = Some(rest),
                "vm" => edit.down = true,
                _ => edit.across = true,
            }
            self.consumed[tag] = true;
        }
        Ok(())
    }

    /// Writes a cell with its changes.
    pub(super) fn emit_cell(&self, cell: usize, edit: &CellEdit, source: &mut Source) {
        let end = self.tree.pieces[cell].mate;
        let properties = self.tree.child(cell, "w:tcPr");
        let content = properties.map_or(cell + 1, |place| self.tree.pieces[place].mate + 1);
        if edit.across {
            source.text.push_str(IF_FIRST);
        }
        source.text.push_str(self.tree.pieces[cell].raw);
        source.text.push_str("<w:tcPr>");
        for (_, raw) in self.properties(properties, edit) {
            source.text.push_str(&raw);
        }
        source.text.push_str("</w:tcPr>");
        if edit.down {
            source.text.push_str(IF_FIRST);
        }
        self.emit_range(content, end, source);
        if edit.down {
            // The merged cells below contain the minimum that a cell must contain.
            source.text.push_str("{% else %}<w:p/>{% endif %}");
        }
        source.text.push_str(self.tree.pieces[end].raw);
        if edit.across {
            source.text.push_str(ENDIF);
        }
    }

    /// The changed properties of a cell, in order.
    fn properties(&self, properties: Option<usize>, edit: &CellEdit) -> Vec<(String, String)> {
        let mut list = self.children(properties);
        let known = list.iter().find(|(name, _)| name == "w:gridSpan").and_then(|(_, raw)| {
            Token { kind: TokenKind::Empty, raw, at: 0 }.attribute("w:val").map(|value| value.into_owned())
        });
        let span = match (&edit.span, edit.across) {
            (Some(span), false) => Some(format!("{{{{ {span} }}}}")),
            (Some(span), true) => Some(format!("{{{{ ({span}) * loop.length }}}}")),
            (None, true) => {
                let each = known.filter(|n| n.bytes().all(|b| b.is_ascii_digit())).unwrap_or_else(|| "1".into());
                Some(format!("{{{{ {each} * loop.length }}}}"))
            }
            (None, false) => None,
        };
        if let Some(span) = span {
            set(&mut list, "w:gridSpan", format!(r#"<w:gridSpan w:val="{span}"/>"#));
        }
        if edit.down {
            let merge = r#"<w:vMerge w:val="{% if loop.first %}restart{% else %}continue{% endif %}"/>"#;
            set(&mut list, "w:vMerge", merge.into());
        }
        if let Some(shade) = &edit.shade {
            let shade = format!(r#"<w:shd w:val="clear" w:color="auto" w:fill="{{{{ {shade} }}}}"/>"#);
            set(&mut list, "w:shd", shade);
        }
        list
    }

    /// Name and XML of each child of an element.
    fn children(&self, parent: Option<usize>) -> Vec<(String, String)> {
        let Some(parent) = parent else { return Vec::new() };
        let (mut at, end) = (parent + 1, self.tree.pieces[parent].mate);
        let mut list = Vec::new();
        while at < end {
            let piece = &self.tree.pieces[at];
            let last = if piece.kind == TokenKind::Open { piece.mate } else { at };
            let raw: String = self.tree.pieces[at..=last].iter().map(|piece| piece.raw).collect();
            list.push((piece.name.to_owned(), raw));
            at = last + 1;
        }
        list
    }
}

/// Inserts a child at its position in the order, replacing the child of the same name.
fn set(list: &mut Vec<(String, String)>, name: &str, raw: String) {
    let rank = |name: &str| ORDER.iter().position(|known| *known == name).unwrap_or(ORDER.len());
    list.retain(|(known, _)| known != name);
    let place = list.iter().position(|(known, _)| rank(known) > rank(name)).unwrap_or(list.len());
    list.insert(place, (name.to_owned(), raw));
}
