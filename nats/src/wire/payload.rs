//! Payloads as message bodies and back.
//!
//! Bytes are sent as they are, JSON as its text, parts as a JSON manifest in which each part is base64 or a claim. All
//! inline content of one event together is at most [`INLINE_LIMIT`] bytes; JSON is at most [`MAX_JSON`].

use std::sync::Arc;

use base64::Engine;
use base64::alphabet;
use base64::engine::general_purpose::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use pipeline::{
    Body, Claim, Content, INLINE_LIMIT, Part, Payload, Rejection, TransportError, parse_message, shortened,
};
use serde::{Deserialize, Serialize};

use crate::wire::headers::{malformed, refused};

/// Longest JSON payload, in bytes of text.
pub const MAX_JSON: usize = 1 << 20;
/// Media type of a manifest of parts.
pub const PARTS_TYPE: &str = "application/vnd.caudal.parts+json";
const JSON_TYPE: &str = "application/json";
/// By how much a text can become longer when it is encoded again, by default media types and written-out numbers.
const MAX_GROWTH: usize = 4;

/// With or without padding: publishers send both, as clients do over HTTP.
const LENIENT_BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A payload as the body of a message.
pub struct EncodedPayload {
    /// `content-type`.
    pub media_type: Arc<str>,
    /// Set when the body is in the object store; `bytes` is empty then.
    pub claim: Option<Arc<Claim>>,
    /// The message's body.
    pub bytes: Bytes,
    opaque: bool,
}

impl EncodedPayload {
    /// Whether this is bytes, but its media type alone would make a reader decode it as JSON or parts.
    pub fn is_opaque_json(&self) -> bool {
        self.opaque && is_structured(&self.media_type)
    }
}

/// The media type without parameters: `application/json; charset=utf-8` is JSON too.
fn essence(media_type: &str) -> &str {
    media_type.split(';').next().unwrap_or_default().trim()
}

/// Media types are case-insensitive.
fn is(media_type: &str, wanted: &str) -> bool {
    essence(media_type).eq_ignore_ascii_case(wanted)
}

fn is_structured(media_type: &str) -> bool {
    is(media_type, JSON_TYPE) || is(media_type, PARTS_TYPE)
}

/// One part in a manifest.
#[derive(Serialize, Deserialize)]
struct WirePart {
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    file_name: Option<String>,
    #[serde(default = "octets")]
    media_type: String,
    /// Base64 with the standard alphabet. It is written with padding, and read without it and in lines too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    claim: Option<Claim>,
}

fn octets() -> String {
    "application/octet-stream".into()
}

/// Encodes a payload.
///
/// # Errors
/// If it is too long for an event, or of a kind that exists only inside a process (images and vectors).
pub fn encode(payload: &Payload) -> Result<EncodedPayload, TransportError> {
    match payload {
        Payload::Bytes(content) => encode_content(content),
        Payload::Json(value) => {
            let text = serde_json::to_vec(&**value).map_err(TransportError::unavailable)?;
            if text.len() > MAX_JSON {
                let length = text.len();
                return Err(refused(format!(
                    "the JSON has {length} bytes, at most {MAX_JSON} are allowed in an event"
                )));
            }
            Ok(EncodedPayload { media_type: JSON_TYPE.into(), claim: None, bytes: text.into(), opaque: false })
        }
        Payload::Parts(parts) => encode_parts(parts),
        Payload::Image(_) | Payload::Vector(_) => {
            Err(refused(format!("a payload of kind {} cannot be stored in a queue", payload.kind())))
        }
    }
}

/// Encodes content.
///
/// # Errors
/// If it is inline and longer than [`INLINE_LIMIT`] bytes.
pub fn encode_content(content: &Content) -> Result<EncodedPayload, TransportError> {
    let media_type = Arc::clone(&content.media_type);
    match &content.body {
        Body::Inline(bytes) => {
            check_inline(bytes.len())?;
            Ok(EncodedPayload { media_type, claim: None, bytes: bytes.clone(), opaque: true })
        }
        Body::Claim(claim) => {
            Ok(EncodedPayload { media_type, claim: Some(Arc::clone(claim)), bytes: Bytes::new(), opaque: true })
        }
    }
}

