//! Inserts typed values into rendered parts, and repairs what loops and conditions have left inconsistent.

mod content;
mod context;
mod document;
mod table_grid;

pub(super) use context::InsertContext;
pub(super) use document::{finish, too_large};
