//! Typesets documents: a template of typst and data in, a PDF out, within this process.
//!
//! A template is one text in typst's language. It gets its data as `#let data = json("data.json")`; there is no other
//! file, no package, no clock, and no font but those that typst brings along. Text from the data stays text, whatever it
//! holds. Pictures may be in the data as `data:` addresses: `#image(data.logo)`.
//!
//! **Bounds.** typst itself stops `while` loops after 10 000 rounds and calls after 80 levels, and nothing else. Here each
//! round of a loop and each call counts as a step ([`Options::steps`]), and time is checked at each step and each piece of
//! text ([`Options::time`]); `range`, `lorem` and products are bounded. What remains is work without steps or text, and
//! memory: texts doubled by `s + s`, contents doubled in each other (`[#a#a]`), a table of a billion columns. Such a
//! template is written on purpose, so who may store templates must be trusted as far as the process's memory goes.

mod check;
mod error;
mod fields;
mod library;
mod meter;
mod operator;
mod render;
mod world;

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value as Json;
use typst::syntax::{LinkedNode, Source};
use typst_pdf::PdfStandard;

use meter::Metered;

pub use error::{Place, TypesetError};
pub use operator::{KIND, TypesetSpec};

/// How a template is compiled and typeset.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes of a template.
    pub template: usize,
    /// Bytes of a document.
    pub output: usize,
    /// Pages of a document.
    pub pages: usize,
    /// Rounds of loops and calls of functions of the template for one document.
    pub steps: u64,
    /// Time for one document.
    pub time: Duration,
    /// The standard that documents keep to, unless told otherwise.
    pub standard: Standard,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            template: 1 << 20,
            output: 50 << 20,
            pages: 500,
            // Some 50 000 rows, more than the pages hold. typst takes up to 10 KB and 50 µs for what each step puts there.
            steps: 200_000,
            time: Duration::from_secs(10),
            standard: Standard::default(),
        }
    }
}

/// A standard of PDF that a document keeps to; typst refuses what would break it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum Standard {
    /// PDF 1.7, tagged.
    #[default]
    #[serde(rename = "pdf")]
    Pdf,
    /// PDF/A-2b, for archives. The template must set `document(date: …)`.
    #[serde(rename = "pdf/a-2b")]
    A2b,
    /// PDF/A-3b, for archives, with attachments. The template must set `document(date: …)`.
    #[serde(rename = "pdf/a-3b")]
    A3b,
    /// PDF/UA-1, accessible. The template must set `document(title: …)`, and `alt` of pictures.
    #[serde(rename = "pdf/ua-1")]
    Ua1,
}

impl Standard {
    fn list(self) -> &'static [PdfStandard] {
        match self {
            Self::Pdf => &[],
            Self::A2b => &[PdfStandard::A_2b],
            Self::A3b => &[PdfStandard::A_3b],
            Self::Ua1 => &[PdfStandard::Ua_1],
        }
    }
}

/// A compiled template; shared between renderings.
pub struct Template {
    /// As it was written.
    text: String,
    metered: Metered,
    /// The syntax tree of what is evaluated.
    source: Source,
    options: Options,
    fields: BTreeSet<String>,
}

impl std::fmt::Debug for Template {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Template({} bytes, {} fields)", self.text.len(), self.fields.len())
    }
}

impl Template {
    /// Checks and parses a template: that it is UTF-8 and typst, and asks for no file but its data.
    ///
    /// # Errors
    /// 413 `template_too_large`; 400 `template_syntax` with the place.
    pub fn compile(bytes: Bytes, options: &Options) -> Result<Self, TypesetError> {
        if bytes.len() > options.template {
            return Err(TypesetError::template_too_large(bytes.len(), options.template));
        }
        let text = String::from_utf8(bytes.into()).map_err(|why| {
            let at = why.utf8_error().valid_up_to();
            TypesetError::syntax(format!("the template is not UTF-8: byte {at} begins no character; save it as UTF-8"))
        })?;
        let main = world::main_id().ok_or_else(TypesetError::internal)?;
        check::check_depth(&text)?;
        let written = Source::new(main, text);
        check::check(&written)?;
        let fields = fields::fields(written.root());
        let metered = Metered::new(written.text(), &LinkedNode::new(written.root()));
        let source = Source::new(main, metered.text.clone());
        check::check_metered(&source, &metered, written.text())?;
        Ok(Self { text: written.text().to_owned(), metered, source, options: options.clone(), fields })
    }

    /// The fields of the data that the template uses, as far as can be told without data: `customer.name`, and
    /// `items.price` for the prices of all `items`. Some of them may have defaults.
    #[must_use]
    pub fn fields(&self) -> &BTreeSet<String> {
        &self.fields
    }

    /// Typesets the template to a PDF of the standard in its options. Computes: not for a thread of the runtime. The same
    /// template and data give the same bytes.
    ///
    /// # Errors
    /// 422: `undefined_variable` for a field that the data do not have, `render_failed`, and beyond the bounds
    /// `render_too_long` and `render_too_large`; 500 `internal` if typst panics.
    pub fn render(&self, context: &Json) -> Result<Vec<u8>, TypesetError> {
        self.render_as(context, self.options.standard)
    }

    /// As [`Self::render`], to a PDF of another standard.
    ///
    /// # Errors
    /// Those of [`Self::render`]; 422 `render_failed` too where the document would break the standard.
    pub fn render_as(&self, context: &Json, standard: Standard) -> Result<Vec<u8>, TypesetError> {
        render::render(self, context, standard)
    }

    /// About how much memory it holds, in bytes.
    #[must_use]
    pub fn resident_bytes(&self) -> usize {
        /// What the syntax tree takes for a byte of text, at most.
        const TREE: usize = 24;
        let fields: usize = self.fields.iter().map(|field| field.len() + 48).sum();
        self.text.len() + self.metered.added() + self.source.text().len() * TREE + fields + 1024
    }
}

#[cfg(test)]
mod tests;
