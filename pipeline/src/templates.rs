//! Templates of documents, kept by the broker under names: every process sees the same ones, after every restart.
//!
//! A template has versions, named by the SHA-256 of their bytes; the newest is the one that is used where nobody names
//! another. Its record names the versions and their bodies. A second record, one for each tenant, is the list of names.
//! Both are replaced only where nobody else did so in between.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::names::Token;
use crate::payload::{Claim, Digest};
use crate::transport::{BodyOf, Transport, TransportError};

/// The store of both kinds of records.
const STORE: &str = "templates";
/// Templates of one tenant.
pub const MOST_TEMPLATES: usize = 500;
/// Versions of one template; beyond, the oldest goes.
pub const MOST_VERSIONS: usize = 10;
/// Fields that are kept of a template, and the bytes of all of them.
const MOST_FIELDS: (usize, usize) = (1_000, 32 << 10);
/// Attempts at a record that others write too.
const ATTEMPTS: usize = 16;

/// What a template is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TemplateKind {
    /// A DOCX with docxtpl's tags.
    Docx,
    /// The text of a typst document.
    Typst,
}

impl TemplateKind {
    /// The media type of its bytes.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Docx => "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
            Self::Typst => "text/vnd.typst; charset=utf-8",
        }
    }
}

/// One version of a template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Of its bytes; names the version.
    pub sha256: Digest,
    /// What it is written in.
    pub kind: TemplateKind,
    /// Bytes.
    pub length: u64,
    /// When it became the newest.
    #[serde(with = "time::serde::rfc3339")]
    pub time: OffsetDateTime,
    claim: Claim,
}

/// A template under its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Template {
    /// Its name.
    pub name: Token,
    /// Variables of the newest version, as dotted paths, in the order of the alphabet.
    pub fields: Vec<String>,
    /// The newest first; at least one.
    pub versions: Vec<Version>,
}

/// A line of the list of templates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Its name.
    pub name: Token,
    /// Of its newest version.
    pub sha256: Digest,
    /// What the newest version is written in.
    pub kind: TemplateKind,
    /// Bytes of the newest version.
    pub length: u64,
    /// When the newest version came.
    #[serde(with = "time::serde::rfc3339")]
    pub time: OffsetDateTime,
}

/// Why a template was not kept.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// The tenant has too many.
    #[error("there are {MOST_TEMPLATES} templates, the most that are kept: delete one first")]
    TooMany,
    /// Others kept changing the same record.
    #[error("the template was changed by others again and again")]
    Contended,
    /// The broker.
    #[error(transparent)]
    Transport(#[from] TransportError),
}

/// The templates of a service; cloning shares them.
#[derive(Clone)]
pub struct Templates {
    transport: Arc<dyn Transport>,
    store: Token,
}

impl Templates {
    /// Those that this broker keeps.
    ///
    /// # Panics
    /// Never: the name of the store is one.
    #[must_use]
    pub fn new(transport: Arc<dyn Transport>) -> Self {
        Self { transport, store: Token::new(STORE).expect("a name") }
    }

    /// The template of that name; `None` if there is none.
    ///
    /// # Errors
    /// If the broker is out of reach.
    pub async fn find(&self, tenant: Option<&str>, name: &Token) -> Result<Option<Template>, TemplateError> {
        Ok(self.read(&key(tenant, name)).await?.0)
    }

    /// The bytes of a version.
    ///
    /// # Errors
    /// If the broker is out of reach, or the version was dropped meanwhile.
    pub async fn bytes(&self, version: &Version) -> Result<Bytes, TemplateError> {
        Ok(self.transport.get_claim(&version.claim).await?)
    }

    /// Every template of a tenant, in the order of their names.
    ///
    /// # Errors
    /// If the broker is out of reach.
    pub async fn list(&self, tenant: Option<&str>) -> Result<Vec<Listed>, TemplateError> {
        Ok(self.read(&list_key(tenant)).await?.0.unwrap_or_default())
    }

    /// Keeps a template as the newest version of that name, and what became of it. The same bytes again are the same
    /// version. Survives a kill of every process once this returns.
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
        let claim = self.transport.put_claim(BodyOf::Template, body).await?;
        let version = Version { sha256, kind, length, time: OffsetDateTime::now_utc(), claim };
        let put = self.prepend(&key(tenant, name), name, &fields, &version).await;
        let kept = put.as_ref().is_ok_and(|(template, _)| template.versions.iter().any(|v| v.claim == version.claim));
        if !kept {
            self.drop_body(&version).await;
        }
        let (template, gone) = put?;
        self.note(tenant, name, Some(&template)).await?;
        for version in gone {
            self.drop_body(&version).await;
        }
        Ok(template)
    }

    /// Forgets a template with all its versions; whether there was one.
    ///
    /// # Errors
    /// If the broker is out of reach.
    pub async fn remove(&self, tenant: Option<&str>, name: &Token) -> Result<bool, TemplateError> {
        let key = key(tenant, name);
        for _ in 0..ATTEMPTS {
            let (template, revision) = self.read::<Template>(&key).await?;
            if template.is_none() || self.transport.replace_record(&self.store, &key, revision, Bytes::new()).await? {
                // Even where there was none: a process may have died before the list was right.
                self.note(tenant, name, None).await?;
                for version in template.iter().flat_map(|template| &template.versions) {
                    self.drop_body(version).await;
                }
                return Ok(template.is_some());
            }
        }
        Err(TemplateError::Contended)
    }

    /// Puts a version before the others, unless it is the newest already; the template, and the versions that it lost.
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

    /// Makes the list say what became of a template.
    async fn note(&self, tenant: Option<&str>, name: &Token, template: Option<&Template>) -> Result<(), TemplateError> {
        let key = list_key(tenant);
        for _ in 0..ATTEMPTS {
            let (list, revision) = self.read::<Vec<Listed>>(&key).await?;
            let before = list.unwrap_or_default();
            let others = before.iter().filter(|listed| listed.name != *name).cloned();
            let mut list: Vec<Listed> = others.chain(template.map(Listed::of)).collect();
            list.sort_by(|one, other| one.name.cmp(&other.name));
            if list == before || self.transport.replace_record(&self.store, &key, revision, text_of(&list)).await? {
                return Ok(());
            }
        }
        Err(TemplateError::Contended)
    }

    /// A record and its revision; what is empty was removed.
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
            tracing::warn!(version = %version.sha256, %error, "the body of a template's version was not dropped");
        }
    }
}

