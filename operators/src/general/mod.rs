//! Operators for any kind of event: `split` a form, `respond` to the request, `publish` into another flow, call a
//! `webhook`.

pub mod publish;
pub mod respond;
pub mod split;
mod vector_json;
pub mod webhook;
