//! Templates of documents, stored by the broker under names: every process sees the same ones, after every restart.
//!
//! A template has versions, named by the SHA-256 of their bytes; where no version is named, the newest is used. Its record
//! names the versions and their bodies. A second record, one for each tenant, lists the names. Both are replaced by
//! compare-and-set, so that writers at the same time lose nothing.

mod store;
mod template;
#[cfg(test)]
mod tests;

pub use store::{MOST_TEMPLATES, MOST_VERSIONS, TemplateError, Templates};
pub use template::{Template, TemplateKind, TemplateSummary, Version};
