//! Finds blocks that are not closed, or closed by the wrong tag. The engine would find them too, but could not name the
//! paragraph.

use super::compilation::Site;
use crate::documents::fill::error::FillError;

/// Statements that open a block, and those that close it.
const BLOCKS: [(&str, &str); 6] = [
    ("for", "endfor"),
    ("if", "endif"),
    ("macro", "endmacro"),
    ("call", "endcall"),
    ("filter", "endfilter"),
    ("with", "endwith"),
];

/// Checks that the tags of a part, in template order, open and close each other.
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
                    let message =
                        format!("this tag closes nothing here: {} must come first, to close {}", end, begun.place);
                    return Err(FillError::syntax(message, site.place.clone()));
                }
                None => {
                    return Err(FillError::syntax(
                        "this tag closes nothing; remove it, or open its block before it",
                        site.place.clone(),
                    ));
                }
            }
        }
    }
    match open.pop() {
        None => Ok(()),
        Some((site, end)) => {
            let message = format!("this tag is not closed; put {{% {end} %}} where its block ends");
            Err(FillError::syntax(message, site.place.clone()))
        }
    }
}

/// The statement that closes the block, if this statement opens one.
fn ended_by(keyword: &str, rest: &str) -> Option<&'static str> {
    // `{% set a = 1 %}` is complete, `{% set a %}` opens a block.
    if keyword == "set" && !rest.contains('=') {
        return Some("endset");
    }
    BLOCKS.iter().find(|(begin, _)| *begin == keyword).map(|(_, end)| *end)
}
