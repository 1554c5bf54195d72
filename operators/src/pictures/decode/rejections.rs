//! Rejections for image files that are damaged.

use pipeline::Rejection;

use super::format::Format;

/// 422: the file has the format's signature, but its content is invalid.
pub(super) fn corrupt(what: impl std::fmt::Display) -> Rejection {
    Rejection::unusable("image_corrupt", format!("the image is corrupt: {what}"))
}

/// 422: the file ends before its image data does.
pub(super) fn truncated(format: Format, bytes: &[u8]) -> Rejection {
    let detail = format!("the {} is truncated: it ends after {} bytes; upload it again", format.name(), bytes.len());
    Rejection::unusable("image_truncated", detail)
}
