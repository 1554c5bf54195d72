//! `[limits]`: the limits of the server as a whole.

use std::net::IpAddr;

use pipeline::spec::{ByteSize, Problems, Section};
use serde::Deserialize;

use super::RateClasses;

/// `[limits]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsSpec {
    /// `[limits.class.NAME]`.
    #[serde(skip)]
    pub classes: RateClasses,
    /// Whether the `limit` and `class` of routes apply; `false` for load tests. The other limits always apply.
    pub enabled: bool,
    /// Connections at once; further ones wait to be accepted.
    pub connections: usize,
    /// Connections of one address at once, an IPv6 address by its /64; further ones are closed. The default is a
    /// quarter of `connections`, at least 16, and no limit for this machine; a number given here applies to this
    /// machine too. Trusted proxies have no such limit.
    pub connections_per_peer: Option<usize>,
    /// Event streams at once; further ones get 503.
    pub streams: usize,
    /// Event streams of one subject at once; further ones get 429.
    pub streams_per_client: usize,
    /// Event streams of one address at once; further ones get 429.
    pub streams_per_address: usize,
    /// Headers of a request.
    pub headers: usize,
    /// Bytes of a request's headers together, request line included.
    pub header_bytes: ByteSize,
    /// The memory budget: the sum of the bodies and results that are in memory whole at one time. The default is an
    /// eighth of the process's memory.
    pub memory: Option<ByteSize>,
    /// Longest body for `POST /v1/flows/NAME`.
    pub open_bytes: ByteSize,
    /// Longest time from a connection's first byte, or its last answer, to the end of a request's headers, in
    /// milliseconds. The first byte itself must come within half of it.
    pub header_ms: u64,
    /// Longest time a whole upload may take, in milliseconds.
    pub upload_ms: u64,
    /// Time before `upload_rate` applies to an upload, in milliseconds.
    pub upload_grace_ms: u64,
    /// Slowest upload, in bytes per second of waiting for the client.
    pub upload_rate: ByteSize,
    /// Longest time a client may leave an answer unread, in milliseconds.
    pub write_ms: u64,
    /// Pause between two heartbeats of an event stream, in milliseconds.
    pub heartbeat_ms: u64,
}

/// Least connections of one address by default: a browser alone opens six.
const LEAST_PER_PEER: usize = 16;

/// Least bytes of headers: a browser alone sends more than a few hundred.
const LEAST_HEADER_BYTES: ByteSize = ByteSize(8 << 10);

impl LimitsSpec {
    pub(super) fn read(mut section: Section<'_>, problems: &mut Problems) -> Self {
        let places = section.places();
        let classes = RateClasses::read(&mut section, problems);
        let limits: Self = section.read(problems).unwrap_or_default();
        if limits.header_bytes < LEAST_HEADER_BYTES || limits.header_bytes > ByteSize::mib(1) {
            let message = format!("header_bytes is {}", limits.header_bytes);
            problems.add(places.of("header_bytes"), message, format!("give {LEAST_HEADER_BYTES} to 1 MiB"));
        }
        Self { classes, ..limits }
    }

    /// Connections that an address may have at once; `None` for no limit.
    pub(crate) fn connections_of(&self, peer: IpAddr) -> Option<usize> {
        match self.connections_per_peer {
            Some(most) => Some(most.max(1)),
            // Load tests and proxies on this machine all come from one address.
            None if peer.to_canonical().is_loopback() => None,
            None => Some((self.connections / 4).max(LEAST_PER_PEER)),
        }
    }
}

impl Default for LimitsSpec {
    fn default() -> Self {
        Self {
            classes: RateClasses::default(),
            enabled: true,
            connections: 1024,
            connections_per_peer: None,
            streams: 1000,
            streams_per_client: 20,
            streams_per_address: 50,
            headers: 64,
            header_bytes: ByteSize(16 << 10),
            memory: None,
            open_bytes: ByteSize::mib(16),
            header_ms: 10_000,
            upload_ms: 120_000,
            upload_grace_ms: 5_000,
            upload_rate: ByteSize(1 << 10),
            write_ms: 60_000,
            // Below the 30 s after which many proxies cut an idle connection.
            heartbeat_ms: 15_000,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_share_of_the_connections() {
        let bound = |connections, connections_per_peer, peer: &str| {
            let limits = LimitsSpec { connections, connections_per_peer, ..LimitsSpec::default() };
            limits.connections_of(peer.parse().unwrap())
        };
        assert_eq!(bound(1024, None, "198.51.100.7"), Some(256));
        assert_eq!(bound(20, None, "2001:db8::1"), Some(16));
        for here in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            assert_eq!((bound(1024, None, here), bound(1024, Some(3), here)), (None, Some(3)), "{here}");
        }
    }
}
