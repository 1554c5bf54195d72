//! Checks the relationships of an OOXML part: what it refers to, inside and outside the package.

use std::collections::HashSet;

use pipeline::Rejection;

use super::link_scheme::{runs, scheme};
use super::rejection::refused;
use crate::documents::office::limits::Limits;
use crate::documents::office::package::malformed;
use crate::documents::office::xml::{TokenKind, Tokens};

/// Relationship types that are always rejected, by their last segment in lower case.
const REFUSED: &[(&str, &str, &str)] = &[
    ("oleobject", "embedded_object", "an OLE object"),
    ("vbaproject", "document_macros", "macros"),
    ("wordvbadata", "document_macros", "macros"),
    ("xlmacrosheet", "document_macros", "macros"),
    ("xlintlmacrosheet", "document_macros", "macros"),
    ("control", "embedded_object", "an ActiveX control"),
    ("activexcontrolbinary", "embedded_object", "an ActiveX control"),
    ("ctrlprop", "embedded_object", "a form control"),
    ("afchunk", "external_content", "an imported document (altChunk)"),
    ("attachedtemplate", "external_content", "an attached template"),
    ("attachedtoolbars", "document_macros", "attached toolbars"),
    ("keymapcustomizations", "document_macros", "key bindings"),
    ("subdocument", "external_content", "a sub-document"),
    ("frame", "external_content", "a frame"),
    ("externallink", "external_content", "a link to another workbook"),
    ("externallinkpath", "external_content", "a link to another workbook"),
    ("connections", "external_content", "a data connection"),
    ("querytable", "external_content", "a data query"),
    ("mailmergesource", "external_content", "a mail merge source"),
    ("mailmergeheadersource", "external_content", "a mail merge source"),
    ("recipientdata", "external_content", "mail merge recipients"),
    ("officescript", "document_macros", "a script"),
];

const REMEDY: &str = "remove it in the program the document was made with, and save again";

/// Checks one `.rels` part. Adds the data of charts to `workbooks`.
pub(super) fn check(name: &str, text: &str, limits: &Limits, workbooks: &mut HashSet<String>) -> Result<(), Rejection> {
    let mut tokens = Tokens::new(text, limits.depth);
    while let Some(token) = tokens.read().map_err(|why| malformed(name, &why))? {
        if !matches!(token.kind, TokenKind::Open | TokenKind::Empty) || token.local_name() != "Relationship" {
            continue;
        }
        let read = |wanted| token.attribute(wanted).unwrap_or_default();
        let (kind, target, mode) = (read("Type"), read("Target"), read("TargetMode"));
        let kind = kind.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
        if let Some((_, code, what)) = REFUSED.iter().find(|(refused, ..)| *refused == kind) {
            return Err(refused(code, name, what, REMEDY));
        }
        if mode.eq_ignore_ascii_case("External") {
            external(name, &kind, &target)?;
        } else if let Some(scheme) = scheme(&target) {
            return Err(external_refused(name, &kind, &scheme));
        } else if kind == "package" {
            workbooks.insert(chart_data(name, &target)?);
        }
    }
    Ok(())
}

/// Allows only hyperlinks to refer to the outside: a conversion does not follow them.
fn external(name: &str, kind: &str, target: &str) -> Result<(), Rejection> {
    let scheme = scheme(target).unwrap_or_else(|| "relative".into());
    if kind != "hyperlink" {
        return Err(external_refused(name, kind, &scheme));
    }
    if runs(&scheme) {
        let what = format!("a hyperlink of scheme {scheme:?}");
        return Err(refused("unsafe_link", name, what, "link to http, https or mailto URLs"));
    }
    Ok(())
}

fn external_refused(name: &str, kind: &str, scheme: &str) -> Rejection {
    let kind: String = kind.chars().take(40).collect();
    let what = format!("an external {kind} (a {scheme} URL)");
    refused("external_content", name, what, "embed it in the document instead of linking it")
}

/// The path of the workbook of a chart; any other embedded package is rejected.
fn chart_data(name: &str, target: &str) -> Result<String, Rejection> {
    let lower = name.to_ascii_lowercase();
    let of_chart = lower.contains("/charts/_rels/");
    let path = of_chart.then(|| resolve(&lower, &target.to_ascii_lowercase())).flatten();
    path.filter(|path| path.ends_with(".xlsx")).ok_or_else(|| {
        let remedy = "remove the embedded file, or insert it as an image";
        refused("embedded_package", name, "an embedded package", remedy)
    })
}

/// The path of a relationship's target: `word/charts/_rels/chart1.xml.rels` and `../embeddings/a.xlsx` give
/// `word/embeddings/a.xlsx`.
fn resolve(rels: &str, target: &str) -> Option<String> {
    if let Some(absolute) = target.strip_prefix('/') {
        return Some(absolute.to_owned());
    }
    let mut path: Vec<&str> = rels.split('/').collect();
    path.truncate(path.len().checked_sub(2)?);
    for segment in target.split('/') {
        match segment {
            ".." => drop(path.pop()?),
            "." | "" => {}
            plain => path.push(plain),
        }
    }
    Some(path.join("/"))
}
