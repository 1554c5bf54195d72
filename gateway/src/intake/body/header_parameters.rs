//! Parameters behind the value of a header, as in `form-data; name="photo"; filename="a.jpg"` (RFC 9110, section 5.6.6;
//! RFC 2231 for `filename*`).
//!
//! Names are compared without case, blanks may stand around `;` and `=`, and a quoted text may contain anything. A
//! backslash escapes only a quote or a backslash: some clients send paths such as `C:\photos\a.jpg` as they are.

/// The parameters of one header, in their order.
pub struct HeaderParameters {
    /// Names in lower case, with their values.
    found: Vec<(String, String)>,
}

impl HeaderParameters {
    /// Reads everything behind the first `;` that is outside of quotes.
    pub fn parse(header: &[u8]) -> Self {
        let mut found = Vec::new();
        let mut rest = after(header, b';');
        while !rest.is_empty() {
            let end = rest.iter().position(|byte| matches!(byte, b'=' | b';')).unwrap_or(rest.len());
            let name = text(rest[..end].trim_ascii()).to_ascii_lowercase();
            if rest.get(end) != Some(&b'=') {
                rest = after(rest, b';');
                continue;
            }
            let (value, behind) = value(&rest[end + 1..]);
            rest = behind;
            match name.strip_suffix('*').zip(extended(&value)) {
                Some((plain, decoded)) => found.push((format!("{plain}*"), decoded)),
                None => found.push((name, text(&value))),
            }
        }
        Self { found }
    }

    /// The value of a parameter; its extended form `name*` wins, as RFC 6266 says. `Err` if it is given twice.
    pub fn get(&self, name: &str) -> Result<Option<&str>, Repeated> {
        let extended = format!("{name}*");
        for wanted in [extended.as_str(), name] {
            let mut values = self.found.iter().filter(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
            if let Some(first) = values.next() {
                return if values.next().is_none() { Ok(Some(first)) } else { Err(Repeated) };
            }
        }
        Ok(None)
    }
}

/// A parameter is given twice, so that readers can disagree about its value.
#[derive(Debug, PartialEq, Eq)]
pub struct Repeated;

/// What follows the first `stop`.
fn after(bytes: &[u8], stop: u8) -> &[u8] {
    bytes.iter().position(|byte| *byte == stop).map_or(&[], |at| &bytes[at + 1..])
}

/// One value, without its quotes and escapes, and what follows its `;`.
fn value(bytes: &[u8]) -> (Vec<u8>, &[u8]) {
    let bytes = bytes.trim_ascii_start();
    let Some(quoted) = bytes.strip_prefix(b"\"") else {
        let end = bytes.iter().position(|byte| *byte == b';').unwrap_or(bytes.len());
        return (bytes[..end].trim_ascii().to_vec(), bytes.get(end + 1..).unwrap_or_default());
    };
    let (mut value, mut at) = (Vec::with_capacity(quoted.len()), 0);
    while let Some(byte) = quoted.get(at) {
        match (byte, quoted.get(at + 1)) {
            (b'"', _) => break,
            (b'\\', Some(escaped @ (b'"' | b'\\'))) => {
                value.push(*escaped);
                at += 2;
            }
            _ => {
                value.push(*byte);
                at += 1;
            }
        }
    }
    (value, after(quoted.get(at + 1..).unwrap_or_default(), b';'))
}

/// UTF-8, or else Latin-1, in which every byte is a character.
fn text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().map(|byte| char::from(*byte)).collect(),
    }
}

