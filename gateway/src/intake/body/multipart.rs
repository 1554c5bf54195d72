//! Multipart forms, read part by part as they stream in.
//!
//! A report's form takes no part that it does not know: it would be stored without it. A form for a file takes the first
//! part of the name; what it has besides is read, within limits, and named in the answer (`Caudal-Ignored-Parts`). A file
//! input that was left empty (`filename=""`, no bytes) is no file.

use std::sync::Arc;

use axum::http::StatusCode;
use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, BoxStream, StreamExt};
use pipeline::{BoxError, INLINE_LIMIT, Part, Payload};
use serde_json::{Map, Value};

use super::channel::BodyReceiver;
use super::part_reader::{PartHead, PartReader, malformed};
use super::received::{ReceivedBody, empty};
use super::report;
use super::size_limit::SizeLimit;
use super::store::BodyStore;
use crate::problem::{Problem, shown};
use crate::spec::BodySpec;

/// Names and values of all fields of a form together, in bytes: they travel as one parameter of the event.
const MAX_FIELD_BYTES: usize = 8 << 10;

/// Longest file name, in characters.
const MAX_FILE_NAME: usize = 255;

/// A form that is being read.
pub struct Form<'s> {
    parts: PartReader<BodyReceiver>,
    seen: usize,
    /// Names of the parts that were not used.
    ignored: Vec<String>,
    spec: &'s BodySpec,
}

impl<'s> Form<'s> {
    /// # Errors
    /// 400 if the media type has no boundary.
    pub fn open(media_type: &str, body: BodyReceiver, spec: &'s BodySpec) -> Result<Self, Problem> {
        Ok(Self { parts: PartReader::open(media_type, body)?, seen: 0, ignored: Vec::new(), spec })
    }

    /// The first part named `name`, as bytes.
    pub async fn one_file(mut self, name: &str, store: &mut BodyStore<'_>) -> Result<ReceivedBody, Problem> {
        let mut file = None;
        while let Some(part) = self.next().await? {
            if part.name == name && file.is_none() {
                file = self.put(part, store).await?;
            } else {
                self.ignore(&part).await?;
            }
        }
        let file = file.ok_or_else(|| missing(name, &self.ignored))?;
        Ok(ReceivedBody { ignored_parts: self.ignored, ..ReceivedBody::payload(Payload::Bytes(file.content)) })
    }

    /// Every part whose name is in `names`, at least one of each.
    pub async fn parts(mut self, names: &[String], store: &mut BodyStore<'_>) -> Result<ReceivedBody, Problem> {
        let mut parts: Vec<Part> = Vec::new();
        while let Some(part) = self.next().await? {
            if names.contains(&part.name) {
                parts.extend(self.put(part, store).await?);
            } else {
                self.ignore(&part).await?;
            }
        }
        match names.iter().find(|name| !parts.iter().any(|part| *part.name == ***name)) {
            Some(absent) => Err(missing(absent, &self.ignored)),
            None => {
                let payload = Payload::Parts(parts.into());
                Ok(ReceivedBody { ignored_parts: self.ignored, ..ReceivedBody::payload(payload) })
            }
        }
    }

    /// One JSON part and any number of files, which may also stand in the JSON as data URIs.
    pub async fn report(mut self, json: &str, files: &str, store: &mut BodyStore<'_>) -> Result<ReceivedBody, Problem> {
        let (mut record, mut parts) = (None, Vec::new());
        while let Some(part) = self.next().await? {
            if part.name == json {
                if record.is_some() {
                    return Err(repeated(json));
                }
                let text = self.read(&part, INLINE_LIMIT as u64).await?;
                let (fields, photos) = report::split(files, self.spec.max_parts, &text)?;
                report::store(files, photos, self.spec, store, &mut parts).await?;
                record = Some(fields);
            } else if report::is_files_name(files, &part.name) {
                parts.extend(self.put(PartHead { name: files.to_owned(), ..part }, store).await?);
            } else if !self.is_left_empty(&part).await? {
                return Err(unknown(&part.name, json, files));
            }
        }
        let record = record.ok_or_else(|| missing(json, &self.ignored))?;
        Ok(ReceivedBody { record: Some(record), ..ReceivedBody::payload(Payload::Parts(parts.into())) })
    }

    /// Every part with a file name as a file, every other part as a field.
    pub async fn files(mut self, store: &mut BodyStore<'_>) -> Result<ReceivedBody, Problem> {
        let (mut parts, mut fields) = (Vec::new(), Map::new());
        let mut left = MAX_FIELD_BYTES;
        while let Some(part) = self.next().await? {
            if part.file_name.is_some() {
                parts.extend(self.put(part, store).await?);
                continue;
            }
            if part.name.is_empty() {
                return Err(malformed("a part has neither a name nor a file name"));
            }
            let text = self.read(&part, left as u64).await?;
            left = left.saturating_sub(part.name.len() + text.len());
            let text = std::str::from_utf8(&text)
                .map_err(|_| malformed(format_args!("field {:?} is not UTF-8", shown(&part.name))))?;
            if fields.get(&part.name).is_some_and(|earlier| earlier != text) {
                return Err(repeated(&part.name));
            }
            fields.insert(part.name, Value::from(text));
        }
        Ok(ReceivedBody { fields: Some(fields), ..ReceivedBody::payload(Payload::Parts(parts.into())) })
    }

