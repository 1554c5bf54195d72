//! `[auth.jwt.NAME]`: an issuer of JWTs, and which of its tokens are accepted.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::Algorithm;
use pipeline::spec::{Places, Problems, Secret, Section};
use serde::Deserialize;

use super::loopback::is_loopback;
use super::names::checked_name;

/// Default period in which a key set is read again.
const DEFAULT_REFRESH_MS: u64 = 300_000;

/// Least period in which a key set is read again.
const LEAST_REFRESH_MS: u64 = 10_000;

/// Default word in a token's `scope` that makes its holder an administrator.
const DEFAULT_ADMIN_SCOPE: &str = "caudal:admin";

/// One issuer.
#[derive(Clone, Debug)]
pub struct IssuerSpec {
    /// `NAME`, for the log.
    pub name: String,
    /// The one algorithm its tokens may be signed with.
    pub algorithm: Algorithm,
    /// The required `iss`.
    pub issuer: String,
    /// The accepted values of `aud`.
    pub audience: Vec<String>,
    /// Whether a token may have several audiences, of which one is ours.
    pub multiple_audiences: bool,
    /// The keys that verify signatures.
    pub keys: IssuerKeys,
    /// The tenant whose requests its tokens see.
    pub tenant: TenantSource,
    /// Word in `scope` that makes a token's holder an administrator.
    pub admin_scope: String,
}

/// The keys that verify an issuer's signatures.
#[derive(Clone, Debug)]
pub enum IssuerKeys {
    /// A shared secret (HS256).
    Secret(Secret),
    /// A public key as PEM.
    Public(Secret),
    /// A key set (RFC 7517), read again after every `refresh`.
    Set(SetSource, Duration),
}

/// Where a key set is.
#[derive(Clone, Debug)]
pub enum SetSource {
    /// `https://…`, or `http://` on loopback.
    Url(String),
    /// A file.
    File(PathBuf),
}

/// The tenant whose requests a token sees.
#[derive(Clone, Debug)]
pub enum TenantSource {
    /// Always the same tenant.
    Fixed(Arc<str>),
    /// The tenant in this claim, which is then required.
    Claim(String),
}

/// `[auth.jwt.NAME]` as written in TOML.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct IssuerToml {
    algorithm: String,
    issuer: String,
    audience: OneOrMany,
    #[serde(default)]
    multiple_audiences: bool,
    secret: Option<Secret>,
    public_key: Option<Secret>,
    jwks: Option<KeySetToml>,
    #[serde(default = "default_refresh_ms")]
    refresh_ms: u64,
    tenant: Option<String>,
    tenant_claim: Option<String>,
    #[serde(default = "default_admin_scope")]
    admin_scope: String,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

/// `jwks` as written in TOML.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum KeySetToml {
    Url(String),
    File { file: PathBuf },
}

fn default_refresh_ms() -> u64 {
    DEFAULT_REFRESH_MS
}

fn default_admin_scope() -> String {
    DEFAULT_ADMIN_SCOPE.into()
}

impl IssuerSpec {
    /// Reads one issuer and reports every problem in it.
    pub fn read(name: &str, section: Section<'_>, problems: &mut Problems) -> Option<Self> {
        let places = section.places();
        let text: IssuerToml = section.read(problems)?;
        let algorithm = algorithm(&text.algorithm, &places, problems);
        let audience = match text.audience {
            OneOrMany::One(one) => vec![one],
            OneOrMany::Many(many) => many,
        };
        if audience.is_empty() || audience.iter().any(String::is_empty) || text.issuer.is_empty() {
            let remedy = "name the issuer, and the audience of its tokens for this service";
            problems.add(places.of("audience"), "issuer and audience must not be empty", remedy);
            return None;
        }
        let tenant = tenant(name, text.tenant.as_deref(), text.tenant_claim, &places, problems);
        let refresh = Duration::from_millis(text.refresh_ms.max(LEAST_REFRESH_MS));
        let keys = keys(name, (text.secret, text.public_key, text.jwks), refresh, &places, problems);
        let (algorithm, keys) = (algorithm?, keys?);
        check_kind(algorithm, &keys, &places, problems)?;
        Some(Self {
            name: name.to_owned(),
            algorithm,
            issuer: text.issuer,
            audience,
            multiple_audiences: text.multiple_audiences,
            keys,
            tenant: tenant?,
            admin_scope: text.admin_scope,
        })
    }
}