fn check_inline(length: usize) -> Result<(), TransportError> {
    if length <= INLINE_LIMIT {
        return Ok(());
    }
    Err(refused(format!(
        "{length} bytes are inline, at most {INLINE_LIMIT} fit into an event: put them into the object store first"
    )))
}

fn encode_parts(parts: &[Part]) -> Result<EncodedPayload, TransportError> {
    let mut inline = 0;
    let mut manifest = Vec::with_capacity(parts.len());
    for part in parts {
        let (data, claim) = match &part.content.body {
            Body::Inline(bytes) => {
                inline += bytes.len();
                check_inline(inline)?;
                (Some(STANDARD.encode(bytes)), None)
            }
            Body::Claim(claim) => (None, Some((**claim).clone())),
        };
        manifest.push(WirePart {
            name: part.name.to_string(),
            file_name: part.file_name.as_deref().map(str::to_owned),
            media_type: part.content.media_type.to_string(),
            data,
            claim,
        });
    }
    let text = serde_json::to_vec(&manifest).map_err(TransportError::unavailable)?;
    if text.len() > MAX_JSON {
        let (count, length) = (parts.len(), text.len());
        return Err(refused(format!(
            "the list of {count} parts has {length} bytes, at most {MAX_JSON} are allowed in an event"
        )));
    }
    Ok(EncodedPayload { media_type: PARTS_TYPE.into(), claim: None, bytes: text.into(), opaque: false })
}

/// Decodes a body, of whatever length; see [`check_length`].
///
/// # Errors
/// If the body does not match its media type.
pub fn decode(media_type: Arc<str>, as_bytes: bool, claim: Option<Claim>, bytes: &Bytes) -> Result<Payload, Rejection> {
    if let Some(claim) = claim {
        return Ok(Payload::Bytes(Content { media_type, body: Body::Claim(claim.into()) }));
    }
    if is(&media_type, JSON_TYPE) && !as_bytes {
        return serde_json::from_slice(bytes).map(Payload::json).map_err(|why| {
            let why = parse_message(&why);
            malformed("bad_json", format!("the body is not the JSON that its content-type says: {why}"))
        });
    }
    if is(&media_type, PARTS_TYPE) && !as_bytes {
        return decode_parts(bytes);
    }
    Ok(Payload::Bytes(Content { media_type, body: Body::Inline(bytes.clone()) }))
}

/// Checks that a payload, decoded from so many bytes, can be encoded again: otherwise it could not become a dead letter.
///
/// # Errors
/// 413 with the limit.
pub fn check_length(payload: &Payload, encoded: usize) -> Result<(), Rejection> {
    let inline = |content: &Content| match &content.body {
        Body::Inline(bytes) => bytes.len(),
        Body::Claim(_) => 0,
    };
    let length = match payload {
        Payload::Bytes(content) => inline(content),
        Payload::Parts(parts) => parts.iter().map(|part| inline(&part.content)).sum(),
        Payload::Json(_) | Payload::Image(_) | Payload::Vector(_) => 0,
    };
    if length > INLINE_LIMIT {
        let detail = format!(
            "the body has {length} bytes, at most {INLINE_LIMIT} are allowed in an event: send it through the HTTP gateway"
        );
        return Err(Rejection::too_large("body_too_long", detail));
    }
    if encoded > MAX_JSON / MAX_GROWTH
        && let Err(TransportError::Body(why)) = encode(payload)
    {
        return Err(Rejection::too_large("body_too_long", why.to_string()));
    }
    Ok(())
}

/// A name as a message quotes it.
fn shown(name: &str) -> String {
    shortened(name, 64)
}

