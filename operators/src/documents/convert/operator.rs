//! `use = "convert"`: converts office documents to another format, with LibreOffice.
//!
//! The format is detected from the content, the document is scanned ([`office`](crate::documents::office)) and passed
//! to the document converter. Results are cached for a while by the digest of document and parameters. PDFs are then
//! merged, split, given metadata and encrypted as requested, also by the converter's sandboxed workers, because a PDF
//! may come from an untrusted source. Several result files become a ZIP archive.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use pipeline::documents::{Conversion, ConvertError, Converter, Finish, Finishing, Format, Named, Split, page_ranges};
use pipeline::spec::ByteSize;
use pipeline::{
    BoxError, Compute, Content, Digest, Emits, Envelope, Event, Fault, Need, Operator, OperatorKind, OperatorSpec,
    Output, Part, Payload, PayloadKind, Rejection, Services, StageTypes, Transport, TransportError, claims,
};
use serde::Deserialize;
use serde_json::json;
use time::OffsetDateTime;
use tokio::time::Instant;

use super::archive::{self, ConvertedDocument};
use super::document_type::{Document, inspect};
use super::parameters::{Dialect, Parameters};
use super::request;
use super::result_cache::{Results, key_of};
use crate::documents::failure::Failure;

/// `use = "convert"`.
pub const KIND: OperatorKind =
    OperatorKind::of::<ConvertSpec>("convert", "converts office documents, with LibreOffice in sandboxed processes");

/// Longest time for waiting and conversion if the request has no deadline.
const DEFAULT_TIMEOUT: Duration = Duration::from_mins(2);
/// Most documents per request.
const MAX_FILES: usize = 100;

/// The keys of a `convert` stage.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConvertSpec {
    /// How requests pass their parameters: `"own"` parameters, or a form with `"gotenberg"`'s fields.
    #[serde(default)]
    fields: Dialect,
    /// Memory for cached results; 0 disables the cache.
    #[serde(default = "default_cache")]
    cache: ByteSize,
    /// How long a result is cached, in milliseconds. Limited, because some documents display the date.
    #[serde(default = "default_cache_ms")]
    cache_ms: u64,
    /// Shared by all workers of the stage.
    #[serde(skip)]
    results: OnceLock<Results>,
}

/// About a thousand letters.
fn default_cache() -> ByteSize {
    ByteSize::mib(64)
}

/// Ten minutes.
fn default_cache_ms() -> u64 {
    600_000
}

impl OperatorSpec for ConvertSpec {
    fn types(&self) -> StageTypes {
        StageTypes { takes: &[PayloadKind::Bytes, PayloadKind::Parts], gives: Emits::Kind(PayloadKind::Bytes) }
    }

    fn needs(&self) -> Vec<Need> {
        vec![Need::of::<dyn Converter>()]
    }

    fn build(&self, services: &Services) -> Result<Box<dyn Operator>, BoxError> {
        let weigh = |_: &Digest, files: &Vec<Bytes>| {
            u32::try_from(files.iter().map(|file| file.len() + 64).sum::<usize>()).unwrap_or(u32::MAX)
        };
        let keep = Duration::from_millis(self.cache_ms);
        let build =
            || moka::sync::Cache::builder().max_capacity(self.cache.0).weigher(weigh).time_to_live(keep).build();
        let results = self.results.get_or_init(build).clone();
        let converter = services.get_or_declined::<dyn Converter>()?;
        let (compute, transport) = (services.compute()?, services.transport()?);
        Ok(Box::new(Convert { fields: self.fields, results, converter, compute, transport }))
    }
}

struct Convert {
    fields: Dialect,
    results: Results,
    /// Or the reason why there is none, and what to do about it.
    converter: Result<Arc<dyn Converter>, Arc<str>>,
    compute: Compute,
    /// Fetches large parts of a form from the object store.
    transport: Arc<dyn Transport>,
}

#[async_trait]
impl Operator for Convert {
    async fn process(&mut self, batch: Vec<Event>, out: &mut Output) -> Result<(), Fault> {
        for event in batch {
            match self.convert(&event, out).await {
                Ok(content) => out.emit(&event, Payload::Bytes(content)).await?,
                Err(Failure::Rejected(why)) => out.reject(&event, why),
                Err(Failure::Fault(fault)) => return Err(fault),
            }
        }
        Ok(())
    }
}

impl Convert {
    async fn convert(&self, event: &Event, out: &Output) -> Result<Content, Failure> {
        let parameters = request::read(self.fields, &event.envelope.params)?;
        let parts = match &event.payload {
            Payload::Bytes(content) => {
                vec![Part { name: "document".into(), file_name: None, content: content.clone() }]
            }
            Payload::Parts(parts) => parts.to_vec(),
            other => {
                return Err(Rejection::unsupported(
                    "payload_kind",
                    format!("expected a document, not {}", other.kind()),
                )
                .into());
            }
        };
        if parts.is_empty() {
            return Err(request::no_document(self.fields).into());
        }
        if parts.len() > MAX_FILES {
            let detail = format!("the request has {} documents; the limit is {MAX_FILES}", parts.len());
            return Err(Rejection::too_large("too_many_documents", detail).into());
        }
        // No more at once than there are workers, so that one request never fills the converter's queue.
        let concurrency = self.converter.as_ref().map_or(1, |converter| converter.workers());
        let work: Vec<_> = parts.iter().map(|part| self.convert_one(event, part, &parameters, out)).collect();
        let converted: Vec<ConvertedDocument> = stream::iter(work).buffered(concurrency.max(1)).try_collect().await?;
        let files = archive::named(converted, &parameters);
        let to = parameters.to;
        let files = if to == Format::Pdf { self.finish(event, files, &parameters.finish).await? } else { files };
        Ok(self.compute.run(event.envelope.lane, move || archive::pack(files, to)).await.map_err(Fault::retry)?)
    }

