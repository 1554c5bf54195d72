//! Repairs the column grid of a table after loops over cells have changed the number of columns.

use crate::documents::office::xml::{Token, TokenKind};

/// Word's limit of columns in a table.
const MAX_COLUMNS: usize = 63;

/// An open table.
#[derive(Default)]
pub(super) struct Table {
    /// Start and end of `w:tblGrid` in the output.
    grid: Option<(usize, usize)>,
    /// Widths of its columns, in twentieths of a point.
    widths: Vec<f64>,
    in_grid: bool,
    /// Cells and columns of the open row.
    cells: usize,
    span: usize,
    most_cells: usize,
    most_span: usize,
}

impl Table {
    /// Reads a tag inside the table, before it is written at `at`.
    pub(super) fn tag(&mut self, token: &Token<'_>, name: &str, parent: &str, at: usize) {
        match (name, parent) {
            ("w:tblGrid", "w:tbl") if token.kind == TokenKind::Open => {
                self.grid = Some((at, at));
                self.in_grid = true;
            }
            ("w:gridCol", _) if self.in_grid => {
                let width = token.attribute("w:w").and_then(|width| width.parse().ok());
                self.widths.push(width.filter(|width: &f64| width.is_finite()).unwrap_or(0.0));
            }
            ("w:tr", _) => (self.cells, self.span) = (0, 0),
            ("w:tc", _) => {
                self.cells += 1;
                self.span += 1;
            }
            ("w:gridSpan", "w:tcPr") => {
                let columns = token.attribute("w:val").and_then(|value| value.trim().parse::<usize>().ok());
                self.span += columns.unwrap_or(1).clamp(1, MAX_COLUMNS) - 1;
            }
            _ => {}
        }
    }

    /// Reads the end of an element, before it is written at `at`.
    pub(super) fn close(&mut self, name: &str, at: usize) {
        match name {
            "w:tblGrid" if self.in_grid => {
                self.in_grid = false;
                if let Some((_, end)) = &mut self.grid {
                    *end = at;
                }
            }
            "w:tr" => {
                self.most_cells = self.most_cells.max(self.cells);
                self.most_span = self.most_span.max(self.span);
            }
            _ => {}
        }
    }

    /// Rewrites the grid if it has too few or too many columns; the width of the table does not change.
    pub(super) fn repair(self, out: &mut String) {
        let Some((begin, end)) = self.grid else { return };
        let mut widths = self.widths.clone();
        let total: f64 = widths.iter().sum();
        let wanted = self.most_cells.min(MAX_COLUMNS);
        if wanted > widths.len() {
            let scale = widths.len() as f64 / wanted as f64;
            widths.iter_mut().for_each(|width| *width = (*width * scale).trunc());
            widths.resize(wanted, (total / wanted as f64).trunc());
        }
        if widths.len() > self.most_span && self.most_span > 0 {
            let removed: f64 = widths.drain(self.most_span..).sum();
            let share = (removed / self.most_span as f64).trunc();
            widths.iter_mut().for_each(|width| *width = (*width + share).trunc());
        }
        if widths.len() == self.widths.len() {
            return;
        }
        let columns: String = widths.iter().map(|width| format!(r#"<w:gridCol w:w="{width:.0}"/>"#)).collect();
        out.replace_range(begin..end, &format!("<w:tblGrid>{columns}"));
    }
}
