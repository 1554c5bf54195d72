//! File extensions and media types, each by the other.

use std::path::Path;

/// Extension and media type. Where a type has several extensions, the first is used for answers.
const TYPES: [(&str, &str); 23] = [
    ("jpg", "image/jpeg"),
    ("jpeg", "image/jpeg"),
    ("png", "image/png"),
    ("webp", "image/webp"),
    ("gif", "image/gif"),
    ("json", "application/json"),
    ("pdf", "application/pdf"),
    ("zip", "application/zip"),
    ("rtf", "application/rtf"),
    ("rtf", "text/rtf"),
    ("txt", "text/plain"),
    ("md", "text/plain"),
    ("csv", "text/csv"),
    ("html", "text/html"),
    ("htm", "text/html"),
    ("xml", "application/xml"),
    ("docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
    ("xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
    ("pptx", "application/vnd.openxmlformats-officedocument.presentationml.presentation"),
    ("odt", "application/vnd.oasis.opendocument.text"),
    ("ods", "application/vnd.oasis.opendocument.spreadsheet"),
    ("odp", "application/vnd.oasis.opendocument.presentation"),
    ("bin", "application/octet-stream"),
];

/// The media type of a file name's extension.
pub fn type_of(file: &Path) -> &'static str {
    let extension = file.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let known = TYPES.iter().find(|(known, _)| *known == extension);
    known.map_or("application/octet-stream", |(_, media_type)| media_type)
}

/// The extension for a media type, or `bin` if it is unknown.
pub fn extension_of(media_type: &str) -> &'static str {
    let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if essence.ends_with("+json") {
        return "json";
    }
    TYPES.iter().find(|(_, known)| *known == essence).map_or("bin", |(extension, _)| extension)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_types_tell_each_other() {
        assert_eq!(type_of(Path::new("a/Letter.JSON")), "application/json");
        assert_eq!(type_of(Path::new("letter.sketch")), "application/octet-stream");
        assert_eq!(type_of(Path::new("letter")), "application/octet-stream");
        assert_eq!(extension_of("text/plain; charset=utf-8"), "txt");
        assert_eq!(extension_of("Image/JPEG"), "jpg");
        assert_eq!(extension_of("application/problem+json"), "json");
        assert_eq!(extension_of("application/x-unheard-of"), "bin");
        for (extension, media_type) in TYPES {
            assert_eq!(
                type_of(Path::new("x").with_extension(extension_of(media_type)).as_path()),
                type_of(Path::new(&format!("x.{extension}")))
            );
        }
    }
}
