//! The built-in resources, as every service has them.

pub mod dead_letters;
pub mod flows;
pub mod probes;
mod readiness;
pub mod records;
pub mod requests;
pub mod tail;
mod tail_fan_out;
pub mod tickets;
