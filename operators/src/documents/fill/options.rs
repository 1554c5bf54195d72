//! Options of a template: escaping, undefined variables, and limits.

use super::engine::Undefined;
use crate::documents::office::Limits;

/// Instructions of the template engine per part: about 200 000 rows of five cells, or a second.
const DEFAULT_FUEL: u64 = 10_000_000;

/// Options of a template.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whether values are escaped (the default). Otherwise they may contain WordprocessingML markup, as in docxtpl.
    pub autoescape: bool,
    /// How a variable that is missing in the data is treated.
    pub undefined: Undefined,
    /// Instructions of the template engine per part, after which it is stopped.
    pub fuel: u64,
    /// Limits of the template and of the document: `part` for each part, `file` for the package.
    pub limits: Limits,
}

impl Default for Options {
    fn default() -> Self {
        Self { autoescape: true, undefined: Undefined::default(), fuel: DEFAULT_FUEL, limits: Limits::default() }
    }
}
