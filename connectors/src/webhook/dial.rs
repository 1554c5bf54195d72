//! The one resolution of a call, and the connection to what was checked.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use async_trait::async_trait;
use pipeline::webhook::CallError;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::guard::Guard;
use super::target::{Host, Target};

/// Longest resolution, and longest time until one of the addresses takes the connection.
const LIMIT: Duration = Duration::from_secs(5);

/// Addresses of one name that are tried: each has its share of the time.
const MOST_TRIED: usize = 4;

/// Finds the addresses of names.
#[async_trait]
pub trait Resolve: Send + Sync {
    /// Every address of `name`, which has no dot at its end.
    ///
    /// # Errors
    /// If nobody knows it, or nobody answers.
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>>;
}

/// Asks as the machine is set up to: the hosts file, then DNS.
pub struct SystemResolver;

#[async_trait]
impl Resolve for SystemResolver {
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let addresses = tokio::net::lookup_host((name, 0)).await?;
        Ok(addresses.map(|address| address.ip()).collect())
    }
}

/// Connects to a checked target: a name is resolved here and nowhere else, and only what `guard` admits is called.
pub async fn dial(guard: &Guard, resolver: &dyn Resolve, target: &Target) -> Result<TcpStream, CallError> {
    let addresses = match &target.host {
        Host::Address(address) => vec![SocketAddr::new(*address, target.port)],
        Host::Name(name) => {
            let found = timeout(LIMIT, resolver.resolve(name)).await;
            let found = found.unwrap_or_else(|_| Err(io::Error::other(format!("no answer within {LIMIT:?}"))));
            let found = found.map_err(|error| failed(target, &format!("cannot be resolved: {error}")))?;
            guard.admit(target, &found).map_err(CallError::Refused)?
        }
    };
    let tried = &addresses[..addresses.len().min(MOST_TRIED)];
    let mut last = "has no address".to_owned();
    for address in tried {
        match timeout(LIMIT / tried.len() as u32, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // The body follows the head at once; without this it would wait for an acknowledgement.
                stream.set_nodelay(true).map_err(|error| failed(target, &error.to_string()))?;
                return Ok(stream);
            }
            Ok(Err(error)) => last = format!("takes no connection: {error}"),
            Err(_) => last = "takes no connection in time".into(),
        }
    }
    Err(failed(target, &last))
}

/// A fault of the receiver, by its host alone: the rest of its address may hold secrets.
pub fn failed(target: &Target, why: &str) -> CallError {
    CallError::Failed(format!("the webhook's receiver {}, port {}, {why}", target.host, target.port).into())
}
