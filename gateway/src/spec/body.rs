//! `body = { … }` of a route: the kind of body that it takes, and its limits.

use pipeline::INLINE_LIMIT;
use pipeline::PayloadKind;
use pipeline::spec::ByteSize;
use serde::Deserialize;

/// Default limit of a body; a 12-megapixel JPEG has about half of it.
const DEFAULT_MAX_BYTES: ByteSize = ByteSize::mib(10);

/// Default limit of a form's parts, ignored ones included.
const DEFAULT_MAX_PARTS: usize = 16;

/// The body of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodySpec {
    /// Its kind, which decides the payload.
    pub kind: BodyKind,
    /// Accepted media types, `image/*` for all of a kind; empty for any.
    pub types: Vec<String>,
    /// Longest body; of a form with one file, longest file.
    pub max_bytes: ByteSize,
    /// Parts of a form, ignored ones included.
    pub max_parts: usize,
}

/// The kind of a body, and the payload that it becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BodyKind {
    /// No body: the event carries `{}`.
    None,
    /// A form's first file of this name, as bytes; what else it has is named in the answer.
    File(String),
    /// A form's parts of these names, each at least once, as parts.
    Parts(Vec<String>),
    /// A form with one JSON part and any number of files, or JSON with the files as data URIs: the files as parts, the
    /// JSON as the record.
    Form {
        /// Name of the JSON part, and of the record in answers.
        json: String,
        /// Name of the file parts, and in JSON of the field with data URIs. The plural and `photo[]` mean the same.
        files: String,
    },
    /// A form's files under any name, as parts; every other part is a field, and all fields together are the parameter
    /// `form`.
    Files,
    /// The bytes themselves.
    Raw,
    /// A JSON document, up to the inline limit.
    Json,
    /// Bytes, or a JSON document if the flow takes one and the media type is JSON.
    Open {
        /// Whether the flow's first stage takes JSON.
        json: bool,
    },
}

impl BodyKind {
    /// The payload it becomes.
    #[must_use]
    pub fn gives(&self) -> PayloadKind {
        match self {
            Self::File(_) | Self::Raw => PayloadKind::Bytes,
            Self::Parts(_) | Self::Form { .. } | Self::Files => PayloadKind::Parts,
            Self::Open { json: false } => PayloadKind::Bytes,
            Self::None | Self::Json | Self::Open { json: true } => PayloadKind::Json,
        }
    }
}

impl Default for BodySpec {
    fn default() -> Self {
        Self { kind: BodyKind::None, types: Vec::new(), max_bytes: ByteSize(0), max_parts: 0 }
    }
}

impl BodySpec {
    /// Whether `media_type` is among `types`.
    #[must_use]
    pub fn takes_type(&self, media_type: &str) -> bool {
        self.types.is_empty() || self.types.iter().any(|pattern| type_matches(pattern, media_type))
    }
}

/// Whether a media type, without its parameters, matches `pattern` (`image/png`, `image/*`).
pub fn type_matches(pattern: &str, media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    match pattern.strip_suffix("/*") {
        Some(kind) => essence.split_once('/').is_some_and(|(own, _)| own.eq_ignore_ascii_case(kind)),
        None => essence.eq_ignore_ascii_case(pattern),
    }
}

/// `body` as written in TOML.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BodyToml {
    multipart: Option<String>,
    parts: Option<Vec<String>>,
    form: Option<FormToml>,
    #[serde(default)]
    files: bool,
    #[serde(default)]
    raw: bool,
    #[serde(default)]
    json: bool,
    #[serde(default)]
    types: Vec<String>,
    max_bytes: Option<ByteSize>,
    max_parts: Option<usize>,
}

/// `form` as written in TOML.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FormToml {
    json: String,
    files: String,
}

impl BodyToml {
    /// The body it describes; the error is a message and a remedy.
    pub fn resolve(self) -> Result<BodySpec, (String, String)> {
        let mut kinds = Vec::new();
        kinds.extend(self.multipart.map(BodyKind::File));
        kinds.extend(self.parts.map(BodyKind::Parts));
        kinds.extend(self.form.map(|form| BodyKind::Form { json: form.json, files: form.files }));
        kinds.extend(self.files.then_some(BodyKind::Files));
        kinds.extend(self.raw.then_some(BodyKind::Raw));
        kinds.extend(self.json.then_some(BodyKind::Json));
        let Ok([kind]) = <[BodyKind; 1]>::try_from(kinds) else {
            let remedy = "give exactly one of multipart = \"NAME\", parts = [\"NAME\", …], form = { json, files }, files = \
                          true, raw = true, json = true";
            return Err(("the body has no kind, or several kinds".into(), remedy.into()));
        };
        if matches!(&kind, BodyKind::Parts(names) if names.is_empty()) {
            return Err(("parts is empty".into(), "name the form's parts".into()));
        }
        let inline = ByteSize(INLINE_LIMIT as u64);
        let is_json = kind == BodyKind::Json;
        let max_bytes = self.max_bytes.unwrap_or(if is_json { inline } else { DEFAULT_MAX_BYTES });
        if is_json && max_bytes > inline {
            let message =
                format!("a JSON body travels inside its event: max_bytes is {max_bytes}, at most {inline} fit");
            return Err((message, "lower it, or take the body as raw = true".into()));
        }
        let max_parts = self.max_parts.unwrap_or(DEFAULT_MAX_PARTS);
        if max_bytes.0 == 0 || max_parts == 0 {
            return Err(("a limit of 0 accepts nothing".into(), "give at least 1, or leave the body out".into()));
        }
        Ok(BodySpec { kind, types: self.types, max_bytes, max_parts })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_match_by_kind_or_whole() {
        assert!(type_matches("image/*", "image/PNG"));
        assert!(type_matches("application/json", "application/json; charset=utf-8"));
        assert!(!type_matches("image/*", "imagery/png"));
        assert!(!type_matches("image/png", "image/jpeg"));
    }
}
