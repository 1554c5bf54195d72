//! Decoded images, with their room in the pixel budget.

use std::fmt;

use super::digest::Digest;
use crate::fault::Rejection;
use crate::pixel_budget::PixelRoom;

/// A decoded image: 8-bit RGB, rows from the top, no padding.
pub struct Image {
    /// Columns of `pixels`.
    pub width: u32,
    /// Rows of `pixels`.
    pub height: u32,
    /// `height × width × 3` bytes, `[0, 255]`, sRGB.
    pub pixels: Vec<u8>,
    /// Names the content: the digest of the encoded file, or for a derived image the one of [`derive`](Self::derive). Points
    /// in an index and cached results are addressed by it.
    pub sha256: Digest,
    /// Its room in the [pixel budget](crate::PixelBudget), given back when the image is dropped. Only images in tests have none.
    pub room: Option<PixelRoom>,
}

impl Image {
    /// The image that `operation` made of this one, for operators that take images and give images.
    ///
    /// It gets room of its own, without waiting; this image gives its room back when its event has ended. Its digest is
    /// another one ([`Digest::derive`]), so that an index or a cache does not take the two for the same. `operation` must
    /// name every parameter that changes the pixels.
    ///
    /// # Errors
    /// 413 if its pixels alone exceed the pixel budget.
    ///
    /// # Panics
    /// If `pixels` has not `height × width × 3` bytes.
    pub fn derive(&self, operation: &str, (width, height): (u32, u32), pixels: Vec<u8>) -> Result<Self, Rejection> {
        assert_eq!(pixels.len(), width as usize * height as usize * 3, "{operation} made pixels of another size");
        let room = self.room.as_ref().map(|room| room.derive(pixels.len())).transpose()?;
        Ok(Self { width, height, pixels, sha256: self.sha256.derive(operation), room })
    }
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Image({}×{})", self.width, self.height)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ByteSize;
    use crate::envelope::Lane;
    use crate::pixel_budget::PixelBudget;

    async fn decoded(budget: &PixelBudget) -> Image {
        let room = budget.reserve(Lane::Interactive, 12 << 10).await.unwrap();
        Image { width: 64, height: 64, pixels: vec![7; 12 << 10], sha256: Digest([1; 32]), room: Some(room) }
    }

    #[tokio::test]
    async fn a_derived_image_has_room_and_gives_it_back() {
        let budget = PixelBudget::new(ByteSize(100 << 10));
        let image = decoded(&budget).await;
        let smaller = image.derive("halve", (32, 32), vec![7; 3 << 10]).unwrap();
        drop(image);
        assert_eq!(budget.taken(), 3 << 10);
        drop(smaller);
        assert_eq!(budget.taken(), 0);
    }

    #[tokio::test]
    async fn a_derived_image_is_not_taken_for_its_parent() {
        let image = decoded(&PixelBudget::default()).await;
        let copy = image.derive("copy", (64, 64), image.pixels.clone()).unwrap();
        assert_ne!(copy.sha256, image.sha256);
        let again = copy.derive("copy", (64, 64), image.pixels.clone()).unwrap();
        assert_ne!(again.sha256, copy.sha256);
    }

    #[tokio::test]
    async fn an_image_without_room_derives_one_without_room() {
        let image = Image { room: None, ..decoded(&PixelBudget::default()).await };
        assert!(image.derive("copy", (64, 64), image.pixels.clone()).unwrap().room.is_none());
    }
}
