//! Data URIs such as `data:image/jpeg;base64,…` (RFC 2397), decoded in small steps so that the image is never in memory
//! whole.

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use pipeline::BoxError;

use crate::problem::Problem;

/// Characters decoded at a time; a multiple of four.
const STEP: usize = 64 << 10;

/// With or without padding: clients send both.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A parsed data URI.
pub struct DataUri {
    pub media_type: String,
    /// Base64, possibly with line breaks.
    text: Bytes,
}

impl DataUri {
    /// # Errors
    /// 400 naming `field`, if it is not a data URI in base64.
    pub fn parse(field: &str, uri: &Bytes) -> Result<Self, Problem> {
        let wrong = |what: &str| {
            let detail = format!("{field} {what}: write it as data:image/jpeg;base64,…");
            Problem::malformed("bad_data_uri", detail)
        };
        let comma = uri.iter().take(512).position(|byte| *byte == b',').ok_or_else(|| wrong("is not a data URI"))?;
        let head = std::str::from_utf8(&uri[..comma]).map_err(|_| wrong("is not a data URI"))?;
        let head = head.strip_prefix("data:").ok_or_else(|| wrong("is not a data URI"))?;
        let kind = head.strip_suffix(";base64").ok_or_else(|| wrong("is not in base64"))?;
        let media_type = kind.split(';').next().filter(|kind| !kind.is_empty()).unwrap_or("text/plain").to_owned();
        if !media_type.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(wrong("has a malformed media type"));
        }
        Ok(Self { media_type, text: uri.slice(comma + 1..) })
    }

    /// The bytes, in chunks of at most 48 KiB.
    pub fn decode(self, field: String) -> impl Iterator<Item = Result<Bytes, BoxError>> + Send {
        let mut text = self.text;
        let mut left_over: Vec<u8> = Vec::new();
        std::iter::from_fn(move || {
            if text.is_empty() && left_over.is_empty() {
                return None;
            }
            let step = text.split_to(text.len().min(STEP));
            left_over.extend(step.iter().filter(|byte| !byte.is_ascii_whitespace()));
            let whole = if text.is_empty() { left_over.len() } else { left_over.len() / 4 * 4 };
            let decoded = BASE64.decode(&left_over[..whole]);
            left_over.drain(..whole);
            Some(decoded.map(Bytes::from).map_err(|error| {
                let detail = format!("{field} is not base64: {error}");
                BoxError::from(Problem::malformed("bad_data_uri", detail))
            }))
        })
        .scan(false, |broken, chunk| {
            // The first error is the last item.
            (!std::mem::replace(broken, chunk.is_err())).then_some(chunk)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(uri: &str) -> Result<Vec<u8>, Problem> {
        let parsed = DataUri::parse("photos[0]", &Bytes::copy_from_slice(uri.as_bytes()))?;
        let mut all = Vec::new();
        for chunk in parsed.decode("photos[0]".into()) {
            all.extend_from_slice(&chunk.map_err(Problem::of_body)?);
        }
        Ok(all)
    }

    #[test]
    fn line_breaks_do_not_change_the_bytes() {
        let bytes: Vec<u8> = (0..200_000_u32).map(|i| (i * 31 % 251) as u8).collect();
        let text = BASE64.encode(&bytes);
        let lines: Vec<&str> = text.as_bytes().chunks(76).map(|line| std::str::from_utf8(line).unwrap()).collect();
        assert_eq!(decode(&format!("data:image/png;base64,{text}")).unwrap(), bytes);
        assert_eq!(decode(&format!("data:image/png;base64,{}", lines.join("\r\n"))).unwrap(), bytes);
        assert_eq!(decode("data:;base64,aGk").unwrap(), b"hi");
        assert_eq!(decode("data:image/png;base64,").unwrap(), b"");
    }

    #[test]
    fn a_malformed_data_uri_is_refused_by_field() {
        for bad in [
            "",
            "x",
            "data:image/png,abc",
            "http://host/x.png,",
            "data:image/png;base64,a*b=",
            "data:image/png;base64,a",
        ] {
            let problem = decode(bad).unwrap_err();
            assert!(problem.to_string().contains("photos[0]"), "{bad:?}: {problem}");
        }
    }
}
