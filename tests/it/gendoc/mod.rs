//! GenDoc (`config/gendoc.toml`): templates, rendering and conversion with a real LibreOffice.

mod fixtures;
mod gotenberg;
mod hostile_documents;
mod no_libreoffice;
mod render;
mod templates;
mod webhook;
mod worker_kills;
