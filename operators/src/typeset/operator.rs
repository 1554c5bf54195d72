//! `use = "typeset"`: data in, a PDF out; the template comes from the service's store by the name in a parameter.
//!
//! Data for a template in another language pass: a stage behind this one fills it.

use std::sync::OnceLock;

use async_trait::async_trait;
use bytes::Bytes;
use pipeline::documents::Format;
use pipeline::spec::ByteSize;
use pipeline::templates::{TemplateKind, Version};
use pipeline::{
    BoxError, Content, Ends, Envelope, Event, Fault, Gives, Operator, OperatorKind, OperatorSpec, Output, Payload,
    PayloadKind, Rejection, Services, take_kind,
};
use serde::Deserialize;
use serde_json::json;

use super::{Options, Standard, Template};
use crate::stored::{Compile, Compiled, Failed, Shelf};

/// `use = "typeset"`.
pub const KIND: OperatorKind =
    OperatorKind::of::<TypesetSpec>("typeset", "typesets a typst template with a JSON document to a PDF");

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
    /// Memory for compiled templates. The default is some hundred of them.
    #[serde(default = "default_cache")]
    cache: ByteSize,
    /// One for all workers of the stage.
    #[serde(skip)]
    compiled: OnceLock<Compiled<Template>>,
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
    fn ends(&self) -> Ends {
        Ends { takes: &[PayloadKind::Json, PayloadKind::Bytes], gives: Gives::Same }
    }

    fn build(&self, services: &Services) -> Result<Box<dyn Operator>, BoxError> {
        let compiled = self.compiled.get_or_init(|| Compiled::new(self.cache, Options::default())).clone();
        let shelf = Shelf::new(self.template.clone(), compiled, services)?;
        Ok(Box::new(Typeset { format: self.format.clone(), shelf }))
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
    shelf: Shelf<Template>,
}

#[async_trait]
impl Operator for Typeset {
    async fn process(&mut self, batch: Vec<Event>, out: &mut Output) -> Result<(), Fault> {
        for (event, data) in take_kind(batch, out, |payload| Some(payload.clone())) {
            let made = match self.shelf.version(&event.envelope).await {
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
                Err(Failed::Rejected(why)) => out.reject(&event, why),
                Err(Failed::Fault(fault)) => return Err(fault),
            }
        }
        Ok(())
    }
}

impl Typeset {
    async fn typeset(&self, envelope: &Envelope, version: &Version, data: Payload) -> Result<Vec<u8>, Failed> {
        let standard = match envelope.text_param(&self.format) {
            // Pictures are drawn of the PDF, by `convert`.
            None | Some("pdf" | "png") => Standard::Pdf,
            Some("pdfa-2b") => Standard::A2b,
            Some("pdfa-3b") => Standard::A3b,
            Some("pdfua") => Standard::Ua1,
            Some(other) => {
                let shown: String = other.chars().take(80).collect();
                let detail = format!("a typst template becomes pdf, pdfa-2b, pdfa-3b, pdfua or png, not {shown:?}");
                return Err(Rejection::unsupported("unsupported_conversion", detail).into());
            }
        };
        let render = move |template: &Template, data: &_| Ok(template.render_as(data, standard)?);
        self.shelf.make(envelope, version, data, render).await
    }
}
