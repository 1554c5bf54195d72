//! Stores, finds and lists templates.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use uuid::Uuid;

use super::template::{Template, TemplateKind, TemplateSummary, Version};
use crate::names::Token;
use crate::payload::Digest;
use crate::transport::{BodyOwner, Transport, TransportError};

/// The record store of both kinds of records.
const STORE: &str = "templates";
/// Most templates of one tenant.
pub const MOST_TEMPLATES: usize = 500;
/// Most versions of one template; beyond that the oldest is dropped.
pub const MOST_VERSIONS: usize = 10;
/// Most fields that a record lists, and most bytes of all of them.
const MOST_FIELDS: (usize, usize) = (1_000, 32 << 10);
/// Attempts to replace a record that others write too.
const ATTEMPTS: usize = 16;

/// Why a template was not stored, read or removed.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// The tenant has too many.
    #[error("there are {MOST_TEMPLATES} templates, which is the limit: delete one first")]
    TooMany,
    /// Others changed the same record at every attempt.
    #[error("others changed the template at the same time, {ATTEMPTS} times in a row: try again")]
    Contended,
    /// The broker failed.
    #[error(transparent)]
    Transport(#[from] TransportError),
}

/// The templates of a service. Clones share them.
#[derive(Clone)]
pub struct Templates {
    transport: Arc<dyn Transport>,
    store: Token,
}

impl Templates {
    /// The templates that this broker stores.
    ///
    /// # Panics
    /// Never: the name of the store is a token.
    #[must_use]
    pub fn new(transport: Arc<dyn Transport>) -> Self {
        Self { transport, store: Token::new(STORE).expect("the name is a token") }
    }

    /// The template with that name; `None` if there is none.
    ///
    /// # Errors
    /// If the broker is out of reach.
    pub async fn find(&self, tenant: Option<&str>, name: &Token) -> Result<Option<Template>, TemplateError> {
        Ok(self.read(&key(tenant, name)).await?.0)
    }

    /// The bytes of a version.
    ///
    /// # Errors
    /// If the broker is out of reach, or the version was dropped in the meantime.
    pub async fn bytes(&self, version: &Version) -> Result<Bytes, TemplateError> {
        Ok(self.transport.get_claim(&version.claim).await?)
    }

    /// Every template of a tenant, sorted by name.
    ///
    /// # Errors
    /// If the broker is out of reach.
    pub async fn list(&self, tenant: Option<&str>) -> Result<Vec<TemplateSummary>, TemplateError> {
        Ok(self.read(&list_key(tenant)).await?.0.unwrap_or_default())
    }

    /// Stores a template as the newest version of that name, and returns the template. The same bytes again are the same
    /// version. It survives a kill of every process once this returns.
    ///
    /// # Errors
    /// If there are too many, or the broker is out of reach or full.
    pub async fn put(
        &self,
        tenant: Option<&str>,
        name: &Token,
        kind: TemplateKind,
        fields: impl IntoIterator<Item = String>,
        bytes: Bytes,
    ) -> Result<Template, TemplateError> {
        let listed = self.list(tenant).await?;
        if listed.len() >= MOST_TEMPLATES && listed.iter().all(|listed| listed.name != *name) {
            return Err(TemplateError::TooMany);
        }
        let (sha256, length) = (digest(bytes.clone()).await, bytes.len() as u64);
        let fields = bounded(fields);
        let body = stream::iter([Ok(bytes)]).boxed();
        let claim = self.transport.put_claim(BodyOwner::Template, body).await?;
        let version = Version { sha256, kind, length, time: OffsetDateTime::now_utc(), claim };
        let put = self.prepend(&key(tenant, name), name, &fields, &version).await;
        let stored = put.as_ref().is_ok_and(|(template, _)| template.versions.iter().any(|v| v.claim == version.claim));
        if !stored {
            self.drop_body(&version).await;
        }
        let (template, gone) = put?;
        self.update_list(tenant, name, Some(&template)).await?;
        for version in gone {
            self.drop_body(&version).await;
        }
        Ok(template)
    }

    /// Removes a template with all its versions; whether there was one.
    ///
    /// # Errors
    /// If the broker is out of reach.
    pub async fn remove(&self, tenant: Option<&str>, name: &Token) -> Result<bool, TemplateError> {
        let key = key(tenant, name);
        for _ in 0..ATTEMPTS {
            let (template, revision) = self.read::<Template>(&key).await?;
            if template.is_none() || self.transport.replace_record(&self.store, &key, revision, Bytes::new()).await? {
                // Even where there was none: a process may have died before it changed the list.
                self.update_list(tenant, name, None).await?;
                for version in template.iter().flat_map(|template| &template.versions) {
                    self.drop_body(version).await;
                }
                return Ok(template.is_some());
            }
        }
        Err(TemplateError::Contended)
    }

