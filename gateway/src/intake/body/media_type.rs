//! Recognises the media types that bodies are read by.

/// Whether a media type is a multipart form.
pub fn is_multipart(media_type: &str) -> bool {
    essence(media_type).eq_ignore_ascii_case("multipart/form-data")
}

/// Whether a media type is JSON.
pub fn is_json(media_type: &str) -> bool {
    let essence = essence(media_type).to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

/// A media type without its parameters.
fn essence(media_type: &str) -> &str {
    media_type.split(';').next().unwrap_or_default().trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_recognised_by_its_media_type() {
        assert!(is_json("application/json; charset=utf-8") && is_json("application/cloudevents+json"));
        assert!(!is_json("text/plain") && !is_json("text/json+x") && !is_json(""));
    }

    #[test]
    fn a_form_is_recognised_in_any_case() {
        assert!(is_multipart("Multipart/Form-Data; boundary=b") && !is_multipart("multipart/mixed"));
    }
}
