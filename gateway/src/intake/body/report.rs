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
use crate::problem::{Problem, shown};
use crate::spec::BodySpec;
use crate::state::Shared;

/// Fields of one report besides the photos.
const MAX_FIELDS: usize = 1_000;

/// Digits of an index in a name such as `photo[12]`.
const MAX_INDEX_DIGITS: usize = 4;

/// A photo of a JSON text.
pub struct Photo {
    /// Its place, for messages: `photos[2]`.
    field: String,
    /// A data URI.
    uri: Bytes,
}

/// The fields of a report, and its photos.
pub type Report = (Map<String, Value>, Vec<Photo>);

/// Whether a part or a field of this name holds photos where the config calls them `files`: under that name, its plural
/// or either with an index, as web frameworks write lists (`photo`, `photos`, `photo[]`, `photos[0]`).
pub fn is_files_name(files: &str, name: &str) -> bool {
    let indexed = name.strip_suffix(']').and_then(|open| open.rsplit_once('['));
    let base = match indexed {
        Some((base, index)) if index.len() <= MAX_INDEX_DIGITS && index.bytes().all(|byte| byte.is_ascii_digit()) => {
            base
        }
        _ => name,
    };
    base == files || base.strip_suffix('s') == Some(files)
}

/// Separates the photos of a report's JSON text, at most `most`, from its other fields.
///
/// # Errors
/// 400 if it is not a JSON object, or a photo is no text; 413 if the other fields are too long.
pub fn split(files: &str, most: usize, text: &Bytes) -> Result<Report, Problem> {
    ReportReader { files, most }.read(text)
}

/// A report whose photos are data URIs.
pub async fn of_json(
    files: &str,
    spec: &BodySpec,
    store_in: &mut BodyStore<'_>,
    shared: &Shared,
    head: BodyHead,
    body: BodyReceiver,
) -> Result<ReceivedBody, Problem> {
    let (text, _share) = json::read_text(shared, &head, body).await?;
    let (name, most) = (files.to_owned(), spec.max_parts);
    let (fields, photos) = blocking::run(move || split(&name, most, &text)).await??;
    let mut parts = Vec::with_capacity(photos.len());
    store(files, photos, spec, store_in, &mut parts).await?;
    Ok(ReceivedBody { record: Some(fields), ..ReceivedBody::payload(Payload::Parts(parts.into())) })
}

/// Decodes photos and stores them as parts named `files`.
pub async fn store(
    files: &str,
    photos: Vec<Photo>,
    spec: &BodySpec,
    store: &mut BodyStore<'_>,
    parts: &mut Vec<Part>,
) -> Result<(), Problem> {
    for Photo { field, uri } in photos {
        let uri = DataUri::parse(&field, &uri)?;
        let media_type = uri.media_type.clone();
        if !spec.takes_type(&media_type) {
            let detail = format!("{field} is {}: this route takes {}", shown(&media_type), spec.types.join(" or "));
            return Err(Problem::unsupported("media_type", detail));
        }
        let content = store.put(&media_type, stream::iter(uri.decode(field.clone())).boxed()).await?;
        if content.length() == 0 {
            return Err(empty(&field));
        }
        parts.push(Part { name: files.into(), file_name: None, content });
    }
    Ok(())
}

/// Parses a report without copying its photos.
struct ReportReader<'n> {
    files: &'n str,
    most: usize,
}

/// What a report's text holds, unparsed.
type Unparsed<'de> = (Vec<(String, &'de RawValue)>, Vec<PhotoText<'de>>);

impl ReportReader<'_> {
    fn read(self, text: &Bytes) -> Result<Report, Problem> {
        let mut parser = serde_json::Deserializer::from_slice(json::without_mark(text));
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
            if parsed.contains_key(&name) {
                let detail = format!("the JSON has the field {:?} twice: send it once", shown(&name));
                return Err(Problem::malformed("malformed_json", detail));
            }
            parsed.insert(name, value);
        }
        let slice = |photo: PhotoText<'_>| Photo {
            field: photo.field,
            uri: match photo.uri {
                Cow::Borrowed(uri) => text.slice_ref(uri.as_bytes()),
                Cow::Owned(uri) => Bytes::from(uri),
            },
        };
        Ok((parsed, photos.into_iter().map(slice).collect()))
    }
}

