//! The webhook client: sends results to URLs that requesters name.
//!
//! Such a URL can make this machine call its own network (server-side request forgery, SSRF). So a call passes these
//! steps in order: one parser (`target_url.rs`), the allow-list (`allow_list.rs`, `allow_entry.rs`), one DNS resolution
//! whose every address is checked (`public_address.rs`), and a connection to exactly these addresses (`dial.rs`). A
//! name is resolved once per call, redirects are not followed, proxy variables of the environment are ignored, and only
//! the status of a response is used.

mod allow_entry;
mod allow_list;
mod caller;
mod dial;
mod headers;
mod public_address;
mod spec;
mod target_url;
mod tls;

pub use caller::HttpCaller;
pub use dial::{Resolve, SystemResolver};
pub use spec::WebhookSpec;
pub use tls::OpenError;
