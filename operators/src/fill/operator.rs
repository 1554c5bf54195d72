//! `use = "fill"`: data in, a DOCX out; the template comes from the service's store by the name in a parameter.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use bytes::Bytes;
use pipeline::spec::ByteSize;
use pipeline::{
    Body, BoxError, Compute, Content, Ends, Event, Fault, Gives, Operator, OperatorKind, OperatorSpec, Output, Payload,
    PayloadKind, Rejection, Services, TemplateStore, take_kind,
};
use serde::Deserialize;
use serde_json::Value as Json;

use super::{Cache, Options, Undefined};

/// `use = "fill"`.
pub const KIND: OperatorKind =
    OperatorKind::of::<FillSpec>("fill", "fills a DOCX template, in docxtpl's language, with a JSON document");

/// The media type of a DOCX.
pub const DOCX: &str = "application/vnd.openxmlformats-officedocument.wordprocessingml.document";

/// The keys of a `fill` stage.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FillSpec {
    /// The parameter that holds the template's name.
    #[serde(default = "default_template")]
    template: String,
    /// Whether values are text. Without it they may hold markup, as in docxtpl: for templates whose data are trusted.
    #[serde(default = "default_autoescape")]
    autoescape: bool,
    /// What a variable does that the data do not have: `"error"`, or `"blank"` as in docxtpl.
    #[serde(default)]
    undefined: Undefined,
    /// Memory for compiled templates. The default is some hundred of them.
    #[serde(default = "default_cache")]
    cache: ByteSize,
    /// One for all workers of the stage.
    #[serde(skip)]
    compiled: OnceLock<Cache>,
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
    fn ends(&self) -> Ends {
        Ends { takes: &[PayloadKind::Json, PayloadKind::Bytes], gives: Gives::Kind(PayloadKind::Bytes) }
    }

    fn build(&self, services: &Services) -> Result<Box<dyn Operator>, BoxError> {
        let options = Options { autoescape: self.autoescape, undefined: self.undefined, ..Options::default() };
        let cache = self.compiled.get_or_init(|| Cache::new(self.cache, options)).clone();
        let store = services.templates.clone().ok_or("there is no store of templates")?;
        let compute = services.compute.clone().ok_or("there are no computing threads")?;
        Ok(Box::new(Fill { parameter: self.template.clone(), cache, store, compute }))
    }
}

struct Fill {
    parameter: String,
    cache: Cache,
    store: Arc<dyn TemplateStore>,
    compute: Compute,
}

#[async_trait]
impl Operator for Fill {
    async fn process(&mut self, batch: Vec<Event>, out: &mut Output) -> Result<(), Fault> {
        for (event, data) in take_kind(batch, out, |payload| Some(payload.clone())) {
            match self.fill(&event, data).await? {
                Ok(document) => out.emit(&event, Payload::Bytes(Content::inline(DOCX, document))).await?,
                Err(why) => out.reject(&event, why),
            }
        }
        Ok(())
    }
}

impl Fill {
    async fn fill(&self, event: &Event, payload: Payload) -> Result<Result<Vec<u8>, Rejection>, Fault> {
        let Some(name) = event.envelope.text_param(&self.parameter) else {
            let detail = format!("the parameter {:?} must name a template", self.parameter);
            return Ok(Err(Rejection::new(400, "missing_template", detail)));
        };
        let Some(template) = self.store.template(name).await.map_err(Fault::unavailable)? else {
            let shown: String = name.chars().take(80).collect();
            return Ok(Err(Rejection::new(404, "unknown_template", format!("there is no template named {shown:?}"))));
        };
        let cache = self.cache.clone();
        let work = move || guarded(|| fill(&cache, &template, &payload));
        self.compute.run(event.envelope.lane, work).await.map_err(Fault::retry)
    }
}

