//! PDF to PNG: renders pages with hayro. (LibreOffice's own PNG export of a text or spreadsheet has the first page
//! only.)

use hayro::hayro_interpret::InterpreterSettings;
use hayro::hayro_syntax::Pdf;
use hayro::hayro_syntax::page::Page;
use hayro::vello_cpu::color::palette::css::WHITE;
use hayro::{RenderCache, RenderSettings};

/// Default width in pixels: A4 at 150 dots per inch.
const DEFAULT_WIDTH: u16 = 1240;
/// Most pixels of an image: a page may be of any length.
const MAX_PIXELS: u64 = 64 << 20;

/// Which pages to render, and how.
pub(super) struct PageRenderer<'d> {
    /// Whether to render the page with this number, counted from 1.
    pub wanted: &'d dyn Fn(u32) -> bool,
    /// In pixels; 1240 if absent.
    pub width: Option<u16>,
    /// Most images.
    pub max_pages: u32,
}

impl PageRenderer<'_> {
    /// Renders the pages on white, passes each PNG with its page number to `write`, and returns how many there were.
    ///
    /// # Errors
    /// If the file is not a PDF, no page or too many pages are wanted, a page is too long for its width, or `write`
    /// fails.
    pub fn render(
        &self,
        pdf: Vec<u8>,
        mut write: impl FnMut(u32, Vec<u8>) -> Result<(), String>,
    ) -> Result<u32, String> {
        let pdf = Pdf::new(pdf).map_err(|error| format!("the PDF cannot be rendered: {error:?}"))?;
        let (pages, cache) = (pdf.pages(), RenderCache::new());
        let wanted: Vec<_> = (1..).zip(pages.iter()).filter(|(number, _)| (self.wanted)(*number)).collect();
        let count = u32::try_from(wanted.len()).unwrap_or(u32::MAX);
        if count > self.max_pages {
            return Err(format!("{count} pages are requested, the limit is {}", self.max_pages));
        }
        if count == 0 {
            return Err(format!("the document has {} pages, none of them is requested", pages.len()));
        }
        for (number, page) in wanted {
            let settings = self.settings(number, page)?;
            let image = hayro::render(page, &cache, &InterpreterSettings::default(), &settings);
            write(number, image.into_png().map_err(|error| error.to_string())?)?;
        }
        Ok(count)
    }

    fn settings(&self, number: u32, page: &Page<'_>) -> Result<RenderSettings, String> {
        let (points_wide, points_high) = page.render_dimensions();
        let width = self.width.unwrap_or(DEFAULT_WIDTH);
        let scale = f32::from(width) / points_wide;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float cast saturates")]
        let height = (points_high * scale).round().max(1.0) as u16;
        if height == u16::MAX || u64::from(width) * u64::from(height) > MAX_PIXELS {
            return Err(format!("page {number} would have more than {MAX_PIXELS} pixels at a width of {width}"));
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

    fn rendered(pdf: Vec<u8>, renderer: &PageRenderer<'_>) -> Result<Vec<(u32, image::GrayImage)>, String> {
        let mut images = Vec::new();
        let count = renderer.render(pdf, |number, png| {
            images.push((number, image::load_from_memory(&png).map_err(|error| error.to_string())?.into_luma8()));
            Ok(())
        })?;
        assert_eq!(count as usize, images.len());
        Ok(images)
    }

    #[test]
    fn pages_are_rendered_at_the_requested_width_and_in_proportion() {
        let renderer = PageRenderer { wanted: &|page| page != 2, width: Some(100), max_pages: 2 };
        let images = rendered(pdf(&[(200, 400), (50, 50), (300, 100)]), &renderer).unwrap();
        let sizes: Vec<_> = images.iter().map(|(number, image)| (*number, image.dimensions())).collect();
        assert_eq!(sizes, [(1, (100, 200)), (3, (100, 33))]);
        for (_, image) in &images {
            assert_eq!((image.get_pixel(10, 20).0, image.get_pixel(90, 20).0), ([0], [255]));
        }
    }

    #[test]
    fn a_page_that_is_not_rendered_is_reported_with_the_reason() {
        let all = PageRenderer { wanted: &|_| true, width: None, max_pages: 1 };
        assert!(rendered(b"no".to_vec(), &all).unwrap_err().contains("cannot be rendered"));
        assert!(rendered(pdf(&[(10, 10), (10, 10)]), &all).unwrap_err().contains("the limit is 1"));
        assert!(rendered(pdf(&[(1, 14_000)]), &all).unwrap_err().contains("page 1 would have more than"));
        let none = PageRenderer { wanted: &|page| page == 9, ..all };
        assert!(rendered(pdf(&[(10, 10)]), &none).unwrap_err().contains("none of them is requested"));
    }
}
