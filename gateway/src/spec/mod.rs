//! What of the config concerns HTTP: `[service]`, `[auth]`, `[limits]` and the `[[route]]`s.

mod auth;
mod body;
mod check;
mod class;
mod jwt;
mod proxies;
mod query;
mod rate;
mod route;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use pipeline::spec::{ByteSize, Places, Problems, Section};
use pipeline::{Complaint, Names};
use serde::Deserialize;

pub use auth::{AuthSpec, KeySource, KeySpec, is_loopback, is_name};
pub use body::{BodyKind, BodySpec};
pub use check::check_bodies;
pub(crate) use class::AUTH;
pub use class::Classes;
pub use jwt::{IssuerKeys, IssuerSpec, SetSource, TenantSource};
pub use proxies::Proxies;
pub use query::{QueryKind, QueryParam};
pub use rate::Rate;
pub use route::{Method, RecordSpec, RouteSpec};

/// Everything the gateway takes from the config.
#[derive(Clone, Debug, Default)]
pub struct GatewaySpec {
    /// `[service]`.
    pub service: ServiceSpec,
    /// Where the keys of `[service]` are.
    pub service_places: Places,
    /// `[auth]`.
    pub auth: AuthSpec,
    /// `[limits]`.
    pub limits: LimitsSpec,
    /// The `[[route]]`s that could be read, in order of the text.
    pub routes: Vec<RouteSpec>,
}

impl GatewaySpec {
    /// Takes `service`, `auth`, `limits` and `route` out of the config's top level; `names` are the declared flows. What
    /// cannot be read is reported and left out.
    pub fn read(root: &mut Section<'_>, names: &Names, problems: &mut Problems) -> Self {
        let section = root.take_section("service", problems);
        let service_places = section.as_ref().map(Section::places).unwrap_or_default();
        let service = section.map_or_else(Default::default, |section| section.read(problems).unwrap_or_default());
        let auth = root.take_section("auth", problems);
        let auth = auth.map_or_else(Default::default, |section| AuthSpec::read(section, problems));
        let limits = root.take_section("limits", problems);
        let limits = limits.map_or_else(Default::default, |section| LimitsSpec::read(section, problems));
        let sections = root.take_list("route", problems);
        let routes = sections.into_iter().filter_map(|section| RouteSpec::read(section, names, problems)).collect();
        Self { service, service_places, auth, limits, routes }
    }

    /// Checks the routes by themselves, against each other and against the classes of limits.
    pub fn check(&self, problems: &mut Problems) {
        check::check(&self.routes, problems);
        self.limits.classes.check(&self.routes, problems);
    }

    /// What is wrong with where the service listens: whoever reaches it is let in.
    #[must_use]
    pub fn exposure(&self) -> Option<Complaint> {
        let ServiceSpec { listen, insecure, .. } = &self.service;
        (!self.auth.is_on() && !insecure && !is_loopback(listen)).then(|| Complaint {
            key: "listen",
            message: format!("{listen} can be reached from other machines, and nobody is asked who they are"),
            remedy: "add [auth] with a key or an issuer, listen on 127.0.0.1, or set [service] insecure = true".into(),
        })
    }
}

/// `[service]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServiceSpec {
    /// Shown by `/health` and the console.
    pub name: String,
    /// Where to listen, `HOST:PORT`; port 0 picks a free one.
    pub listen: String,
    /// How long a shutdown waits for requests in work, in milliseconds.
    pub grace_ms: u64,
    /// Whether it may be reached from other machines although nobody is asked who they are.
    pub insecure: bool,
    /// Networks of proxies whose `X-Forwarded-For` or `Forwarded` is believed.
    pub trusted_proxies: Proxies,
    /// Origins of pages, beside our own, that may open a WebSocket or send anything: `https://app.example`. Where nobody is
    /// asked who they are and only this machine can ask, their hosts are also the only names it may be asked by, beside
    /// `localhost` and addresses.
    pub origins: Vec<String>,
    /// The certificate, where it serves HTTPS itself.
    pub tls: Option<TlsSpec>,
}

/// `tls = { cert = "chain.pem", key = "key.pem" }`. Both are read again once a second.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsSpec {
    /// File of the certificates as PEM, the server's own first, then those that vouch for it.
    pub cert: PathBuf,
    /// File of its private key as PEM.
    pub key: PathBuf,
}

impl Default for ServiceSpec {
    fn default() -> Self {
        Self {
            name: "caudal".into(),
            listen: "127.0.0.1:8080".into(),
            grace_ms: 10_000,
            insecure: false,
            trusted_proxies: Proxies::default(),
            origins: Vec::new(),
            tls: None,
        }
    }
}

impl ServiceSpec {
    /// `grace_ms` as a duration.
    #[must_use]
    pub fn grace(&self) -> Duration {
        Duration::from_millis(self.grace_ms)
    }
}

/// `[limits]`: what the front takes in all.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsSpec {
    /// `[limits.class.NAME]`.
    #[serde(skip)]
    pub classes: Classes,
    /// Whether the `limit` and `class` of routes hold; `false` for load tests. The other limits always hold.
    pub enabled: bool,
    /// Connections at once; further ones wait to be accepted.
    pub connections: usize,
    /// Connections of one address at once, an IPv6 one by its /64; further ones are closed unheard. By default a quarter of
    /// `connections`, 16 at least, and as many as there are from this machine; a number given here holds for it too.
    /// Proxies that are trusted have no such limit.
    pub connections_per_peer: Option<usize>,
    /// Event streams at once; further ones get 503.
    pub streams: usize,
    /// Event streams of one subject at once; further ones get 429.
    pub streams_per_client: usize,
    /// Event streams of one address at once; further ones get 429.
    pub streams_per_address: usize,
    /// Headers of a request.
    pub headers: usize,
    /// Bytes of a request's headers together, its line included.
    pub header_bytes: ByteSize,
    /// Sum of the bodies and results that must be in memory whole at one time; by default an eighth of the process's
    /// memory.
    pub memory: Option<ByteSize>,
    /// Longest body for `POST /v1/flows/NAME`.
    pub open_bytes: ByteSize,
    /// Longest time from a connection's first byte, or its last answer, to the end of a request's headers, in
    /// milliseconds. The first byte itself must come within half of it.
    pub header_ms: u64,
    /// Longest time a whole upload may take, in milliseconds.
    pub upload_ms: u64,
    /// Time an upload may be slow before `upload_rate` holds, in milliseconds.
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

/// Least bytes of headers: a browser's alone take more than a few hundred.
const LEAST_HEADER_BYTES: ByteSize = ByteSize(8 << 10);

impl LimitsSpec {
    fn read(mut section: Section<'_>, problems: &mut Problems) -> Self {
        let places = section.places();
        let classes = Classes::read(&mut section, problems);
        let limits: Self = section.read(problems).unwrap_or_default();
        if limits.header_bytes < LEAST_HEADER_BYTES || limits.header_bytes > ByteSize::mib(1) {
            let message = format!("header_bytes is {}", limits.header_bytes);
            problems.add(places.of("header_bytes"), message, format!("give {LEAST_HEADER_BYTES} to 1 MiB"));
        }
        Self { classes, ..limits }
    }

    /// Connections that an address may have at once; `None` for as many as there are.
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
            classes: Classes::default(),
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
