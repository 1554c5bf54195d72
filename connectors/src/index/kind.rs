//! What defines a kind of index: its name, the config keys it takes, and how it is checked and opened.

use std::path::Path;
use std::sync::Arc;

use pipeline::{KeyProblem, VectorIndex};

use super::error::OpenError;
use super::spec::IndexSpec;

/// Opens an index, given its section and the folder for data.
pub type OpenIndex = fn(&IndexSpec, &Path) -> Result<Arc<dyn VectorIndex>, OpenError>;

/// One kind of index, as `[index] kind` names it.
#[derive(Clone, Copy, Debug)]
pub struct IndexKind {
    /// The value of `kind`.
    pub name: &'static str,
    /// Keys of `[index]` that this kind takes, besides `kind`; every other key that is set is a config problem.
    pub keys: &'static [&'static str],
    /// Whether several processes can use one index; false if it belongs to the process that opened it.
    pub shared: bool,
    /// Whether a section without `kind` means this one.
    pub is_implied_by: fn(&IndexSpec) -> bool,
    /// What is wrong with the values of its keys. No I/O.
    pub check: fn(&IndexSpec) -> Vec<KeyProblem>,
    /// Opens the index; `data_dir` is where an index that lives on this machine makes its folder. May block.
    pub open: OpenIndex,
}
