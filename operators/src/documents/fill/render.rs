//! Renders a template with data: fills its parts, then writes the package.

use std::collections::{BTreeSet, HashMap};
use std::io;

use minijinja::ErrorKind;
use serde_json::Value as Json;

use super::docx_template::{Template, TemplatePart};
use super::engine_errors::{explained, whole_part};
use super::error::FillError;
use super::insert::{InsertContext, finish, too_large};
use super::relationships::{
    NewRelationships, Target, free_prefix, media_name, rels_of, with_relationships, with_types,
};
use super::values::{Data, TypedValue};
use crate::documents::office::Writer;

/// The rendered parts of one document, by lower-case name.
type Outputs = HashMap<String, Vec<u8>>;

impl Template {
    /// Fills the template.
    ///
    /// # Errors
    /// 422: `undefined_variable`, `value_invalid`, `value_misplaced`, `render_failed`, `render_malformed`, and beyond
    /// the limits `render_too_long` and `render_too_large`; 400 `template_syntax` for unknown filters.
    pub fn render(&self, data: &Json) -> Result<Vec<u8>, FillError> {
        render(self, data)
    }
}

fn render(template: &Template, data: &Json) -> Result<Vec<u8>, FillError> {
    let data = Data::of(data)?;
    let limits = &template.options.limits;
    let mut context = InsertContext::new(&data.typed, limits.part.as_usize(), limits.depth);
    let mut outputs = HashMap::new();
    let mut images = BTreeSet::new();
    for part in &template.parts {
        let prefix = free_prefix(part.rels.as_deref().unwrap_or_default());
        let mut links = NewRelationships { prefix, targets: Vec::new() };
        let rendered = fill(template, part, &data, context.limit)?;
        let finished = finish(&rendered, &mut context, &mut links).map_err(|why| why.at(whole_part(&part.name)))?;
        outputs.insert(part.name.to_ascii_lowercase(), finished.into_bytes());
        if !links.targets.is_empty() {
            let rels = with_relationships(part.rels.as_deref(), &links, &data.typed);
            outputs.insert(rels_of(&part.name).to_ascii_lowercase(), rels.into_bytes());
        }
        images.extend(links.targets.into_iter().filter_map(|target| match target {
            Target::Image(place) => Some(place),
            Target::Link(_) => None,
        }));
    }
    package(template, outputs, &images, &data.typed)
}

/// Runs the engine over one part.
fn fill(template: &Template, part: &TemplatePart, data: &Data, limit: usize) -> Result<String, FillError> {
    let explain = |why: &minijinja::Error| match why.kind() {
        ErrorKind::WriteFailure => too_large(limit).at(whole_part(&part.name)),
        _ => explained(why, &part.name, &part.sites),
    };
    let compiled = template.engine.get_template(&part.name).map_err(|why| explain(&why))?;
    let mut out = BoundedBuffer { bytes: Vec::with_capacity(compiled.source().len() * 2), limit };
    compiled.render_captured_to(data.root.clone(), &mut out).map_err(|why| explain(&why))?;
    String::from_utf8(out.bytes).map_err(|why| FillError::data("render_failed", why.to_string()))
}

/// A buffer that fails a write beyond its limit.
struct BoundedBuffer {
    bytes: Vec<u8>,
    limit: usize,
}

impl io::Write for BoundedBuffer {
    fn write(&mut self, more: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + more.len() > self.limit {
            return Err(io::Error::other("the output exceeds its limit"));
        }
        self.bytes.extend_from_slice(more);
        Ok(more.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes the package: rendered parts and new images, and everything else copied unchanged.
fn package(
    template: &Template,
    mut outputs: Outputs,
    images: &BTreeSet<usize>,
    typed: &[TypedValue],
) -> Result<Vec<u8>, FillError> {
    let limit = template.options.limits.file.as_usize();
    if !images.is_empty() {
        let kind = |place: &usize| match typed.get(*place) {
            Some(TypedValue::Image(image)) => Some(image.kind),
            _ => None,
        };
        let kinds = images.iter().filter_map(kind).collect();
        let types = with_types(&template.types, &kinds, template.options.limits.depth);
        outputs.insert("[content_types].xml".into(), types.into_bytes());
    }
    let mut writer = Writer::default();
    for entry in template.package.entries() {
        match outputs.remove(&entry.name.to_ascii_lowercase()) {
            Some(content) => writer.add(&entry.name, &content),
            None => writer.copy(&template.package, entry),
        }
        within(&writer, limit)?;
    }
    // The rest are relationships of parts that had none.
    for part in &template.parts {
        let name = rels_of(&part.name);
        if let Some(content) = outputs.remove(&name.to_ascii_lowercase()) {
            writer.add(&name, &content);
        }
    }
    for place in images {
        if let Some(TypedValue::Image(image)) = typed.get(*place) {
            writer.add_stored(&media_name(*place, typed), &image.bytes);
            within(&writer, limit)?;
        }
    }
    Ok(writer.finish())
}

fn within(writer: &Writer, limit: usize) -> Result<(), FillError> {
    if writer.len() > limit { Err(too_large(limit)) } else { Ok(()) }
}
