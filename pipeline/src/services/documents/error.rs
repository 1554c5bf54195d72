//! Errors of conversions: a code, an HTTP status, and whether to try again.

use std::time::Duration;

use super::format::Format;
use super::options::InvalidOption;

/// Why a document was not converted.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ConvertError {
    /// LibreOffice does not convert between these formats.
    #[error("{from} cannot become {to}")]
    UnsupportedConversion {
        /// Format of the document.
        from: Format,
        /// Requested format.
        to: Format,
    },
    /// An option is out of bounds or does not apply to these formats.
    #[error(transparent)]
    InvalidOption(#[from] InvalidOption),
    /// More bytes than the limit.
    #[error("the document has {size} bytes, the limit is {limit}")]
    TooLarge {
        /// Of the document.
        size: u64,
        /// From the config.
        limit: u64,
    },
    /// LibreOffice could not read the document, or could not apply the options.
    #[error("the document could not be converted: {0}")]
    Unreadable(String),
    /// Encrypted, and the request has no password.
    #[error("the document is encrypted: send its password in `password`")]
    PasswordRequired,
    /// Encrypted, and the password does not open it.
    #[error("the password does not open the document")]
    PasswordWrong,
    /// The PDF is malformed.
    #[error("{0}")]
    PdfUnreadable(String),
    /// The PDF is encrypted.
    #[error("{0}")]
    PdfEncrypted(String),
    /// The PDF does not have the requested pages.
    #[error("{0}")]
    PagesMissing(String),
    /// The result would exceed a limit.
    #[error("{0}")]
    ResultTooLarge(String),
    /// The queue of conversions is full.
    #[error("{waiting} conversions are waiting, which is the limit")]
    QueueFull {
        /// From the config.
        waiting: usize,
    },
    /// The deadline passed before a worker was free; nothing was tried.
    #[error("no worker was free before the deadline")]
    Busy,
    /// The conversion was stopped at its deadline.
    #[error("the conversion took longer than {} ms", .after.as_millis())]
    Timeout {
        /// How long it ran.
        after: Duration,
    },
    /// LibreOffice crashed on this document, twice.
    #[error("LibreOffice crashed on this document ({signal}), {attempts} times")]
    EngineCrashed {
        /// How often it was tried.
        attempts: u32,
        /// The signal or exit code of the last attempt, as text.
        signal: String,
    },
    /// The work folder of LibreOffice is full, read-only or gone.
    #[error("the work folder of LibreOffice is not usable: {0}")]
    Storage(String),
    /// The pool is closing.
    #[error("the document converter is stopping")]
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

    /// The HTTP status.
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
