//! Checks the URLs of hyperlinks that the data put into a document.

/// Accepts `http`, `https` and `mailto` URLs.
pub(super) fn check_link(link: &str) -> Result<(), String> {
    let scheme = link.split_once(':').map_or("", |(scheme, _)| scheme).to_ascii_lowercase();
    let plain = !link.chars().any(|c| c.is_control() || c.is_whitespace());
    if plain && matches!(scheme.as_str(), "http" | "https" | "mailto") {
        return Ok(());
    }
    let shown: String = link.chars().take(80).collect();
    Err(format!("link {shown:?} is not an http, https or mailto URL"))
}
