//! The data of one rendering: JSON, with typed objects for images and formatted text.
//!
//! `{"$type": "image", "src": "data:image/png;base64,…", "width_mm": 20}`, `{"$type": "rich_text", "spans": […]}`,
//! `{"$type": "rich_paragraph", "paragraphs": […]}` and `{"$type": "listing", "text": "…"}`. The engine prints a
//! placeholder for such an object; [`insert`](super::insert), which knows the surroundings of the tag, replaces it.

use std::fmt;
use std::sync::Arc;

use minijinja::value::{Object, ObjectRepr, Value};
use serde::Deserialize;
use serde_json::Value as Json;

use super::error::FillError;
use super::hyperlink::check_link;
use super::image::{Image, ImageJson};

/// Typed objects of one rendering.
const MAX_TYPED: usize = 10_000;

/// A typed object.
#[derive(Debug)]
pub(super) enum TypedValue {
    Image(Image),
    RichText(Vec<Span>),
    RichParagraph(Vec<Paragraph>),
}

/// A paragraph of formatted text.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Paragraph {
    /// Id of a paragraph style of the template.
    pub(super) style: Option<String>,
    pub(super) spans: Vec<Span>,
}

/// Text with one formatting.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, from = "SpanJson")]
pub(super) struct Span {
    pub(super) text: String,
    pub(super) format: Format,
}

/// A span may be a plain string.
#[derive(Deserialize)]
#[serde(untagged)]
enum SpanJson {
    Plain(String),
    Formatted(Box<FormattedSpan>),
}

#[derive(Deserialize)]
struct FormattedSpan {
    text: String,
    #[serde(flatten)]
    format: Format,
}

/// Formatting of a span; properties that are not given are inherited.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Format {
    /// Id of a character style of the template.
    pub(super) style: Option<String>,
    pub(super) bold: bool,
    pub(super) italic: bool,
    /// `true`, or a kind of line by Word's name.
    pub(super) underline: Underline,
    pub(super) strike: bool,
    pub(super) subscript: bool,
    pub(super) superscript: bool,
    /// Six hexadecimal digits, with or without `#`.
    pub(super) color: Option<String>,
    /// Background colour, in the same form.
    pub(super) highlight: Option<String>,
    /// In half points, as in Word's files and in docxtpl.
    pub(super) size: Option<u32>,
    /// Name of a font, or `eastAsia:Name` for East Asian characters.
    pub(super) font: Option<String>,
    pub(super) rtl: bool,
    pub(super) lang: Option<String>,
    /// A URL of scheme `http`, `https` or `mailto`.
    pub(super) link: Option<String>,
}

/// How text is underlined.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Underline {
    Plain(bool),
    Kind(String),
}

impl Default for Underline {
    fn default() -> Self {
        Self::Plain(false)
    }
}

impl From<SpanJson> for Span {
    fn from(json: SpanJson) -> Self {
        match json {
            SpanJson::Plain(text) => Self { text, format: Format::default() },
            SpanJson::Formatted(span) => Self { text: span.text, format: span.format },
        }
    }
}

/// A typed object inside the engine: its index in the list, and its text for filters that need a string.
#[derive(Debug)]
pub(super) struct TypedObject {
    pub(super) index: usize,
    text: String,
}

