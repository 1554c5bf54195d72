//! `use = "fill"`: fills a stored DOCX template, which a parameter names, with JSON data.
//!
//! A PDF passes unchanged: an earlier stage made it from a template in another language.

use std::sync::OnceLock;

use async_trait::async_trait;
use bytes::Bytes;
use pipeline::documents::Format;
use pipeline::spec::ByteSize;
use pipeline::templates::TemplateKind;
use pipeline::{
    BoxError, Content, Emits, Event, Fault, Operator, OperatorKind, OperatorSpec, Output, Payload, PayloadKind,
    Rejection, Services, StageTypes, take_kind,
};
use serde::Deserialize;
use serde_json::json;

use super::docx_template::Template;
use super::engine::Undefined;
use super::options::Options;
use crate::documents::failure::Failure;
use crate::documents::template_cache::{Compile, TemplateCache, TemplateRenderer};

/// `use = "fill"`.
pub const KIND: OperatorKind =
    OperatorKind::of::<FillSpec>("fill", "fills a DOCX template, in docxtpl's language, with JSON data");

/// The keys of a `fill` stage.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FillSpec {
    /// The parameter that holds the template's name.
    #[serde(default = "default_template")]
    template: String,
    /// Whether values are escaped. Otherwise they may contain markup, as in docxtpl: only for trusted data.
    #[serde(default = "default_autoescape")]
    autoescape: bool,
    /// How a variable that is missing in the data is treated: `"error"`, or `"blank"` as in docxtpl.
    #[serde(default)]
    undefined: Undefined,
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

fn default_autoescape() -> bool {
    true
}

fn default_cache() -> ByteSize {
    ByteSize::mib(32)
}

impl OperatorSpec for FillSpec {
    fn types(&self) -> StageTypes {
        StageTypes { takes: &[PayloadKind::Json, PayloadKind::Bytes], gives: Emits::Kind(PayloadKind::Bytes) }
    }

    fn build(&self, services: &Services) -> Result<Box<dyn Operator>, BoxError> {
        let options = Options { autoescape: self.autoescape, undefined: self.undefined, ..Options::default() };
        let compiled = self.compiled.get_or_init(|| TemplateCache::new(self.cache, options)).clone();
        let templates = TemplateRenderer::new(self.template.clone(), compiled, services)?;
        Ok(Box::new(Fill { templates }))
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

struct Fill {
    templates: TemplateRenderer<Template>,
}

#[async_trait]
impl Operator for Fill {
    async fn process(&mut self, batch: Vec<Event>, out: &mut Output) -> Result<(), Fault> {
        for (event, data) in take_kind(batch, out, |payload| Some(payload.clone())) {
            if is_document(&data) {
                out.forward(event).await?;
                continue;
            }
            out.progress(&event, json!({ "step": "filling" })).await;
            match self.fill(&event, data).await {
                Ok(document) => {
                    let content = Content::inline(Format::Docx.media_type(), document);
                    out.emit(&event, Payload::Bytes(content)).await?;
                }
                Err(Failure::Rejected(why)) => out.reject(&event, why),
                Err(Failure::Fault(fault)) => return Err(fault),
            }
        }
        Ok(())
    }
}

impl Fill {
    async fn fill(&self, event: &Event, data: Payload) -> Result<Vec<u8>, Failure> {
        let version = self.templates.version(&event.envelope).await?;
        if version.kind != TemplateKind::Docx {
            let detail =
                "the template is written in typst; put a `typeset` stage before this one, which renders it to a PDF";
            return Err(Rejection::unsupported("template_kind", detail).into());
        }
        let render = |template: &Template, data: &_| Ok(template.render(data)?);
        self.templates.render(&event.envelope, &version, data, render).await
    }
}

/// Whether a payload is a finished document rather than data.
fn is_document(payload: &Payload) -> bool {
    matches!(payload, Payload::Bytes(content) if *content.media_type == *Format::Pdf.media_type())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::documents::office::test_documents::docx;
    use crate::documents::office::{Kind, Limits, sniff};
    use pipeline::templates::Templates;
    use pipeline::testing::{MemoryTransport, run};
    use pipeline::{Body, Compute, Params, ProcessResources, Token};
    use serde_json::json;
    use std::sync::Arc;

    /// A store with one template, `letter`.
    async fn filled(name: &str, payloads: Vec<Payload>, down: bool) -> pipeline::testing::ProbeResult {
        let transport = MemoryTransport::default();
        let template = docx("<w:p><w:r><w:t>Dear {{ name }}</w:t></w:r></w:p>").zip();
        let letter = Token::new("letter").unwrap();
        let templates = Templates::new(Arc::new(transport.clone()));
        templates.put(None, &letter, TemplateKind::Docx, [], template.into()).await.unwrap();
        transport.set_down(down);
        let compute = Some(Compute::new(1).unwrap());
        let transport = Some(Arc::new(transport) as _);
        let services = Services::new(ProcessResources { transport, compute, ..ProcessResources::default() });
        let spec: FillSpec = serde_json::from_value(json!({})).unwrap();
        let params: Params = [("name".to_owned(), json!(name))].into();
        run(spec.build(&services).unwrap().as_mut(), params, payloads).await
    }

    #[tokio::test]
    async fn invalid_data_reject_only_their_own_event() {
        let json_text = Payload::Bytes(Content::inline("application/json", r#"{"name": "B"}"#));
        let broken = Payload::Bytes(Content::inline("application/json", "{"));
        let batch = vec![Payload::json(json!({"name": "A"})), Payload::json(json!({})), broken, json_text];
        let ran = filled("letter", batch, false).await;
        assert_eq!(ran.emitted.iter().map(|(parent, _)| *parent).collect::<Vec<_>>(), [0, 3]);
        let Payload::Bytes(Content { body: Body::Inline(document), media_type }) = &ran.emitted[0].1 else { panic!() };
        assert_eq!((sniff(document, &Limits::default()), &**media_type), (Ok(Kind::Docx), Format::Docx.media_type()));
        let rejections: Vec<_> = ran.rejected.iter().map(|(at, why)| (*at, why.status, &*why.code)).collect();
        assert_eq!(rejections, [(1, 422, "undefined_variable"), (2, 400, "data_malformed")]);
        assert!(ran.rejected[0].1.detail.contains("tag {{ name }} in paragraph 1"), "{:?}", ran.rejected[0].1);
    }

    #[tokio::test]
    async fn an_unknown_template_is_rejected_and_an_unavailable_store_is_retried() {
        for (name, status) in [("other", 404), ("../../etc/passwd", 400), ("a/b", 400), ("\0", 400)] {
            let ran = filled(name, vec![Payload::json(json!({}))], false).await;
            assert_eq!(ran.rejected[0].1.status, status, "{name}");
        }
        let ran = filled("letter", vec![Payload::json(json!({}))], true).await;
        assert!(matches!(ran.fault, Some(Fault::Unavailable(_))));
    }

    #[tokio::test]
    async fn a_finished_document_passes_unchanged() {
        let document = Payload::Bytes(Content::inline("application/pdf", "%PDF-1.7"));
        let ran = filled("letter", vec![document], false).await;
        assert!(
            matches!(&ran.emitted[..], [(0, Payload::Bytes(content))] if &*content.media_type == "application/pdf")
        );
    }
}