impl<'de> DeserializeSeed<'de> for ReportReader<'_> {
    type Value = Unparsed<'de>;

    fn deserialize<D: Deserializer<'de>>(self, parser: D) -> Result<Self::Value, D::Error> {
        parser.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for ReportReader<'_> {
    type Value = Unparsed<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut fields, mut photos) = (Vec::new(), Vec::new());
        while let Some(name) = map.next_key::<String>()? {
            if is_files_name(self.files, &name) {
                map.next_value_seed(PhotoField { name: &name, most: self.most, photos: &mut photos })?;
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

/// A photo as it stands in the text.
struct PhotoText<'de> {
    field: String,
    uri: Cow<'de, str>,
}

/// A string of the JSON text, borrowed if it contains no escapes.
#[derive(Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Adds the photos of one field: a data URI, a list of them, or `null` for none.
struct PhotoField<'f, 'de> {
    name: &'f str,
    most: usize,
    photos: &'f mut Vec<PhotoText<'de>>,
}

impl<'de> PhotoField<'_, 'de> {
    fn add<E: de::Error>(&mut self, field: String, uri: Cow<'de, str>) -> Result<(), E> {
        if self.photos.len() == self.most {
            return Err(E::custom(format_args!("more than {} photos", self.most)));
        }
        self.photos.push(PhotoText { field, uri });
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for PhotoField<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, parser: D) -> Result<(), D::Error> {
        parser.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for PhotoField<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a data URI, a list of them, or null as {}", self.name)
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_borrowed_str<E: de::Error>(mut self, uri: &'de str) -> Result<(), E> {
        self.add(self.name.to_owned(), Cow::Borrowed(uri))
    }

    fn visit_str<E: de::Error>(mut self, uri: &str) -> Result<(), E> {
        self.add(self.name.to_owned(), Cow::Owned(uri.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
        let mut index = 0;
        while let Some(Text(uri)) = list.next_element()? {
            self.add(format!("{}[{index}]", self.name), uri)?;
            index += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<(Value, Vec<(String, String)>), Problem> {
        let (fields, photos) = split("photo", 2, &Bytes::copy_from_slice(text.as_bytes()))?;
        let shown = |photo: &Photo| (photo.field.clone(), String::from_utf8(photo.uri.to_vec()).unwrap());
        Ok((Value::Object(fields), photos.iter().map(shown).collect()))
    }

    fn photos(text: &str) -> Vec<(String, String)> {
        read(text).unwrap().1
    }

    fn photo(field: &str, uri: &str) -> (String, String) {
        (field.to_owned(), uri.to_owned())
    }

    #[test]
    fn photos_are_separated_from_the_other_fields() {
        let text = r#"{"id": "r1", "photos": ["data:a", "data:\/b"], "at": {"x": [1, 2]}}"#;
        let (fields, photos) = read(text).unwrap();
        assert_eq!(fields, serde_json::json!({"id": "r1", "at": {"x": [1, 2]}}));
        assert_eq!(photos, [photo("photos[0]", "data:a"), photo("photos[1]", "data:/b")]);
    }

    #[test]
    fn one_photo_may_stand_without_a_list_and_null_is_none() {
        assert_eq!(photos(r#"{"photo": "data:a"}"#), [photo("photo", "data:a")]);
        assert_eq!(photos(r#"{"photos": "data:\/a"}"#), [photo("photos", "data:/a")]);
        assert_eq!(photos(r#"{"photos": null, "photo": null}"#), []);
        assert_eq!(photos(r#"{"photos": []}"#), []);
    }

    #[test]
    fn photos_of_several_fields_are_all_kept() {
        let both = [photo("photo[0]", "a"), photo("photos[0]", "b")];
        assert_eq!(photos(r#"{"photo": ["a"], "photos": ["b"]}"#), both);
        assert_eq!(photos(r#"{"photo": ["a"], "photos": []}"#), both[..1]);
        assert_eq!(
            photos(r#"{"photos[]": ["a"], "photo[1]": "b"}"#),
            [photo("photos[][0]", "a"), photo("photo[1]", "b")]
        );
        assert_eq!(photos(r#"{"photo": "a", "photo": "b"}"#), [photo("photo", "a"), photo("photo", "b")]);
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_report() {
        assert_eq!(photos("\u{feff}{\"photo\": \"data:a\"}"), [photo("photo", "data:a")]);
    }

    #[test]
    fn only_the_name_its_plural_and_their_lists_mean_photos() {
        for name in ["photo", "photos", "photo[]", "photos[]", "photo[0]", "photos[15]"] {
            assert!(is_files_name("photo", name), "{name}");
        }
        for name in ["", "phot", "photoss", "Photo", "photo1", "photo[x]", "photo[12345]", "photo[]x", "xphoto[]", "[]"]
        {
            assert!(!is_files_name("photo", name), "{name}");
        }
    }

    #[test]
    fn a_malformed_report_is_refused() {
        for bad in ["", "[]", "{", r#"{"photos": {}}"#, r#"{"photos": [1]}"#, r#"{"photos": [null]}"#, "{} {}"] {
            assert_eq!(read(bad).unwrap_err().status().as_u16(), 400, "{bad}");
        }
        for (many, why) in [
            (r#"{"photos": ["", "", ""]}"#, "more than 2 photos"),
            (r#"{"photos": ["", ""], "photo": ""}"#, "more than 2 photos"),
            (r#"{"name": 1, "name": 2}"#, r#""name\" twice"#),
        ] {
            let problem = read(many).unwrap_err().to_json()["detail"].to_string();
            assert!(problem.contains(why), "{problem}");
        }
    }

    #[test]
    fn a_refusal_does_not_repeat_the_report() {
        let long = "n".repeat(1 << 20);
        for text in [
            format!("\"{long}\""),
            format!("{{\"photos\": [[\"{long}\"]]}}"),
            format!("{{\"photos\": {{\"{long}\": 1}}}}"),
            format!("{{\"{long}\": 1, \"{long}\": 1}}").replace(&long, &long[..1_000]),
        ] {
            let problem = read(&text).unwrap_err().to_json().to_string();
            assert!(problem.len() < 400, "{problem}");
        }
    }
}
