//! Multipart forms, read part by part as they stream in. Parts that the route does not declare are read and discarded,
//! within limits.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use axum::http::StatusCode;
use bytes::{Bytes, BytesMut};
use futures_util::stream::{BoxStream, Stream, StreamExt};
use multer::{Field, Multipart};
use pipeline::{BoxError, INLINE_LIMIT, Part, Payload};
use serde_json::{Map, Value};

use super::channel::BodyReceiver;
use super::received::{ReceivedBody, empty};
use super::report;
use super::size_limit::SizeLimit;
use super::store::BodyStore;
use crate::problem::Problem;
use crate::spec::BodySpec;

/// Bytes that may come while a part's headers are incomplete, in chunks of at most 64 KiB.
const MAX_SEARCH_BYTES: u64 = 32 << 10;

/// Names and values of one part's headers together, in bytes.
const MAX_PART_HEADER_BYTES: usize = 4 << 10;

/// Names and values of all fields of a form together, in bytes: they travel as one parameter of the event.
const MAX_FIELD_BYTES: usize = 8 << 10;

/// Longest file name, in characters.
const MAX_FILE_NAME: usize = 255;

/// A form that is being read.
pub struct Form<'s> {
    parts: Multipart<'static>,
    /// Bytes read since the search for the next part's headers began.
    searched: Arc<AtomicU64>,
    seen: usize,
    spec: &'s BodySpec,
}

/// One part of a form; its bytes are still to be read.
struct FormPart {
    name: String,
    file_name: Option<Arc<str>>,
    media_type: String,
    field: Field<'static>,
}

impl<'s> Form<'s> {
    /// # Errors
    /// 400 if the media type has no boundary.
    pub fn open(media_type: &str, body: BodyReceiver, spec: &'s BodySpec) -> Result<Self, Problem> {
        let boundary = multer::parse_boundary(media_type).map_err(|_| {
            Problem::malformed("malformed_multipart", "Content-Type multipart/form-data names no boundary")
        })?;
        let searched = Arc::new(AtomicU64::new(0));
        let throttled = Throttled { body, searched: Arc::clone(&searched), pause: false };
        Ok(Self { parts: Multipart::new(throttled, boundary), searched, seen: 0, spec })
    }

    /// The first part named `name`, as bytes.
    pub async fn one_file(mut self, name: &str, store: &mut BodyStore<'_>) -> Result<Payload, Problem> {
        let mut file = None;
        while let Some(part) = self.next().await? {
            if part.name != name || file.is_some() {
                discard(part).await?;
                continue;
            }
            file = Some(self.put(part, store).await?.content);
        }
        file.map(Payload::Bytes).ok_or_else(|| missing(name))
    }

    /// Every part whose name is in `names`, at least one of each.
    pub async fn parts(mut self, names: &[String], store: &mut BodyStore<'_>) -> Result<Payload, Problem> {
        let mut parts: Vec<Part> = Vec::new();
        while let Some(part) = self.next().await? {
            if names.contains(&part.name) {
                parts.push(self.put(part, store).await?);
            } else {
                discard(part).await?;
            }
        }
        match names.iter().find(|name| !parts.iter().any(|part| *part.name == ***name)) {
            Some(absent) => Err(missing(absent)),
            None => Ok(Payload::Parts(parts.into())),
        }
    }

    /// One JSON part and any number of files.
    pub async fn report(mut self, json: &str, files: &str, store: &mut BodyStore<'_>) -> Result<ReceivedBody, Problem> {
        let (mut record, mut parts) = (None, Vec::new());
        while let Some(part) = self.next().await? {
            if part.name == json && record.is_none() {
                let text = read(part, INLINE_LIMIT as u64).await?;
                record = Some(report::record_of(json, &text)?);
            } else if part.name == files {
                parts.push(self.put(part, store).await?);
            } else {
                discard(part).await?;
            }
        }
        let record = record.ok_or_else(|| missing(json))?;
        Ok(ReceivedBody { payload: Payload::Parts(parts.into()), record: Some(record), fields: None })
    }

    /// Every part with a file name as a file, every other part as a field.
    pub async fn files(mut self, store: &mut BodyStore<'_>) -> Result<ReceivedBody, Problem> {
        let (mut parts, mut fields) = (Vec::new(), Map::new());
        let mut left = MAX_FIELD_BYTES;
        while let Some(part) = self.next().await? {
            if part.file_name.is_some() {
                parts.push(self.put(part, store).await?);
                continue;
            }
            let name = part.name.clone();
            let text = read(part, left as u64).await?;
            left = left.saturating_sub(name.len() + text.len());
            let text = std::str::from_utf8(&text).map_err(|_| {
                Problem::malformed("malformed_multipart", format!("field {:?} is not UTF-8", shown(&name)))
            })?;
            fields.insert(name, Value::from(text));
        }
        Ok(ReceivedBody { payload: Payload::Parts(parts.into()), record: None, fields: Some(fields) })
    }

