//! The gateway's part of the config: `[service]`, `[auth]`, `[limits]` and the `[[route]]`s.

mod auth;
mod body;
mod check;
mod class;
mod jwt;
mod limits;
mod listen;
mod loopback;
mod names;
mod origins;
mod proxies;
mod query;
mod rate;
mod route;
mod service;

use pipeline::spec::{Places, Problems, Section};
use pipeline::{DeclaredNames, KeyProblem};

pub use auth::{AuthSpec, KeySource, KeySpec};
pub use body::{BodyKind, BodySpec};
pub use check::check_bodies;
pub(crate) use class::AUTH;
pub use class::RateClasses;
pub use jwt::{IssuerKeys, IssuerSpec, SetSource, TenantSource};
pub use limits::LimitsSpec;
pub use listen::checked_listen;
pub use loopback::is_loopback;
pub use names::is_name;
pub use proxies::Proxies;
pub use query::{QueryKind, QueryParam};
pub use rate::Rate;
pub use route::{Method, RecordSpec, RouteSpec};
pub use service::{ServiceSpec, TlsSpec};

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
    /// The `[[route]]`s that could be read, in config order.
    pub routes: Vec<RouteSpec>,
}

impl GatewaySpec {
    /// Takes `service`, `auth`, `limits` and `route` out of the config's top level; `names` are the declared flows. A
    /// section that cannot be read is reported and left out.
    pub fn read(root: &mut Section<'_>, names: &DeclaredNames, problems: &mut Problems) -> Self {
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

    /// Checks the origins, each route, the routes against each other, and their classes of limits.
    pub fn check(&self, problems: &mut Problems) {
        origins::check(&self.service.origins, &self.service_places, problems);
        check::check(&self.routes, problems);
        self.limits.classes.check(&self.routes, problems);
    }

    /// A problem if `listen` is no address, or one that other machines reach without authentication.
    #[must_use]
    pub fn listen_problem(&self) -> Option<KeyProblem> {
        match checked_listen(&self.service.listen) {
            Ok(_) => self.exposure(),
            Err(message) => Some(KeyProblem { key: "listen", message, remedy: "give an address HOST:PORT".into() }),
        }
    }

    /// A problem if the service can be reached from other machines without authentication.
    #[must_use]
    pub fn exposure(&self) -> Option<KeyProblem> {
        let ServiceSpec { listen, insecure, .. } = &self.service;
        (!self.auth.is_on() && !insecure && !is_loopback(listen)).then(|| KeyProblem {
            key: "listen",
            message: format!("{listen} can be reached from other machines, and authentication is off"),
            remedy: "add [auth] with a key or an issuer, listen on 127.0.0.1, or set [service] insecure = true".into(),
        })
    }
}
