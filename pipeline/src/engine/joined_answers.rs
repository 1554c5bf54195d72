//! Joins the answers of an event to one result. One answer is the result itself, and none is `{}`. Several are a JSON list
//! if all are JSON, and otherwise a ZIP archive with a file for each, in the order of the parts.
//!
//! What is longer than the inline limit becomes a claim. An archive is stored as it is written: beyond the answers that
//! are in memory anyway, it takes one of them at a time.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use serde::de::IgnoredAny;
use zip::write::{SimpleFileOptions, StreamWriter};
use zip::{CompressionMethod, ZipWriter};

use crate::claims;
use crate::event::Response;
use crate::fault::BoxError;
use crate::payload::{Body, Content};
use crate::services::documents::file_extension;
use crate::transport::{BodyOwner, Transport, TransportError};

/// Media type of several answers that are not all JSON.
const ARCHIVE_TYPE: &str = "application/zip";

/// The answers as one result, with its body in the store if it is long.
///
/// # Errors
/// The error of the store.
pub async fn join(transport: &dyn Transport, responses: &[Response]) -> Result<Content, TransportError> {
    match responses {
        [] => Ok(Content::json(&serde_json::json!({}))),
        [Response { content: Content { media_type, body: Body::Inline(bytes) }, .. }] => {
            claims::store_bytes(transport, BodyOwner::Result, media_type, bytes.clone()).await
        }
        [response] => Ok(response.content.clone()),
        _ => {
            let mut sorted: Vec<&Response> = responses.iter().collect();
            sorted.sort_by_key(|response| response.order);
            let answers: Vec<&Content> = sorted.into_iter().map(|response| &response.content).collect();
            match json_list(transport, &answers).await? {
                Some(list) => claims::store_bytes(transport, BodyOwner::Result, "application/json", list).await,
                None => archive(transport, &answers).await,
            }
        }
    }
}

/// All answers as one JSON list, their texts unchanged; `None` if one of them is no JSON.
async fn json_list(transport: &dyn Transport, answers: &[&Content]) -> Result<Option<Bytes>, TransportError> {
    if !answers.iter().all(|answer| is_json_type(&answer.media_type)) {
        return Ok(None);
    }
    let mut list = Vec::new();
    for answer in answers {
        let text = claims::fetch(transport, answer).await?;
        if serde_json::from_slice::<IgnoredAny>(&text).is_err() {
            return Ok(None);
        }
        list.push(if list.is_empty() { b'[' } else { b',' });
        list.extend_from_slice(&text);
    }
    list.push(b']');
    Ok(Some(list.into()))
}

fn is_json_type(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

/// All answers as a ZIP archive: `1.jpg`, `2.json`, with as many digits as the last number has.
async fn archive(transport: &dyn Transport, answers: &[&Content]) -> Result<Content, TransportError> {
    let digits = answers.len().to_string().len();
    let files = answers.iter().zip(1..).map(|(answer, number)| {
        let name = format!("{number:0digits$}.{}", file_extension(&answer.media_type));
        (name, (*answer).clone())
    });
    let bytes = write(transport, files.collect());
    let stored = claims::store(transport, BodyOwner::Result, ARCHIVE_TYPE, bytes).await;
    stored.map_err(|error| match error {
        // The store gives back what an answer could not be read for.
        TransportError::Body(inner) => match inner.downcast::<TransportError>() {
            Ok(inner) => *inner,
            Err(inner) => TransportError::Body(inner),
        },
        error => error,
    })
}

/// The bytes of an archive, as the store takes them.
fn write(transport: &dyn Transport, files: Vec<(String, Content)>) -> BoxStream<'_, Result<Bytes, BoxError>> {
    let steps = stream::unfold((Some(Archive::default()), files.into_iter()), move |(archive, mut files)| async move {
        let mut archive = archive?;
        let (chunk, archive) = match files.next() {
            Some((name, content)) => {
                let added = async {
                    let bytes = claims::fetch(transport, &content).await?;
                    off_the_runtime(move || archive.add(&name, &bytes).map(|chunk| (chunk, Some(archive)))).await
                };
                added.await.map_or_else(|error: BoxError| (Err(error), None), |(chunk, next)| (Ok(chunk), next))
            }
            None => (archive.finish().map_err(BoxError::from), None),
        };
        Some((chunk, (archive, files)))
    });
    steps.boxed()
}

/// A checksum of some MiB takes longer than the settler may be blocked.
async fn off_the_runtime<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, BoxError> {
    Ok(tokio::task::spawn_blocking(work).await??)
}

/// An archive that is being written; its files are not compressed, because images and documents are already.
struct Archive {
    writer: ZipWriter<StreamWriter<Written>>,
    written: Written,
}

impl Default for Archive {
    fn default() -> Self {
        let written = Written::default();
        Self { writer: ZipWriter::new_stream(written.clone()), written }
    }
}

impl Archive {
    /// Adds a file; returns the bytes of the archive up to its end.
    fn add(&mut self, name: &str, bytes: &[u8]) -> io::Result<Bytes> {
        let is_huge = u32::try_from(bytes.len()).is_err();
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored).large_file(is_huge);
        self.writer.start_file(name, options)?;
        self.writer.write_all(bytes)?;
        Ok(self.written.take())
    }

    /// The rest of the archive.
    fn finish(self) -> io::Result<Bytes> {
        self.writer.finish()?;
        Ok(self.written.take())
    }
}