    /// The next part's headers.
    async fn next(&mut self) -> Result<Option<FormPart>, Problem> {
        self.searched.store(0, Ordering::Relaxed);
        let field = self.parts.next_field().await.map_err(of_multer)?;
        self.searched.store(NOT_SEARCHING, Ordering::Relaxed);
        let Some(field) = field else { return Ok(None) };
        self.seen += 1;
        if self.seen > self.spec.max_parts {
            let detail = format!("the form has more than {} parts, the most this route takes", self.spec.max_parts);
            return Err(Problem::malformed("too_many_parts", detail));
        }
        let header_bytes: usize = field.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        if header_bytes > MAX_PART_HEADER_BYTES {
            let detail = format!(
                "part {} has headers of {header_bytes} bytes: at most {MAX_PART_HEADER_BYTES} are allowed",
                self.seen
            );
            return Err(Problem::malformed("malformed_multipart", detail));
        }
        let media_type = field.content_type().map_or("application/octet-stream", |kind| kind.as_ref());
        Ok(Some(FormPart {
            name: field.name().unwrap_or_default().to_owned(),
            file_name: field.file_name().and_then(plain_file_name),
            media_type: media_type.to_owned(),
            field,
        }))
    }

    async fn put(&mut self, part: FormPart, store: &mut BodyStore<'_>) -> Result<Part, Problem> {
        if !self.spec.takes_type(&part.media_type) {
            let detail = format!(
                "part {:?} is {}: this route takes {}",
                shown(&part.name),
                part.media_type,
                self.spec.types.join(" or ")
            );
            return Err(Problem::unsupported("media_type", detail));
        }
        let stream = limited(part.field, self.spec.max_bytes.0, &part.name);
        let content = store.put(&part.media_type, stream).await?;
        if content.length() == 0 {
            return Err(empty(&format!("part {:?}", shown(&part.name))));
        }
        Ok(Part { name: part.name.into(), file_name: part.file_name, content })
    }
}

/// Reads a part to its end and drops its bytes.
async fn discard(mut part: FormPart) -> Result<(), Problem> {
    while part.field.chunk().await.map_err(of_multer)?.is_some() {}
    Ok(())
}

/// The bytes of a part that must be short.
async fn read(part: FormPart, max_bytes: u64) -> Result<Bytes, Problem> {
    let mut stream = limited(part.field, max_bytes, &part.name);
    let mut text = BytesMut::new();
    while let Some(chunk) = stream.next().await {
        text.extend_from_slice(&chunk.map_err(Problem::of_body)?);
    }
    Ok(text.freeze())
}

/// A part's bytes, aborted with 413 if they are too many.
fn limited(field: Field<'static>, max_bytes: u64, name: &str) -> BoxStream<'static, Result<Bytes, BoxError>> {
    let mut limit = SizeLimit::new(format!("part {:?}", shown(name)), max_bytes);
    let chunks = field.map(move |chunk| {
        let chunk = chunk.map_err(|error| BoxError::from(of_multer(error)))?;
        limit.add(chunk.len())?;
        Ok::<_, BoxError>(chunk)
    });
    chunks.boxed()
}

fn missing(name: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "missing_part", format!("the form has no part named {name:?}: add it"))
}

/// A name, shortened for a message.
fn shown(name: &str) -> String {
    name.chars().take(64).collect()
}

/// The last component of a client's file name without control characters; only for display.
fn plain_file_name(given: &str) -> Option<Arc<str>> {
    let last = given.rsplit(['/', '\\']).next().unwrap_or_default();
    let plain: String = last.chars().filter(|c| !c.is_control()).take(MAX_FILE_NAME).collect();
    (!plain.is_empty()).then(|| plain.into())
}

fn of_multer(error: multer::Error) -> Problem {
    match error {
        multer::Error::StreamReadFailed(inner) => Problem::of_body(inner),
        other => Problem::malformed("malformed_multipart", format!("the form is malformed: {other}")),
    }
}

/// Value of `searched` while a part's bytes are read, which have limits of their own.
const NOT_SEARCHING: u64 = u64::MAX;

/// Gives the parser one chunk per poll, because it buffers everything that is ready, and bounds what it buffers while
/// it searches the end of a part's headers.
struct Throttled {
    body: BodyReceiver,
    searched: Arc<AtomicU64>,
    /// Whether the next poll returns nothing.
    pause: bool,
}

impl Stream for Throttled {
    type Item = Result<Bytes, BoxError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if std::mem::take(&mut self.pause) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let chunk = std::task::ready!(self.body.poll_next_unpin(context));
        self.pause = true;
        if let Some(Ok(chunk)) = &chunk {
            let searched = self.searched.load(Ordering::Relaxed);
            if searched != NOT_SEARCHING {
                if searched > MAX_SEARCH_BYTES {
                    let detail = format!("a part's headers go on after {MAX_SEARCH_BYTES} bytes");
                    return Poll::Ready(Some(Err(Problem::malformed("malformed_multipart", detail).into())));
                }
                self.searched.store(searched + chunk.len() as u64, Ordering::Relaxed);
            }
        }
        Poll::Ready(chunk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_name_contains_no_path() {
        assert_eq!(plain_file_name("../../etc/passwd").as_deref(), Some("passwd"));
        assert_eq!(plain_file_name("C:\\photos\\cat.jpg").as_deref(), Some("cat.jpg"));
        assert_eq!(plain_file_name("a\0b\r\n").as_deref(), Some("ab"));
        assert_eq!(plain_file_name("photos/"), None);
        assert_eq!(plain_file_name(&"x".repeat(1 << 20)).unwrap().len(), MAX_FILE_NAME);
    }
}
