//! Documents: their formats, what a conversion may be asked for, and the engine behind it as a trait.

mod error;
mod finish;
mod format;
mod options;

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::Instant;

pub use error::ConvertError;
pub use finish::{Entry, Finish, Finishing, LONGEST_PASSWORD, Lock, Named, Split};
pub use format::{Family, Format};
pub use options::{InvalidOption, Options, PdfVersion, Setting, page_ranges};

use crate::BoxError;

/// A document to convert.
#[derive(Clone, Debug)]
pub struct Conversion {
    /// The document.
    pub input: Bytes,
    /// What it is.
    pub from: Format,
    /// What it shall become.
    pub to: Format,
    /// How.
    pub options: Options,
    /// Documents of one class take about as long as each other, for example those of one template; a worker that gets
    /// slower at them is replaced. The pair of formats, where it is empty.
    pub class: String,
    /// When the answer is of no use any more.
    pub deadline: Instant,
}

/// What a document became.
#[derive(Clone, Debug)]
pub struct Converted {
    /// One file, or a picture per page, in order.
    pub files: Vec<Bytes>,
    /// Pages of a PDF, number of pictures, or 0 where the format has none.
    pub pages: u32,
    /// Reading, by the engine.
    pub load: Duration,
    /// Writing, by the engine.
    pub save: Duration,
    /// Processor time of the engine, to 10 ms.
    pub cpu: Duration,
}

/// Converts documents, away from this process and within bounds of its own.
#[async_trait]
pub trait Converter: Send + Sync {
    /// Converts one document. It is worked on to its end even if nobody waits for it any more.
    ///
    /// # Errors
    /// As [`ConvertError`] says.
    async fn convert(&self, conversion: Conversion) -> Result<Converted, ConvertError>;

    /// Merges, splits, describes and locks PDFs, whoever made them.
    ///
    /// # Errors
    /// As [`ConvertError`] says.
    async fn finish(&self, finishing: Finishing) -> Result<Vec<Named>, ConvertError>;

    /// Conversions that run at once.
    fn workers(&self) -> usize;

    /// Whether documents are converted right now: for `/ready`.
    ///
    /// # Errors
    /// What is wrong, for the log.
    async fn ready(&self) -> Result<(), BoxError>;

    /// Waits for what is being converted and ends every worker; called once, after the last flow has drained.
    async fn close(&self);
}