/// What was written and not taken yet.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Written {
    fn take(&self) -> Bytes {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner)).into()
    }
}

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Read};

    use zip::ZipArchive;

    use super::*;
    use crate::names::EventId;
    use crate::testing::MemoryTransport;
    use crate::transport::INLINE_LIMIT;

    fn answer(order: u64, content: Content) -> Response {
        Response { order, event: EventId::random(), content }
    }

    fn inline(order: u64, media_type: &str, bytes: impl Into<Bytes>) -> Response {
        answer(order, Content::inline(media_type, bytes))
    }

    /// Joins answers, and reads the result.
    async fn joined(transport: &MemoryTransport, responses: &[Response]) -> (String, Bytes) {
        let content = join(transport, responses).await.unwrap();
        let bytes = claims::fetch(transport, &content).await.unwrap();
        assert_eq!(content.claim().is_some(), bytes.len() > INLINE_LIMIT);
        (content.media_type.to_string(), bytes)
    }

    /// The names and contents of an archive.
    fn files(archive: Bytes) -> Vec<(String, Vec<u8>)> {
        let mut archive = ZipArchive::new(Cursor::new(archive)).unwrap();
        let names: Vec<String> = archive.file_names().map(|name| name.unwrap().into_owned()).collect();
        let read = |name: String| {
            let mut bytes = Vec::new();
            archive.by_name(&name).unwrap().read_to_end(&mut bytes).unwrap();
            (name, bytes)
        };
        names.into_iter().map(read).collect()
    }

    #[tokio::test]
    async fn no_answer_is_an_empty_object_and_one_is_the_result() {
        let transport = MemoryTransport::default();
        assert_eq!(joined(&transport, &[]).await, ("application/json".to_owned(), Bytes::from("{}")));
        let one = inline(0, "image/png", vec![7; INLINE_LIMIT + 1]);
        assert_eq!(joined(&transport, &[one]).await, ("image/png".to_owned(), vec![7; INLINE_LIMIT + 1].into()));
    }

    #[tokio::test]
    async fn answers_in_json_are_a_list_in_the_order_of_the_parts() {
        let transport = MemoryTransport::default();
        let answers = [
            inline(2, "application/problem+json; charset=utf-8", "null"),
            inline(0, "application/json", r#"{"a": 1.10}"#),
            inline(1, "Application/JSON", "[2]"),
        ];
        let list = r#"[{"a": 1.10},[2],null]"#;
        assert_eq!(joined(&transport, &answers).await, ("application/json".to_owned(), Bytes::from(list)));
    }

    #[tokio::test]
    async fn answers_that_are_files_are_an_archive_in_the_order_of_the_parts() {
        let transport = MemoryTransport::default();
        let answers = [
            inline(1, "image/jpeg", "second"),
            inline(0, "image/png", "first"),
            inline(2, "application/json", "{}"),
            inline(3, "", ""),
        ];
        let (media_type, archive) = joined(&transport, &answers).await;
        assert_eq!(media_type, "application/zip");
        let expected: [(&str, &[u8]); 4] =
            [("1.png", b"first"), ("2.jpg", b"second"), ("3.json", b"{}"), ("4.bin", b"")];
        assert_eq!(files(archive), expected.map(|(name, bytes)| (name.to_owned(), bytes.to_vec())));
    }

    #[tokio::test]
    async fn a_text_that_is_called_json_and_is_none_is_kept_as_a_file() {
        let transport = MemoryTransport::default();
        let answers = [inline(0, "application/json", "{"), inline(1, "text/plain", "5")];
        for answers in [&answers[..], &[answers[0].clone(), answers[0].clone()]] {
            let (media_type, archive) = joined(&transport, answers).await;
            assert_eq!((media_type.as_str(), &*files(archive)[0].1), ("application/zip", &b"{"[..]));
        }
    }

    #[tokio::test]
    async fn answers_in_the_store_are_joined_like_others() {
        let transport = MemoryTransport::default();
        let large = Bytes::from(vec![b'5'; INLINE_LIMIT + 1]);
        let store = |media_type| claims::store_bytes(&transport, BodyOwner::Result, media_type, large.clone());
        let (photo, text) = (store("image/png").await.unwrap(), store("application/json").await.unwrap());
        assert!(photo.claim().is_some() && text.claim().is_some());

        let (_, archive) = joined(&transport, &[answer(0, photo), inline(1, "image/png", "x")]).await;
        assert_eq!(files(archive), [("1.png".to_owned(), large.to_vec()), ("2.png".to_owned(), b"x".to_vec())]);

        let (media_type, list) = joined(&transport, &[answer(0, text), inline(1, "application/json", "1")]).await;
        assert_eq!((media_type.as_str(), list.len()), ("application/json", large.len() + 4));
    }

    #[tokio::test]
    async fn ten_files_sort_by_their_names() {
        let transport = MemoryTransport::default();
        let answers: Vec<Response> = (0..10).map(|order| inline(order, "text/plain", order.to_string())).collect();
        let names: Vec<String> =
            files(joined(&transport, &answers).await.1).into_iter().map(|(name, _)| name).collect();
        assert_eq!((names[0].as_str(), names[9].as_str()), ("01.txt", "10.txt"));
        assert!(names.is_sorted());
    }

    #[tokio::test]
    async fn a_store_that_is_away_is_told_as_such_and_leaves_nothing() {
        let transport = MemoryTransport::default();
        let large = Bytes::from(vec![1; INLINE_LIMIT + 1]);
        let photo = claims::store_bytes(&transport, BodyOwner::Result, "image/png", large).await.unwrap();
        let answers = [inline(0, "image/png", "x"), answer(1, photo)];
        transport.set_down(true);
        assert!(matches!(join(&transport, &answers).await, Err(error) if error.will_pass()));
        transport.set_down(false);
        assert_eq!(transport.claim_count(), 1);
    }
}
