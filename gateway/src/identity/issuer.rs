//! One issuer of JWTs: validates its tokens and maps them to callers.
//!
//! The algorithm is the config's, never the token's. `exp`, `iss`, `aud` and `sub` are required; `nbf` is checked if
//! present.

use std::sync::Arc;

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use time::OffsetDateTime;

use super::error::{IdentityError, TokenError};
use super::jwt_claims::JwtClaims;
use super::key_set::KeySet;
use super::principal::{LEEWAY, Principal};
use crate::spec::{IssuerKeys, IssuerSpec, TenantSource, is_name};

/// Shortest shared secret, in bytes: the length of an HS256 digest (RFC 7518, section 3.2).
const MIN_SECRET_BYTES: usize = 32;

/// See the module.
pub struct Issuer {
    spec: IssuerSpec,
    validation: Validation,
    keys: Keys,
}

enum Keys {
    One(Arc<DecodingKey>),
    Set(KeySet),
}

impl Issuer {
    pub fn open(spec: &IssuerSpec) -> Result<Self, IdentityError> {
        let mut validation = Validation::new(spec.algorithm);
        validation.leeway = LEEWAY.as_secs();
        validation.validate_nbf = true;
        validation.set_issuer(&[&spec.issuer]);
        validation.set_audience(&spec.audience);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        let keys = match &spec.keys {
            IssuerKeys::Set(source, period) => {
                Keys::Set(KeySet::new(spec.name.clone(), spec.algorithm, source.clone(), *period))
            }
            IssuerKeys::Secret(_) | IssuerKeys::Public(_) => Keys::One(Arc::new(read_key(spec)?)),
        };
        Ok(Self { spec: spec.clone(), validation, keys })
    }

    /// Whether a token names this issuer.
    pub fn issued(&self, claims: &JwtClaims) -> bool {
        claims.text("iss") == Some(self.spec.issuer.as_str())
    }

    /// The caller that a token stands for.
    pub async fn check(&self, token: &str) -> Result<Principal, TokenError> {
        let header = decode_header(token).map_err(|_| TokenError::Bad)?;
        // Extensions that `crit` names must be understood (RFC 7515, section 4.1.11); none is supported.
        if header.alg != self.spec.algorithm || header.crit.is_some() {
            return Err(TokenError::Bad);
        }
        let key = match &self.keys {
            Keys::One(key) => Arc::clone(key),
            Keys::Set(set) => set.find(header.kid.as_deref()).await?,
        };
        let claims = decode::<JwtClaims>(token, &key, &self.validation).map_err(|_| TokenError::Bad)?.claims;
        self.principal(&claims).ok_or(TokenError::Bad)
    }

    fn principal(&self, claims: &JwtClaims) -> Option<Principal> {
        if claims.is_list("aud") && !self.spec.multiple_audiences {
            return None;
        }
        let subject = claims.text("sub").filter(|subject| is_name(subject))?;
        let tenant = match &self.spec.tenant {
            TenantSource::Fixed(tenant) => Arc::clone(tenant),
            TenantSource::Claim(claim) => claims.text(claim).filter(|tenant| is_name(tenant))?.into(),
        };
        let admin = ["scope", "scp"].iter().any(|claim| claims.has_word(claim, &self.spec.admin_scope));
        let expires = OffsetDateTime::from_unix_timestamp(claims.seconds("exp")?).ok()?;
        Some(Principal { tenant, subject: subject.into(), admin, expires: Some(expires) })
    }

    /// Reads the key set periodically; returns at once if there is none.
    pub async fn refresh(&self) {
        if let Keys::Set(set) = &self.keys {
            set.refresh().await;
        }
    }
}

fn read_key(spec: &IssuerSpec) -> Result<DecodingKey, IdentityError> {
    let name = || format!("[auth.jwt] {}", spec.name);
    let unusable = |why: &str| IdentityError::Key(name(), why.to_owned());
    let (IssuerKeys::Secret(secret) | IssuerKeys::Public(secret)) = &spec.keys else {
        return Err(unusable("it is a key set"));
    };
    let text = secret.read().map_err(|error| IdentityError::Secret(name(), error))?;
    let pem = text.expose().as_bytes();
    let key = match spec.algorithm {
        Algorithm::HS256 if pem.len() < MIN_SECRET_BYTES => {
            return Err(unusable("a secret for HS256 has at least 32 bytes"));
        }
        Algorithm::HS256 => return Ok(DecodingKey::from_secret(pem)),
        Algorithm::RS256 => DecodingKey::from_rsa_pem(pem),
        Algorithm::ES256 => DecodingKey::from_ec_pem(pem),
        Algorithm::EdDSA => DecodingKey::from_ed_pem(pem),
        _ => return Err(unusable("its algorithm is not supported")),
    };
    key.map_err(|_| unusable("it is not a PEM public key of that algorithm"))
}
