//! GenDoc: templates in, documents out, by a real LibreOffice.

mod docx;
mod gotenberg;
mod hostile;
mod markers;
mod missing;
mod render;
mod templates;
mod webhook;
