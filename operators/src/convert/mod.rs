//! `use = "convert"`: a document in, the same in another format out.
//!
//! What comes is told from its content, checked against bounds ([`crate::office`]), and handed to the engine of documents.
//! A result is kept for a while under the digest of the document and of what was asked for: the same again costs nothing.
//! PDFs are merged, split, described and locked as is wished, by the engine's workers too, for they may be anybody's; several
//! files become a ZIP archive.

mod gotenberg;
mod info;
mod pack;
mod settings;
mod wish;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use pipeline::documents::{Conversion, ConvertError, Converter, Finish, Finishing, Format, Named, Split, page_ranges};
use pipeline::spec::ByteSize;
use pipeline::{
    BoxError, Compute, Content, Digest, Ends, Envelope, Event, Fault, Gives, Need, Operator, OperatorKind,
    OperatorSpec, Output, Part, Payload, PayloadKind, Rejection, Services, Transport, TransportError, claims,
};
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use tokio::time::Instant;

use crate::office::{Kind, Limits, scan};
use crate::stored::Failed;
use wish::{Fields, Wish};

/// `use = "convert"`.
pub const KIND: OperatorKind =
    OperatorKind::of::<ConvertSpec>("convert", "converts office documents, with LibreOffice in locked processes");

/// How long a document may wait and be worked on where its request has no deadline.
const PATIENCE: Duration = Duration::from_mins(2);
/// Documents of one request.
const MOST_FILES: usize = 100;

/// The keys of a `convert` stage.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConvertSpec {
    /// How requests say what they want: `"own"` parameters, or a form with `"gotenberg"`'s fields.
    #[serde(default)]
    fields: Fields,
    /// Memory for results; 0 keeps none.
    #[serde(default = "default_cache")]
    cache: ByteSize,
    /// How long a result is kept, in milliseconds: some documents show the date.
    #[serde(default = "default_cache_ms")]
    cache_ms: u64,
    /// One for all workers of the stage.
    #[serde(skip)]
    results: OnceLock<Results>,
}

/// Some thousand letters.
fn default_cache() -> ByteSize {
    ByteSize::mib(64)
}

/// Ten minutes.
fn default_cache_ms() -> u64 {
    600_000
}

/// What documents became, by the digest of what was asked for.
type Results = moka::sync::Cache<Digest, Vec<Bytes>>;

impl OperatorSpec for ConvertSpec {
    fn ends(&self) -> Ends {
        Ends { takes: &[PayloadKind::Bytes, PayloadKind::Parts], gives: Gives::Kind(PayloadKind::Bytes) }
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
    fields: Fields,
    results: Results,
    /// Or what to do about it.
    converter: Result<Arc<dyn Converter>, Arc<str>>,
    compute: Compute,
    /// Large parts of a form are still in its store.
    transport: Arc<dyn Transport>,
}

/// A document that may go on.
struct Document {
    bytes: Bytes,
    format: Format,
    /// Its file name without the extension.
    stem: String,
}

#[async_trait]
impl Operator for Convert {
    async fn process(&mut self, batch: Vec<Event>, out: &mut Output) -> Result<(), Fault> {
        for event in batch {
            match self.convert(&event, out).await {
                Ok(content) => out.emit(&event, Payload::Bytes(content)).await?,
                Err(Failed::Rejected(why)) => out.reject(&event, why),
                Err(Failed::Fault(fault)) => return Err(fault),
            }
        }
        Ok(())
    }
}

impl Convert {
    async fn convert(&self, event: &Event, out: &Output) -> Result<Content, Failed> {
        let wish = Wish::read(self.fields, &event.envelope.params)?;
        let parts = match &event.payload {
            Payload::Bytes(content) => {
                vec![Part { name: "document".into(), file_name: None, content: content.clone() }]
            }
            Payload::Parts(parts) => parts.to_vec(),
            other => {
                return Err(Rejection::unsupported("payload_kind", format!("{} is no document", other.kind())).into());
            }
        };
        if parts.is_empty() {
            return Err(wish.nothing_sent().into());
        }
        if parts.len() > MOST_FILES {
            let detail = format!("{} documents came, at most {MOST_FILES} are taken at once", parts.len());
            return Err(Rejection::too_large("too_many_documents", detail).into());
        }
        // No more at once than are worked on at once, so that one request alone never fills the queue.
        let at_once = self.converter.as_ref().map_or(1, |converter| converter.workers());
        let work: Vec<_> = parts.iter().map(|part| self.one(event, part, &wish, out)).collect();
        let converted: Vec<pack::Converted> = stream::iter(work).buffered(at_once.max(1)).try_collect().await?;
        let files = pack::named(converted, &wish);
        let files = if wish.to == Format::Pdf { self.finished(event, files, &wish.finish).await? } else { files };
        let to = wish.to;
        Ok(self.compute.run(event.envelope.lane, move || pack::pack(files, to)).await.map_err(Fault::retry)?)
    }

