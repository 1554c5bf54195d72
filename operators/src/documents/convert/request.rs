//! Reads the parameters of a request, in the dialect that the stage is configured for.

use pipeline::{Params, Rejection};

use super::parameters::{Dialect, Parameters};
use super::{gotenberg, own_parameters};

/// # Errors
/// 400 naming the field, its value and what is expected.
pub fn read(dialect: Dialect, params: &Params) -> Result<Parameters, Rejection> {
    match dialect {
        Dialect::Own => own_parameters::read(params),
        Dialect::Gotenberg => gotenberg::read(params),
    }
}

/// 400: the request has no document.
pub fn no_document(dialect: Dialect) -> Rejection {
    match dialect {
        Dialect::Own => Rejection::new(400, "no_document", "the request has no document; upload at least one"),
        Dialect::Gotenberg => gotenberg::nothing_sent(),
    }
}
