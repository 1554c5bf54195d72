//! Reads a multipart body part by part as it streams in (RFC 2046, section 5.1; headers as RFC 5322 folds them).
//!
//! In memory are one chunk of the body, and of what is incomplete at most a delimiter or the headers of one part. Every
//! byte is searched once.

use bytes::{Buf, Bytes, BytesMut};
use futures_util::stream::{Stream, StreamExt};
use memchr::memmem;
use pipeline::BoxError;

use super::header_parameters::{HeaderParameters, Repeated};
use crate::problem::Problem;

/// Bytes before the first boundary.
const MAX_PREAMBLE_BYTES: usize = 32 << 10;

/// The headers of one part together, and blanks behind a boundary, in bytes.
const MAX_HEADER_BYTES: usize = 4 << 10;

/// Headers of one part.
const MAX_HEADERS: usize = 32;

/// Longest media type of a part, in bytes.
const MAX_MEDIA_TYPE: usize = 255;

const END_OF_HEADERS: &[u8] = b"\r\n\r\n";

/// What the headers of a part say.
#[derive(Debug, PartialEq, Eq)]
pub struct PartHead {
    /// Empty if the part has none.
    pub name: String,
    /// As sent; empty for a file input that was left empty, `None` for a field that is no file.
    pub file_name: Option<String>,
    /// `application/octet-stream` if there is none that can be read.
    pub media_type: String,
    /// `Content-Transfer-Encoding`, if it is one that changes the bytes.
    pub encoding: Option<String>,
}

/// Where the reader stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Preamble,
    Data,
    /// Behind a delimiter.
    Delimiter,
    End,
}

/// A body that is being read.
pub struct PartReader<S> {
    body: S,
    buffer: BytesMut,
    /// A line break, two hyphens and the boundary.
    delimiter: memmem::Finder<'static>,
    /// The same for the first boundary: a line feed is line break enough, so that no part is taken for the preamble.
    first: memmem::Finder<'static>,
    place: Place,
    /// Parts begun, for messages.
    parts: usize,
}

impl<S: Stream<Item = Result<Bytes, BoxError>> + Unpin> PartReader<S> {
    /// # Errors
    /// 400 if the media type names no boundary, or two.
    pub fn open(media_type: &str, body: S) -> Result<Self, Problem> {
        let parameters = HeaderParameters::parse(media_type.as_bytes());
        let boundary = match parameters.get("boundary") {
            Ok(Some(boundary)) if !boundary.is_empty() => boundary,
            Ok(_) => {
                return Err(malformed("Content-Type names no boundary: let the library that makes the form set it"));
            }
            Err(Repeated) => return Err(malformed("Content-Type names two boundaries: name one")),
        };
        let finder = |text: String| memmem::Finder::new(&text).into_owned();
        let (first, delimiter) = (finder(format!("\n--{boundary}")), finder(format!("\r\n--{boundary}")));
        // A first boundary at the very beginning has no line break before it.
        Ok(Self { body, buffer: BytesMut::from("\n"), delimiter, first, place: Place::Preamble, parts: 0 })
    }

    /// The headers of the next part, once the rest of the one before is skipped; `None` behind the last.
    pub async fn next_part(&mut self) -> Result<Option<PartHead>, Problem> {
        let mut preamble = 0;
        while let Some(skipped) = self.data().await? {
            preamble += if self.place == Place::Preamble { skipped.len() } else { 0 };
            if preamble > MAX_PREAMBLE_BYTES {
                return Err(malformed(format!("no boundary within the first {MAX_PREAMBLE_BYTES} bytes")));
            }
        }
        if self.place == Place::End || self.is_last().await? {
            self.place = Place::End;
            return Ok(None);
        }
        self.parts += 1;
        self.end_line().await?;
        let headers = self.headers().await?;
        self.place = Place::Data;
        self.head(&headers).map(Some)
    }

