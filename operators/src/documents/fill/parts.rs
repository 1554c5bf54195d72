//! Finds the parts of a DOCX that are filled, by the package's relationships.

use pipeline::Rejection;

use super::relationships::rels_of;
use crate::documents::office::xml::Tokens;
use crate::documents::office::{Budget, Package};

/// The names of the parts that are filled: the document, its headers, footers and footnotes, and the properties.
pub(super) struct FillableParts {
    pub(super) texts: Vec<String>,
    pub(super) properties: Option<String>,
}

/// Finds the parts of a package that may have tags.
pub(super) fn find(package: &Package, budget: &mut Budget, depth: usize) -> Result<FillableParts, Rejection> {
    let root = related(package, "", &["officeDocument", "core-properties"], budget, depth)?;
    let root_part = |wanted: &str| root.iter().find(|(kind, _)| kind == wanted).map(|(_, part)| part.clone());
    let missing = || Rejection::unusable("package_corrupt", "the package has no document part");
    let main = root_part("officeDocument").ok_or_else(missing)?;
    let kinds = ["header", "footer", "footnotes"];
    let mut texts = vec![main.clone()];
    for (_, part) in related(package, &main, &kinds, budget, depth)? {
        if !texts.contains(&part) && package.find(&part).is_some() {
            texts.push(part);
        }
    }
    Ok(FillableParts { texts, properties: root_part("core-properties").filter(|part| package.find(part).is_some()) })
}

/// The relationships of a part that are of one of `kinds`: their kind and target part.
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

/// The target part of a relationship of `from`.
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
