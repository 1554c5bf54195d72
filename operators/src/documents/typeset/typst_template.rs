//! A compiled typst template.

use std::collections::BTreeSet;

use bytes::Bytes;
use typst::syntax::{LinkedNode, Source};

use super::check_source::{check, check_depth, check_metered};
use super::data_fields;
use super::error::TypesetError;
use super::metering::MeteredSource;
use super::options::Options;
use super::world;

/// A compiled template; shared between renderings.
pub struct Template {
    /// The template as uploaded.
    pub(super) text: String,
    /// The template with metering calls.
    pub(super) metered: MeteredSource,
    /// The syntax tree of the metered template, which is evaluated.
    pub(super) source: Source,
    pub(super) options: Options,
    fields: BTreeSet<String>,
}

impl std::fmt::Debug for Template {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Template({} bytes, {} fields)", self.text.len(), self.fields.len())
    }
}

impl Template {
    /// Checks and parses a template: it must be UTF-8 and valid typst, and load no file but its data.
    ///
    /// # Errors
    /// 413 `template_too_large`; 400 `template_syntax` with the place.
    pub fn compile(bytes: Bytes, options: &Options) -> Result<Self, TypesetError> {
        if bytes.len() > options.template {
            return Err(TypesetError::template_too_large(bytes.len(), options.template));
        }
        let text = String::from_utf8(bytes.into()).map_err(|why| {
            let at = why.utf8_error().valid_up_to();
            TypesetError::syntax(format!("the template is not UTF-8: byte {at} is invalid; save it as UTF-8"))
        })?;
        let main = world::main_id().ok_or_else(TypesetError::internal)?;
        check_depth(&text)?;
        let written = Source::new(main, text);
        check(&written)?;
        let fields = data_fields::fields(written.root());
        let metered = MeteredSource::new(written.text(), &LinkedNode::new(written.root()));
        let source = Source::new(main, metered.text.clone());
        check_metered(&source, &metered, written.text())?;
        Ok(Self { text: written.text().to_owned(), metered, source, options: options.clone(), fields })
    }

    /// The fields of the data that the template uses, as far as can be determined without data: `customer.name`, and
    /// `items.price` for the prices of all `items`. Some of them may have defaults.
    #[must_use]
    pub fn fields(&self) -> &BTreeSet<String> {
        &self.fields
    }

    /// About how much memory it holds, in bytes.
    #[must_use]
    pub fn resident_bytes(&self) -> usize {
        /// Upper bound of the syntax tree's memory, per byte of text.
        const TREE: usize = 24;
        let fields: usize = self.fields.iter().map(|field| field.len() + 48).sum();
        self.text.len() + self.metered.added() + self.source.text().len() * TREE + fields + 1024
    }
}
