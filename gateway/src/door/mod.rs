//! What holds for every request and answer: authentication, CSRF check, CORS, limits, headers, metrics, traces.

pub mod authentication;
pub mod cors;
pub mod csrf;
pub mod fallbacks;
pub mod metrics;
pub mod middleware;
pub mod rate_limit;
pub mod trace;
