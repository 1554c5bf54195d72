//! Names of tenants and subjects.

use std::sync::Arc;

use pipeline::spec::{Places, Problems};

/// Longest name of a tenant or subject, in bytes.
const MAX_NAME_BYTES: usize = 256;

/// A tenant or subject from the config.
pub fn checked_name(key: &str, name: &str, places: &Places, problems: &mut Problems) -> Option<Arc<str>> {
    if is_name(name) {
        return Some(name.into());
    }
    let length = name.len();
    let message =
        format!("{key} must be 1 to {MAX_NAME_BYTES} bytes without control characters, and has {length} bytes");
    problems.add(places.of(key), message, format!("give {key} a plain name"));
    None
}

/// Whether a text can name a tenant or subject.
pub fn is_name(text: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&text.len()) && !text.chars().any(char::is_control)
}
