//! Fills DOCX templates: docxtpl's language on the engine minijinja, with all other parts of the package unchanged.
//!
//! A [`Template`] is compiled once: each part with tags becomes a template of the engine (`compile`). A rendering
//! runs the engine over these parts (`render`), inserts images and formatted text (`insert`), and writes a new
//! package, copying everything else with its compressed bytes.
//!
//! As in docxtpl: the tags and their prefixes, which element a tag replaces and in which order, the formatting of a tag
//! spread over runs, the control characters of texts, and how values print. Different on purpose: values are escaped by
//! default; a missing variable is an error by default; strings may contain `%` and `}`; of several tags in one row none
//! is lost; text beside `{{r` keeps its formatting, and beside `{%-` its position; templates cannot access Python or
//! other files.

mod compile;
mod docx_template;
mod engine;
mod engine_errors;
mod error;
mod hyperlink;
mod image;
mod insert;
mod operator;
mod options;
mod parts;
mod relationships;
mod render;
mod tag;
#[cfg(test)]
mod tests;
mod values;
mod xml_tree;

pub use docx_template::Template;
pub use engine::Undefined;
pub use error::{FillError, Place};
pub use operator::{FillSpec, KIND};
pub use options::Options;