impl Listed {
    fn of(template: &Template) -> Self {
        let Version { sha256, kind, length, time, .. } = template.versions[0];
        Self { name: template.name.clone(), sha256, kind, length, time }
    }
}

impl Template {
    /// The version of that digest, or the newest where none is named.
    #[must_use]
    pub fn version(&self, sha256: Option<Digest>) -> Option<&Version> {
        match sha256 {
            Some(sha256) => self.versions.iter().find(|version| version.sha256 == sha256),
            None => self.versions.first(),
        }
    }
}

fn text_of(value: &impl Serialize) -> Bytes {
    Bytes::from(serde_json::to_vec(value).expect("names, numbers and times always make JSON"))
}

/// As many fields as a record has room for.
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

/// The key of a template: no other tenant can name it.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::MemoryTransport;

    fn templates() -> Templates {
        Templates::new(Arc::new(MemoryTransport::default()))
    }

    async fn put(templates: &Templates, tenant: &str, name: &str, text: &str) -> Template {
        let fields = [format!("field_of_{text}")];
        let name = Token::new(name).unwrap();
        let bytes = Bytes::from(text.to_owned());
        templates.put(Some(tenant), &name, TemplateKind::Typst, fields, bytes).await.unwrap()
    }

    #[tokio::test]
    async fn the_newest_version_is_first_and_the_same_bytes_are_the_same_version() {
        let templates = templates();
        let name = Token::new("letter").unwrap();
        let first = put(&templates, "a", "letter", "one").await;
        assert_eq!(put(&templates, "a", "letter", "one").await, first);
        let second = put(&templates, "a", "letter", "two").await;
        assert_eq!(second.versions.len(), 2);
        assert_eq!(second.versions[1], first.versions[0]);
        assert_eq!(second.fields, ["field_of_two"]);
        let back = put(&templates, "a", "letter", "one").await;
        assert_eq!((back.versions.len(), back.versions[0].sha256), (2, first.versions[0].sha256));
        let found = templates.find(Some("a"), &name).await.unwrap().unwrap();
        assert_eq!(templates.bytes(found.version(None).unwrap()).await.unwrap(), "one");
        let older = found.version(Some(second.versions[0].sha256)).unwrap();
        assert_eq!(templates.bytes(older).await.unwrap(), "two");
    }

    #[tokio::test]
    async fn versions_are_bounded_and_what_goes_takes_its_body_along() {
        let transport = MemoryTransport::default();
        let templates = Templates::new(Arc::new(transport.clone()));
        for number in 0..MOST_VERSIONS + 3 {
            put(&templates, "a", "letter", &format!("text {number}")).await;
        }
        let name = Token::new("letter").unwrap();
        let found = templates.find(Some("a"), &name).await.unwrap().unwrap();
        assert_eq!(found.versions.len(), MOST_VERSIONS);
        assert_eq!(transport.claim_count(), MOST_VERSIONS);
        assert!(templates.remove(Some("a"), &name).await.unwrap());
        assert!(!templates.remove(Some("a"), &name).await.unwrap());
        assert_eq!(transport.claim_count(), 0);
        assert!(templates.find(Some("a"), &name).await.unwrap().is_none());
        put(&templates, "a", "letter", "again").await;
        assert_eq!(templates.list(Some("a")).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_tenant_sees_its_own_alone() {
        let templates = templates();
        put(&templates, "a", "letter", "one").await;
        put(&templates, "b", "letter", "two").await;
        put(&templates, "a", "invoice", "three").await;
        let names = |list: Vec<Listed>| list.into_iter().map(|listed| listed.name.to_string()).collect::<Vec<_>>();
        assert_eq!(names(templates.list(Some("a")).await.unwrap()), ["invoice", "letter"]);
        assert_eq!(names(templates.list(Some("b")).await.unwrap()), ["letter"]);
        assert!(templates.list(None).await.unwrap().is_empty());
        templates.remove(Some("b"), &Token::new("letter").unwrap()).await.unwrap();
        assert!(templates.find(Some("a"), &Token::new("letter").unwrap()).await.unwrap().is_some());
    }

    #[tokio::test]
    async fn templates_put_side_by_side_are_all_listed() {
        let templates = templates();
        let puts = (0..8).map(|number| {
            let templates = templates.clone();
            async move { put(&templates, "a", &format!("t{number}"), "text").await }
        });
        futures_util::future::join_all(puts).await;
        assert_eq!(templates.list(Some("a")).await.unwrap().len(), 8);
    }
}
