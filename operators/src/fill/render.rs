//! One rendering: fills the parts, then writes the package.

use std::collections::{BTreeSet, HashMap};
use std::io;

use minijinja::ErrorKind;
use serde_json::Value as Json;

use super::compile::Site;
use super::error::{FillError, Place};
use super::place::{Links, Shared, Target, finish, too_large};
use super::values::{Data, Typed};
use super::{FilledPart, Outputs, Template, parts};
use crate::office::Writer;

/// Fills a template.
pub(super) fn render(template: &Template, context: &Json) -> Result<Vec<u8>, FillError> {
    let data = Data::of(context)?;
    let limits = &template.options.limits;
    let mut shared = Shared::new(&data.typed, limits.part.as_usize(), limits.depth);
    let mut outputs = HashMap::new();
    let mut pictures = BTreeSet::new();
    for part in &template.filled {
        let prefix = parts::free_prefix(part.rels.as_deref().unwrap_or_default());
        let mut links = Links { prefix, targets: Vec::new() };
        let rendered = fill(template, part, &data, shared.limit)?;
        let finished = finish(&rendered, &mut shared, &mut links).map_err(|why| why.at(of_part(&part.name)))?;
        outputs.insert(part.name.to_ascii_lowercase(), finished.into_bytes());
        if !links.targets.is_empty() {
            let rels = parts::with_links(part.rels.as_deref(), &links, &data.typed);
            outputs.insert(parts::rels_of(&part.name).to_ascii_lowercase(), rels.into_bytes());
        }
        pictures.extend(links.targets.into_iter().filter_map(|target| match target {
            Target::Picture(place) => Some(place),
            Target::Link(_) => None,
        }));
    }
    package(template, outputs, &pictures, &data.typed)
}

/// The place that is a whole part.
fn of_part(name: &str) -> Place {
    Place { part: name.to_owned(), ..Place::default() }
}

/// Runs the engine over one part.
fn fill(template: &Template, part: &FilledPart, data: &Data, limit: usize) -> Result<String, FillError> {
    let explain = |why: &minijinja::Error| match why.kind() {
        ErrorKind::WriteFailure => too_large(limit).at(of_part(&part.name)),
        _ => explained(why, &part.name, &part.sites),
    };
    let compiled = template.engine.get_template(&part.name).map_err(|why| explain(&why))?;
    let mut out = Bounded { bytes: Vec::with_capacity(compiled.source().len() * 2), limit };
    compiled.render_captured_to(data.root.clone(), &mut out).map_err(|why| explain(&why))?;
    String::from_utf8(out.bytes).map_err(|why| FillError::data("render_failed", why.to_string()))
}

/// Takes no more than its limit.
struct Bounded {
    bytes: Vec<u8>,
    limit: usize,
}

impl io::Write for Bounded {
    fn write(&mut self, more: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + more.len() > self.limit {
            return Err(io::Error::other("the output is beyond its bound"));
        }
        self.bytes.extend_from_slice(more);
        Ok(more.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An error of the engine, with the tag it happened at.
pub(super) fn explained(why: &minijinja::Error, part: &str, sites: &[Site]) -> FillError {
    let place = site_of(why, sites).map_or_else(|| of_part(part), |site| site.place.clone());
    let said = why.detail().map_or_else(|| why.kind().to_string(), |detail| format!("{}: {detail}", why.kind()));
    let said: String = said.chars().take(300).collect();
    let error = match why.kind() {
        ErrorKind::UndefinedError => {
            let message = "the template names a variable that the data do not have; give it, or use the filter default";
            FillError::data("undefined_variable", message)
        }
        ErrorKind::OutOfFuel => {
            let message = "filling the template takes more steps than allowed; give it fewer rows, or divide it";
            FillError::data("render_too_long", message)
        }
        ErrorKind::SyntaxError
        | ErrorKind::UnknownFilter
        | ErrorKind::UnknownTest
        | ErrorKind::UnknownFunction
        | ErrorKind::TemplateNotFound => return FillError::syntax(said, place),
        _ => FillError::data("render_failed", said),
    };
    error.at(place)
}

/// The last tag that begins at or before the place of an error.
fn site_of<'s>(why: &minijinja::Error, sites: &'s [Site]) -> Option<&'s Site> {
    let at = why.range()?.start;
    let behind = sites.partition_point(|site| site.offset <= at);
    sites.get(behind.saturating_sub(1))
}

/// Writes the package: filled parts anew, pictures added, everything else as it was.
fn package(
    template: &Template,
    mut outputs: Outputs,
    pictures: &BTreeSet<usize>,
    typed: &[Typed],
) -> Result<Vec<u8>, FillError> {
    let limit = template.options.limits.file.as_usize();
    if !pictures.is_empty() {
        let kind = |place: &usize| match typed.get(*place) {
            Some(Typed::Image(picture)) => Some(picture.kind),
            _ => None,
        };
        let kinds = pictures.iter().filter_map(kind).collect();
        let types = parts::with_types(&template.types, &kinds, template.options.limits.depth);
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
    // What is left are relationships of parts that had none.
    for part in &template.filled {
        let name = parts::rels_of(&part.name);
        if let Some(content) = outputs.remove(&name.to_ascii_lowercase()) {
            writer.add(&name, &content);
        }
    }
    for place in pictures {
        if let Some(Typed::Image(picture)) = typed.get(*place) {
            writer.add_stored(&parts::media_name(*place, typed), &picture.bytes);
            within(&writer, limit)?;
        }
    }
    Ok(writer.finish())
}

fn within(writer: &Writer, limit: usize) -> Result<(), FillError> {
    if writer.len() > limit { Err(too_large(limit)) } else { Ok(()) }
}
