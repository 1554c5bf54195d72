//! Renders PDFs with typst, in this process: a template and data in, a PDF out.
//!
//! A template is one text in typst's language. It gets its data by `#let data = json("data.json")`; there is no other
//! file, no package, no clock, and no font but those included with typst. Text from the data stays text, whatever it
//! contains. Images may be in the data as `data:` URLs: `#image(data.logo)`.
//!
//! **Limits.** typst itself stops `while` loops after 10 000 iterations and calls after 80 levels, and nothing else.
//! Here each loop iteration and each call counts as a step ([`Options::steps`], see `metering`), and time is checked
//! at each step and each piece of text ([`Options::time`]); `range`, `lorem` and products are limited. Not limited is
//! work without steps or text, and memory: text doubled by `s + s`, content doubled in itself (`[#a#a]`), a table of a
//! billion columns. Only a malicious author writes such a template, so clients that may store templates must be trusted
//! with the memory of the process.

mod check_source;
mod data_access;
mod data_fields;
mod error;
mod library;
mod metering;
mod operator;
mod options;
mod place;
mod render;
#[cfg(test)]
mod tests;
mod typst_template;
mod world;

pub use error::TypesetError;
pub use operator::{KIND, TypesetSpec};
pub use options::{Options, Standard};
pub use place::Place;
pub use typst_template::Template;
