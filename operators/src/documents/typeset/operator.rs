//! `use = "typeset"`: renders JSON data to a PDF with a stored typst template, which a parameter names.
//!
//! Data for a template in another language pass unchanged to the next stage.

use std::sync::OnceLock;

use async_trait::async_trait;
use bytes::Bytes;
use pipeline::documents::Format;
use pipeline::spec::ByteSize;
use pipeline::templates::{TemplateKind, Version};
use pipeline::{
    BoxError, Content, Emits, Envelope, Event, Fault, Operator, OperatorKind, OperatorSpec, Output, Payload,
    PayloadKind, Rejection, Services, StageTypes, take_kind,
};
use serde::Deserialize;
use serde_json::json;

use super::options::{Options, Standard};
use super::typst_template::Template;
use crate::documents::failure::Failure;
use crate::documents::template_cache::{Compile, TemplateCache, TemplateRenderer};

/// `use = "typeset"`.
pub const KIND: OperatorKind =
    OperatorKind::of::<TypesetSpec>("typeset", "renders a typst template with JSON data to a PDF");

/// The keys of a `typeset` stage.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TypesetSpec {
    /// The parameter that holds the template's name.
    #[serde(default = "default_template")]
    template: String,
    /// The parameter that holds the format: `pdf`, `pdfa-2b`, `pdfa-3b`, `pdfua` or `png`.
    #[serde(default = "default_format")]
    format: String,
    /// Memory for compiled templates. The default holds about a hundred.
    #[serde(default = "default_cache")]
    cache: ByteSize,
    /// Shared by all workers of the stage.
    #[serde(skip)]
    compiled: OnceLock<TemplateCache<Template>>,
}

fn default_template() -> String {
    "name".into()
}

fn default_format() -> String {
    "format".into()
}

fn default_cache() -> ByteSize {
    ByteSize::mib(16)
}

impl OperatorSpec for TypesetSpec {
    fn types(&self) -> StageTypes {
        StageTypes { takes: &[PayloadKind::Json, PayloadKind::Bytes], gives: Emits::Same }
    }

    fn build(&self, services: &Services) -> Result<Box<dyn Operator>, BoxError> {
        let compiled = self.compiled.get_or_init(|| TemplateCache::new(self.cache, Options::default())).clone();
        let templates = TemplateRenderer::new(self.template.clone(), compiled, services)?;
        Ok(Box::new(Typeset { format: self.format.clone(), templates }))
    }
}

impl Compile for Template {
    type Options = Options;

    fn compile(bytes: Bytes, options: &Options) -> Result<Self, Rejection> {
        Ok(Self::compile(bytes, options)?)
    }

    fn resident_bytes(&self) -> usize {
        self.resident_bytes()
    }
}

struct Typeset {
    format: String,
    templates: TemplateRenderer<Template>,
}

#[async_trait]
impl Operator for Typeset {
    async fn process(&mut self, batch: Vec<Event>, out: &mut Output) -> Result<(), Fault> {
        for (event, data) in take_kind(batch, out, |payload| Some(payload.clone())) {
            let made = match self.templates.version(&event.envelope).await {
                Ok(version) if version.kind != TemplateKind::Typst => {
                    out.forward(event).await?;
                    continue;
                }
                Ok(version) => {
                    out.progress(&event, json!({ "step": "typesetting" })).await;
                    self.typeset(&event.envelope, &version, data).await
                }
                Err(why) => Err(why),
            };
            match made {
                Ok(document) => {
                    let content = Content::inline(Format::Pdf.media_type(), document);
                    out.emit(&event, Payload::Bytes(content)).await?;
                }
                Err(Failure::Rejected(why)) => out.reject(&event, why),
                Err(Failure::Fault(fault)) => return Err(fault),
            }
        }
        Ok(())
    }
}

impl Typeset {
    async fn typeset(&self, envelope: &Envelope, version: &Version, data: Payload) -> Result<Vec<u8>, Failure> {
        let standard = match envelope.text_param(&self.format) {
            // `convert` makes PNG images of the PDF.
            None | Some("pdf" | "png") => Standard::Pdf,
            Some("pdfa-2b") => Standard::A2b,
            Some("pdfa-3b") => Standard::A3b,
            Some("pdfua") => Standard::Ua1,
            Some(other) => {
                let shown: String = other.chars().take(80).collect();
                let detail = format!(
                    "format {shown:?} is not available for a typst template; expected pdf, pdfa-2b, pdfa-3b, pdfua or png"
                );
                return Err(Rejection::unsupported("unsupported_conversion", detail).into());
            }
        };
        let render = move |template: &Template, data: &_| Ok(template.render_as(data, standard)?);
        self.templates.render(envelope, version, data, render).await
    }
}
