//! The error of the document operators: a rejection of the event, or a fault that is retried.

use pipeline::templates::TemplateError;
use pipeline::{Fault, Rejection, TransportError};

/// Why no document was made of an event.
#[derive(Debug)]
pub enum Failure {
    /// The event is at fault; a retry would not help.
    Rejected(Rejection),
    /// Something else is at fault; a retry may succeed.
    Fault(Fault),
}

impl From<Rejection> for Failure {
    fn from(why: Rejection) -> Self {
        Self::Rejected(why)
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<TemplateError> for Failure {
    fn from(error: TemplateError) -> Self {
        match error {
            TemplateError::TooMany => Self::Rejected(Rejection::new(409, "too_many_templates", error.to_string())),
            TemplateError::Contended => Self::Fault(Fault::retry(error)),
            // The version was replaced in the meantime.
            TemplateError::Transport(gone @ TransportError::Claim { .. }) => Self::Fault(Fault::retry(gone)),
            TemplateError::Transport(error) => Self::Fault(Fault::unavailable(error)),
        }
    }
}
