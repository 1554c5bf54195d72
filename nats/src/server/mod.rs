//! The private nats-server: a child process with a store of its own, on loopback unless configured otherwise. It ends
//! with this process.
//!
//! All its files are under `data_dir/nats`: the generated config, keys (mode 600), log, and `jetstream/`, the store.
//! The child itself locks the store ([`guard()`]), because two servers on one store would both start and both
//! acknowledge sequence 1. If the server ends first, it is restarted on the same port, so that clients find it. It is also
//! restarted when it refuses writes of a full disk that has room again ([`Restarter`]).

mod config;
mod disk_space;
mod error;
mod keys;
mod options;
mod parent_death_guard;
mod private_server;
mod restarter;
mod server_thread;
mod supervisor;

pub use error::ServerError;
pub use options::ServerOptions;
pub use parent_death_guard::{GuardError, guard};
pub use private_server::PrivateServer;
pub use restarter::Restarter;
