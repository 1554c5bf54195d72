//! Images and vectors as bytes, for the edges that run through the broker.
//!
//! Layout: length of the head (4 bytes, little-endian), the head as JSON, then the raw values: pixels as they are, vector
//! components as little-endian f32.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use super::{Body, Content, Digest, Image, Payload, Vector};
use crate::pixel_budget::PixelRoom;

/// Media type of an image on the wire.
pub const IMAGE_TYPE: &str = "application/vnd.caudal.image";
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

/// Whether a payload has a media type that only this module writes.
pub fn is_encoded(payload: &Payload) -> bool {
    matches!(payload, Payload::Bytes(content) if [IMAGE_TYPE, VECTOR_TYPE].contains(&&*content.media_type))
}

/// Longest head of an image, with its length: its numbers have 1 to 10 digits each, so that pixels take at most 18 bytes more
/// than what follows from the longest.
const MOST_HEAD: u64 = 120;

/// Bytes of the pixels of an encoded image, in memory or in the object store, less at most 18. `None` for other payloads.
pub fn pixel_bytes(payload: &Payload) -> Option<u64> {
    match payload {
        Payload::Bytes(content) if *content.media_type == *IMAGE_TYPE => {
            Some(content.length().saturating_sub(MOST_HEAD))
        }
        _ => None,
    }
}

/// The pixels of an image as bytes that share its memory and its room.
struct SharedPixels(Arc<Image>);

impl AsRef<[u8]> for SharedPixels {
    fn as_ref(&self) -> &[u8] {
        &self.0.pixels
    }
}

/// An image as bytes, in two pieces: no pixel is copied.
pub fn encode_image(image: &Arc<Image>) -> [Bytes; 2] {
    let head = ImageHead { width: image.width, height: image.height, sha256: image.sha256 };
    [head_bytes(&head, 0).freeze(), Bytes::from_owner(SharedPixels(Arc::clone(image)))]
}

/// A vector as bytes.
pub fn encode_vector(vector: &Vector) -> Content {
    let head = VectorHead {
        model: vector.model.to_string(),
        fingerprint: vector.fingerprint.to_string(),
        sha256: vector.sha256,
    };
    let mut bytes = head_bytes(&head, vector.values.len() * 4);
    vector.values.iter().for_each(|value| bytes.put_f32_le(*value));
    Content::inline(VECTOR_TYPE, bytes.freeze())
}

/// The image or vector that was encoded; an image takes the memory of the bytes, and `room`. `None` for other content, and
/// for malformed bytes with one of the two media types: they stay.
pub fn decode(content: &mut Content, room: Option<PixelRoom>) -> Option<Payload> {
    let Body::Inline(bytes) = &mut content.body else { return None };
    match &*content.media_type {
        IMAGE_TYPE => decode_image(bytes, room),
        VECTOR_TYPE => decode_vector(bytes),
        _ => None,
    }
}

fn decode_image(bytes: &mut Bytes, mut room: Option<PixelRoom>) -> Option<Payload> {
    let (ImageHead { width, height, sha256 }, pixels) = split::<ImageHead>(bytes)?;
    let needed = (width as usize).checked_mul(height as usize)?.checked_mul(3)?;
    if needed != pixels.len() {
        return None;
    }
    let mut bytes = std::mem::take(bytes);
    bytes.advance(bytes.len() - needed);
    if let Some(room) = &mut room {
        room.shrink_to(needed);
    }
    // Not copied if these bytes have no other owner, as after a fetch.
    let image = Image { width, height, pixels: Vec::from(bytes), sha256, room };
    Some(Payload::Image(Arc::new(image)))
}

fn decode_vector(bytes: &[u8]) -> Option<Payload> {
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

/// The head with its length, and capacity for as many bytes of values.
fn head_bytes(head: &impl Serialize, values: usize) -> BytesMut {
    let head = serde_json::to_vec(head).expect("a head is plain fields");
    let mut bytes = BytesMut::with_capacity(4 + head.len() + values);
    bytes.put_u32_le(u32::try_from(head.len()).expect("a head is short"));
    bytes.put_slice(&head);
    bytes
}

fn split<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Option<(T, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (head, values) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    Some((serde_json::from_slice(head).ok()?, values))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(image: &Arc<Image>) -> Content {
        Content::inline(IMAGE_TYPE, encode_image(image).concat())
    }

    fn image(width: u32, pixels: Vec<u8>) -> Arc<Image> {
        Arc::new(Image { width, height: 1, pixels, sha256: Digest([7; 32]), room: None })
    }

    #[test]
    fn what_is_encoded_is_decoded_to_the_same() {
        let image = image(2, vec![0, 1, 2, 253, 254, 255]);
        let Some(Payload::Image(decoded)) = decode(&mut encoded(&image), None) else { panic!("no image") };
        assert_eq!((decoded.width, decoded.height, &decoded.pixels), (2, 1, &image.pixels));
        assert_eq!(decoded.sha256, image.sha256);
        let vector =
            Vector { values: vec![0.5, -1.0], model: "m".into(), fingerprint: "f".into(), sha256: Digest([1; 32]) };
        let Some(Payload::Vector(decoded)) = decode(&mut encode_vector(&vector), None) else { panic!("no vector") };
        assert_eq!(format!("{decoded:?}"), format!("{vector:?}"));
    }

    #[test]
    fn what_is_not_encoded_stays_as_it_is() {
        assert!(decode(&mut Content::inline("image/png", "x"), None).is_none());
        for broken in ["", "abc", "\x05\0\0\0{}", "\x02\0\0\0{}xyz"] {
            assert!(decode(&mut Content::inline(IMAGE_TYPE, broken), None).is_none(), "{broken:?}");
        }
        let Body::Inline(whole) = encoded(&image(2, vec![0; 6])).body else { panic!() };
        assert!(decode(&mut Content::inline(IMAGE_TYPE, whole.slice(..whole.len() - 1)), None).is_none());
    }

    #[test]
    fn an_encoded_image_is_told_by_its_media_type_and_says_how_large_it_is() {
        for width in [1, 4_000_000] {
            let payload = Payload::Bytes(encoded(&image(width, vec![0; width as usize * 3])));
            let bytes = u64::from(width) * 3;
            let about = pixel_bytes(&payload).unwrap();
            assert!(is_encoded(&payload) && about <= bytes && about + 18 >= bytes, "{about} of {bytes}");
        }
        let other = Payload::Bytes(Content::inline("image/png", "x"));
        assert!(!is_encoded(&other) && pixel_bytes(&other).is_none());
    }

    #[tokio::test]
    async fn an_image_takes_its_room_and_gives_back_what_the_head_took() {
        let budget = crate::pixel_budget::PixelBudget::default();
        let pixels = vec![0; 3 << 10];
        let mut content = encoded(&image(1 << 10, pixels));
        let room = budget.reserve(crate::envelope::Lane::Interactive, content.length()).await.unwrap();
        let decoded = decode(&mut content, Some(room)).unwrap();
        assert_eq!(budget.taken(), 3 << 10);
        drop(decoded);
        assert_eq!(budget.taken(), 0);
    }
}
