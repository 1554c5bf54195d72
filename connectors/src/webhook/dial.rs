//! DNS resolution and TCP connect of a webhook call: a name is resolved once, and only checked addresses are called.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use async_trait::async_trait;
use pipeline::webhook::CallError;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::allow_list::AllowList;
use super::target_url::{Host, TargetUrl};

/// Timeout of the resolution, and of connecting to all addresses together.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Most addresses of one name that are tried; they share the timeout.
const MAX_ADDRESSES: usize = 4;

/// Resolves host names.
#[async_trait]
pub trait Resolve: Send + Sync {
    /// Every address of `name`, which has no trailing dot.
    ///
    /// # Errors
    /// If the name does not exist, or the resolver does not answer.
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>>;
}

/// The system's resolution: the hosts file, then DNS.
pub struct SystemResolver;

#[async_trait]
impl Resolve for SystemResolver {
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let addresses = tokio::net::lookup_host((name, 0)).await?;
        Ok(addresses.map(|address| address.ip()).collect())
    }
}

/// Connects to a checked target. A name is resolved here and nowhere else, and only addresses that `allow_list` accepts
/// are called.
pub async fn dial(allow_list: &AllowList, resolver: &dyn Resolve, target: &TargetUrl) -> Result<TcpStream, CallError> {
    let addresses = match &target.host {
        Host::Address(address) => vec![SocketAddr::new(*address, target.port)],
        Host::Name(name) => {
            let found = timeout(TIMEOUT, resolver.resolve(name)).await;
            let found = found.unwrap_or_else(|_| Err(io::Error::other(format!("no answer within {TIMEOUT:?}"))));
            let found = found.map_err(|error| failed(target, &format!("cannot be resolved: {error}")))?;
            allow_list.check_addresses(target, &found).map_err(CallError::Refused)?
        }
    };
    let tried = &addresses[..addresses.len().min(MAX_ADDRESSES)];
    let mut last = "has no address".to_owned();
    for address in tried {
        match timeout(TIMEOUT / tried.len() as u32, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Without this, the body would wait for the acknowledgement of the head.
                stream.set_nodelay(true).map_err(|error| failed(target, &error.to_string()))?;
                return Ok(stream);
            }
            Ok(Err(error)) => last = format!("refused the connection: {error}"),
            Err(_) => last = "did not accept the connection in time".into(),
        }
    }
    Err(failed(target, &last))
}

/// A failure of the receiver. Names only host and port: the rest of the URL may hold secrets.
pub fn failed(target: &TargetUrl, why: &str) -> CallError {
    CallError::Failed(format!("the webhook receiver {}, port {}, {why}", target.host, target.port).into())
}
