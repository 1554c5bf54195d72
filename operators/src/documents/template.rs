//! `use = "template"`: stores, lists, returns and deletes document templates.
//!
//! One stage performs one `action`: `put` checks a template, finds its fields and stores it as the newest version;
//! `list`, `show` and `file` return what is stored; `delete` removes a template. A template that is put twice is stored
//! once.

use async_trait::async_trait;
use bytes::Bytes;
use pipeline::spec::ByteSize;
use pipeline::templates::{Template, TemplateKind, Templates, Version};
use pipeline::{
    Body, BoxError, Compute, Content, Emits, Event, Fault, Operator, OperatorKind, OperatorSpec, Output, Payload,
    PayloadKind, Rejection, Services, StageTypes,
};
use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::failure::Failure;
use super::template_cache::{name_of, unknown, version_of};
use super::{fill, typeset};

/// `use = "template"`.
pub const KIND: OperatorKind =
    OperatorKind::of::<TemplateSpec>("template", "stores, lists, returns and deletes document templates");

/// The keys of a `template` stage.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TemplateSpec {
    /// What the stage does with templates.
    action: Action,
    /// The parameter that holds the template's name; every action but `list` needs it.
    #[serde(default = "default_name")]
    name: String,
    /// Largest template.
    #[serde(default = "default_max_bytes")]
    max_bytes: ByteSize,
}

/// An operation on templates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Action {
    /// Stores a template; returns `{"name", "sha256", "kind", "fields", …}`.
    Put,
    /// Returns the same for a stored template.
    Show,
    /// Returns its bytes.
    File,
    /// Returns `{"templates": […]}`.
    List,
    /// Deletes a template; returns `{"name", "deleted": true}`.
    Delete,
}

fn default_name() -> String {
    "name".into()
}

/// Twice the size of the largest templates with images that are in use.
fn default_max_bytes() -> ByteSize {
    ByteSize::mib(20)
}

impl OperatorSpec for TemplateSpec {
    fn types(&self) -> StageTypes {
        match self.action {
            Action::Put => StageTypes { takes: &[PayloadKind::Bytes], gives: Emits::Kind(PayloadKind::Json) },
            Action::File => StageTypes { takes: &[PayloadKind::Json], gives: Emits::Kind(PayloadKind::Bytes) },
            _ => StageTypes { takes: &[PayloadKind::Json], gives: Emits::Kind(PayloadKind::Json) },
        }
    }

    fn has_effect(&self) -> bool {
        matches!(self.action, Action::Put | Action::Delete)
    }

    fn build(&self, services: &Services) -> Result<Box<dyn Operator>, BoxError> {
        let (transport, compute) = (services.transport()?, services.compute()?);
        Ok(Box::new(Keep { spec: self.clone(), templates: Templates::new(transport), compute }))
    }
}

struct Keep {
    spec: TemplateSpec,
    templates: Templates,
    compute: Compute,
}

#[async_trait]
impl Operator for Keep {
    async fn process(&mut self, batch: Vec<Event>, out: &mut Output) -> Result<(), Fault> {
        for event in batch {
            match self.act(&event).await {
                Ok(payload) => out.emit(&event, payload).await?,
                Err(Failure::Rejected(why)) => out.reject(&event, why),
                Err(Failure::Fault(fault)) => return Err(fault),
            }
        }
        Ok(())
    }
}

impl Keep {
    async fn act(&self, event: &Event) -> Result<Payload, Failure> {
        let tenant = event.envelope.tenant();
        if self.spec.action == Action::List {
            let templates = self.templates.list(tenant).await?;
            return Ok(Payload::json(json!({ "templates": templates })));
        }
        let name = name_of(&event.envelope, &self.spec.name)?;
        match self.spec.action {
            Action::Put => self.put(event).await,
            Action::Delete if self.templates.remove(tenant, &name).await? => {
                Ok(Payload::json(json!({ "name": name, "deleted": true })))
            }
            // An earlier attempt of this event has deleted it.
            Action::Delete if event.envelope.attempt > 1 => Ok(Payload::json(json!({ "name": name, "deleted": true }))),
            Action::Delete => Err(unknown(&name).into()),
            Action::Show | Action::File | Action::List => {
                let template = self.templates.find(tenant, &name).await?.ok_or_else(|| unknown(&name))?;
                if self.spec.action == Action::Show {
                    return Ok(Payload::json(described(&template)));
                }
                let version = version_of(&event.envelope, &template)?;
                let bytes = self.templates.bytes(version).await?;
                Ok(Payload::Bytes(Content::inline(version.kind.media_type(), bytes)))
            }
        }
    }

    async fn put(&self, event: &Event) -> Result<Payload, Failure> {
        let Payload::Bytes(Content { body: Body::Inline(bytes), .. }) = &event.payload else {
            let detail = format!("expected a template file, not {}", event.payload.kind());
            return Err(Rejection::unsupported("payload_kind", detail).into());
        };
        if bytes.len() as u64 > self.spec.max_bytes.0 {
            let detail = format!("the template has {} bytes; the limit is {}", bytes.len(), self.spec.max_bytes);
            return Err(Rejection::too_large("template_too_large", detail).into());
        }
        let (envelope, whole) = (&event.envelope, bytes.clone());
        let read = self.compute.run(envelope.lane, move || fields_of(whole)).await.map_err(Fault::retry)?;
        let (kind, fields) = read?;
        let name = name_of(envelope, &self.spec.name)?;
        let template = self.templates.put(envelope.tenant(), &name, kind, fields, bytes.clone()).await?;
        Ok(Payload::json(described(&template)))
    }
}

/// The language of a template and its fields. Compiling it here reports errors when it is stored, not when it is
/// rendered.
fn fields_of(bytes: Bytes) -> Result<(TemplateKind, Vec<String>), Rejection> {
    if bytes.starts_with(b"PK") || std::str::from_utf8(&bytes).is_err() {
        let template = fill::Template::compile(bytes, &fill::Options::default())?;
        return Ok((TemplateKind::Docx, template.fields().iter().cloned().collect()));
    }
    let template = typeset::Template::compile(bytes, &typeset::Options::default())?;
    Ok((TemplateKind::Typst, template.fields().iter().cloned().collect()))
}

/// A template as a client sees it.
fn described(template: &Template) -> Json {
    let newest = template.versions.first().map(version);
    let versions: Vec<Json> = template.versions.iter().map(version).collect();
    let mut described = json!({ "name": template.name });
    if let (Some(described), Some(Json::Object(newest))) = (described.as_object_mut(), newest) {
        described.extend(newest);
        described.insert("fields".into(), json!(template.fields));
        described.insert("versions".into(), json!(versions));
    }
    described
}

fn version(version: &Version) -> Json {
    let time = version.time.format(&time::format_description::well_known::Rfc3339).unwrap_or_default();
    json!({ "sha256": version.sha256, "kind": version.kind, "length": version.length, "time": time })
}