    /// The next part's headers.
    async fn next(&mut self) -> Result<Option<PartHead>, Problem> {
        let Some(part) = self.parts.next_part().await? else { return Ok(None) };
        self.seen += 1;
        if self.seen > self.spec.max_parts {
            let detail = format!("the form has more than {} parts, the most this route takes", self.spec.max_parts);
            return Err(Problem::malformed("too_many_parts", detail));
        }
        if let Some(encoding) = &part.encoding {
            let detail = format!(
                "part {:?} has Content-Transfer-Encoding {:?}: send its bytes as they are",
                shown(&part.name),
                shown(encoding)
            );
            return Err(Problem::unsupported("content_encoding", detail));
        }
        Ok(Some(part))
    }

    /// Reads a part that is not used, and remembers its name; a file input that was left empty is not worth it.
    async fn ignore(&mut self, part: &PartHead) -> Result<(), Problem> {
        if !self.is_left_empty(part).await? {
            self.ignored.push(shown(&part.name));
        }
        Ok(())
    }

    /// Whether a part is a file input without a file; its first bytes are gone if it is not.
    async fn is_left_empty(&mut self, part: &PartHead) -> Result<bool, Problem> {
        Ok(self.parts.chunk().await?.is_none() && is_without_name(part))
    }

    /// Stores a file; `None` for a file input that was left empty.
    async fn put(&mut self, part: PartHead, store: &mut BodyStore<'_>) -> Result<Option<Part>, Problem> {
        let first = self.parts.chunk().await?;
        if first.is_none() && is_without_name(&part) {
            return Ok(None);
        }
        let media_type = &part.media_type;
        if !self.spec.takes_type(media_type) || is_nested(media_type) {
            let (name, kind, types) = (shown(&part.name), shown(media_type), self.spec.types.join(" or "));
            let types = if types.is_empty() { "a file in each part" } else { &types };
            let detail = format!("part {name:?} is {kind}: this route takes {types}");
            return Err(Problem::unsupported("media_type", detail));
        }
        if first.is_none() {
            return Err(empty(&format!("part {:?}", shown(&part.name))));
        }
        let stream = self.limited(first, self.spec.max_bytes.0, &part.name);
        let content = store.put(media_type, stream).await?;
        let file_name = part.file_name.as_deref().and_then(plain_file_name);
        Ok(Some(Part { name: part.name.into(), file_name, content }))
    }

    /// The bytes of a part that must be short.
    async fn read(&mut self, part: &PartHead, max_bytes: u64) -> Result<Bytes, Problem> {
        let mut stream = self.limited(None, max_bytes, &part.name);
        let mut text = BytesMut::new();
        while let Some(chunk) = stream.next().await {
            text.extend_from_slice(&chunk.map_err(Problem::of_body)?);
        }
        Ok(text.freeze())
    }

    /// A part's bytes behind the `first` ones, aborted with 413 if they are too many.
    fn limited(&mut self, first: Option<Bytes>, max_bytes: u64, name: &str) -> BoxStream<'_, Result<Bytes, BoxError>> {
        let mut limit = SizeLimit::new(format!("part {:?}", shown(name)), max_bytes);
        let chunks = stream::unfold(&mut self.parts, |parts| async {
            let chunk = parts.chunk().await.transpose()?;
            Some((chunk, parts))
        });
        let checked = stream::iter(first.map(Ok)).chain(chunks).map(move |chunk| {
            let chunk = chunk?;
            limit.add(chunk.len())?;
            Ok::<_, Problem>(chunk)
        });
        checked.map(|chunk| chunk.map_err(BoxError::from)).boxed()
    }
}

/// Whether a part is of a file input of which nobody chose a file, if it has no bytes either.
fn is_without_name(part: &PartHead) -> bool {
    part.file_name.as_deref() == Some("")
}

/// Whether a part holds files of its own, as RFC 2388 once allowed.
fn is_nested(media_type: &str) -> bool {
    media_type.get(..10).is_some_and(|start| start.eq_ignore_ascii_case("multipart/"))
}

fn missing(name: &str, others: &[String]) -> Problem {
    let others = others.iter().map(|other| format!("{other:?}")).collect::<Vec<_>>().join(", ");
    let others = if others.is_empty() { others } else { format!("; it has {others}") };
    let detail = format!("the form has no part named {name:?} with content{others}: add it");
    Problem::new(StatusCode::BAD_REQUEST, "missing_part", detail)
}

fn unknown(name: &str, json: &str, files: &str) -> Problem {
    let detail = format!(
        "the form has a part named {:?}, which would be lost: this route takes JSON in a part named {json:?} and files in \
         parts named {files:?}",
        shown(name)
    );
    Problem::malformed("unknown_part", detail)
}

fn repeated(name: &str) -> Problem {
    let detail = format!("the form has two different parts named {:?}: send one", shown(name));
    Problem::malformed("repeated_part", detail)
}

/// The last component of a client's file name without control characters; only for display.
fn plain_file_name(given: &str) -> Option<Arc<str>> {
    let last = given.rsplit(['/', '\\']).next().unwrap_or_default();
    let plain: String = last.chars().filter(|c| !c.is_control()).take(MAX_FILE_NAME).collect();
    (!plain.is_empty()).then(|| plain.into())
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
