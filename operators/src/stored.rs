//! The template that an event asks for: found in the store, compiled once, filled with the event's data.
//!
//! What stages have in common that make documents of templates, whatever a template is written in.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use pipeline::spec::ByteSize;
use pipeline::templates::{Template, TemplateError, Templates, Version};
use pipeline::{
    Body, BoxError, Compute, Content, Digest, Envelope, Fault, Payload, Rejection, Services, Token, TransportError,
};
use serde_json::Value as Json;

/// The parameter that names a version, by its digest; the newest where there is none.
const VERSION_PARAM: &str = "version";

/// Why an event becomes no document.
#[derive(Debug)]
pub enum Failed {
    /// It never will.
    Rejected(Rejection),
    /// Another attempt may.
    Fault(Fault),
}

impl From<Rejection> for Failed {
    fn from(why: Rejection) -> Self {
        Self::Rejected(why)
    }
}

impl From<Fault> for Failed {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<TemplateError> for Failed {
    fn from(error: TemplateError) -> Self {
        match error {
            TemplateError::TooMany => Self::Rejected(Rejection::new(409, "too_many_templates", error.to_string())),
            TemplateError::Contended => Self::Fault(Fault::retry(error)),
            // Somebody put another version meanwhile.
            TemplateError::Transport(gone @ TransportError::Claim { .. }) => Self::Fault(Fault::retry(gone)),
            TemplateError::Transport(error) => Self::Fault(Fault::unavailable(error)),
        }
    }
}

/// What can be made of a template's bytes.
pub trait Compile: Send + Sync + Sized + 'static {
    /// What it is read with.
    type Options: Send + Sync + 'static;

    /// Checks and compiles.
    ///
    /// # Errors
    /// What is wrong with the template.
    fn compile(bytes: Bytes, options: &Self::Options) -> Result<Self, Rejection>;

    /// About how much memory it holds, in bytes.
    fn resident_bytes(&self) -> usize;
}

/// Compiled templates by the digest of their bytes, the least used of them given up when there are too many bytes; one for
/// all workers of a stage.
pub struct Compiled<T: Compile> {
    options: Arc<T::Options>,
    templates: moka::sync::Cache<Digest, Arc<T>>,
}

impl<T: Compile> Clone for Compiled<T> {
    fn clone(&self) -> Self {
        Self { options: Arc::clone(&self.options), templates: self.templates.clone() }
    }
}

impl<T: Compile> std::fmt::Debug for Compiled<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Compiled({} templates)", self.templates.entry_count())
    }
}

impl<T: Compile> Compiled<T> {
    /// Holds about `most` bytes of templates, all read with the same options.
    #[must_use]
    pub fn new(most: ByteSize, options: T::Options) -> Self {
        let weigh = |_: &Digest, template: &Arc<T>| u32::try_from(template.resident_bytes()).unwrap_or(u32::MAX);
        let templates = moka::sync::Cache::builder().max_capacity(most.0).weigher(weigh).build();
        Self { options: Arc::new(options), templates }
    }

    /// The template of these bytes. Computes; callers that ask for the same one at once wait for one compilation. What
    /// cannot be compiled is not kept.
    ///
    /// # Errors
    /// As [`Compile::compile`].
    pub fn compile(&self, digest: Digest, bytes: &Bytes) -> Result<Arc<T>, Rejection> {
        let compile = || T::compile(bytes.clone(), &self.options).map(Arc::new);
        self.templates.try_get_with(digest, compile).map_err(|why| Rejection::clone(&why))
    }
}

/// Finds templates for one stage.
pub struct Shelf<T: Compile> {
    /// The parameter that holds a template's name.
    parameter: String,
    compiled: Compiled<T>,
    templates: Templates,
    compute: Compute,
}

impl<T: Compile> Shelf<T> {
    /// # Errors
    /// If there is nothing that keeps templates.
    pub fn new(parameter: String, compiled: Compiled<T>, services: &Services) -> Result<Self, BoxError> {
        let (transport, compute) = (services.transport()?, services.compute()?);
        Ok(Self { parameter, compiled, templates: Templates::new(transport), compute })
    }