    /// Puts a version before the others, unless it is the newest already; returns the template and the versions it lost.
    async fn prepend(
        &self,
        key: &Token,
        name: &Token,
        fields: &[String],
        version: &Version,
    ) -> Result<(Template, Vec<Version>), TemplateError> {
        for _ in 0..ATTEMPTS {
            let (before, revision) = self.read::<Template>(key).await?;
            let mut versions = before.clone().map(|template| template.versions).unwrap_or_default();
            if let Some(template) = before.filter(|template| template.versions[0].sha256 == version.sha256) {
                return Ok((template, Vec::new()));
            }
            let mut gone: Vec<Version> = versions.extract_if(.., |old| old.sha256 == version.sha256).collect();
            versions.insert(0, version.clone());
            gone.extend(versions.drain(MOST_VERSIONS.min(versions.len())..));
            let template = Template { name: name.clone(), fields: fields.to_vec(), versions };
            if self.transport.replace_record(&self.store, key, revision, text_of(&template)).await? {
                return Ok((template, gone));
            }
        }
        Err(TemplateError::Contended)
    }

    /// Brings the list up to date with a template, `None` if it was removed.
    async fn update_list(
        &self,
        tenant: Option<&str>,
        name: &Token,
        template: Option<&Template>,
    ) -> Result<(), TemplateError> {
        let key = list_key(tenant);
        for _ in 0..ATTEMPTS {
            let (list, revision) = self.read::<Vec<TemplateSummary>>(&key).await?;
            let before = list.unwrap_or_default();
            let others = before.iter().filter(|listed| listed.name != *name).cloned();
            let mut list: Vec<TemplateSummary> = others.chain(template.map(TemplateSummary::of)).collect();
            list.sort_by(|one, other| one.name.cmp(&other.name));
            if list == before || self.transport.replace_record(&self.store, &key, revision, text_of(&list)).await? {
                return Ok(());
            }
        }
        Err(TemplateError::Contended)
    }

    /// A record and its revision; an empty record was removed.
    async fn read<T: DeserializeOwned>(&self, key: &Token) -> Result<(Option<T>, u64), TemplateError> {
        let Some(record) = self.transport.get_record(&self.store, key).await? else { return Ok((None, 0)) };
        if record.value.is_empty() {
            return Ok((None, record.revision));
        }
        let value = serde_json::from_slice(&record.value).map_err(TransportError::unavailable)?;
        Ok((Some(value), record.revision))
    }

    async fn drop_body(&self, version: &Version) {
        if let Err(error) = self.transport.drop_claim(&version.claim).await {
            tracing::warn!(version = %version.sha256, %error, "the body of a template version was not dropped");
        }
    }
}

fn text_of(value: &impl Serialize) -> Bytes {
    Bytes::from(serde_json::to_vec(value).expect("names, numbers and times always make JSON"))
}

/// As many fields as fit into a record.
fn bounded(fields: impl IntoIterator<Item = String>) -> Vec<String> {
    let (count, mut room) = MOST_FIELDS;
    let fits = fields.into_iter().take(count).take_while(|field| {
        room = room.saturating_sub(field.len() + 4);
        room > 0
    });
    fits.collect()
}

/// Megabytes take milliseconds, so not on the runtime's threads.
async fn digest(bytes: Bytes) -> Digest {
    let hash = move || Digest(Sha256::digest(&bytes).into());
    tokio::task::spawn_blocking(hash).await.unwrap_or(Digest([0; 32]))
}

/// The key of a template; no other tenant can form it.
fn key(tenant: Option<&str>, name: &Token) -> Token {
    hashed(&format!("template\0{}\0{name}", tenant.unwrap_or_default()))
}

/// The key of a tenant's list.
fn list_key(tenant: Option<&str>) -> Token {
    hashed(&format!("templates\0{}", tenant.unwrap_or_default()))
}

fn hashed(text: &str) -> Token {
    let id = Uuid::new_v5(&Uuid::NAMESPACE_OID, text.as_bytes()).simple().to_string();
    Token::new(&id).expect("hexadecimal digits are a token")
}
