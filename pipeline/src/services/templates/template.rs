//! A template, its versions, and its line in the list of templates.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::names::Token;
use crate::payload::{Claim, Digest};

/// The language of a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TemplateKind {
    /// A DOCX with the tags of docxtpl.
    Docx,
    /// The text of a typst document.
    Typst,
}

impl TemplateKind {
    /// The media type of its bytes.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Docx => "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
            Self::Typst => "text/vnd.typst; charset=utf-8",
        }
    }
}

/// One version of a template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Digest of its bytes; names the version.
    pub sha256: Digest,
    /// Language.
    pub kind: TemplateKind,
    /// Length in bytes.
    pub length: u64,
    /// When it became the newest.
    #[serde(with = "time::serde::rfc3339")]
    pub time: OffsetDateTime,
    pub(super) claim: Claim,
}

/// A template under its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Template {
    /// Name of the template.
    pub name: Token,
    /// Variables of the newest version, as dotted paths, in alphabetical order.
    pub fields: Vec<String>,
    /// The newest first; at least one.
    pub versions: Vec<Version>,
}

/// A line of the list of templates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateSummary {
    /// Name of the template.
    pub name: Token,
    /// Digest of the newest version.
    pub sha256: Digest,
    /// Language of the newest version.
    pub kind: TemplateKind,
    /// Length of the newest version in bytes.
    pub length: u64,
    /// When the newest version was stored.
    #[serde(with = "time::serde::rfc3339")]
    pub time: OffsetDateTime,
}

impl TemplateSummary {
    pub(super) fn of(template: &Template) -> Self {
        let Version { sha256, kind, length, time, .. } = template.versions[0];
        Self { name: template.name.clone(), sha256, kind, length, time }
    }
}

impl Template {
    /// The version with that digest, or the newest if none is named.
    #[must_use]
    pub fn version(&self, sha256: Option<Digest>) -> Option<&Version> {
        match sha256 {
            Some(sha256) => self.versions.iter().find(|version| version.sha256 == sha256),
            None => self.versions.first(),
        }
    }
}
