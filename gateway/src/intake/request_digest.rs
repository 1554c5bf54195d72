//! The digest of a request's content, by which a repeat with the same `Idempotency-Key` is compared with the first.
//!
//! It covers what a body contains, not its bytes as sent: a form has another boundary each time.

use pipeline::{Body, Content, Params, Payload};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::identity::tenant;

/// The digest of a request's payload, record fields and parameters.
pub fn digest(payload: &Payload, record: Option<&Map<String, Value>>, params: &Params) -> String {
    let mut hasher = Sha256::new();
    let mut add = |bytes: &[u8]| {
        hasher.update((bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    // Parameters whose names begin with _ are the gateway's, not the client's.
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
        // Which parts are claims depends on the order of the parts, so a claim must equal the same inline content.
        Body::Claim(claim) => add(&claim.sha256.0),
    }
}

/// Adds a document; the order of its members does not matter.
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
    use serde_json::json;

    use super::*;

    fn of(payload: &Payload) -> String {
        digest(payload, None, &Params::new())
    }

    fn with_param(name: &str) -> String {
        let params = Params::from([(name.to_owned(), json!(1))]);
        digest(&Payload::Bytes(Content::inline("image/png", "pixels")), None, &params)
    }

    #[test]
    fn inline_and_claimed_content_are_equal() {
        let sha256 = pipeline::Digest(Sha256::digest("pixels").into());
        let claim = Arc::new(Claim { id: Token::random(), length: 6, sha256 });
        let claimed = Payload::Bytes(Content { media_type: "image/png".into(), body: Body::Claim(claim) });
        assert_eq!(of(&Payload::Bytes(Content::inline("image/png", "pixels"))), of(&claimed));
    }

    #[test]
    fn another_media_type_is_another_request() {
        let content = |media_type| Payload::Bytes(Content::inline(media_type, "pixels"));
        assert_ne!(of(&content("image/png")), of(&content("image/jpeg")));
    }

    #[test]
    fn the_clients_parameters_count() {
        assert_ne!(with_param("limit"), with_param("offset"));
    }

    #[test]
    fn the_gateways_parameters_do_not_count() {
        let without = digest(&Payload::Bytes(Content::inline("image/png", "pixels")), None, &Params::new());
        assert_eq!(with_param("_subject"), without);
        assert_eq!(with_param("_tenant"), without);
        assert_ne!(with_param("limit"), without);
    }

    #[test]
    fn the_order_of_members_does_not_count() {
        let parse = |text| Payload::json(serde_json::from_str(text).unwrap());
        assert_eq!(of(&parse(r#"{"a": 1, "b": 2}"#)), of(&parse(r#"{"b": 2, "a": 1}"#)));
    }
}
