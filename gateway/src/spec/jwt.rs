//! `[auth.jwt.NAME]`: an issuer of tokens, and which of them are taken.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::Algorithm;
use pipeline::spec::{Places, Problems, Secret, Section};
use serde::Deserialize;

use super::auth::{checked_name, is_loopback};

/// How often a key set is read again where the config says nothing.
const DEFAULT_REFRESH_MS: u64 = 300_000;

/// Shortest time between two readings by schedule.
const LEAST_REFRESH_MS: u64 = 10_000;

/// Word in a token's `scope` that makes its holder an administrator, where the config says nothing.
const ADMIN_SCOPE: &str = "caudal:admin";

/// One issuer.
#[derive(Clone, Debug)]
pub struct IssuerSpec {
    /// `NAME`, for the log.
    pub name: String,
    /// The one algorithm its tokens may be signed with.
    pub algorithm: Algorithm,
    /// What `iss` must be.
    pub issuer: String,
    /// What `aud` must be one of.
    pub audience: Vec<String>,
    /// Whether a token may have several audiences, of which one is ours.
    pub multiple_audiences: bool,
    /// What the signature is checked with.
    pub keys: IssuerKeys,
    /// Whose requests its tokens see.
    pub tenant: TenantSource,
    /// Word in `scope` that makes an administrator.
    pub admin_scope: String,
}

/// What signatures of an issuer are checked with.
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

/// Whose requests a token sees.
#[derive(Clone, Debug)]
pub enum TenantSource {
    /// Always the same.
    Fixed(Arc<str>),
    /// What this claim says, which must then be there.
    Claim(String),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct IssuerText {
    algorithm: String,
    issuer: String,
    audience: OneOrMany,
    #[serde(default)]
    multiple_audiences: bool,
    secret: Option<Secret>,
    public_key: Option<Secret>,
    jwks: Option<SetText>,
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

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum SetText {
    Url(String),
    File { file: PathBuf },
}

fn default_refresh_ms() -> u64 {
    DEFAULT_REFRESH_MS
}

fn default_admin_scope() -> String {
    ADMIN_SCOPE.into()
}

impl IssuerSpec {
    /// Reads one issuer; every problem within it is reported.
    pub fn read(name: &str, section: Section<'_>, problems: &mut Problems) -> Option<Self> {
        let places = section.places();
        let text: IssuerText = section.read(problems)?;
        let algorithm = algorithm(&text.algorithm, &places, problems);
        let audience = match text.audience {
            OneOrMany::One(one) => vec![one],
            OneOrMany::Many(many) => many,
        };
        if audience.is_empty() || audience.iter().any(String::is_empty) || text.issuer.is_empty() {
            let remedy = "name the issuer, and the audience that its tokens for this service carry";
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
        let message = format!("algorithm {text:?} is not taken");
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
            let message = format!("the issuer {name} must say whose requests its tokens see, in one way");
            let remedy =
                "give tenant = \"NAME\" for one tenant, or tenant_claim = \"CLAIM\" (\"sub\" sets every user apart)";
            problems.add(places.of("tenant"), message, remedy);
            None
        }
    }
}

type KeyTexts = (Option<Secret>, Option<Secret>, Option<SetText>);

fn keys(
    name: &str,
    texts: KeyTexts,
    refresh: Duration,
    places: &Places,
    problems: &mut Problems,
) -> Option<IssuerKeys> {
    match texts {
        (Some(secret), None, None) => Some(IssuerKeys::Secret(secret)),
        (None, Some(public), None) => Some(IssuerKeys::Public(public)),
        (None, None, Some(SetText::File { file })) => Some(IssuerKeys::Set(SetSource::File(file), refresh)),
        (None, None, Some(SetText::Url(url))) if is_safe_url(&url) => {
            Some(IssuerKeys::Set(SetSource::Url(url), refresh))
        }
        (None, None, Some(SetText::Url(url))) => {
            let message = format!("jwks {url:?} could be altered on its way");
            problems.add(places.of("jwks"), message, "use an https:// address, or jwks = { file = \"PATH\" }");
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

/// A shared secret signs with HS256 and nothing else does, or a public key could pass for a secret.
fn check_kind(algorithm: Algorithm, keys: &IssuerKeys, places: &Places, problems: &mut Problems) -> Option<()> {
    let shared = matches!(keys, IssuerKeys::Secret(_));
    if shared == (algorithm == Algorithm::HS256) {
        return Some(());
    }
    let message = format!("algorithm {algorithm:?} cannot be checked with a key of this kind");
    let remedy = "HS256 needs secret, the others public_key or jwks";
    problems.add(places.of("algorithm"), message, remedy);
    None
}
