//! `Idempotency-Key`: a repeat attaches to the first request instead of making a second.
//!
//! Who sends a key claims it for what they send: the broker keeps, for 24 hours, the digest of tenant, route and key with
//! that of the body and the id of the request. A repeat with the same body gets that id. If nothing is known of the request
//! yet, the repeat submits its own copy under the same id, which the broker stores once: so a gateway that died between the
//! claim and the event loses nothing, and two at the same time make one. Another body under the same key is refused.
//!
//! The body is compared by what it holds, not as it came: a form's boundary is another one each time.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, StatusCode};
use pipeline::{Body, Content, Params, Payload, RequestId, Transport};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::identity::tenant;
use crate::problem::Problem;
use crate::slots::{Note, SlotError, Slots, until};
use crate::spec::RouteSpec;

const HEADER: HeaderName = HeaderName::from_static("idempotency-key");

/// Set on answers of repeats.
pub const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// How long a key is remembered.
const AGE: Duration = Duration::from_secs(24 * 3600);

/// Longest key, in bytes.
const MAX_KEY_BYTES: usize = 255;

/// About half a million keys are remembered before the first record of them is full; each is at most some 6 KB.
const KEYS: Slots = Slots { store: "caudal-idempotency", count: 32_768, most: 32 };

/// A key that a client sent, made one with its tenant and route.
#[derive(Clone, Debug)]
pub struct Key(String);

/// Whose a key is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// Of the request that claims it.
    First,
    /// Of a request before it, with the same body.
    Again {
        /// That request.
        request: RequestId,
        /// Whether it is known to have been kept: then it has results, or had.
        kept: bool,
    },
}

impl Key {
    /// The key of a request, if it has one.
    ///
    /// # Errors
    /// 400 if there are several, or one that is none.
    pub fn read(headers: &HeaderMap, tenant: Option<&str>, route: &RouteSpec) -> Result<Option<Self>, Problem> {
        let mut given = headers.get_all(HEADER).into_iter();
        let Some(first) = given.next() else { return Ok(None) };
        let text = first.to_str().unwrap_or_default().trim();
        // Written as a structured field it stands in quotes.
        let key = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
        let plain = (1..=MAX_KEY_BYTES).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic());
        if !plain || given.next().is_some() {
            let detail = format!("Idempotency-Key must be one text of 1 to {MAX_KEY_BYTES} visible ASCII characters");
            return Err(Problem::malformed("bad_idempotency_key", detail));
        }
        let scope = ["key", tenant.unwrap_or_default(), route.method.as_str(), &route.path, key];
        Ok(Some(Self(tenant::digits(&scope, 32))))
    }

    /// Whether a request with this key was sent before, as far as the broker tells.
    pub async fn is_known(&self, transport: &dyn Transport) -> bool {
        let known = KEYS.change(transport, &self.0, |notes| (notes.iter().any(|note| note.key == self.0), false));
        known.await.unwrap_or(false)
    }

    /// Claims the key for a request with this body.
    ///
    /// # Errors
    /// 422 if it was claimed for another body, 503 if the broker does not keep it.
    pub async fn claim(&self, transport: &dyn Transport, body: &str, request: &RequestId) -> Result<Claimed, Problem> {
        let until = until(AGE);
        let claim = KEYS.change(transport, &self.0, |notes| {
            if let Some(known) = notes.iter().find(|note| note.key == self.0) {
                return (Some(known.value.clone()), false);
            }
            let value = json!({ "body": body, "request": request });
            notes.push(Note { key: self.0.clone(), until, value });
            (None, true)
        });
        let known = claim.await.map_err(|error| match error {
            SlotError::Full => {
                Problem::unavailable("keys_full", "too many idempotency keys are remembered; come again")
            }
            SlotError::Transport(error) => error.into(),
        })?;
        let Some(known) = known else { return Ok(Claimed::First) };
        if known["body"] != body {
            let detail = "this Idempotency-Key was sent with another body before: use a new key for a new request";
            return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", detail));
        }
        let request = known["request"].as_str().and_then(|id| RequestId::new(id).ok());
        let kept = known["kept"] == true;
        request.map(|request| Claimed::Again { request, kept }).ok_or_else(Problem::internal)
    }

    /// Notes that the request of this key is kept. Results go sooner than a key where there are many, and one that had
    /// results must not be sent again for want of them.
    pub async fn confirm(&self, transport: &dyn Transport) {
        let confirmed = KEYS.change(transport, &self.0, |notes| {
            let note = notes.iter_mut().find(|note| note.key == self.0 && note.value["kept"] != true);
            let Some(note) = note else { return ((), false) };
            note.value["kept"] = true.into();
            ((), true)
        });
        if let Err(error) = confirmed.await {
            tracing::warn!(?error, "it was not noted that the request of a key is kept");
        }
    }
}

