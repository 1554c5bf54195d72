//! The document converter as a trait, and what it is asked.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::Instant;

use super::error::ConvertError;
use super::finish::{Finishing, Named};
use super::format::Format;
use super::options::Options;
use crate::fault::BoxError;
use crate::registry::Service;

/// A document to convert.
#[derive(Clone, Debug)]
pub struct Conversion {
    /// The document.
    pub input: Bytes,
    /// Format of the document.
    pub from: Format,
    /// Format of the result.
    pub to: Format,
    /// Options of the conversion.
    pub options: Options,
    /// Documents of one class take about the same time, for example those of one template; a worker that gets slower at
    /// them is replaced. If empty, the pair of formats is the class.
    pub class: String,
    /// After this the result is of no use.
    pub deadline: Instant,
}

/// The result of a conversion.
#[derive(Clone, Debug)]
pub struct Converted {
    /// One file, or an image per page, in order.
    pub files: Vec<Bytes>,
    /// Pages of a PDF, number of images, or 0 where the format has neither.
    pub pages: u32,
    /// Time LibreOffice took to read.
    pub load: Duration,
    /// Time LibreOffice took to write.
    pub save: Duration,
    /// Processor time of LibreOffice, in steps of 10 ms.
    pub cpu: Duration,
}

/// Converts documents, outside this process and within limits of its own.
#[async_trait]
pub trait Converter: Send + Sync {
    /// Converts one document. The conversion runs to its end even if the caller stops waiting.
    ///
    /// # Errors
    /// See [`ConvertError`].
    async fn convert(&self, conversion: Conversion) -> Result<Converted, ConvertError>;

    /// Merges and splits PDFs, sets their metadata and encrypts them, whichever program made them.
    ///
    /// # Errors
    /// See [`ConvertError`].
    async fn finish(&self, finishing: Finishing) -> Result<Vec<Named>, ConvertError>;

    /// Number of conversions that run at once.
    fn workers(&self) -> usize;

    /// Whether documents can be converted now, for `/ready`.
    ///
    /// # Errors
    /// What is wrong, for the log.
    async fn ready(&self) -> Result<(), BoxError>;

    /// Waits for running conversions and ends every worker; called once, after the last flow has drained.
    async fn close(&self);
}

impl Service for dyn Converter {
    const WHAT: &'static str = "document converter";
    const SECTION: &'static str = "office";
    const HAS_DEFAULTS: bool = true;
}
