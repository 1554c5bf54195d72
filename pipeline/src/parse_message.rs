//! What a parser says about a text, without the text: its messages quote what they do not expect, whole, and a request
//! must not come back in its own error, nor a secret in a log.

use std::fmt::Display;

/// Longest message, in characters.
const MAX_MESSAGE: usize = 1_000;

/// Longest name of an unknown field or variant, in characters.
const MAX_NAME: usize = 64;

/// Messages of serde that quote a value, up to its kind, with what stands around the value.
const VALUES: [(&str, &str, &str); 2] =
    [("invalid type: string ", "\"", "\", expected "), ("invalid value: string ", "\"", "\", expected ")];

/// Messages of serde that quote a name.
const NAMES: [(&str, &str, &str); 4] = [
    ("unknown field ", "`", "`, "),
    ("unknown variant ", "`", "`, "),
    ("duplicate field ", "`", "`"),
    ("missing field ", "`", "`"),
];

/// The message of an error of serde_json, serde or toml: kind, expectation and place, but no value, and at most 1,000
/// characters.
#[must_use]
pub fn parse_message(error: &impl Display) -> String {
    let message = error.to_string();
    let message = without_value(&message).or_else(|| with_short_name(&message)).unwrap_or(message);
    shortened(&message, MAX_MESSAGE)
}

/// `invalid type: string "…", expected a map` without the string. What stands behind it is our own text, so that the
/// last end of a string is its end.
fn without_value(message: &str) -> Option<String> {
    VALUES.iter().find_map(|(kind, open, close)| {
        let (before, quoted) = message.split_once(kind)?;
        let (_, expected) = quoted.strip_prefix(open)?.rsplit_once(close)?;
        Some(format!("{before}{}, expected {expected}", kind.trim_end()))
    })
}

fn with_short_name(message: &str) -> Option<String> {
    NAMES.iter().find_map(|(kind, open, close)| {
        let (before, quoted) = message.split_once(kind)?;
        let (name, rest) = quoted.strip_prefix(open)?.rsplit_once(close)?;
        // What was expected instead may be quoted too.
        let (name, rest) = name
            .split_once(close)
            .map_or((name, rest.to_owned()), |(name, more)| (name, format!("{more}{close}{rest}")));
        Some(format!("{before}{kind}{open}{}{close}{rest}", shortened(name, MAX_NAME)))
    })
}

/// At most `most` characters of a text, and `…` in place of what is left out.
#[must_use]
pub fn shortened(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only its errors matter")]
    struct Spec {
        list: Vec<u8>,
        kind: Kind,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Kind {
        Small,
    }

    fn of_json(text: &str) -> String {
        parse_message(&serde_json::from_str::<Spec>(text).unwrap_err())
    }

    #[test]
    fn a_value_is_not_repeated_but_its_kind_and_place_are_told() {
        assert_eq!(of_json(r#"{"list": "s3cret"}"#), "invalid type: string, expected a sequence at line 1 column 17");
        assert_eq!(
            of_json(r#"{"list": "a\", expected b"}"#),
            "invalid type: string, expected a sequence at line 1 column 26"
        );
        let toml = toml::from_str::<Spec>("list = \"s3cret\"").unwrap_err();
        assert_eq!(
            parse_message(&toml.message()),
            "invalid type: string \"s3cret\", expected a sequence".replace(" \"s3cret\"", "")
        );
        let map = serde_json::from_value::<HashMap<String, u8>>("x".repeat(5_000).into()).unwrap_err();
        assert_eq!(parse_message(&map), "invalid type: string, expected a map");
    }

    #[test]
    fn a_number_is_short_enough_to_be_told() {
        assert!(of_json(r#"{"list": [300]}"#).starts_with("invalid value: integer `300`, expected u8"));
    }

    #[test]
    fn a_long_name_is_shortened_and_what_is_known_stays() {
        let long = "n".repeat(1 << 20);
        let message = of_json(&format!(r#"{{"{long}": 1}}"#));
        assert!(message.len() < 200, "{}", message.len());
        assert!(message.contains("`nnn") && message.contains("…`, expected `list` or `kind` at line 1"), "{message}");
        assert_eq!(of_json(r#"{"lst": 1}"#), "unknown field `lst`, expected `list` or `kind` at line 1 column 6");
        let message = of_json(&format!(r#"{{"kind": "{long}"}}"#));
        assert!(message.len() < 200 && message.contains("unknown variant `nnn"), "{message}");
        assert!(of_json(r#"{"list": []}"#).starts_with("missing field `kind` at line 1"));
    }

    #[test]
    fn any_other_message_is_bounded() {
        assert_eq!(parse_message(&"x".repeat(5_000)).chars().count(), MAX_MESSAGE + 1);
        assert_eq!(parse_message(&"ä".repeat(5)), "äääää");
    }
}