    async fn finished(&self, event: &Event, files: Vec<Named>, finish: &Finish) -> Result<Vec<Named>, Failed> {
        if !finish.is_needed(files.len()) {
            return Ok(files);
        }
        let finishing = Finishing { files, finish: finish.clone(), deadline: deadline_of(&event.envelope) };
        self.engine()?.finish(finishing).await.map_err(failed)
    }

    fn engine(&self) -> Result<&Arc<dyn Converter>, Failed> {
        let missing = |missing: &Arc<str>| {
            Rejection::new(501, "office_missing", format!("documents are not converted here: {missing}")).into()
        };
        self.converter.as_ref().map_err(missing)
    }

    /// What one document becomes: a file, or a picture per page.
    async fn one(&self, event: &Event, part: &Part, wish: &Wish, out: &Output) -> Result<pack::Converted, Failed> {
        let envelope = &event.envelope;
        let (lane, accepts, file_name) = (envelope.lane, wish.accepts(), part.file_name.clone());
        let bytes = claims::fetch(self.transport.as_ref(), &part.content).await.map_err(fetched)?;
        let name = file_name.clone();
        let look = move || looked_at(bytes, name.as_deref().unwrap_or_default(), accepts);
        let document = self.compute.run(lane, look).await.map_err(Fault::retry)??;
        let Document { bytes, format, stem } = document;
        if format == wish.to && wish.is_met_by(&bytes) {
            return self.pages_of(event, stem, bytes, wish).await;
        }
        if (format, wish.to) == (Format::Pdf, Format::Pdf) {
            let detail = "this is a PDF already, and only `pages` can be asked of it: leave the other options out";
            return Err(Rejection::unsupported("unsupported_conversion", detail).into());
        }
        let options = wish.options_for(format);
        let key = key_of(&bytes, format, wish);
        if let Some(files) = self.results.get(&key) {
            metrics::counter!("caudal_office_results_reused_total").increment(1);
            return Ok(pack::Converted { stem, files });
        }
        let class = envelope.text_param("name").unwrap_or_default().to_owned();
        let deadline = deadline_of(envelope);
        let conversion = Conversion { input: bytes, from: format, to: wish.to, options, class, deadline };
        let files = self.made(event, conversion, file_name.as_deref(), out).await?;
        if wish.options.password.is_none() {
            self.results.insert(key, files.clone());
        }
        Ok(pack::Converted { stem, files })
    }

    /// What the engine makes of a document. Who asked hears of it; of several documents, which one it is.
    async fn made(
        &self,
        event: &Event,
        conversion: Conversion,
        file_name: Option<&str>,
        out: &Output,
    ) -> Result<Vec<Bytes>, Failed> {
        let converter = self.engine()?;
        let told = |step: &str| match file_name {
            Some(name) => json!({ "step": step, "document": name }),
            None => json!({ "step": step }),
        };
        out.progress(event, told("converting")).await;
        let converted = converter.convert(conversion).await.map_err(failed)?;
        let mut done = told("converted");
        done["pages"] = json!(converted.pages);
        out.progress(event, done).await;
        Ok(converted.files)
    }

