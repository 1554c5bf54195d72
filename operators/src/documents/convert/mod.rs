//! Converts office documents, with LibreOffice behind [`Converter`](pipeline::documents::Converter): parameters, type
//! detection, conversion, result cache, ZIP archive.

mod archive;
mod document_type;
mod export_settings;
mod gotenberg;
mod natural_order;
mod operator;
mod own_parameters;
mod parameters;
mod pdf_metadata;
mod request;
mod result_cache;
#[cfg(test)]
mod tests;

pub use operator::{ConvertSpec, KIND};