impl Object for TypedObject {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The data, converted for the engine.
pub(super) struct Data {
    pub(super) root: Value,
    pub(super) typed: Vec<TypedValue>,
}

impl Data {
    /// Converts the data.
    ///
    /// # Errors
    /// 422 if the data are not an object, or a typed object is invalid.
    pub(super) fn of(context: &Json) -> Result<Self, FillError> {
        if !context.is_object() {
            let message = "the data must be a JSON object: its keys are the variables of the template";
            return Err(FillError::data("context_type", message));
        }
        let mut typed = Vec::new();
        let root = convert(context, &mut typed, &mut String::new())?;
        Ok(Self { root, typed })
    }
}

fn convert(json: &Json, typed: &mut Vec<TypedValue>, path: &mut String) -> Result<Value, FillError> {
    Ok(match json {
        Json::Null => Value::from(()),
        Json::Bool(value) => Value::from(*value),
        Json::String(text) => Value::from(text.as_str()),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(whole), _) => Value::from(whole),
            (None, Some(whole)) => Value::from(whole),
            (None, None) => Value::from(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::Array(items) => {
            let mut list = Vec::with_capacity(items.len());
            for (place, item) in items.iter().enumerate() {
                list.push(within(path, &format!("[{place}]"), |path| convert(item, typed, path))?);
            }
            Value::from(list)
        }
        Json::Object(fields) => {
            if let Some(kind) = fields.get("$type") {
                return special(kind, fields, typed, path);
            }
            let mut map = Vec::with_capacity(fields.len());
            for (key, value) in fields {
                map.push((key.clone(), within(path, &format!(".{key}"), |path| convert(value, typed, path))?));
            }
            Value::from_pairs(map)
        }
    })
}

/// Runs `work` with one more step appended to the path.
fn within<T>(path: &mut String, step: &str, work: impl FnOnce(&mut String) -> T) -> T {
    let length = path.len();
    path.push_str(step);
    let done = work(path);
    path.truncate(length);
    done
}

type Fields = serde_json::Map<String, Json>;

fn special(kind: &Json, fields: &Fields, typed: &mut Vec<TypedValue>, path: &str) -> Result<Value, FillError> {
    let wrong = |why: String| {
        let place = if path.is_empty() { "the data" } else { path.trim_start_matches('.') };
        FillError::data("value_invalid", format!("{}: {why}", place.chars().take(120).collect::<String>()))
    };
    let mut rest = fields.clone();
    rest.remove("$type");
    let rest = Json::Object(rest);
    let (text, made) = match kind.as_str() {
        Some("listing") => {
            let listing: ListingJson = serde_json::from_value(rest).map_err(|why| wrong(why.to_string()))?;
            return Ok(Value::from(listing.text));
        }
        Some("rich_text") => {
            let RichTextJson { spans } = serde_json::from_value(rest).map_err(|why| wrong(why.to_string()))?;
            check_spans(&spans).map_err(wrong)?;
            (plain(&spans), TypedValue::RichText(spans))
        }
        Some("rich_paragraph") => {
            let RichParagraphJson { paragraphs } =
                serde_json::from_value(rest).map_err(|why| wrong(why.to_string()))?;
            paragraphs.iter().try_for_each(|paragraph| check_spans(&paragraph.spans)).map_err(wrong)?;
            let lines: Vec<String> = paragraphs.iter().map(|paragraph| plain(&paragraph.spans)).collect();
            (lines.join("\n"), TypedValue::RichParagraph(paragraphs))
        }
        Some("image") => {
            let image: ImageJson = serde_json::from_value(rest).map_err(|why| wrong(why.to_string()))?;
            (String::new(), TypedValue::Image(Image::read(image).map_err(wrong)?))
        }
        _ => {
            let known = "image, rich_text, rich_paragraph or listing";
            return Err(wrong(format!("unknown $type {kind}; expected {known}")));
        }
    };
    if typed.len() == MAX_TYPED {
        return Err(wrong(format!("there are more than {MAX_TYPED} typed objects, the limit; split the document")));
    }
    typed.push(made);
    Ok(Value::from_object(TypedObject { index: typed.len() - 1, text }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListingJson {
    text: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RichTextJson {
    spans: Vec<Span>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RichParagraphJson {
    paragraphs: Vec<Paragraph>,
}

fn plain(spans: &[Span]) -> String {
    spans.iter().map(|span| span.text.as_str()).collect()
}

fn check_spans(spans: &[Span]) -> Result<(), String> {
    for format in spans.iter().map(|span| &span.format) {
        for colour in format.color.iter().chain(&format.highlight) {
            let digits = colour.strip_prefix('#').unwrap_or(colour);
            if digits != "auto" && (digits.len() != 6 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit())) {
                return Err(format!("colour {colour:?} is invalid; expected six hexadecimal digits, as in \"ff0000\""));
            }
        }
        format.link.as_deref().map_or(Ok(()), check_link)?;
    }
    Ok(())
}
