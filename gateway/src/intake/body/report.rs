//! A report with photos: as a form, or as JSON with the photos as data URIs.
//!
//! The JSON can have tens of MiB, nearly all of it base64. It is in memory once, under the memory budget: the photos
//! are slices of it, and only the other fields, at most 256 KiB, are parsed.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use pipeline::{INLINE_LIMIT, Part, Payload};
use serde::Deserialize;
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::channel::BodyReceiver;
use super::data_uri::DataUri;
use super::head::BodyHead;
use super::json;
use super::received::{ReceivedBody, empty};
use super::store::BodyStore;
use crate::intake::blocking;
use crate::problem::Problem;
use crate::spec::BodySpec;
use crate::state::Shared;

/// The fields of a report, from its JSON text.
///
/// # Errors
/// 400 if it is not a JSON object.
pub fn record_of(name: &str, text: &[u8]) -> Result<Map<String, Value>, Problem> {
    match serde_json::from_slice(text).map_err(|error| json::malformed(&error))? {
        Value::Object(fields) => Ok(fields),
        _ => Err(Problem::malformed("malformed_json", format!("{name} must be a JSON object"))),
    }
}

/// A report whose photos are data URIs in a list named `files` or its plural.
pub async fn of_json(
    files: &str,
    spec: &BodySpec,
    store: &mut BodyStore<'_>,
    shared: &Shared,
    head: BodyHead,
    body: BodyReceiver,
) -> Result<ReceivedBody, Problem> {
    let (text, _share) = json::read_text(shared, &head, body).await?;
    let reader = ReportReader { names: [files.to_owned(), format!("{files}s")], most: spec.max_parts };
    let (fields, photos) = blocking::run(move || reader.read(&text)).await??;
    let mut parts = Vec::with_capacity(photos.len());
    for (index, uri) in photos.iter().enumerate() {
        let field = format!("{files}s[{index}]");
        let uri = DataUri::parse(&field, uri)?;
        let media_type = uri.media_type.clone();
        if !spec.takes_type(&media_type) {
            let detail = format!("{field} is {media_type}: this route takes {}", spec.types.join(" or "));
            return Err(Problem::unsupported("media_type", detail));
        }
        let content = store.put(&media_type, stream::iter(uri.decode(field.clone())).boxed()).await?;
        if content.length() == 0 {
            return Err(empty(&field));
        }
        parts.push(Part { name: files.into(), file_name: None, content });
    }
    Ok(ReceivedBody { payload: Payload::Parts(parts.into()), record: Some(fields), fields: None })
}

/// Parses a report without copying its photos.
struct ReportReader {
    names: [String; 2],
    most: usize,
}

type Report = (Map<String, Value>, Vec<Bytes>);

impl ReportReader {
    fn read(self, text: &Bytes) -> Result<Report, Problem> {
        let mut parser = serde_json::Deserializer::from_slice(text);
        let (fields, photos) = self.deserialize(&mut parser).map_err(|error| json::malformed(&error))?;
        parser.end().map_err(|error| json::malformed(&error))?;
        let length: usize = fields.iter().map(|(name, value)| name.len() + value.get().len()).sum();
        if length > INLINE_LIMIT {
            let detail = format!(
                "the report's fields have {length} bytes: at most {INLINE_LIMIT} are allowed besides the photos"
            );
            return Err(Problem::too_large(detail));
        }
        let mut parsed = Map::new();
        for (name, value) in fields {
            let value = serde_json::from_str(value.get()).map_err(|error| json::malformed(&error))?;
            parsed.insert(name, value);
        }
        let slice = |photo: Photo<'_>| match photo.0 {
            Cow::Borrowed(photo) => text.slice_ref(photo.as_bytes()),
            Cow::Owned(photo) => Bytes::from(photo),
        };
        Ok((parsed, photos.into_iter().map(slice).collect()))
    }
}

/// A string of the JSON text, borrowed if it contains no escapes.
#[derive(Deserialize)]
#[serde(transparent)]
struct Photo<'a>(#[serde(borrow)] Cow<'a, str>);

/// Fields of one report besides the photos.
const MAX_FIELDS: usize = 1_000;

impl<'de> DeserializeSeed<'de> for ReportReader {
    type Value = (Vec<(String, &'de RawValue)>, Vec<Photo<'de>>);

    fn deserialize<D: Deserializer<'de>>(self, parser: D) -> Result<Self::Value, D::Error> {
        parser.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for ReportReader {
    type Value = (Vec<(String, &'de RawValue)>, Vec<Photo<'de>>);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut fields, mut photos) = (Vec::new(), Vec::new());
        while let Some(name) = map.next_key::<String>()? {
            if self.names.contains(&name) {
                photos = map.next_value_seed(PhotoList { most: self.most })?;
                continue;
            }
            if fields.len() == MAX_FIELDS {
                return Err(de::Error::custom(format_args!("more than {MAX_FIELDS} fields")));
            }
            fields.push((name, map.next_value()?));
        }
        Ok((fields, photos))
    }
}

struct PhotoList {
    most: usize,
}

impl<'de> DeserializeSeed<'de> for PhotoList {
    type Value = Vec<Photo<'de>>;

    fn deserialize<D: Deserializer<'de>>(self, parser: D) -> Result<Self::Value, D::Error> {
        parser.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for PhotoList {
    type Value = Vec<Photo<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of data URIs")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut photos = Vec::new();
        while let Some(photo) = list.next_element()? {
            if photos.len() == self.most {
                return Err(de::Error::custom(format_args!("more than {} photos", self.most)));
            }
            photos.push(photo);
        }
        Ok(photos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &'static str) -> Result<Report, Problem> {
        ReportReader { names: ["photo".into(), "photos".into()], most: 2 }.read(&Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn photos_are_separated_from_the_other_fields() {
        let (fields, photos) = read(r#"{"id": "r1", "photos": ["data:a", "data:\/b"], "at": {"x": [1, 2]}}"#).unwrap();
        assert_eq!(Value::Object(fields), serde_json::json!({"id": "r1", "at": {"x": [1, 2]}}));
        assert_eq!(photos, ["data:a", "data:/b"]);
    }

    #[test]
    fn a_malformed_report_is_refused() {
        for bad in ["", "[]", "{", r#"{"photos": "x"}"#, r#"{"photos": [1]}"#, r#"{"photos": ["", "", ""]}"#, "{} {}"] {
            assert_eq!(read(bad).unwrap_err().status().as_u16(), 400, "{bad}");
        }
    }
}