    /// More bytes of the part, never none; `None` at its end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Problem> {
        if self.place == Place::Data { self.data().await } else { Ok(None) }
    }

    /// The bytes up to the next delimiter, which is consumed.
    async fn data(&mut self) -> Result<Option<Bytes>, Problem> {
        loop {
            let delimiter = match self.place {
                Place::Preamble => &self.first,
                Place::Data => &self.delimiter,
                Place::Delimiter | Place::End => return Ok(None),
            };
            let length = delimiter.needle().len();
            let ready = match delimiter.find(&self.buffer) {
                Some(0) => {
                    self.buffer.advance(length);
                    self.place = Place::Delimiter;
                    return Ok(None);
                }
                Some(at) => at,
                // What may be the beginning of a delimiter stays.
                None => self.buffer.len().saturating_sub(length - 1),
            };
            if ready > 0 {
                return Ok(Some(self.buffer.split_to(ready).freeze()));
            }
            self.read_more().await?;
        }
    }

    async fn read_more(&mut self) -> Result<(), Problem> {
        match self.body.next().await {
            Some(chunk) => {
                self.buffer.extend_from_slice(&chunk.map_err(Problem::of_body)?);
                Ok(())
            }
            None => Err(malformed("the form ends before its last boundary; send it again, whole")),
        }
    }

    /// Whether the delimiter that was just read ends the form.
    async fn is_last(&mut self) -> Result<bool, Problem> {
        while self.buffer.len() < 2 {
            self.read_more().await?;
        }
        Ok(self.buffer.starts_with(b"--"))
    }

    /// Skips the blanks and the line break behind a boundary.
    async fn end_line(&mut self) -> Result<(), Problem> {
        loop {
            let blanks = self.buffer.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
            if self.buffer[blanks..].starts_with(b"\r\n") {
                self.buffer.advance(blanks + 2);
                return Ok(());
            }
            if self.buffer.len() > blanks + 1 || blanks > MAX_HEADER_BYTES {
                return Err(malformed("the line of a boundary goes on behind it"));
            }
            self.read_more().await?;
        }
    }

    /// The headers, which end in an empty line.
    async fn headers(&mut self) -> Result<BytesMut, Problem> {
        let length = loop {
            // A part without headers begins with the empty line.
            if self.buffer.starts_with(b"\r\n") {
                break 0;
            }
            match memmem::find(&self.buffer, END_OF_HEADERS) {
                Some(at) if at <= MAX_HEADER_BYTES => break at + 2,
                None if self.buffer.len() <= MAX_HEADER_BYTES => self.read_more().await?,
                _ => {
                    let number = self.parts;
                    let detail = format!("part {number} has headers of more than {MAX_HEADER_BYTES} bytes");
                    return Err(malformed(detail));
                }
            }
        };
        let headers = self.buffer.split_to(length);
        // The empty line of an empty part may be the line break of the next delimiter.
        let delimiter = self.delimiter.needle().len();
        while self.buffer.len() < delimiter && self.delimiter.needle().starts_with(&self.buffer) {
            self.read_more().await?;
        }
        if !self.buffer.starts_with(self.delimiter.needle()) {
            self.buffer.advance(2);
        }
        Ok(headers)
    }

    fn head(&self, headers: &[u8]) -> Result<PartHead, Problem> {
        let mut text = unfolded(headers);
        text.extend_from_slice(b"\r\n");
        let mut room = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let Ok(httparse::Status::Complete((_, found))) = httparse::parse_headers(&text, &mut room) else {
            let number = self.parts;
            return Err(malformed(format!("part {number} has headers that are no `Name: value` lines, or too many")));
        };
        let header = |name: &str| found.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        let disposition = header("content-disposition").map_or(&b""[..], |header| header.value);
        let parameters = HeaderParameters::parse(disposition);
        let parameter = |name: &str| {
            let twice = |_| malformed(format!("part {} has two parameters {name}: send one", self.parts));
            parameters.get(name).map(|value| value.map(str::to_owned)).map_err(twice)
        };
        let encoding = header("content-transfer-encoding").map(|header| String::from_utf8_lossy(header.value));
        let encoding = encoding.map(|text| text.trim().to_ascii_lowercase());
        Ok(PartHead {
            name: parameter("name")?.unwrap_or_default(),
            file_name: parameter("filename")?,
            media_type: header("content-type").and_then(|header| media_type(header.value)).unwrap_or_else(octets),
            encoding: encoding.filter(|text| !matches!(text.as_str(), "" | "7bit" | "8bit" | "binary")),
        })
    }
}

/// Headers whose continued lines are joined.
fn unfolded(headers: &[u8]) -> Vec<u8> {
    let mut joined = headers.to_vec();
    for at in memmem::find_iter(headers, b"\r\n") {
        if matches!(headers.get(at + 2), Some(b' ' | b'\t')) {
            joined[at..at + 3].fill(b' ');
        }
    }
    joined
}

/// A media type that can be passed on; `None` for texts such as `image` or none.
fn media_type(value: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(value).ok()?.trim();
    let fits = text.contains('/') && text.len() <= MAX_MEDIA_TYPE && text.bytes().all(|byte| (32..127).contains(&byte));
    fits.then(|| text.to_owned())
}

fn octets() -> String {
    "application/octet-stream".into()
}

/// 400: no form.
pub fn malformed(detail: impl std::fmt::Display) -> Problem {
    Problem::malformed("malformed_multipart", format!("the form is malformed: {detail}"))
}

#[cfg(test)]
mod tests;