fn algorithm(text: &str, places: &Places, problems: &mut Problems) -> Option<Algorithm> {
    let known = [
        ("HS256", Algorithm::HS256),
        ("RS256", Algorithm::RS256),
        ("ES256", Algorithm::ES256),
        ("EdDSA", Algorithm::EdDSA),
    ];
    let found = known.iter().find(|(name, _)| *name == text).map(|(_, algorithm)| *algorithm);
    if found.is_none() {
        let message = format!("algorithm {text:?} is not supported");
        problems.add(places.of("algorithm"), message, "use one of HS256, RS256, ES256, EdDSA");
    }
    found
}

fn tenant(
    name: &str,
    fixed: Option<&str>,
    claim: Option<String>,
    places: &Places,
    problems: &mut Problems,
) -> Option<TenantSource> {
    match (fixed, claim) {
        (Some(tenant), None) => checked_name("tenant", tenant, places, problems).map(TenantSource::Fixed),
        (None, Some(claim)) => Some(TenantSource::Claim(claim)),
        _ => {
            let message = format!("the issuer {name} must name the tenant of its tokens in exactly one way");
            let remedy = "give tenant = \"NAME\" for one tenant, or tenant_claim = \"CLAIM\" (\"sub\" makes every user a \
                          tenant)";
            problems.add(places.of("tenant"), message, remedy);
            None
        }
    }
}

/// `secret`, `public_key` and `jwks`, of which exactly one is allowed.
type KeySourcesToml = (Option<Secret>, Option<Secret>, Option<KeySetToml>);

fn keys(
    name: &str,
    sources: KeySourcesToml,
    refresh: Duration,
    places: &Places,
    problems: &mut Problems,
) -> Option<IssuerKeys> {
    match sources {
        (Some(secret), None, None) => Some(IssuerKeys::Secret(secret)),
        (None, Some(public), None) => Some(IssuerKeys::Public(public)),
        (None, None, Some(KeySetToml::File { file })) => Some(IssuerKeys::Set(SetSource::File(file), refresh)),
        (None, None, Some(KeySetToml::Url(url))) if is_safe_url(&url) => {
            Some(IssuerKeys::Set(SetSource::Url(url), refresh))
        }
        (None, None, Some(KeySetToml::Url(url))) => {
            let message = format!("jwks {url:?} can be altered in transit");
            problems.add(places.of("jwks"), message, "use an https:// URL, or jwks = { file = \"PATH\" }");
            None
        }
        _ => {
            let message = format!("the issuer {name} has no key, or several");
            let remedy =
                "give one of secret = { env = \"NAME\" }, public_key = { file = \"PATH\" }, jwks = \"https://…\"";
            problems.add(places.of("jwks"), message, remedy);
            None
        }
    }
}

fn is_safe_url(url: &str) -> bool {
    match url.split_once("://") {
        Some(("https", rest)) => !rest.is_empty(),
        Some(("http", rest)) => {
            let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
            !authority.contains('@') && is_loopback(authority)
        }
        _ => false,
    }
}

/// A shared secret is for HS256 only, and HS256 for a shared secret only: otherwise a public key could pass for a
/// secret.
fn check_kind(algorithm: Algorithm, keys: &IssuerKeys, places: &Places, problems: &mut Problems) -> Option<()> {
    let shared = matches!(keys, IssuerKeys::Secret(_));
    if shared == (algorithm == Algorithm::HS256) {
        return Some(());
    }
    let message = format!("algorithm {algorithm:?} cannot be verified with a key of this kind");
    let remedy = "HS256 needs secret, the others public_key or jwks";
    problems.add(places.of("algorithm"), message, remedy);
    None
}
