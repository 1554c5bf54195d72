//! A compiled DOCX template.

use std::collections::BTreeSet;

use bytes::Bytes;
use minijinja::Environment;

use super::compile::{self, Site};
use super::engine_errors::explained;
use super::error::FillError;
use super::options::Options;
use super::relationships::rels_of;
use super::{engine, parts};
use crate::documents::office::{Budget, Entry, Kind, Package, scan};

/// A compiled template; shared between renderings.
pub struct Template {
    pub(super) package: Package,
    pub(super) engine: Environment<'static>,
    pub(super) options: Options,
    /// Parts with tags, in the order they are filled.
    pub(super) parts: Vec<TemplatePart>,
    /// `[Content_Types].xml`.
    pub(super) types: String,
    fields: BTreeSet<String>,
}

/// A part with tags.
pub(super) struct TemplatePart {
    pub(super) name: String,
    pub(super) sites: Vec<Site>,
    /// Its relationships part, if it has one.
    pub(super) rels: Option<String>,
}

impl std::fmt::Debug for Template {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Template({} parts to fill, {} fields)", self.parts.len(), self.fields.len())
    }
}

impl Template {
    /// Checks and compiles a template. The package must pass [`scan`], because its content is copied into every
    /// document.
    ///
    /// # Errors
    /// Those of [`scan`]; 400 `template_syntax` with the place.
    pub fn compile(bytes: Bytes, options: &Options) -> Result<Self, FillError> {
        let limits = &options.limits;
        let scanned = scan(&bytes, &[Kind::Docx], limits)?;
        let package = scanned.package.map_or_else(|| Package::open(bytes, limits), Ok)?;
        let mut budget = Budget::of(limits);
        let found = parts::find(&package, &mut budget, limits.depth)?;
        let mut engine = engine::environment(options.autoescape, options.undefined);
        engine.set_fuel(Some(options.fuel));
        let types = package.find("[Content_Types].xml").map(|entry| package.read_text(entry, &mut budget));
        let types = types.transpose()?.unwrap_or_default();
        let mut template =
            Self { package, engine, options: options.clone(), parts: Vec::new(), types, fields: BTreeSet::new() };
        for name in found.texts.into_iter().chain(found.properties) {
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
            return Err(explained(&why, &name, &sites));
        }
        if let Ok(compiled) = self.engine.get_template(&name) {
            let global = |field: &String| engine::GLOBALS.contains(&field.split('.').next().unwrap_or_default());
            self.fields.extend(compiled.undeclared_variables(true).into_iter().filter(|field| !global(field)));
        }
        let rels = self.package.find(&rels_of(&name)).map(|entry| self.package.read_text(entry, budget));
        self.parts.push(TemplatePart { name, sites, rels: rels.transpose()? });
        Ok(())
    }

    /// The variables that the data must have, with attribute paths where they can be determined: `customer.name`.
    #[must_use]
    pub fn fields(&self) -> &BTreeSet<String> {
        &self.fields
    }

    /// About how much memory it holds, in bytes.
    #[must_use]
    pub fn resident_bytes(&self) -> usize {
        /// Size of an environment with its filters.
        const ENGINE: usize = 64 << 10;
        let packed: usize = self.package.entries().iter().map(Entry::packed_length).sum();
        // Source, instructions and the places of tags.
        let sources = |part: &TemplatePart| {
            let text = self.engine.get_template(&part.name).map_or(0, |template| template.source().len());
            2 * text + part.sites.len() * 512
        };
        ENGINE + packed + self.parts.iter().map(sources).sum::<usize>()
    }
}