/// A value such as `UTF-8''K%C3%A4fer.jpg`; `None` if it is not of this form.
fn extended(value: &[u8]) -> Option<String> {
    let mut quotes = value.splitn(3, |byte| *byte == b'\'');
    let (charset, _language, encoded) = (quotes.next()?, quotes.next()?, quotes.next()?);
    let (mut decoded, mut at) = (Vec::with_capacity(encoded.len()), 0);
    while let Some(byte) = encoded.get(at) {
        let escaped = (*byte == b'%').then(|| encoded.get(at + 1..at + 3)).flatten();
        let escaped = escaped.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        decoded.push(escaped.unwrap_or(*byte));
        at += if escaped.is_some() { 3 } else { 1 };
    }
    let is_latin = charset.eq_ignore_ascii_case(b"iso-8859-1");
    Some(if is_latin { decoded.iter().map(|byte| char::from(*byte)).collect() } else { text(&decoded) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(header: &str, name: &str) -> Option<String> {
        HeaderParameters::parse(header.as_bytes()).get(name).unwrap().map(str::to_owned)
    }

    #[test]
    fn a_name_inside_a_quoted_file_name_is_no_parameter() {
        for header in [
            r#"form-data; filename="my pet name.jpg"; name="file""#,
            r#"form-data; filename="dog; name=rex.jpg"; name="file""#,
            r#"form-data; filename="a\"; name=\"b.jpg"; name="file""#,
            r#"form-data; filename="name=x"; name=file"#,
        ] {
            assert_eq!(get(header, "name").as_deref(), Some("file"), "{header}");
        }
    }

    #[test]
    fn names_are_compared_without_case_and_blanks_are_allowed() {
        assert_eq!(get(r#"form-data; NAME="file"; FileName=a.jpg"#, "name").as_deref(), Some("file"));
        assert_eq!(get("multipart/form-data ;  Boundary = b ; charset=utf-8;", "boundary").as_deref(), Some("b"));
        assert_eq!(get("multipart/form-data", "boundary"), None);
        assert_eq!(get("a;;b; name=x", "name").as_deref(), Some("x"));
        assert_eq!(get(r#"form-data; name=""; x"#, "name").as_deref(), Some(""));
    }

    #[test]
    fn a_boundary_may_contain_any_character_of_its_rfc() {
        assert_eq!(get(r#"m; boundary="a'()+_,-./:=?b""#, "boundary").as_deref(), Some("a'()+_,-./:=?b"));
        assert_eq!(get("m; boundary=----=_Part_12_1.2", "boundary").as_deref(), Some("----=_Part_12_1.2"));
    }

    #[test]
    fn backslashes_of_a_path_stay() {
        assert_eq!(get(r#"f; filename="C:\photos\a.jpg"; name=x"#, "filename").as_deref(), Some(r"C:\photos\a.jpg"));
        assert_eq!(get(r#"f; filename="a\\b"; name=x"#, "name").as_deref(), Some("x"));
        assert_eq!(get(r#"f; name=x; filename="C:\photos\"#, "name").as_deref(), Some("x"));
    }

    #[test]
    fn the_extended_form_wins_and_is_decoded() {
        let both = "f; filename=\"K_fer.jpg\"; filename*=UTF-8''K%C3%A4fer.jpg";
        assert_eq!(get(both, "filename").as_deref(), Some("Käfer.jpg"));
        assert_eq!(get("f; filename*=iso-8859-1'de'K%E4fer", "filename").as_deref(), Some("Käfer"));
        assert_eq!(get("f; filename*=UTF-8''50%25%zz%", "filename").as_deref(), Some("50%%zz%"));
        assert_eq!(get("f; filename*=plain", "filename").as_deref(), Some("plain"));
    }

    #[test]
    fn bytes_that_are_no_utf_8_are_latin_1() {
        let parsed = HeaderParameters::parse(b"f; filename=\"K\xe4fer.jpg\"; name=x");
        assert_eq!(parsed.get("filename"), Ok(Some("Käfer.jpg")));
    }

    #[test]
    fn a_repeated_parameter_has_no_value() {
        let parsed = HeaderParameters::parse(b"m; boundary=a; BOUNDARY=b");
        assert_eq!(parsed.get("boundary"), Err(Repeated));
    }
}
