//! Parts of a DOCX by what they are to the document, and the records that name new ones.

use std::collections::BTreeSet;

use pipeline::Rejection;

use super::place::Links;
use super::values::Typed;
use crate::office::xml::{Token, TokenKind, Tokens};
use crate::office::{Budget, Package};

const RELATIONSHIPS: &str = "http://schemas.openxmlformats.org/package/2006/relationships";
const TYPES: &str = "http://schemas.openxmlformats.org/package/2006/content-types";
const OFFICE: &str = "http://schemas.openxmlformats.org/officeDocument/2006/relationships";
/// New pictures are parts `word/media/caudal1.png` and so on.
const MEDIA: &str = "word/media/caudal";

/// The parts that are filled, by name: the document, its headers, footers and footnotes, and the properties.
pub(super) struct Filled {
    pub(super) texts: Vec<String>,
    pub(super) properties: Option<String>,
}

/// The parts of a package that hold text to be filled in.
pub(super) fn filled(package: &Package, budget: &mut Budget, depth: usize) -> Result<Filled, Rejection> {
    let root = related(package, "", &["officeDocument", "core-properties"], budget, depth)?;
    let find = |wanted: &str| root.iter().find(|(kind, _)| kind == wanted).map(|(_, part)| part.clone());
    let missing = || Rejection::unusable("package_corrupt", "the package names no document part");
    let main = find("officeDocument").ok_or_else(missing)?;
    let kinds = ["header", "footer", "footnotes"];
    let mut texts = vec![main.clone()];
    for (_, part) in related(package, &main, &kinds, budget, depth)? {
        if !texts.contains(&part) && package.find(&part).is_some() {
            texts.push(part);
        }
    }
    Ok(Filled { texts, properties: find("core-properties").filter(|part| package.find(part).is_some()) })
}

/// The relationships of a part that are of one of `kinds`: kind and the part they lead to.
fn related(
    package: &Package,
    part: &str,
    kinds: &[&str],
    budget: &mut Budget,
    depth: usize,
) -> Result<Vec<(String, String)>, Rejection> {
    let name = rels_of(part);
    let Some(entry) = package.find(&name) else { return Ok(Vec::new()) };
    let text = package.read_text(entry, budget)?;
    let mut found = Vec::new();
    let mut tokens = Tokens::new(&text, depth);
    while let Ok(Some(token)) = tokens.read() {
        let (Some(kind), Some(target)) = (token.attribute("Type"), token.attribute("Target")) else { continue };
        let kind = kind.rsplit('/').next().unwrap_or_default().to_owned();
        if kinds.contains(&kind.as_str()) {
            found.push((kind, absolute(part, &target)));
        }
    }
    Ok(found)
}

/// The part that holds another one's relationships.
pub(super) fn rels_of(part: &str) -> String {
    let (folder, file) = part.rsplit_once('/').unwrap_or(("", part));
    let folder = if folder.is_empty() { String::new() } else { format!("{folder}/") };
    format!("{folder}_rels/{file}.rels")
}

/// The part that a relationship of `from` leads to.
fn absolute(from: &str, target: &str) -> String {
    if let Some(absolute) = target.strip_prefix('/') {
        return absolute.to_owned();
    }
    let mut path: Vec<&str> = from.split('/').collect();
    path.pop();
    for segment in target.split('/') {
        match segment {
            ".." => drop(path.pop()),
            "." | "" => {}
            plain => path.push(plain),
        }
    }
    path.join("/")
}

/// A prefix of ids that a part's relationships do not use.
pub(super) fn free_prefix(rels: &str) -> String {
    let mut prefix = String::from("rIdC");
    while rels.contains(&format!("\"{prefix}")) || rels.contains(&format!("'{prefix}")) {
        prefix.push('c');
    }
    prefix
}

/// Relationships with the new ones added.
pub(super) fn with_links(rels: Option<&str>, links: &Links, typed: &[Typed]) -> String {
    use super::place::Target;
    let mut added = String::new();
    for (place, target) in links.targets.iter().enumerate() {
        let id = format!("{}{}", links.prefix, place + 1);
        let (kind, target, mode) = match target {
            Target::Picture(place) => ("image", format!("/{}", media_name(*place, typed)), ""),
            Target::Link(address) => ("hyperlink", super::engine::escaped(address), r#" TargetMode="External""#),
        };
        added.push_str(&format!(
            r#"<Relationship xmlns="{RELATIONSHIPS}" Id="{id}" Type="{OFFICE}/{kind}" Target="{target}"{mode}/>"#
        ));
    }
    let empty =
        format!(r#"<?xml version="1.0" encoding="UTF-8" standalone="yes"?><Relationships xmlns="{RELATIONSHIPS}"/>"#);
    within_root(rels.unwrap_or(&empty), &added)
}

/// The name of the part of a picture.
pub(super) fn media_name(place: usize, typed: &[Typed]) -> String {
    let extension = match typed.get(place) {
        Some(Typed::Image(picture)) => picture.kind.0,
        _ => "bin",
    };
    format!("{MEDIA}{}.{extension}", place + 1)
}

/// Content types with those of the pictures added.
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

/// Puts XML in at the begin of the root element.
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
