//! The rejection of content that refers to the outside of a document, or runs.

use pipeline::Rejection;

/// 422: something in a document refers to the outside of it, or runs.
pub(super) fn refused(code: &'static str, part: &str, what: impl std::fmt::Display, remedy: &str) -> Rejection {
    Rejection::unusable(code, format!("part {part:?} contains {what}, which is not allowed; {remedy}"))
}
