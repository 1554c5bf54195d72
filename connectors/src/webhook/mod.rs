//! Webhooks: results are sent to addresses that requesters name.
//!
//! Such an address is a way to make this machine call its own network (server-side request forgery), so a call passes, in
//! this order: one parser (`target.rs`), the allow-list (`allow.rs`), one resolution whose every address is looked at
//! (`address.rs`), and a connection to exactly these addresses (`dial.rs`). Nothing is looked up twice, no redirect is
//! followed, no proxy of the environment is asked, and of an answer only the status counts.

mod address;
mod allow;
mod caller;
mod dial;
mod guard;
mod headers;
mod spec;
mod target;
mod tls;

pub use caller::HttpCaller;
pub use dial::{Resolve, SystemResolver};
pub use spec::WebhookSpec;
pub use tls::OpenError;
