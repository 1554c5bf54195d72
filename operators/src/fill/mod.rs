//! Fills DOCX templates: the language of docxtpl, on minijinja, with the package's other parts untouched.
//!
//! A [`Template`] is compiled once: each part with tags becomes a template of the engine. A rendering fills these, puts
//! pictures and formatted text in, and writes the package anew, copying everything else with its compressed bytes.
//!
//! Kept from docxtpl: the tags and their prefixes, which element a tag replaces and in which order, what formatting a tag
//! spread over runs has, the control characters of texts, and how values print. Different on purpose: values are escaped
//! unless told otherwise; a variable that is missing is an error unless told otherwise; strings may hold `%` and `}`; of
//! several tags in one row none is lost; text beside `{{r` keeps its formatting, and beside `{%-` its place; nothing of
//! Python or of other files is in reach.

mod compile;
mod engine;
mod error;
mod operator;
mod parts;
mod picture;
mod place;
mod render;
mod tag;
mod tree;
mod values;

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;
use minijinja::Environment;
use serde_json::Value as Json;

use crate::office::{Budget, Kind, Limits, Package, scan};
use compile::Site;

pub use engine::Undefined;
pub use error::{FillError, Place};
pub use operator::{FillSpec, KIND};

/// Steps of the engine for one part: some 200 000 rows of five cells, or a second.
const DEFAULT_FUEL: u64 = 10_000_000;

/// How a template is read and filled.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whether values are text (the default). Otherwise they may hold markup of WordprocessingML, as in docxtpl.
    pub autoescape: bool,
    /// What a variable does that the data do not have.
    pub undefined: Undefined,
    /// Steps of the engine for one part, before it is stopped.
    pub fuel: u64,
    /// Bounds of the template, and of what becomes of it: `part` of each part, `file` of the package.
    pub limits: Limits,
}

impl Default for Options {
    fn default() -> Self {
        Self { autoescape: true, undefined: Undefined::default(), fuel: DEFAULT_FUEL, limits: Limits::default() }
    }
}

/// A compiled template; shared between renderings.
pub struct Template {
    package: Package,
    engine: Environment<'static>,
    options: Options,
    /// Parts with tags, in the order they are filled.
    filled: Vec<FilledPart>,
    /// `[Content_Types].xml`.
    types: String,
    fields: BTreeSet<String>,
}

/// A part with tags.
struct FilledPart {
    name: String,
    sites: Vec<Site>,
    /// Its relationships, where it has some.
    rels: Option<String>,
}

impl std::fmt::Debug for Template {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Template({} parts to fill, {} fields)", self.filled.len(), self.fields.len())
    }
}

impl Template {
    /// Checks and compiles a template. The package must pass [`scan`]: what it holds goes into every document.
    ///
    /// # Errors
    /// Those of [`scan`]; 400 `template_syntax` with the place.
    pub fn compile(bytes: Bytes, options: &Options) -> Result<Self, FillError> {
        let limits = &options.limits;
        let scanned = scan(&bytes, &[Kind::Docx], limits)?;
        let package = scanned.package.map_or_else(|| Package::open(bytes, limits), Ok)?;
        let mut budget = Budget::of(limits);
        let parts = parts::filled(&package, &mut budget, limits.depth)?;
        let mut engine = engine::environment(options.autoescape, options.undefined);
        engine.set_fuel(Some(options.fuel));
        let types = package.find("[Content_Types].xml").map(|entry| package.read_text(entry, &mut budget));
        let types = types.transpose()?.unwrap_or_default();
        let mut template =
            Self { package, engine, options: options.clone(), filled: Vec::new(), types, fields: BTreeSet::new() };
        for name in parts.texts.into_iter().chain(parts.properties) {
            template.add(name, &mut budget)?;
        }
        Ok(template)
    }

    fn add(&mut self, name: String, budget: &mut Budget) -> Result<(), FillError> {
        let Some(entry) = self.package.find(&name) else { return Ok(()) };
        let text = self.package.read_text(entry, budget)?;
        if !compile::has_tags(&text) {
            return Ok(());
        }
        let compile::Source { text, sites } = compile::compile(&name, &text, self.options.limits.depth)?;
        if let Err(why) = self.engine.add_template_owned(name.clone(), text) {
            return Err(render::explained(&why, &name, &sites));
        }
        if let Ok(compiled) = self.engine.get_template(&name) {
            let known = |field: &String| engine::GLOBALS.contains(&field.split('.').next().unwrap_or_default());
            self.fields.extend(compiled.undeclared_variables(true).into_iter().filter(|field| !known(field)));
        }
        let rels = self.package.find(&parts::rels_of(&name)).map(|entry| self.package.read_text(entry, budget));
        self.filled.push(FilledPart { name, sites, rels: rels.transpose()? });
        Ok(())
    }

    /// The variables that a context has to have, with the paths of attributes where they can be told: `customer.name`.
    #[must_use]
    pub fn fields(&self) -> &BTreeSet<String> {
        &self.fields
    }

    /// Fills the template.
    ///
    /// # Errors
    /// 422: `undefined_variable`, `value_invalid`, `value_misplaced`, `render_failed`, `render_malformed`, and beyond the
    /// bounds `render_too_long` and `render_too_large`; 400 `template_syntax` for filters that there are none of.
    pub fn render(&self, context: &Json) -> Result<Vec<u8>, FillError> {
        render::render(self, context)
    }

    /// About how much memory it holds, in bytes.
    #[must_use]
    pub fn resident_bytes(&self) -> usize {
        /// What an environment and its filters take.
        const ENGINE: usize = 64 << 10;
        let packed: usize = self.package.entries().iter().map(crate::office::Entry::packed_length).sum();
        // Source, instructions and the places of tags.
        let sources = |part: &FilledPart| {
            let text = self.engine.get_template(&part.name).map_or(0, |template| template.source().len());
            2 * text + part.sites.len() * 512
        };
        ENGINE + packed + self.filled.iter().map(sources).sum::<usize>()
    }
}

/// Renderings of one document: what its parts became, by name.
type Outputs = HashMap<String, Vec<u8>>;

#[cfg(test)]
mod tests;
