//! What the parts of one document share while values are inserted.

use crate::documents::fill::values::TypedValue;

/// Drawings are renumbered from this id on, so that copies in a loop do not share one.
pub(super) const FIRST_DRAWING: u32 = 1_001;

/// State shared by the parts of one document.
pub(in crate::documents::fill) struct InsertContext<'d> {
    pub(in crate::documents::fill) typed: &'d [TypedValue],
    /// Id of the next drawing.
    pub(in crate::documents::fill) drawing: u32,
    /// Largest part, in bytes.
    pub(in crate::documents::fill) limit: usize,
    pub(in crate::documents::fill) max_depth: usize,
}

impl<'d> InsertContext<'d> {
    pub(in crate::documents::fill) fn new(typed: &'d [TypedValue], limit: usize, max_depth: usize) -> Self {
        Self { typed, drawing: FIRST_DRAWING, limit, max_depth }
    }
}
