//! `Idempotency-Key`: a repeat attaches to the first request instead of making a second.
//!
//! A request claims its key: the broker stores, for 24 hours, the digest of tenant, route and key together with the
//! digest of the content and the id of the request. A repeat with the same content gets that id. If the request has no
//! result yet, the repeat submits its own copy under the same id, which the broker stores once: so a gateway that dies
//! between the claim and the event loses nothing, and two repeats at the same time make one request. Other content
//! under the same key is refused.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, StatusCode};
use pipeline::{RequestId, Transport};
use serde_json::json;

use crate::expiring_store::{Entry, ExpiringStore, ExpiringStoreError, until};
use crate::identity::tenant;
use crate::problem::Problem;
use crate::spec::RouteSpec;

const HEADER: HeaderName = HeaderName::from_static("idempotency-key");

/// Set on answers of repeats.
pub const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// How long a key is stored.
const AGE: Duration = Duration::from_secs(24 * 3600);

/// Longest key, in bytes.
const MAX_KEY_BYTES: usize = 255;

/// About half a million keys fit before the first record is full; a record has at most some 6 KB.
const KEYS: ExpiringStore = ExpiringStore { store: "caudal-idempotency", records: 32_768, entries_per_record: 32 };

/// The digest of a client's key, its tenant and its route.
#[derive(Clone, Debug)]
pub struct IdempotencyKey(String);

/// The request that a key belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyOwner {
    /// The request that claims it.
    ThisRequest,
    /// An earlier request with the same content.
    EarlierRequest {
        /// That request.
        request: RequestId,
        /// Whether it is known to have been stored: then it has results, or had.
        stored: bool,
    },
}

impl IdempotencyKey {
    /// The key of a request, if it has one.
    ///
    /// # Errors
    /// 400 if there are several keys, or a malformed one.
    pub fn read(headers: &HeaderMap, tenant: Option<&str>, route: &RouteSpec) -> Result<Option<Self>, Problem> {
        let mut given = headers.get_all(HEADER).into_iter();
        let Some(first) = given.next() else { return Ok(None) };
        let text = first.to_str().unwrap_or_default().trim();
        // A structured field has quotes.
        let key = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
        let plain = (1..=MAX_KEY_BYTES).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic());
        if !plain || given.next().is_some() {
            let detail =
                format!("Idempotency-Key must be a single text of 1 to {MAX_KEY_BYTES} visible ASCII characters");
            return Err(Problem::malformed("bad_idempotency_key", detail));
        }
        let scope = ["key", tenant.unwrap_or_default(), route.method.as_str(), &route.path, key];
        Ok(Some(Self(tenant::digits(&scope, 32))))
    }

    /// Whether an earlier request has this key; false if the broker does not answer.
    pub async fn is_known(&self, transport: &dyn Transport) -> bool {
        let known = KEYS.change(transport, &self.0, |entries| (entries.iter().any(|entry| entry.key == self.0), false));
        known.await.unwrap_or(false)
    }

    /// Claims the key for a request with this digest.
    ///
    /// # Errors
    /// 422 if it was claimed for other content, 503 if the broker cannot store it.
    pub async fn claim(
        &self,
        transport: &dyn Transport,
        digest: &str,
        request: &RequestId,
    ) -> Result<KeyOwner, Problem> {
        let until = until(AGE);
        let claim = KEYS.change(transport, &self.0, |entries| {
            if let Some(known) = entries.iter().find(|entry| entry.key == self.0) {
                return (Some(known.value.clone()), false);
            }
            let value = json!({ "body": digest, "request": request });
            entries.push(Entry { key: self.0.clone(), until, value });
            (None, true)
        });
        let known = claim.await.map_err(|error| match error {
            ExpiringStoreError::Full => {
                Problem::unavailable("keys_full", "too many idempotency keys are stored; try again later")
            }
            ExpiringStoreError::Transport(error) => error.into(),
        })?;
        let Some(known) = known else { return Ok(KeyOwner::ThisRequest) };
        if known["body"] != digest {
            let detail = "this Idempotency-Key was sent with another body before: use a new key for a new request";
            return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", detail));
        }
        let request = known["request"].as_str().and_then(|id| RequestId::new(id).ok());
        let stored = known["kept"] == true;
        request.map(|request| KeyOwner::EarlierRequest { request, stored }).ok_or_else(Problem::internal)
    }

    /// Records that the request of this key is stored. Results can expire before the key, and a request must not be
    /// submitted again because its results are gone.
    pub async fn confirm(&self, transport: &dyn Transport) {
        let confirmed = KEYS.change(transport, &self.0, |entries| {
            let entry = entries.iter_mut().find(|entry| entry.key == self.0 && entry.value["kept"] != true);
            let Some(entry) = entry else { return ((), false) };
            entry.value["kept"] = true.into();
            ((), true)
        });
        if let Err(error) = confirmed.await {
            tracing::warn!(?error, "idempotency key not confirmed");
        }
    }
}
