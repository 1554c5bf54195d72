//! Relationships and content types: names new images and hyperlinks in the records of the package.

use std::collections::BTreeSet;

use super::engine::escaped;
use super::values::TypedValue;
use crate::documents::office::xml::{Token, TokenKind, Tokens};

const RELATIONSHIPS: &str = "http://schemas.openxmlformats.org/package/2006/relationships";
const TYPES: &str = "http://schemas.openxmlformats.org/package/2006/content-types";
const OFFICE: &str = "http://schemas.openxmlformats.org/officeDocument/2006/relationships";
/// New images are parts `word/media/caudal1.png` and so on.
const MEDIA: &str = "word/media/caudal";

/// New relationships of one part.
#[derive(Default)]
pub(super) struct NewRelationships {
    /// Prefix of the ids, which no existing id of the part has.
    pub(super) prefix: String,
    /// Images and hyperlinks, in the order of their ids.
    pub(super) targets: Vec<Target>,
}

/// The target of a relationship.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// The image at that index of the typed values.
    Image(usize),
    /// A URL.
    Link(String),
}

impl NewRelationships {
    /// The id of the relationship to a target; added if it is new.
    pub(super) fn id(&mut self, target: Target) -> String {
        let place = self.targets.iter().position(|existing| *existing == target).unwrap_or_else(|| {
            self.targets.push(target);
            self.targets.len() - 1
        });
        format!("{}{}", self.prefix, place + 1)
    }
}

/// The name of the relationships part of a part.
pub(super) fn rels_of(part: &str) -> String {
    let (folder, file) = part.rsplit_once('/').unwrap_or(("", part));
    let folder = if folder.is_empty() { String::new() } else { format!("{folder}/") };
    format!("{folder}_rels/{file}.rels")
}

/// A prefix of ids that the relationships of a part do not use.
pub(super) fn free_prefix(rels: &str) -> String {
    let mut prefix = String::from("rIdC");
    while rels.contains(&format!("\"{prefix}")) || rels.contains(&format!("'{prefix}")) {
        prefix.push('c');
    }
    prefix
}

/// Relationships with the new ones added.
pub(super) fn with_relationships(rels: Option<&str>, links: &NewRelationships, typed: &[TypedValue]) -> String {
    let mut added = String::new();
    for (place, target) in links.targets.iter().enumerate() {
        let id = format!("{}{}", links.prefix, place + 1);
        let (kind, target, mode) = match target {
            Target::Image(place) => ("image", format!("/{}", media_name(*place, typed)), ""),
            Target::Link(address) => ("hyperlink", escaped(address), r#" TargetMode="External""#),
        };
        added.push_str(&format!(
            r#"<Relationship xmlns="{RELATIONSHIPS}" Id="{id}" Type="{OFFICE}/{kind}" Target="{target}"{mode}/>"#
        ));
    }
    let empty =
        format!(r#"<?xml version="1.0" encoding="UTF-8" standalone="yes"?><Relationships xmlns="{RELATIONSHIPS}"/>"#);
    within_root(rels.unwrap_or(&empty), &added)
}

/// The part name of an image.
pub(super) fn media_name(place: usize, typed: &[TypedValue]) -> String {
    let extension = match typed.get(place) {
        Some(TypedValue::Image(image)) => image.kind.0,
        _ => "bin",
    };
    format!("{MEDIA}{}.{extension}", place + 1)
}

/// Content types with those of the images added.
pub(super) fn with_types(types: &str, kinds: &BTreeSet<(&str, &str)>, depth: usize) -> String {
    let mut known = BTreeSet::new();
    let mut tokens = Tokens::new(types, depth);
    while let Ok(Some(token)) = tokens.read() {
        if token.local_name() == "Default" {
            known.extend(token.attribute("Extension").map(|extension| extension.to_ascii_lowercase()));
        }
    }
    let missing = kinds.iter().filter(|(extension, _)| !known.contains(*extension));
    let one = |(extension, kind): &(&str, &str)| {
        format!(r#"<Default xmlns="{TYPES}" Extension="{extension}" ContentType="{kind}"/>"#)
    };
    within_root(types, &missing.map(one).collect::<String>())
}

/// Inserts XML at the start of the root element.
fn within_root(xml: &str, added: &str) -> String {
    let mut tokens = Tokens::new(xml, usize::MAX);
    while let Ok(Some(token)) = tokens.read() {
        let Token { kind, raw, at } = token;
        match kind {
            TokenKind::Open => {
                let (before, behind) = xml.split_at(at + raw.len());
                return format!("{before}{added}{behind}");
            }
            TokenKind::Empty => {
                let opened = raw.trim_end_matches("/>");
                return format!("{}{opened}>{added}</{}>{}", &xml[..at], token.name(), &xml[at + raw.len()..]);
            }
            _ => {}
        }
    }
    xml.to_owned()
}
