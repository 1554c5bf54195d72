//! Pages of a PDF as PNG pictures, drawn by hayro. (The engine's own drawing of a text or a sheet ends with the first page.)

use hayro::hayro_interpret::InterpreterSettings;
use hayro::hayro_syntax::Pdf;
use hayro::hayro_syntax::page::Page;
use hayro::vello_cpu::color::palette::css::WHITE;
use hayro::{RenderCache, RenderSettings, render};

/// Width in pixels where none was asked for: A4 at 150 dots an inch.
const WIDTH: u16 = 1240;
/// Pixels of a picture: paper may be a ribbon of any length.
const MOST_PIXELS: u64 = 64 << 20;

/// Pages that are drawn, and how.
pub(super) struct Drawing<'d> {
    /// Which, counted from 1.
    pub wanted: &'d dyn Fn(u32) -> bool,
    /// In pixels; 1240 without it.
    pub width: Option<u16>,
    /// Pictures at most.
    pub most: u32,
}

impl Drawing<'_> {
    /// Draws the pages on white, hands each picture to `keep` with the number of its page, and says how many there were.
    ///
    /// # Errors
    /// If this is no PDF, none of its pages is wanted or too many are, a page is too long for its width, or as `keep` says.
    pub fn draw(&self, pdf: Vec<u8>, mut keep: impl FnMut(u32, Vec<u8>) -> Result<(), String>) -> Result<u32, String> {
        let pdf = Pdf::new(pdf).map_err(|error| format!("this PDF cannot be drawn: {error:?}"))?;
        let (pages, cache) = (pdf.pages(), RenderCache::new());
        let wanted: Vec<_> = (1..).zip(pages.iter()).filter(|(number, _)| (self.wanted)(*number)).collect();
        let count = u32::try_from(wanted.len()).unwrap_or(u32::MAX);
        if count > self.most {
            return Err(format!("{count} pages are asked for, at most {} are drawn", self.most));
        }
        if count == 0 {
            return Err(format!("none of the pages asked for is among the {} of the document", pages.len()));
        }
        for (number, page) in wanted {
            let settings = self.settings(number, page)?;
            let picture = render(page, &cache, &InterpreterSettings::default(), &settings);
            keep(number, picture.into_png().map_err(|error| error.to_string())?)?;
        }
        Ok(count)
    }

    fn settings(&self, number: u32, page: &Page<'_>) -> Result<RenderSettings, String> {
        let (points_wide, points_high) = page.render_dimensions();
        let width = self.width.unwrap_or(WIDTH);
        let scale = f32::from(width) / points_wide;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float cast saturates")]
        let height = (points_high * scale).round().max(1.0) as u16;
        if height == u16::MAX || u64::from(width) * u64::from(height) > MOST_PIXELS {
            return Err(format!("page {number} would be more than {MOST_PIXELS} pixels at a width of {width}"));
        }
        let (width, height) = (Some(width), Some(height));
        Ok(RenderSettings { x_scale: scale, y_scale: scale, width, height, bg_color: WHITE })
    }
}

#[cfg(test)]
mod tests {
    use lopdf::{Document, Object, Stream, dictionary};

    use super::*;

    /// Pages of these sizes in points, the left half of each black.
    fn pdf(sizes: &[(i32, i32)]) -> Vec<u8> {
        let mut document = Document::with_version("1.7");
        let tree = document.new_object_id();
        let mut kids: Vec<Object> = Vec::new();
        for (width, height) in sizes {
            let half = format!("0 0 {} {height} re f", width / 2).into_bytes();
            let half = document.add_object(Stream::new(dictionary! {}, half));
            let sides: Vec<Object> = [0, 0, *width, *height].map(Object::from).to_vec();
            let page = dictionary! { "Type" => "Page", "Parent" => tree, "MediaBox" => sides, "Contents" => half };
            kids.push(document.add_object(page).into());
        }
        let count = i64::try_from(kids.len()).unwrap();
        document.set_object(tree, dictionary! { "Type" => "Pages", "Kids" => kids, "Count" => count });
        let catalog = document.add_object(dictionary! { "Type" => "Catalog", "Pages" => tree });
        document.trailer.set("Root", catalog);
        let mut bytes = Vec::new();
        document.save_to(&mut bytes).unwrap();
        bytes
    }

    fn drawn(pdf: Vec<u8>, drawing: &Drawing<'_>) -> Result<Vec<(u32, image::GrayImage)>, String> {
        let mut kept = Vec::new();
        let count = drawing.draw(pdf, |number, png| {
            kept.push((number, image::load_from_memory(&png).map_err(|error| error.to_string())?.into_luma8()));
            Ok(())
        })?;
        assert_eq!(count as usize, kept.len());
        Ok(kept)
    }

    #[test]
    fn pages_are_drawn_as_wide_as_wished_and_in_proportion() {
        let drawing = Drawing { wanted: &|page| page != 2, width: Some(100), most: 2 };
        let kept = drawn(pdf(&[(200, 400), (50, 50), (300, 100)]), &drawing).unwrap();
        let sizes: Vec<_> = kept.iter().map(|(number, picture)| (*number, picture.dimensions())).collect();
        assert_eq!(sizes, [(1, (100, 200)), (3, (100, 33))]);
        for (_, picture) in &kept {
            assert_eq!((picture.get_pixel(10, 20).0, picture.get_pixel(90, 20).0), ([0], [255]));
        }
    }

    #[test]
    fn what_is_not_drawn_says_why() {
        let all = Drawing { wanted: &|_| true, width: None, most: 1 };
        assert!(drawn(b"no".to_vec(), &all).unwrap_err().contains("cannot be drawn"));
        assert!(drawn(pdf(&[(10, 10), (10, 10)]), &all).unwrap_err().contains("at most 1"));
        assert!(drawn(pdf(&[(1, 14_000)]), &all).unwrap_err().contains("page 1 would be more than"));
        let none = Drawing { wanted: &|page| page == 9, ..all };
        assert!(drawn(pdf(&[(10, 10)]), &none).unwrap_err().contains("none of the pages"));
    }
}