    /// Merges, splits, annotates and encrypts PDFs.
    async fn finish(&self, event: &Event, files: Vec<Named>, finish: &Finish) -> Result<Vec<Named>, Failure> {
        if !finish.is_needed(files.len()) {
            return Ok(files);
        }
        let finishing = Finishing { files, finish: finish.clone(), deadline: deadline_of(&event.envelope) };
        self.converter()?.finish(finishing).await.map_err(conversion_failure)
    }

    fn converter(&self) -> Result<&Arc<dyn Converter>, Failure> {
        let missing = |reason: &Arc<str>| {
            Rejection::new(501, "office_missing", format!("document conversion is not available: {reason}")).into()
        };
        self.converter.as_ref().map_err(missing)
    }

    /// Converts one document to a file, or to an image per page.
    async fn convert_one(
        &self,
        event: &Event,
        part: &Part,
        parameters: &Parameters,
        out: &Output,
    ) -> Result<ConvertedDocument, Failure> {
        let envelope = &event.envelope;
        let (lane, accepts, file_name) = (envelope.lane, parameters.accepts(), part.file_name.clone());
        let bytes = claims::fetch(self.transport.as_ref(), &part.content).await.map_err(fetch_failure)?;
        let name = file_name.clone();
        let inspection = move || inspect(bytes, name.as_deref().unwrap_or_default(), accepts);
        let document = self.compute.run(lane, inspection).await.map_err(Fault::retry)??;
        let Document { bytes, format, stem } = document;
        if format == parameters.to && parameters.is_met_by(&bytes) {
            return self.pages_of(event, stem, bytes, parameters).await;
        }
        if (format, parameters.to) == (Format::Pdf, Format::Pdf) {
            let detail = "the document is already a PDF, so only `pages` applies; remove the other options";
            return Err(Rejection::unsupported("unsupported_conversion", detail).into());
        }
        let options = parameters.options_for(format);
        let key = key_of(&bytes, format, parameters);
        if let Some(files) = self.results.get(&key) {
            metrics::counter!("caudal_office_results_reused_total").increment(1);
            return Ok(ConvertedDocument { stem, files });
        }
        let class = envelope.text_param("name").unwrap_or_default().to_owned();
        let deadline = deadline_of(envelope);
        let conversion = Conversion { input: bytes, from: format, to: parameters.to, options, class, deadline };
        let files = self.run_converter(event, conversion, file_name.as_deref(), out).await?;
        if parameters.options.password.is_none() {
            self.results.insert(key, files.clone());
        }
        Ok(ConvertedDocument { stem, files })
    }

    /// Runs the conversion and reports progress to the client, with the file name if the document has one.
    async fn run_converter(
        &self,
        event: &Event,
        conversion: Conversion,
        file_name: Option<&str>,
        out: &Output,
    ) -> Result<Vec<Bytes>, Failure> {
        let converter = self.converter()?;
        let progress = |step: &str| match file_name {
            Some(name) => json!({ "step": step, "document": name }),
            None => json!({ "step": step }),
        };
        out.progress(event, progress("converting")).await;
        let converted = converter.convert(conversion).await.map_err(conversion_failure)?;
        let mut done = progress("converted");
        done["pages"] = json!(converted.pages);
        out.progress(event, done).await;
        Ok(converted.files)
    }

    /// A document that needs no conversion, or the requested pages of it.
    async fn pages_of(
        &self,
        event: &Event,
        stem: String,
        file: Bytes,
        parameters: &Parameters,
    ) -> Result<ConvertedDocument, Failure> {
        let Some(pages) = parameters.options.pages.as_ref().filter(|_| parameters.to == Format::Pdf) else {
            return Ok(ConvertedDocument { stem, files: vec![file] });
        };
        let ranges = page_ranges(pages).map_err(|error| conversion_failure(error.into()))?;
        let split = Some(Split::Ranges { ranges, unify: true });
        let files = vec![(stem.clone(), file)];
        let picked = self.finish(event, files, &Finish { split, ..Finish::default() }).await?;
        Ok(ConvertedDocument { stem, files: picked.into_iter().map(|(_, file)| file).collect() })
    }
}

/// The stored document is lost, or the store is unavailable.
fn fetch_failure(error: TransportError) -> Failure {
    match error {
        TransportError::Claim { .. } => {
            tracing::error!(%error, "payload lost");
            Rejection::new(500, "payload_lost", "the stored document was lost or altered; upload it again").into()
        }
        error => Fault::unavailable(error).into(),
    }
}

/// When the client no longer waits for a result.
fn deadline_of(envelope: &Envelope) -> Instant {
    let remaining =
        envelope.deadline.map(|deadline| Duration::try_from(deadline - OffsetDateTime::now_utc()).unwrap_or_default());
    Instant::now() + remaining.unwrap_or(DEFAULT_TIMEOUT).min(DEFAULT_TIMEOUT)
}

fn conversion_failure(error: ConvertError) -> Failure {
    match error {
        // Not the document's fault: retried.
        ConvertError::Storage(_) | ConvertError::Stopping => Failure::Fault(Fault::retry(error)),
        ConvertError::QueueFull { .. } => Failure::Fault(Fault::unavailable(error)),
        error => Failure::Rejected(Rejection::new(error.status(), error.code(), error.to_string())),
    }
}
