//! The stores that all flows share: results, dead letters, the claim store, records and the ledger. Also cancellations
//! and the liveness of processes, which are announced and not stored, and the write canary.

pub mod alive;
pub mod body_room;
pub mod cancellations;
pub mod claim_store;
pub mod claim_sweep;
pub mod dead_letters;
pub mod ledger;
pub mod orphaned_claims;
pub mod records;
pub mod result_dispatch;
pub mod results;
pub mod usage;
pub mod write_canary;
