//! Multipart forms, part by part as they stream in. Parts that nobody asked for are read and thrown away, within bounds.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use axum::http::StatusCode;
use bytes::{Bytes, BytesMut};
use futures_util::stream::{BoxStream, Stream, StreamExt};
use multer::{Field, Multipart};
use pipeline::spec::ByteSize;
use pipeline::{BoxError, INLINE_LIMIT, Part, Payload};
use serde_json::{Map, Value};

use super::feed::Feed;
use super::{Keeper, Taken, empty, report};
use crate::problem::Problem;
use crate::spec::BodySpec;

/// Bytes that may come while a part's headers are incomplete, in chunks of at most 64 KiB.
const SEARCH_BYTES: u64 = 32 << 10;

/// Names and values of one part's headers together.
const MAX_PART_HEADER_BYTES: usize = 4 << 10;

/// Names and values of all fields of a form together: they travel as one of the event's parameters.
const FIELD_BYTES: usize = 8 << 10;

/// Of a file name, in characters.
const MAX_FILE_NAME: usize = 255;

/// Whether a media type is that of a form.
pub fn is_multipart(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("multipart/form-data")
}

/// A form that is being read.
pub struct Form<'s> {
    parts: Multipart<'static>,
    /// Bytes that came since the search for the next part's headers began.
    searched: Arc<AtomicU64>,
    seen: usize,
    spec: &'s BodySpec,
}

/// One part of a form; its bytes are still to come.
struct FormPart {
    name: String,
    file_name: Option<Arc<str>>,
    media_type: String,
    field: Field<'static>,
}

impl<'s> Form<'s> {
    /// # Errors
    /// 400 if the media type names no boundary.
    pub fn open(media_type: &str, feed: Feed, spec: &'s BodySpec) -> Result<Self, Problem> {
        let boundary = multer::parse_boundary(media_type).map_err(|_| {
            Problem::malformed("malformed_multipart", "Content-Type multipart/form-data names no boundary")
        })?;
        let searched = Arc::new(AtomicU64::new(0));
        let throttled = Throttled { feed, searched: Arc::clone(&searched), rest: false };
        Ok(Self { parts: Multipart::new(throttled, boundary), searched, seen: 0, spec })
    }

    /// The first part named `name`, as bytes.
    pub async fn one_file(mut self, name: &str, keeper: &mut Keeper<'_>) -> Result<Payload, Problem> {
        let mut file = None;
        while let Some(part) = self.next().await? {
            if part.name != name || file.is_some() {
                self.throw_away(part).await?;
                continue;
            }
            file = Some(self.keep(part, keeper).await?.content);
        }
        file.map(Payload::Bytes).ok_or_else(|| missing(name))
    }

    /// Every part whose name is in `names`, of each at least one.
    pub async fn parts(mut self, names: &[String], keeper: &mut Keeper<'_>) -> Result<Payload, Problem> {
        let mut parts: Vec<Part> = Vec::new();
        while let Some(part) = self.next().await? {
            if names.contains(&part.name) {
                parts.push(self.keep(part, keeper).await?);
            } else {
                self.throw_away(part).await?;
            }
        }
        match names.iter().find(|name| !parts.iter().any(|part| *part.name == ***name)) {
            Some(absent) => Err(missing(absent)),
            None => Ok(Payload::Parts(parts.into())),
        }
    }

    /// One JSON part and any number of files.
    pub async fn report(mut self, json: &str, files: &str, keeper: &mut Keeper<'_>) -> Result<Taken, Problem> {
        let (mut record, mut parts) = (None, Vec::new());
        while let Some(part) = self.next().await? {
            if part.name == json && record.is_none() {
                let text = read(part, INLINE_LIMIT as u64).await?;
                record = Some(report::record_of(json, &text)?);
            } else if part.name == files {
                parts.push(self.keep(part, keeper).await?);
            } else {
                self.throw_away(part).await?;
            }
        }
        let record = record.ok_or_else(|| missing(json))?;
        Ok(Taken { payload: Payload::Parts(parts.into()), record: Some(record), fields: None })
    }

