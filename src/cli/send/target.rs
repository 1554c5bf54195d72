//! Where files are sent: the requests that carry them, and the keys by which the service recognises a repeat.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use reqwest::multipart::{Form, Part};
use reqwest::{Client, Response};
use sha2::{Digest, Sha256};

use super::call_error::{CallError, checked};
use super::media::type_of;
use super::names::{self, PLACE, token};
use crate::http_client;

/// Where the files go.
pub struct Target {
    client: Client,
    base: String,
    way: Way,
}

/// How a file becomes a request.
pub enum Way {
    /// The file's bytes, to an open flow.
    Flow(String),
    /// As a field of a multipart form, to a route.
    Form {
        /// Path of the route; `{name}` stands for the file's name without extension.
        path: String,
        /// Name of the form field.
        field: String,
    },
    /// The file's bytes, to a route.
    Raw {
        /// Path of the route; `{name}` stands for the file's name without extension.
        path: String,
    },
}

/// What tells one sending of a file from another.
pub struct Sending<'a> {
    /// The journal's id: without its journal, a folder is sent anew.
    pub journal: &'a str,
    pub file: &'a Path,
    pub bytes: &'a [u8],
    /// How many requests of this file have ended.
    pub round: u32,
}

impl Target {
    /// A service and how it gets the files, with its API key or token if it needs one.
    ///
    /// # Errors
    /// If the token has characters that a header value cannot have.
    pub fn new(base: &str, way: Way, token: Option<&str>) -> anyhow::Result<Self> {
        let client = http_client::to_service(token)?;
        Ok(Self { client, base: base.trim_end_matches('/').to_owned(), way })
    }

    /// The target's name in the journal.
    pub fn describe(&self) -> String {
        match &self.way {
            Way::Flow(flow) => format!("{}/v1/flows/{flow}", self.base),
            Way::Form { path, .. } | Way::Raw { path } => format!("{}{path}", self.base),
        }
    }

    /// Checks that each file has an id of its own, if the route's path names them.
    ///
    /// # Errors
    /// If not: all files that share an id.
    pub fn check_ids(&self, files: &[PathBuf]) -> anyhow::Result<()> {
        match &self.way {
            Way::Flow(_) => Ok(()),
            Way::Form { path, .. } | Way::Raw { path } => names::check_ids(path, files),
        }
    }

    /// The idempotency key of a sending. A repeat has the same, so it attaches to the first request; another target, file,
    /// content or round has another.
    pub fn key(&self, sending: &Sending) -> String {
        let (way, field) = match &self.way {
            Way::Flow(_) => ("flow", ""),
            Way::Form { field, .. } => ("form", field.as_str()),
            Way::Raw { .. } => ("raw", ""),
        };
        let name = sending.file.file_name().unwrap_or_default();
        let mut hasher = Sha256::new();
        let mut add = |bytes: &[u8]| {
            hasher.update((bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        add(sending.journal.as_bytes());
        add(self.describe().as_bytes());
        add(way.as_bytes());
        add(field.as_bytes());
        add(name.as_encoded_bytes());
        add(&Sha256::digest(sending.bytes));
        add(&sending.round.to_le_bytes());
        hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Posts a file once.
    ///
    /// # Errors
    /// If the service is not reached or does not take it.
    pub async fn post(&self, file: &Path, bytes: Bytes, key: &str) -> Result<Response, CallError> {
        let media_type = type_of(file);
        let url = |path: &str| format!("{}{}", self.base, path.replace(PLACE, &token(file)));
        let raw = |url: String, bytes: Bytes| self.client.post(url).header("content-type", media_type).body(bytes);
        let request = match &self.way {
            Way::Flow(flow) => raw(format!("{}/v1/flows/{flow}?lane=bulk", self.base), bytes),
            Way::Raw { path } => raw(url(path), bytes),
            Way::Form { path, field } => {
                let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let part = Part::stream(bytes).file_name(name).mime_str(media_type)?;
                self.client.post(url(path)).multipart(Form::new().part(field.clone(), part))
            }
        };
        let request = request.header("prefer", "respond-async").header("idempotency-key", key);
        checked(request.send().await?).await
    }

    /// Gets a path once.
    ///
    /// # Errors
    /// If the service is not reached or does not answer with a success.
    pub async fn get(&self, path: &str) -> Result<Response, CallError> {
        checked(self.client.get(format!("{}{path}", self.base)).send().await?).await
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn target(base: &str, way: Way) -> Target {
        Target::new(base, way, None).unwrap()
    }

    fn form(field: &str) -> Way {
        Way::Form { path: "/photos/{name}".into(), field: field.into() }
    }

    #[test]
    fn a_repeat_has_the_same_key() {
        let sending = Sending { journal: "j", file: Path::new("in/a.jpg"), bytes: b"pixels", round: 0 };
        let key = target("http://one", form("file")).key(&sending);
        // The folder does not count: the journal that lies in it does.
        let moved = Sending { file: Path::new("elsewhere/a.jpg"), ..sending };
        assert_eq!(target("http://one/", form("file")).key(&moved), key);
        // What the gateway accepts: 1 to 255 visible characters.
        assert!(key.len() == 64 && key.bytes().all(|byte| byte.is_ascii_hexdigit()), "{key}");
    }

    #[test]
    fn whatever_makes_another_request_makes_another_key() {
        let file = Path::new("a.jpg");
        let first = || Sending { journal: "j", file, bytes: b"pixels", round: 0 };
        let raw = || Way::Raw { path: "/photos/{name}".into() };
        let one = target("http://one", form("file"));
        let keys = [
            one.key(&first()),
            one.key(&Sending { journal: "k", ..first() }),
            one.key(&Sending { file: Path::new("b.jpg"), ..first() }),
            one.key(&Sending { file: Path::new("a.png"), ..first() }),
            one.key(&Sending { bytes: b"pixel", ..first() }),
            one.key(&Sending { round: 1, ..first() }),
            target("http://two", form("file")).key(&first()),
            target("http://one", form("photo")).key(&first()),
            target("http://one", raw()).key(&first()),
            target("http://one", Way::Flow("photos".into())).key(&first()),
        ];
        assert_eq!(keys.iter().collect::<HashSet<_>>().len(), keys.len());
    }
}