    /// What need not be converted, or those pages of it that are asked for.
    async fn pages_of(&self, event: &Event, stem: String, file: Bytes, wish: &Wish) -> Result<pack::Converted, Failed> {
        let Some(pages) = wish.options.pages.as_ref().filter(|_| wish.to == Format::Pdf) else {
            return Ok(pack::Converted { stem, files: vec![file] });
        };
        let ranges = page_ranges(pages).map_err(|error| failed(error.into()))?;
        let split = Some(Split::Ranges { ranges, unify: true });
        let files = vec![(stem.clone(), file)];
        let picked = self.finished(event, files, &Finish { split, ..Finish::default() }).await?;
        Ok(pack::Converted { stem, files: picked.into_iter().map(|(_, file)| file).collect() })
    }
}

/// What is in the store is gone or cannot be reached.
fn fetched(error: TransportError) -> Failed {
    match error {
        TransportError::Claim { .. } => {
            tracing::error!(%error, "payload lost");
            Rejection::new(500, "payload_lost", "the stored document is gone or was altered").into()
        }
        error => Fault::unavailable(error).into(),
    }
}

/// When a result is of no use any more.
fn deadline_of(envelope: &Envelope) -> Instant {
    let left =
        envelope.deadline.map(|deadline| Duration::try_from(deadline - OffsetDateTime::now_utc()).unwrap_or_default());
    Instant::now() + left.unwrap_or(PATIENCE).min(PATIENCE)
}

fn failed(error: ConvertError) -> Failed {
    match error {
        // Not of the document's doing: it comes again.
        ConvertError::Storage(_) | ConvertError::Stopping => Failed::Fault(Fault::retry(error)),
        ConvertError::QueueFull { .. } => Failed::Fault(Fault::unavailable(error)),
        error => Failed::Rejected(Rejection::new(error.status(), error.code(), error.to_string())),
    }
}

/// The digest of a document and of all that is asked for of it.
fn key_of(bytes: &Bytes, from: Format, wish: &Wish) -> Digest {
    let mut hasher = Sha256::new();
    hasher.update(format!("{from} {} {:?}\0", wish.to, wish.options).as_bytes());
    hasher.update(bytes);
    Digest(hasher.finalize().into())
}

/// Tells what a document is and refuses what the engine must not see.
fn looked_at(bytes: Bytes, name: &str, accepts: wish::Accepts) -> Result<Document, Rejection> {
    let (stem, extension) = name.rsplit_once('.').unwrap_or((name, ""));
    let named = Format::from_extension(extension);
    let scanned = scan(&bytes, accepts.kinds(), &Limits::default()).map_err(|why| match name {
        "" => why,
        name => Rejection { detail: format!("{name:?}: {}", why.detail), ..why },
    })?;
    let format = format_of(scanned.kind, named).ok_or_else(|| {
        Rejection::unsupported("document_type", format!("a document of type {} is not converted", scanned.kind))
    })?;
    let stem = if stem.is_empty() { "document" } else { stem };
    Ok(Document { bytes, format, stem: stem.to_owned() })
}

/// The format of a kind. Of plain texts, which all look alike, the name says more than the content; behind a password
/// nothing else does.
fn format_of(kind: Kind, named: Option<Format>) -> Option<Format> {
    let text = named.filter(|format| matches!(format, Format::Csv | Format::Txt | Format::Html));
    Some(match kind {
        Kind::Docx => Format::Docx,
        Kind::Xlsx => Format::Xlsx,
        Kind::Pptx => Format::Pptx,
        Kind::Odt => Format::Odt,
        Kind::Ods => Format::Ods,
        Kind::Odp => Format::Odp,
        Kind::Rtf => Format::Rtf,
        Kind::Pdf => Format::Pdf,
        Kind::Html => text.unwrap_or(Format::Html),
        Kind::Csv => text.unwrap_or(Format::Csv),
        Kind::Txt => text.unwrap_or(Format::Txt),
        Kind::EncryptedOoxml => {
            named.filter(|format| matches!(format, Format::Docx | Format::Xlsx | Format::Pptx)).unwrap_or(Format::Docx)
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
