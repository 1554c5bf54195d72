//! Why a document was not converted: a code, a status, and whether to try again.

use std::time::Duration;

use super::format::Format;
use super::options::InvalidOption;

/// Why a document was not converted.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ConvertError {
    /// The engine does not write that from this.
    #[error("{from} cannot become {to}")]
    UnsupportedConversion {
        /// What came.
        from: Format,
        /// What was asked for.
        to: Format,
    },
    /// An option is out of bounds or does not fit.
    #[error(transparent)]
    InvalidOption(#[from] InvalidOption),
    /// More bytes than are taken.
    #[error("the document has {size} bytes, at most {limit} are taken")]
    TooLarge {
        /// Of the input.
        size: u64,
        /// From the config.
        limit: u64,
    },
    /// The engine could not make sense of the document, or of what was asked of it.
    #[error("the document could not be converted: {0}")]
    Unreadable(String),
    /// Encrypted, and no password came.
    #[error("the document is encrypted: send its password in `password`")]
    PasswordRequired,
    /// Encrypted, and the password does not open it.
    #[error("the password does not open the document")]
    PasswordWrong,
    /// No PDF that can be taken apart.
    #[error("{0}")]
    PdfUnreadable(String),
    /// A PDF behind a password.
    #[error("{0}")]
    PdfEncrypted(String),
    /// It has not the pages that are asked for.
    #[error("{0}")]
    PagesMissing(String),
    /// The result would be more than is made.
    #[error("{0}")]
    ResultTooLarge(String),
    /// More are waiting than may.
    #[error("{waiting} conversions are waiting, which is the limit")]
    QueueFull {
        /// From the config.
        waiting: usize,
    },
    /// The deadline passed before a worker was free; nothing was tried.
    #[error("no worker was free before the deadline")]
    Busy,
    /// The worker was stopped at the deadline.
    #[error("the conversion took longer than {} ms", .after.as_millis())]
    Timeout {
        /// How long it ran.
        after: Duration,
    },
    /// The engine died of this document, twice.
    #[error("the engine died of this document ({signal}), {attempts} times")]
    EngineCrashed {
        /// How often it was tried.
        attempts: u32,
        /// The signal or exit code of the last attempt, in words.
        signal: String,
    },
    /// The work folder failed: full, read-only or gone.
    #[error("the work folder of the document engine is not usable: {0}")]
    Storage(String),
    /// The pool is closing.
    #[error("the document engine is stopping")]
    Stopping,
}

impl ConvertError {
    /// A stable name, for programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnsupportedConversion { .. } => "unsupported_conversion",
            Self::InvalidOption(_) => "invalid_option",
            Self::TooLarge { .. } => "document_too_large",
            Self::Unreadable(_) => "document_unreadable",
            Self::PasswordRequired => "password_required",
            Self::PasswordWrong => "password_wrong",
            Self::PdfUnreadable(_) => "pdf_unreadable",
            Self::PdfEncrypted(_) => "pdf_encrypted",
            Self::PagesMissing(_) => "pages_missing",
            Self::ResultTooLarge(_) => "result_too_large",
            Self::QueueFull { .. } => "queue_full",
            Self::Busy => "busy",
            Self::Timeout { .. } => "conversion_timeout",
            Self::EngineCrashed { .. } => "engine_crashed",
            Self::Storage(_) => "storage_failed",
            Self::Stopping => "stopping",
        }
    }

    /// The HTTP status that says it best.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::InvalidOption(_) => 400,
            Self::TooLarge { .. } | Self::ResultTooLarge(_) => 413,
            Self::UnsupportedConversion { .. } => 415,
            Self::Unreadable(_)
            | Self::PasswordRequired
            | Self::PasswordWrong
            | Self::PdfUnreadable(_)
            | Self::PdfEncrypted(_)
            | Self::PagesMissing(_) => 422,
            Self::QueueFull { .. } => 429,
            Self::EngineCrashed { .. } => 500,
            Self::Busy | Self::Storage(_) | Self::Stopping => 503,
            Self::Timeout { .. } => 504,
        }
    }

    /// Whether the same request may succeed later.
    #[must_use]
    pub fn retryable(&self) -> bool {
        matches!(self, Self::QueueFull { .. } | Self::Busy | Self::Storage(_) | Self::Stopping)
    }
}