fn decode_parts(bytes: &Bytes) -> Result<Payload, Rejection> {
    let wrong = |why: String| malformed("bad_parts", format!("the list of parts cannot be read: {why}"));
    let manifest: Vec<WirePart> = serde_json::from_slice(bytes).map_err(|why| wrong(parse_message(&why)))?;
    let mut parts = Vec::with_capacity(manifest.len());
    for part in manifest {
        let body = match (part.data, part.claim) {
            (_, Some(claim)) => Body::Claim(claim.into()),
            (Some(data), None) => {
                let data = decode_base64(data).map_err(|why| wrong(format!("part {:?}: {why}", shown(&part.name))))?;
                Body::Inline(data.into())
            }
            (None, None) => return Err(wrong(format!("part {:?} has neither data nor claim", shown(&part.name)))),
        };
        let content = Content { media_type: part.media_type.into(), body };
        parts.push(Part { name: part.name.into(), file_name: part.file_name.map(Into::into), content });
    }
    Ok(Payload::Parts(parts.into()))
}

/// Libraries for mail and Python's `encodebytes` break base64 into lines.
fn decode_base64(mut text: String) -> Result<Vec<u8>, base64::DecodeError> {
    text.retain(|character| !character.is_ascii_whitespace());
    LENIENT_BASE64.decode(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pipeline::{Digest, Token};

    fn claim() -> Arc<Claim> {
        Arc::new(Claim { id: Token::new("c1").unwrap(), length: 9, sha256: Digest([7; 32]) })
    }

    fn round(payload: &Payload) -> Payload {
        let encoded = encode(payload).unwrap();
        let claim = encoded.claim.as_deref().cloned();
        decode(Arc::clone(&encoded.media_type), encoded.is_opaque_json(), claim, &encoded.bytes).unwrap()
    }

    #[test]
    fn every_kind_survives_encoding_and_decoding() {
        let by_claim = Content { media_type: "image/png".into(), body: Body::Claim(claim()) };
        let part = |name: &str, file_name: Option<&str>, content: &Content| Part {
            name: name.into(),
            file_name: file_name.map(Into::into),
            content: content.clone(),
        };
        let inline = Content::inline("text/plain", vec![0, 255, 10]);
        for payload in [
            Payload::Bytes(inline.clone()),
            Payload::Bytes(by_claim.clone()),
            Payload::Bytes(Content::inline("application/json; charset=utf-8", "{\"bytes\": ")),
            Payload::Bytes(Content::inline(PARTS_TYPE, "[]")),
            Payload::json(serde_json::json!({"a": [1, null, "ä"]})),
            Payload::Parts(Arc::from([])),
            Payload::Parts(Arc::from([part("a", Some("b/../c\r\n"), &inline), part("d", None, &by_claim)])),
        ] {
            assert_eq!(format!("{:?}", round(&payload)), format!("{payload:?}"));
        }
    }

    #[test]
    fn the_inline_limit_is_for_all_parts_together() {
        let half = Content::inline("image/png", vec![1; INLINE_LIMIT / 2 + 1]);
        let part = || Part { name: "photo".into(), file_name: None, content: half.clone() };
        assert!(encode(&Payload::Parts(Arc::from([part()]))).is_ok());
        let Err(error) = encode(&Payload::Parts(Arc::from([part(), part()]))) else { panic!("was accepted") };
        assert!(matches!(error, TransportError::Body(why) if why.to_string().contains("object store")));
    }

    #[test]
    fn a_vector_is_refused() {
        let vector =
            pipeline::Vector { values: vec![1.0], model: "m".into(), fingerprint: "f".into(), sha256: Digest([0; 32]) };
        assert!(encode(&Payload::Vector(vector.into())).is_err());
    }

    #[test]
    fn a_body_that_does_not_match_its_media_type_is_refused() {
        let bad =
            |media_type: &str, text: &'static str| decode(media_type.into(), false, None, &Bytes::from(text)).is_err();
        assert!(bad("application/json", "{"));
        assert!(bad(PARTS_TYPE, "{}"));
        assert!(bad(PARTS_TYPE, r#"[{"name": "a"}]"#));
        assert!(bad(PARTS_TYPE, r#"[{"name": "a", "data": "%%"}]"#));
    }

    #[test]
    fn a_refusal_does_not_repeat_the_body() {
        let long = "n".repeat(100_000);
        for text in [
            format!("\"{long}\""),
            format!("[\"{long}\"]"),
            format!("[{{\"name\": \"{long}\"}}]"),
            format!("[{{\"name\": \"{long}\", \"data\": \"%%\"}}]"),
            format!("[{{\"name\": \"a\", \"claim\": \"{long}\"}}]"),
            format!("[{{\"name\": \"a\", \"claim\": {{\"id\": \"{long}\"}}}}]"),
            format!("[{{\"name\": \"a\", \"claim\": {{\"id\": \"a\", \"length\": 1, \"sha256\": \"{long}\"}}}}]"),
        ] {
            let refused = decode(PARTS_TYPE.into(), false, None, &text.into()).unwrap_err();
            assert!(refused.detail.len() < 300 && !refused.detail.contains(&long[..100]), "{refused}");
        }
        let media_type = format!("application/json;{long}");
        let refused = decode(media_type.into(), false, None, &Bytes::from("{")).unwrap_err();
        assert!(refused.detail.len() < 300, "{refused}");
    }

    fn read(media_type: &str, text: &str) -> Payload {
        decode(media_type.into(), false, None, &Bytes::copy_from_slice(text.as_bytes())).unwrap()
    }

    #[test]
    fn base64_is_read_in_lines_and_without_padding() {
        for data in ["aGVsbG8=", "aGVsbG8", "aGVs\\r\\nbG8=\\n", " aGVs bG8 "] {
            let payload = read(PARTS_TYPE, &format!(r#"[{{"name": "a", "data": "{data}"}}]"#));
            let Payload::Parts(parts) = payload else { panic!("{data}") };
            assert!(matches!(&parts[0].content.body, Body::Inline(bytes) if &bytes[..] == b"hello"), "{data}");
        }
    }

    #[test]
    fn the_case_of_a_media_type_makes_no_difference() {
        for media_type in ["Application/JSON", "application/Json; Charset=UTF-8"] {
            assert!(matches!(read(media_type, "{}"), Payload::Json(_)), "{media_type}");
        }
        assert!(matches!(read("Application/Vnd.Caudal.Parts+JSON", "[]"), Payload::Parts(_)));
        // What is bytes stays bytes, whatever its spelling.
        let opaque = Payload::Bytes(Content::inline("Application/JSON", "not json"));
        assert_eq!(format!("{:?}", round(&opaque)), format!("{opaque:?}"));
    }

    #[test]
    fn what_could_not_be_encoded_again_is_too_long() {
        let numbers = format!("[{}1]", "1E15,".repeat(100_000));
        let names = format!("[{}]", vec![r#"{"name":"","data":""}"#; 40_000].join(","));
        let data = format!(r#"[{{"name": "a", "data": "{}"}}]"#, STANDARD.encode(vec![0; INLINE_LIMIT + 1]));
        let text = "x".repeat(INLINE_LIMIT + 1);
        for (media_type, body) in
            [(JSON_TYPE, &numbers), (PARTS_TYPE, &names), (PARTS_TYPE, &data), ("text/plain", &text)]
        {
            let refused = check_length(&read(media_type, body), body.len()).unwrap_err();
            assert_eq!((refused.status, &*refused.code), (413, "body_too_long"), "{media_type}");
        }
        let text = "x".repeat(INLINE_LIMIT);
        assert!(check_length(&read("text/plain", &text), text.len()).is_ok());
    }
}