    /// The version that an event asks for.
    ///
    /// # Errors
    /// 400 if no template is named, 404 if there is none of that name or version.
    pub async fn version(&self, envelope: &Envelope) -> Result<Version, Failed> {
        let name = name_of(envelope, &self.parameter)?;
        let template = self.templates.find(envelope.tenant(), &name).await?.ok_or_else(|| unknown(&name))?;
        Ok(version_of(envelope, &template)?.clone())
    }

    /// Compiles the version, where that was not done before, and makes a document of it and the data.
    ///
    /// # Errors
    /// What is wrong with the template or the data.
    pub async fn make<D: Send + 'static>(
        &self,
        envelope: &Envelope,
        version: &Version,
        payload: Payload,
        render: impl FnOnce(&T, &Json) -> Result<D, Rejection> + Send + 'static,
    ) -> Result<D, Failed> {
        let (digest, compiled) = (version.sha256, self.compiled.clone());
        let known = compiled.templates.get(&digest);
        let bytes = if known.is_some() { Bytes::new() } else { self.templates.bytes(version).await? };
        let work = move || {
            guarded(|| {
                let template = known.map_or_else(|| compiled.compile(digest, &bytes), Ok)?;
                let data = data_of(payload)?;
                render(&template, &data)
            })
        };
        Ok(self.compute.run(envelope.lane, work).await.map_err(Fault::retry)??)
    }
}

/// The name of the template that an event is about.
///
/// # Errors
/// 400 if it has none.
pub fn name_of(envelope: &Envelope, parameter: &str) -> Result<Token, Rejection> {
    let missing =
        || Rejection::new(400, "missing_template", format!("the parameter {parameter:?} must name a template"));
    let name = envelope.text_param(parameter).ok_or_else(missing)?;
    let shown: String = name.chars().take(80).collect();
    Token::new(name).map_err(|why| Rejection::new(400, "bad_template_name", format!("template name {shown:?} {why}")))
}

/// The version of a template that an event asks for.
///
/// # Errors
/// 400 if that is no digest, 404 if there is none of it.
pub fn version_of<'t>(envelope: &Envelope, template: &'t Template) -> Result<&'t Version, Rejection> {
    let wanted = envelope.text_param(VERSION_PARAM).map(str::parse).transpose();
    let wanted = wanted.map_err(|why: String| Rejection::new(400, "bad_version", why))?;
    template.version(wanted).ok_or_else(|| {
        let kept: Vec<String> = template.versions.iter().map(|version| version.sha256.to_string()).collect();
        let detail = format!("template {} has no such version; it has {}", template.name, kept.join(", "));
        Rejection::new(404, "unknown_version", detail)
    })
}

/// 404: no template has this name.
pub fn unknown(name: &Token) -> Rejection {
    Rejection::new(404, "unknown_template", format!("there is no template named {name:?}: PUT it first"))
}

/// The data of an event: a JSON document, or its text.
fn data_of(payload: Payload) -> Result<Arc<Json>, Rejection> {
    match payload {
        Payload::Json(data) => Ok(data),
        Payload::Bytes(Content { body: Body::Inline(bytes), .. }) => serde_json::from_slice(&bytes)
            .map(Arc::new)
            .map_err(|why| Rejection::new(400, "data_malformed", format!("the data are not JSON: {why}"))),
        other => {
            let detail = format!("a template is filled with JSON, not with {}", other.kind());
            Err(Rejection::unsupported("payload_kind", detail))
        }
    }
}

/// A template that makes the engine panic costs its own event alone.
fn guarded<D>(work: impl FnOnce() -> Result<D, Rejection>) -> Result<D, Rejection> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        tracing::warn!("a template made the engine panic; its event is rejected");
        Err(Rejection::internal("the template could not be filled"))
    })
}
