//! Blocks that are not closed, or closed by the wrong tag, found before the engine does: it knows no paragraphs.

use super::{FillError, Site};

/// Statements that begin a block, and those that end it.
const BLOCKS: [(&str, &str); 6] = [
    ("for", "endfor"),
    ("if", "endif"),
    ("macro", "endmacro"),
    ("call", "endcall"),
    ("filter", "endfilter"),
    ("with", "endwith"),
];

/// Holds the tags of a part, in the order of the template, against each other.
pub(super) fn check(sites: &[Site]) -> Result<(), FillError> {
    let mut open: Vec<(&Site, &str)> = Vec::new();
    for site in sites {
        let Some((keyword, rest)) = &site.statement else { continue };
        if let Some(end) = ended_by(keyword, rest) {
            open.push((site, end));
        } else if keyword.starts_with("end") {
            match open.pop() {
                Some((_, end)) if end == keyword => {}
                Some((begun, end)) => {
                    let message = format!("this tag closes nothing: {} comes first, it closes {}", end, begun.place);
                    return Err(FillError::syntax(message, site.place.clone()));
                }
                None => return Err(FillError::syntax("this tag closes nothing", site.place.clone())),
            }
        }
    }
    match open.pop() {
        None => Ok(()),
        Some((site, end)) => {
            let message = format!("this tag is not closed; put {{% {end} %}} where it ends");
            Err(FillError::syntax(message, site.place.clone()))
        }
    }
}

/// What ends the block that a statement begins, if it begins one.
fn ended_by(keyword: &str, rest: &str) -> Option<&'static str> {
    // `{% set a = 1 %}` is whole, `{% set a %}` begins a block.
    if keyword == "set" && !rest.contains('=') {
        return Some("endset");
    }
    BLOCKS.iter().find(|(begin, _)| *begin == keyword).map(|(_, end)| *end)
}
