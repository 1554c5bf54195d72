//! Redacts secrets in the parameters of events, for tails and dead letters.
//!
//! A webhook's URL and headers can hold secrets of its receiver, a form the passwords of documents. A person who may
//! look at events does not need either.

use axum::http::Uri;
use pipeline::Params;
use pipeline::webhook::WEBHOOK_PARAM;
use serde_json::{Map, Value};

/// Replaces a password.
const REDACTED: &str = "***";

/// The parameters without secrets: a webhook is reduced to its hosts, a password to `***`.
pub fn params(params: &Params) -> Value {
    let redact = |(name, value): (&String, &Value)| {
        let value = if name == WEBHOOK_PARAM { hosts(value) } else { without_passwords(name, value) };
        (name.clone(), value)
    };
    Value::Object(params.iter().map(redact).collect())
}

/// The hosts that a webhook calls.
fn hosts(webhook: &Value) -> Value {
    let host = |name: &str| {
        let uri: Uri = webhook.get(name)?.as_str()?.parse().ok()?;
        Some((name.to_owned(), Value::from(uri.host()?)))
    };
    Value::Object(["url", "error_url"].into_iter().filter_map(host).collect())
}

/// A parameter, or an object of fields as a form is, without passwords.
fn without_passwords(name: &str, value: &Value) -> Value {
    let is_password = |name: &str| name.to_lowercase().contains("password");
    match value {
        _ if is_password(name) => Value::from(REDACTED),
        Value::Object(fields) => {
            let field = |(name, value): (&String, &Value)| {
                (name.clone(), if is_password(name) { Value::from(REDACTED) } else { value.clone() })
            };
            Value::Object(fields.iter().map(field).collect::<Map<_, _>>())
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_webhook_is_reduced_to_its_hosts() {
        let webhook =
            json!({ "url": "https://u:s3cret@x.example:8443/t/s3cret?s3cret", "error_url": "nothing s3cret" });
        let redacted = params(&Params::from([(WEBHOOK_PARAM.to_owned(), webhook)]));
        assert_eq!(redacted, json!({ "webhook": { "url": "x.example" } }));
        assert_eq!(params(&Params::from([(WEBHOOK_PARAM.to_owned(), json!("s3cret"))])), json!({ "webhook": {} }));
    }
}
