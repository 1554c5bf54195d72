//! Pictures and vectors as bytes, for the edges that run through the broker.
//!
//! Layout: length of the head (4 bytes, little-endian), the head as JSON, then the raw values: pixels as they are, vector
//! components as little-endian f32.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use super::{Body, Content, Digest, Image, Payload, Vector};

const IMAGE_TYPE: &str = "application/vnd.caudal.image";
const VECTOR_TYPE: &str = "application/vnd.caudal.vector";

#[derive(Serialize, Deserialize)]
struct ImageHead {
    width: u32,
    height: u32,
    sha256: Digest,
}

#[derive(Serialize, Deserialize)]
struct VectorHead {
    model: String,
    fingerprint: String,
    sha256: Digest,
}

/// Whether a media type is one of those that only this module writes.
pub fn is_frozen(media_type: &str) -> bool {
    [IMAGE_TYPE, VECTOR_TYPE].contains(&media_type)
}

/// A picture as bytes.
pub fn freeze_image(image: &Image) -> Content {
    let head = ImageHead { width: image.width, height: image.height, sha256: image.sha256 };
    Content::inline(IMAGE_TYPE, join(&head, &image.pixels))
}

/// A vector as bytes.
pub fn freeze_vector(vector: &Vector) -> Content {
    let head = VectorHead {
        model: vector.model.to_string(),
        fingerprint: vector.fingerprint.to_string(),
        sha256: vector.sha256,
    };
    let values: Vec<u8> = vector.values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Content::inline(VECTOR_TYPE, join(&head, &values))
}

/// What was frozen, as it was; `None` for any other content, and for what only claims to be frozen.
pub fn thaw(content: &Content) -> Option<Payload> {
    let Body::Inline(bytes) = &content.body else { return None };
    match &*content.media_type {
        IMAGE_TYPE => {
            let (head, pixels) = split::<ImageHead>(bytes)?;
            let needed = (head.width as usize).checked_mul(head.height as usize)?.checked_mul(3)?;
            let image = Image {
                width: head.width,
                height: head.height,
                pixels: pixels.to_vec(),
                sha256: head.sha256,
                room: None,
            };
            (needed == pixels.len()).then(|| Payload::Image(Arc::new(image)))
        }
        VECTOR_TYPE => {
            let (head, values) = split::<VectorHead>(bytes)?;
            let (values, rest) = values.as_chunks::<4>();
            let vector = Vector {
                values: values.iter().map(|value| f32::from_le_bytes(*value)).collect(),
                model: head.model.into(),
                fingerprint: head.fingerprint.into(),
                sha256: head.sha256,
            };
            rest.is_empty().then(|| Payload::Vector(Arc::new(vector)))
        }
        _ => None,
    }
}

fn join(head: &impl Serialize, values: &[u8]) -> Bytes {
    let head = serde_json::to_vec(head).expect("a head is plain fields");
    let mut joined = BytesMut::with_capacity(4 + head.len() + values.len());
    joined.put_u32_le(u32::try_from(head.len()).expect("a head is short"));
    joined.put_slice(&head);
    joined.put_slice(values);
    joined.freeze()
}

fn split<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Option<(T, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (head, values) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    Some((serde_json::from_slice(head).ok()?, values))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_frozen_thaws_to_the_same() {
        let image =
            Image { width: 2, height: 1, pixels: vec![0, 1, 2, 253, 254, 255], sha256: Digest([7; 32]), room: None };
        let Some(Payload::Image(thawed)) = thaw(&freeze_image(&image)) else { panic!("no image") };
        assert_eq!((thawed.width, thawed.height, &thawed.pixels), (2, 1, &image.pixels));
        assert_eq!(thawed.sha256, image.sha256);
        let vector =
            Vector { values: vec![0.5, -1.0], model: "m".into(), fingerprint: "f".into(), sha256: Digest([1; 32]) };
        let Some(Payload::Vector(thawed)) = thaw(&freeze_vector(&vector)) else { panic!("no vector") };
        assert_eq!(format!("{thawed:?}"), format!("{vector:?}"));
    }

    #[test]
    fn what_is_not_frozen_stays_as_it_is() {
        assert!(thaw(&Content::inline("image/png", "x")).is_none());
        for broken in ["", "abc", "\x05\0\0\0{}", "\x02\0\0\0{}xyz"] {
            assert!(thaw(&Content::inline(IMAGE_TYPE, broken)).is_none(), "{broken:?}");
        }
        let image = Image { width: 2, height: 1, pixels: vec![0; 6], sha256: Digest([7; 32]), room: None };
        let Body::Inline(whole) = freeze_image(&image).body else { panic!() };
        assert!(thaw(&Content::inline(IMAGE_TYPE, whole.slice(..whole.len() - 1))).is_none());
    }
}