/// A digest of what a request holds.
pub fn digest(payload: &Payload, record: Option<&Map<String, Value>>, params: &Params) -> String {
    let mut hasher = Sha256::new();
    let mut add = |bytes: &[u8]| {
        hasher.update((bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    // What begins with _ is the gateway's, not the client's.
    for (name, value) in params.iter().filter(|(name, _)| !name.starts_with('_')) {
        add(name.as_bytes());
        add_json(value, &mut add);
    }
    match payload {
        Payload::Bytes(content) => add_content(content, &mut add),
        Payload::Parts(parts) => {
            for part in parts.iter() {
                add(part.name.as_bytes());
                add_content(&part.content, &mut add);
            }
        }
        Payload::Json(value) => add_json(value, &mut add),
        Payload::Image(_) | Payload::Vector(_) => {}
    }
    if let Some(fields) = record {
        add_fields(fields, &mut add);
    }
    tenant::hex(&hasher.finalize(), 64)
}

fn add_content(content: &Content, add: &mut impl FnMut(&[u8])) {
    add(content.media_type.as_bytes());
    match &content.body {
        Body::Inline(bytes) => add(&Sha256::digest(bytes)),
        // What is too much for one event is kept apart in another order of its parts: equal all the same.
        Body::Claim(claim) => add(&claim.sha256.0),
    }
}

/// A document, whatever the order of its members.
fn add_json(value: &Value, add: &mut impl FnMut(&[u8])) {
    match value {
        Value::Object(fields) => add_fields(fields, add),
        Value::Array(items) => {
            add(b"[");
            items.iter().for_each(|item| add_json(item, add));
            add(b"]");
        }
        plain => add(plain.to_string().as_bytes()),
    }
}

fn add_fields(fields: &Map<String, Value>, add: &mut impl FnMut(&[u8])) {
    let mut fields: Vec<_> = fields.iter().collect();
    fields.sort_by_key(|(name, _)| *name);
    add(b"{");
    for (name, value) in fields {
        add(name.as_bytes());
        add_json(value, add);
    }
    add(b"}");
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use pipeline::{Claim, Token};

    use super::*;

    #[test]
    fn a_body_is_the_same_wherever_it_is_kept() {
        let inline = Payload::Bytes(Content::inline("image/png", "pixels"));
        let sha256 = pipeline::Digest(Sha256::digest("pixels").into());
        let claim = Arc::new(Claim { id: Token::random(), length: 6, sha256 });
        let claimed = Payload::Bytes(Content { media_type: "image/png".into(), body: Body::Claim(claim) });
        let params = Params::new();
        assert_eq!(digest(&inline, None, &params), digest(&claimed, None, &params));
        let other = Payload::Bytes(Content::inline("image/jpeg", "pixels"));
        assert_ne!(digest(&inline, None, &params), digest(&other, None, &params));
        let with = |name: &str| Params::from([(name.to_owned(), json!(1))]);
        assert_ne!(digest(&inline, None, &with("limit")), digest(&inline, None, &params));
        assert_eq!(digest(&inline, None, &with("_subject")), digest(&inline, None, &params));
    }
}
