//! URL schemes of links, and which of them run something.

/// The scheme of a link in lower case: `https` of `https://…`; `file` for Windows paths and shares.
pub(super) fn scheme(target: &str) -> Option<String> {
    // Programs ignore white space and control characters in a link, so the check must ignore them too.
    let target: String = target.chars().filter(|c| !c.is_whitespace() && !c.is_control()).take(64).collect();
    if target.starts_with("\\\\") || target.starts_with("//") {
        return Some("file".into());
    }
    let (scheme, _) = target.split_once(':')?;
    let letters = scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
    match scheme.len() {
        0 => None,
        1 => Some("file".into()),
        _ => letters.then(|| scheme.to_ascii_lowercase()),
    }
}

/// Whether following a link of this scheme would run something.
pub(super) fn runs(scheme: &str) -> bool {
    matches!(
        scheme,
        "javascript" | "vbscript" | "data" | "macro" | "slot" | "service" | "private" | "ms-msdt" | "search-ms"
    ) || scheme.starts_with("vnd.sun.star")
}