    /// Every part with a file name as a file, every other one as a field.
    pub async fn files(mut self, keeper: &mut Keeper<'_>) -> Result<Taken, Problem> {
        let (mut parts, mut fields) = (Vec::new(), Map::new());
        let mut left = FIELD_BYTES;
        while let Some(part) = self.next().await? {
            if part.file_name.is_some() {
                parts.push(self.keep(part, keeper).await?);
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
        Ok(Taken { payload: Payload::Parts(parts.into()), record: None, fields: Some(fields) })
    }

    /// The next part's headers.
    async fn next(&mut self) -> Result<Option<FormPart>, Problem> {
        self.searched.store(0, Ordering::Relaxed);
        let field = self.parts.next_field().await.map_err(of_multer)?;
        self.searched.store(SEARCHING_NOT, Ordering::Relaxed);
        let Some(field) = field else { return Ok(None) };
        self.seen += 1;
        if self.seen > self.spec.max_parts {
            let detail = format!("the form has more than {} parts, the most this route takes", self.spec.max_parts);
            return Err(Problem::malformed("too_many_parts", detail));
        }
        let header_bytes: usize = field.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        if header_bytes > MAX_PART_HEADER_BYTES {
            let detail = format!(
                "part {} has headers of {header_bytes} bytes: at most {MAX_PART_HEADER_BYTES} are taken",
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

    async fn keep(&mut self, part: FormPart, keeper: &mut Keeper<'_>) -> Result<Part, Problem> {
        if !self.spec.takes_type(&part.media_type) {
            let detail = format!(
                "part {:?} is {}: this route takes {}",
                shown(&part.name),
                part.media_type,
                self.spec.types.join(" or ")
            );
            return Err(Problem::unsupported("media_type", detail));
        }
        let stream = bounded(part.field, self.spec.max_bytes.0, &part.name);
        let content = keeper.keep(&part.media_type, stream).await?;
        if content.length() == 0 {
            return Err(empty(&format!("part {:?}", shown(&part.name))));
        }
        Ok(Part { name: part.name.into(), file_name: part.file_name, content })
    }

    async fn throw_away(&mut self, mut part: FormPart) -> Result<(), Problem> {
        while part.field.chunk().await.map_err(of_multer)?.is_some() {}
        Ok(())
    }
}

/// A part that must be short.
async fn read(part: FormPart, max_bytes: u64) -> Result<Bytes, Problem> {
    let mut stream = bounded(part.field, max_bytes, &part.name);
    let mut text = BytesMut::new();
    while let Some(chunk) = stream.next().await {
        text.extend_from_slice(&chunk.map_err(Problem::of_body)?);
    }
    Ok(text.freeze())
}

/// A part's bytes, broken off with 413 when they are too many.
fn bounded(field: Field<'static>, max_bytes: u64, name: &str) -> BoxStream<'static, Result<Bytes, BoxError>> {
    let name = shown(name);
    let mut read = 0;
    let limited = field.map(move |chunk| {
        let chunk = chunk.map_err(|error| BoxError::from(of_multer(error)))?;
        read += chunk.len() as u64;
        if read > max_bytes {
            let detail = format!("part {name:?} goes on after {}, the most this route takes", ByteSize(max_bytes));
            return Err(BoxError::from(Problem::too_large(detail)));
        }
        Ok(chunk)
    });
    limited.boxed()
}

fn missing(name: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "missing_part", format!("the form has no part named {name:?}: add it"))
}

/// A name as a message may show it.
fn shown(name: &str) -> String {
    name.chars().take(64).collect()
}

/// The last component of a client's file name without what does not belong into one; for people's eyes alone.
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

/// Value of `searched` while a part's bytes are read, which are counted elsewhere.
const SEARCHING_NOT: u64 = u64::MAX;

/// Hands the parser one chunk per poll, because it buffers whatever is ready, and bounds what it may buffer while it looks
/// for the end of a part's headers.
struct Throttled {
    feed: Feed,
    searched: Arc<AtomicU64>,
    /// Whether the next poll gives nothing.
    rest: bool,
}

impl Stream for Throttled {
    type Item = Result<Bytes, BoxError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if std::mem::take(&mut self.rest) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let chunk = std::task::ready!(self.feed.poll_next_unpin(context));
        self.rest = true;
        if let Some(Ok(chunk)) = &chunk {
            let searched = self.searched.load(Ordering::Relaxed);
            if searched != SEARCHING_NOT {
                if searched > SEARCH_BYTES {
                    let detail = format!("a part's headers go on after {SEARCH_BYTES} bytes");
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
    fn a_file_name_is_no_path() {
        assert_eq!(plain_file_name("../../etc/passwd").as_deref(), Some("passwd"));
        assert_eq!(plain_file_name("C:\\photos\\cat.jpg").as_deref(), Some("cat.jpg"));
        assert_eq!(plain_file_name("a\0b\r\n").as_deref(), Some("ab"));
        assert_eq!(plain_file_name("photos/"), None);
        assert_eq!(plain_file_name(&"x".repeat(1 << 20)).unwrap().len(), MAX_FILE_NAME);
    }
}
