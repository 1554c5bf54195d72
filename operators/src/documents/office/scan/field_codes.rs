//! Field codes of Word: detects those that would fetch something.
//!
//! A code may be spread over any number of runs between the begin and the end of its field, and contain other fields.

use crate::documents::office::limits::Limits;

/// Fields that take their result from outside the document, by the first word of their code.
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
/// Characters of a code that are stored: its keyword comes first.
const HEAD: usize = 64;

/// The codes of the fields that are open at the current position, from the outermost.
#[derive(Default)]
pub(super) struct FieldCodes {
    open: Vec<String>,
}

impl FieldCodes {
    /// A field begins.
    pub(super) fn begin(&mut self, limits: &Limits) {
        if self.open.len() < limits.depth {
            self.open.push(String::new());
        }
    }

    /// A piece of a code. Outside any field it is a complete code.
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

    /// The part ends: some programs read a field that is still open.
    pub(super) fn rest(&self) -> Option<&'static str> {
        self.open.iter().find_map(|code| fetching(code))
    }
}

/// The keyword of a code, if it fetches something.
pub(super) fn fetching(code: &str) -> Option<&'static str> {
    let code = code.trim_start_matches(|c: char| !c.is_alphanumeric());
    let word: String = code.chars().take_while(|c| c.is_alphanumeric()).collect();
    FETCHING.into_iter().find(|keyword| word.eq_ignore_ascii_case(keyword))
}
