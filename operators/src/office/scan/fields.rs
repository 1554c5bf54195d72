//! Field codes of Word: which of them would fetch something.
//!
//! A code may be spread over any number of runs between the field's begin and its end, with other fields inside of it.

use super::Limits;

/// Fields that take their result from outside of the document, by the first word of their code.
const FETCHING: [&str; 11] = [
    "DDE",
    "DDEAUTO",
    "INCLUDE",
    "INCLUDEPICTURE",
    "INCLUDETEXT",
    "IMPORT",
    "LINK",
    "DATABASE",
    "RD",
    "EMBED",
    "AUTOTEXTLIST",
];
/// A keyword is within the first characters of a code; the rest of it need not be kept.
const HEAD: usize = 64;

/// The codes of the fields that are open at a place of a part, from the outermost.
#[derive(Default)]
pub(super) struct Fields {
    open: Vec<String>,
}

impl Fields {
    /// A field begins.
    pub(super) fn begin(&mut self, limits: &Limits) {
        if self.open.len() < limits.depth {
            self.open.push(String::new());
        }
    }

    /// A piece of a code; without a field around it, of one of its own.
    pub(super) fn code(&mut self, text: &str) -> Option<&'static str> {
        let Some(head) = self.open.last_mut() else { return fetching(text) };
        let room = HEAD.saturating_sub(head.len());
        head.extend(text.chars().take(room));
        None
    }

    /// The code of the innermost field is complete, or the field ends.
    pub(super) fn complete(&mut self, ends: bool) -> Option<&'static str> {
        let found = self.open.last().and_then(|code| fetching(code));
        if ends {
            self.open.pop();
        }
        found
    }

    /// The part ends: a field that does not is read by some programs all the same.
    pub(super) fn rest(&self) -> Option<&'static str> {
        self.open.iter().find_map(|code| fetching(code))
    }
}

/// The keyword of a code, if it fetches.
pub(super) fn fetching(code: &str) -> Option<&'static str> {
    let code = code.trim_start_matches(|c: char| !c.is_alphanumeric());
    let word: String = code.chars().take_while(|c| c.is_alphanumeric()).collect();
    FETCHING.into_iter().find(|keyword| word.eq_ignore_ascii_case(keyword))
}
