//! Documents: `template` stores templates, `typeset` and `fill` make a document of a template and data, `convert`
//! changes the format. [`office`] reads and checks office packages for all of them.

pub mod convert;
mod failure;
pub mod fill;
pub mod office;
pub mod template;
mod template_cache;
pub mod typeset;
