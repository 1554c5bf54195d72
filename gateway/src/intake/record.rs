//! The record that a report's route writes before it submits its event. A `GET` reads it (`pages/records.rs`).

use bytes::Bytes;
use pipeline::{Envelope, RequestId, Token, Transport};
use serde_json::{Map, Value, json};

use super::params;
use crate::identity::tenant;
use crate::problem::Problem;
use crate::spec::{BodyKind, RecordSpec};

/// A record that is not written yet.
pub struct RecordDraft {
    store: Token,
    key: Token,
    /// The value to write.
    pub value: Bytes,
}

/// A record that was written for an event that is about to be submitted.
pub struct WrittenRecord {
    store: Token,
    key: Token,
    pub value: Bytes,
    revision: u64,
    before: Option<Bytes>,
}

impl RecordDraft {
    /// Makes `{"<name>": {…}, "request": id}` under the report's own id, or one derived from its request's, and adds
    /// the id to the event's parameters. Nothing is written.
    ///
    /// # Errors
    /// 400 if the report's id is not a token.
    pub fn new(
        spec: &RecordSpec,
        envelope: &mut Envelope,
        body: &BodyKind,
        mut fields: Map<String, Value>,
    ) -> Result<Self, Problem> {
        let BodyKind::Form { json: name, .. } = body else { return Err(Problem::internal()) };
        let key = key_of(name, &fields, &envelope.id)?;
        fields.insert("id".into(), Value::from(key.as_str()));
        envelope.params.insert(spec.id.clone(), Value::from(key.as_str()));
        let value = json!({ name.as_str(): fields, "request": envelope.id });
        // Each tenant has records of its own.
        let key = match envelope.tenant() {
            Some(tenant) => tenant::partitioned(tenant, &key),
            None => key,
        };
        Ok(Self { store: spec.store.clone(), key, value: Bytes::from(value.to_string()) })
    }

    /// Writes it, replacing the previous value.
    pub async fn write(self, transport: &dyn Transport) -> Result<WrittenRecord, Problem> {
        let Self { store, key, value } = self;
        let before = transport.get_record(&store, &key).await?.map(|before| before.value);
        let revision = transport.put_record(&store, &key, value.clone()).await?;
        Ok(WrittenRecord { store, key, value, revision, before })
    }
}

impl WrittenRecord {
    /// Restores the previous value, unless the record was written again since. If there was none, the record becomes
    /// empty.
    pub async fn take_back(&self, transport: &dyn Transport) {
        let before = self.before.clone().unwrap_or_default();
        let restored = transport.replace_record(&self.store, &self.key, self.revision, before).await;
        if let Err(error) = restored {
            tracing::error!(store = %self.store, key = %self.key, %error, "record of a refused event not restored");
        }
    }
}

/// The record's key: its own `id`, which must be a token, or one derived from the request's id.
fn key_of(name: &str, fields: &Map<String, Value>, request: &RequestId) -> Result<Token, Problem> {
    let field = format!("{name}.id");
    match fields.get("id") {
        None | Some(Value::Null) => Ok(request.child("record", 0)),
        Some(Value::String(text)) => params::token(&field, text),
        Some(Value::Number(number)) => params::token(&field, &number.to_string()),
        Some(_) => Err(Problem::malformed("bad_parameter", format!("{field} must be text or a number"))),
    }
}
