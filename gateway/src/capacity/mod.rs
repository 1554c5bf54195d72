//! What there is room for: how fast flows drain, how much memory bodies may take, what each client has open.

pub mod drain_rate;
pub mod memory_budget;
pub mod open_counts;
pub mod retry_after;
