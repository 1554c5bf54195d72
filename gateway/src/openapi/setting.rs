//! What the answers of an operation depend on, besides the operation itself.

/// The parts of the config that change every operation.
#[derive(Clone, Copy)]
pub struct Setting {
    /// Whether callers must authenticate.
    pub identity: bool,
    /// Whether rate limits apply.
    pub limits: bool,
    /// Whether requests must name a host of ours.
    pub checks_host: bool,
}