fn fill(cache: &Cache, template: &Bytes, payload: &Payload) -> Result<Vec<u8>, Rejection> {
    let template = cache.get(template)?;
    match payload {
        Payload::Json(data) => Ok(template.render(data)?),
        Payload::Bytes(Content { body: Body::Inline(bytes), .. }) => {
            let data: Json = serde_json::from_slice(bytes)
                .map_err(|why| Rejection::new(400, "data_malformed", format!("the data are not JSON: {why}")))?;
            Ok(template.render(&data)?)
        }
        other => {
            let detail = format!("a template is filled with JSON, not with {}", other.kind());
            Err(Rejection::unsupported("payload_kind", detail))
        }
    }
}

/// A template that makes the engine panic costs its own event alone.
fn guarded(work: impl FnOnce() -> Result<Vec<u8>, Rejection>) -> Result<Vec<u8>, Rejection> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        tracing::warn!("a template made the engine panic; its event is rejected");
        Err(Rejection::internal("the template could not be filled"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::office::samples::docx;
    use crate::office::{Kind, Limits, sniff};
    use pipeline::Params;
    use pipeline::testing::run;
    use serde_json::json;

    /// Has one template, `letter`; out of reach for the name `away`.
    struct OneTemplate(Bytes);

    #[async_trait]
    impl TemplateStore for OneTemplate {
        async fn template(&self, name: &str) -> Result<Option<Bytes>, BoxError> {
            match name {
                "letter" => Ok(Some(self.0.clone())),
                "away" => Err("no route to the store".into()),
                _ => Ok(None),
            }
        }
    }

    async fn filled(name: &str, payloads: Vec<Payload>) -> pipeline::testing::Ran {
        let template = docx("<w:p><w:r><w:t>Dear {{ name }}</w:t></w:r></w:p>").zip();
        let templates: Arc<dyn TemplateStore> = Arc::new(OneTemplate(template.into()));
        let compute = Some(Compute::new(1).unwrap());
        let services = Services { templates: Some(templates), compute, ..Services::default() };
        let spec: FillSpec = serde_json::from_value(json!({})).unwrap();
        let params: Params = [("name".to_owned(), json!(name))].into();
        run(spec.build(&services).unwrap().as_mut(), params, payloads).await
    }

    #[tokio::test]
    async fn data_become_a_document_and_bad_data_harm_no_other() {
        let json_text = Payload::Bytes(Content::inline("application/json", r#"{"name": "B"}"#));
        let broken = Payload::Bytes(Content::inline("application/json", "{"));
        let batch = vec![Payload::json(json!({"name": "A"})), Payload::json(json!({})), broken, json_text];
        let ran = filled("letter", batch).await;
        assert_eq!(ran.emitted.iter().map(|(parent, _)| *parent).collect::<Vec<_>>(), [0, 3]);
        let Payload::Bytes(Content { body: Body::Inline(document), media_type }) = &ran.emitted[0].1 else { panic!() };
        assert_eq!((sniff(document, &Limits::default()), &**media_type), (Ok(Kind::Docx), DOCX));
        let told: Vec<_> = ran.rejected.iter().map(|(at, why)| (*at, why.status, &*why.code)).collect();
        assert_eq!(told, [(1, 422, "undefined_variable"), (2, 400, "data_malformed")]);
        assert!(ran.rejected[0].1.detail.contains("tag {{ name }} in paragraph 1"), "{:?}", ran.rejected[0].1);
    }

    #[tokio::test]
    async fn a_template_that_is_not_there_is_a_404_and_a_store_that_is_not_waits() {
        for name in ["other", "../../etc/passwd", "a/b", "\0"] {
            let ran = filled(name, vec![Payload::json(json!({}))]).await;
            assert_eq!(ran.rejected[0].1.status, 404, "{name}");
        }
        let ran = filled("away", vec![Payload::json(json!({}))]).await;
        assert!(matches!(ran.fault, Some(Fault::Unavailable(_))));
    }
}
