use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use pipeline::documents::{Conversion, ConvertError, Converted, Converter, Finishing, Format, Named};
use pipeline::testing::{MemoryTransport, ProbeResult, run};
use pipeline::{
    Body, BoxError, Compute, Content, Fault, OperatorSpec as _, Params, Payload, ProcessResources, Rejection, Services,
};
use serde_json::{Value as Json, json};

use super::*;
use crate::documents::office::test_documents::docx;

/// A converter that records its conversions and fails on request.
#[derive(Default)]
struct Scripted {
    asked: Mutex<Vec<Conversion>>,
    fails: Mutex<Option<ConvertError>>,
}

#[async_trait]
impl Converter for Scripted {
    async fn convert(&self, conversion: Conversion) -> Result<Converted, ConvertError> {
        self.asked.lock().unwrap().push(conversion);
        match self.fails.lock().unwrap().take() {
            Some(error) => Err(error),
            None => {
                let files = vec![Bytes::from(format!("%PDF-{}", self.asked.lock().unwrap().len()))];
                Ok(Converted { files, pages: 1, load: Duration::ZERO, save: Duration::ZERO, cpu: Duration::ZERO })
            }
        }
    }

    async fn finish(&self, finishing: Finishing) -> Result<Vec<Named>, ConvertError> {
        let all: Vec<u8> = finishing.files.iter().flat_map(|(_, file)| file.to_vec()).collect();
        Ok(vec![("all".into(), all.into())])
    }

    fn workers(&self) -> usize {
        2
    }

    async fn ready(&self) -> Result<(), BoxError> {
        Ok(())
    }

    async fn close(&self) {}
}

fn letter() -> Payload {
    let bytes = docx("<w:p><w:r><w:t>Hello</w:t></w:r></w:p>").zip();
    Payload::Bytes(Content::inline(Format::Docx.media_type(), bytes))
}

fn text(text: &str) -> Payload {
    Payload::Bytes(Content::inline("text/plain", text.to_owned()))
}

async fn converted(engine: &Arc<Scripted>, params: Json, payloads: Vec<Payload>) -> ProbeResult {
    let converter: Arc<dyn Converter> = engine.clone();
    with(Ok(converter), params, payloads).await
}

async fn with(converter: Result<Arc<dyn Converter>, Arc<str>>, params: Json, payloads: Vec<Payload>) -> ProbeResult {
    let (compute, transport) = (Some(Compute::new(1).unwrap()), Some(Arc::new(MemoryTransport::default()) as _));
    let services = Services::new(ProcessResources { compute, transport, ..ProcessResources::default() });
    let services = match converter {
        Ok(converter) => services.offer(converter),
        Err(why) => services.decline::<dyn Converter>(why),
    };
    let spec: ConvertSpec = serde_json::from_value(json!({})).unwrap();
    let params: Params = serde_json::from_value(params).unwrap();
    run(spec.build(&services).unwrap().as_mut(), params, payloads).await
}

fn rejections(ran: &ProbeResult) -> Vec<(usize, u16, &str)> {
    ran.rejected.iter().map(|(at, Rejection { status, code, .. })| (*at, *status, &**code)).collect()
}

#[tokio::test]
async fn a_repeated_conversion_is_served_from_the_cache() {
    let engine = Arc::new(Scripted::default());
    let ran = converted(&engine, json!({}), vec![letter(), letter(), text("Hello")]).await;
    let files: Vec<&Bytes> = ran
        .emitted
        .iter()
        .map(|(_, payload)| {
            let Payload::Bytes(Content { body: Body::Inline(bytes), .. }) = payload else { panic!("{payload:?}") };
            bytes
        })
        .collect();
    assert_eq!(files, ["%PDF-1", "%PDF-1", "%PDF-2"]);
    let asked = engine.asked.lock().unwrap();
    assert_eq!(
        asked.iter().map(|asked| (asked.from, asked.to)).collect::<Vec<_>>(),
        [(Format::Docx, Format::Pdf), (Format::Txt, Format::Pdf)]
    );
}

#[tokio::test]
async fn a_document_in_the_target_format_needs_no_converter() {
    let ran = with(Err("run it".into()), json!({ "format": "docx" }), vec![letter(), text("Hello")]).await;
    assert_eq!(ran.emitted.len(), 1);
    assert_eq!(rejections(&ran), [(1, 501, "office_missing")]);
    assert!(ran.rejected[0].1.detail.contains("run it"));
}

#[tokio::test]
async fn a_document_that_crashes_the_converter_is_rejected() {
    let engine = Arc::new(Scripted::default());
    *engine.fails.lock().unwrap() = Some(ConvertError::EngineCrashed { attempts: 2, signal: "SIGSEGV".into() });
    let ran = converted(&engine, json!({}), vec![letter(), text("x")]).await;
    assert_eq!(rejections(&ran), [(0, 500, "engine_crashed")]);
    assert_eq!(ran.emitted.len(), 1);
}

#[tokio::test]
async fn a_full_disk_is_retried() {
    let engine = Arc::new(Scripted::default());
    *engine.fails.lock().unwrap() = Some(ConvertError::Storage("full".into()));
    let ran = converted(&engine, json!({}), vec![text("y")]).await;
    assert!(matches!(ran.fault, Some(Fault::Retry(_))));
}

#[tokio::test]
async fn a_file_that_is_no_document_never_reaches_the_converter() {
    let engine = Arc::new(Scripted::default());
    let picture = Payload::Bytes(Content::inline("image/png", b"\x89PNG\r\n\x1a\n".to_vec()));
    let ran = converted(&engine, json!({}), vec![picture]).await;
    assert_eq!(rejections(&ran), [(0, 415, "document_type")]);
    assert!(engine.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn an_unknown_format_never_reaches_the_converter() {
    let engine = Arc::new(Scripted::default());
    let ran = converted(&engine, json!({ "format": "exe" }), vec![letter()]).await;
    assert_eq!(rejections(&ran), [(0, 400, "invalid_option")]);
    assert!(engine.asked.lock().unwrap().is_empty());
}
