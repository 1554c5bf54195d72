//! The parameters of an event as people see them: without what opens something.
//!
//! A webhook's address and headers hold secrets of its receiver, a form the passwords of documents. Whoever may look at
//! events need not learn either.

use axum::http::Uri;
use pipeline::Params;
use pipeline::webhook::WEBHOOK_PARAM;
use serde_json::{Map, Value};

/// Stands for a password.
const HIDDEN: &str = "***";

/// Parameters to be shown: of a webhook the hosts, of a password nothing.
pub fn params(params: &Params) -> Value {
    let shown = |(name, value): (&String, &Value)| {
        let value = if name == WEBHOOK_PARAM { hosts(value) } else { masked(name, value) };
        (name.clone(), value)
    };
    Value::Object(params.iter().map(shown).collect())
}

/// Whom a webhook tells.
fn hosts(webhook: &Value) -> Value {
    let host = |name: &str| {
        let uri: Uri = webhook.get(name)?.as_str()?.parse().ok()?;
        Some((name.to_owned(), Value::from(uri.host()?)))
    };
    Value::Object(["url", "error_url"].into_iter().filter_map(host).collect())
}

/// A parameter, or an object of fields as a form is, without passwords.
fn masked(name: &str, value: &Value) -> Value {
    let hidden = |name: &str| name.to_lowercase().contains("password");
    match value {
        _ if hidden(name) => Value::from(HIDDEN),
        Value::Object(fields) => {
            let field = |(name, value): (&String, &Value)| {
                (name.clone(), if hidden(name) { Value::from(HIDDEN) } else { value.clone() })
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
    fn a_webhook_is_its_hosts_whatever_its_address_holds() {
        let webhook =
            json!({ "url": "https://u:s3cret@x.example:8443/t/s3cret?s3cret", "error_url": "nothing s3cret" });
        let shown = params(&Params::from([(WEBHOOK_PARAM.to_owned(), webhook)]));
        assert_eq!(shown, json!({ "webhook": { "url": "x.example" } }));
        assert_eq!(params(&Params::from([(WEBHOOK_PARAM.to_owned(), json!("s3cret"))])), json!({ "webhook": {} }));
    }
}
