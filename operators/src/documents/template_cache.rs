//! Template cache: loads the template that an event names, compiles it once, and renders it with the event's data.
//!
//! Shared by the stages that render templates, whatever language a template is written in.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use pipeline::spec::ByteSize;
use pipeline::templates::{Template, Templates, Version};
use pipeline::{
    Body, BoxError, Compute, Content, Digest, Envelope, Fault, Payload, Rejection, Services, Token, parse_message,
};
use serde_json::Value as Json;

use super::failure::Failure;

/// The parameter that names a version by its digest. Without it the newest version is used.
const VERSION_PARAM: &str = "version";

/// A template language: compiles the bytes of a template.
pub trait Compile: Send + Sync + Sized + 'static {
    /// Compiler options.
    type Options: Send + Sync + 'static;

    /// Checks and compiles.
    ///
    /// # Errors
    /// If the template is invalid.
    fn compile(bytes: Bytes, options: &Self::Options) -> Result<Self, Rejection>;

    /// About how much memory it holds, in bytes.
    fn resident_bytes(&self) -> usize;
}

/// Compiled templates by the digest of their bytes, bounded in bytes, least used evicted first. One per stage, shared
/// by its workers.
pub struct TemplateCache<T: Compile> {
    options: Arc<T::Options>,
    templates: moka::sync::Cache<Digest, Arc<T>>,
}

impl<T: Compile> Clone for TemplateCache<T> {
    fn clone(&self) -> Self {
        Self { options: Arc::clone(&self.options), templates: self.templates.clone() }
    }
}

impl<T: Compile> std::fmt::Debug for TemplateCache<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TemplateCache({} templates)", self.templates.entry_count())
    }
}

impl<T: Compile> TemplateCache<T> {
    /// Stores about `most` bytes of templates, all compiled with the same options.
    #[must_use]
    pub fn new(most: ByteSize, options: T::Options) -> Self {
        let weigh = |_: &Digest, template: &Arc<T>| u32::try_from(template.resident_bytes()).unwrap_or(u32::MAX);
        let templates = moka::sync::Cache::builder().max_capacity(most.0).weigher(weigh).build();
        Self { options: Arc::new(options), templates }
    }

    /// The compiled template of these bytes. CPU-bound; concurrent calls for the same template share one compilation. A
    /// template that does not compile is not cached.
    ///
    /// # Errors
    /// As [`Compile::compile`].
    pub fn compile(&self, digest: Digest, bytes: &Bytes) -> Result<Arc<T>, Rejection> {
        let compile = || T::compile(bytes.clone(), &self.options).map(Arc::new);
        self.templates.try_get_with(digest, compile).map_err(|why| Rejection::clone(&why))
    }
}

/// Loads and renders templates for one stage.
pub struct TemplateRenderer<T: Compile> {
    /// The parameter that holds a template's name.
    parameter: String,
    compiled: TemplateCache<T>,
    templates: Templates,
    compute: Compute,
}

impl<T: Compile> TemplateRenderer<T> {
    /// # Errors
    /// If there is no template store or no compute pool.
    pub fn new(parameter: String, compiled: TemplateCache<T>, services: &Services) -> Result<Self, BoxError> {
        let (transport, compute) = (services.transport()?, services.compute()?);
        Ok(Self { parameter, compiled, templates: Templates::new(transport), compute })
    }

    /// The template version that an event names.
    ///
    /// # Errors
    /// 400 if no template is named, 404 if the template or the version does not exist.
    pub async fn version(&self, envelope: &Envelope) -> Result<Version, Failure> {
        let name = name_of(envelope, &self.parameter)?;
        let template = self.templates.find(envelope.tenant(), &name).await?.ok_or_else(|| unknown(&name))?;
        Ok(version_of(envelope, &template)?.clone())
    }

    /// Compiles the version unless it is cached, and renders it with the data.
    ///
    /// # Errors
    /// If the template or the data are invalid.
    pub async fn render<D: Send + 'static>(
        &self,
        envelope: &Envelope,
        version: &Version,
        payload: Payload,
        render: impl FnOnce(&T, &Json) -> Result<D, Rejection> + Send + 'static,
    ) -> Result<D, Failure> {
        let (digest, compiled) = (version.sha256, self.compiled.clone());
        let cached = compiled.templates.get(&digest);
        let bytes = if cached.is_some() { Bytes::new() } else { self.templates.bytes(version).await? };
        let work = move || {
            catch_panic(|| {
                let template = cached.map_or_else(|| compiled.compile(digest, &bytes), Ok)?;
                let data = data_of(payload)?;
                render(&template, &data)
            })
        };
        Ok(self.compute.run(envelope.lane, work).await.map_err(Fault::retry)??)
    }
}

/// The name of the template that an event names.
///
/// # Errors
/// 400 if the parameter is missing or not a valid name.
pub fn name_of(envelope: &Envelope, parameter: &str) -> Result<Token, Rejection> {
    let missing = || {
        Rejection::new(400, "missing_template", format!("parameter {parameter:?} is missing; it must name a template"))
    };
    let name = envelope.text_param(parameter).ok_or_else(missing)?;
    let shown: String = name.chars().take(80).collect();
    Token::new(name).map_err(|why| Rejection::new(400, "bad_template_name", format!("template name {shown:?} {why}")))
}

/// The version that an event names, or the newest.
///
/// # Errors
/// 400 if the parameter is not a digest, 404 if the template has no such version.
pub fn version_of<'t>(envelope: &Envelope, template: &'t Template) -> Result<&'t Version, Rejection> {
    let requested = envelope.text_param(VERSION_PARAM).map(str::parse).transpose();
    let requested = requested.map_err(|why: String| Rejection::new(400, "bad_version", why))?;
    template.version(requested).ok_or_else(|| {
        let stored: Vec<String> = template.versions.iter().map(|version| version.sha256.to_string()).collect();
        let detail = format!("template {} has no such version; its versions are {}", template.name, stored.join(", "));
        Rejection::new(404, "unknown_version", detail)
    })
}

/// 404: no template of this name is stored.
pub fn unknown(name: &Token) -> Rejection {
    Rejection::new(404, "unknown_template", format!("template {name:?} does not exist; store it first with PUT"))
}

/// The data of an event: JSON, or bytes that are parsed as JSON.
fn data_of(payload: Payload) -> Result<Arc<Json>, Rejection> {
    match payload {
        Payload::Json(data) => Ok(data),
        Payload::Bytes(Content { body: Body::Inline(bytes), .. }) => {
            serde_json::from_slice(&bytes).map(Arc::new).map_err(|why| {
                Rejection::new(400, "data_malformed", format!("the data are not valid JSON: {}", parse_message(&why)))
            })
        }
        other => {
            let detail = format!("expected JSON data for the template, not {}", other.kind());
            Err(Rejection::unsupported("payload_kind", detail))
        }
    }
}

/// A template that makes the engine panic affects only its own event.
fn catch_panic<D>(work: impl FnOnce() -> Result<D, Rejection>) -> Result<D, Rejection> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        tracing::warn!("template engine panicked; event rejected");
        Err(Rejection::internal("the template could not be rendered"))
    })
}
