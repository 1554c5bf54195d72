//! What a conversion can be asked for, seen in the result.

use pipeline::documents::{Format, Options, PdfVersion, Setting};

use crate::samples::{self, PAGE_BREAK, paragraph};
use crate::world::{World, count, page_text, text};

async fn pdf(world: &World, input: &[u8], options: Options) -> Vec<u8> {
    world.with(input, Format::Docx, Format::Pdf, options).await.unwrap().files.remove(0).to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_and_accessible_documents_say_what_they_are() {
    let world = World::office(|_| {}).await;
    let letter = samples::letter("Mark");
    for (version, part) in [(PdfVersion::A2b, 2), (PdfVersion::A3b, 3)] {
        let made = pdf(&world, &letter, Options { pdf_version: Some(version), ..Options::default() }).await;
        assert_eq!(count(&made, &format!("<pdfaid:part>{part}</pdfaid:part>")), 1, "{version:?}");
        assert_eq!(count(&made, "<pdfaid:conformance>B</pdfaid:conformance>"), 1, "{version:?}");
    }
    let plain = pdf(&world, &letter, Options::default()).await;
    assert!(plain.starts_with(b"%PDF-1.6") && count(&plain, "pdfaid:part") == 0);
    let accessible = pdf(&world, &letter, Options { pdf_ua: true, ..Options::default() }).await;
    assert_eq!(count(&accessible, "<pdfuaid:part>1</pdfuaid:part>"), 1);
    assert!(count(&accessible, "/StructTreeRoot") > 0);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_pages_asked_for_are_written() {
    let world = World::office(|_| {}).await;
    let input = samples::pages(&["Alpha", "Beta", "Gamma", "Delta"]);
    let made = world.with(&input, Format::Docx, Format::Pdf, pages("2-3")).await.unwrap();
    assert_eq!((made.pages, text(&made.files[0])), (2, "BetaGamma".into()));
    let slides = samples::odp(&["One", "Two", "Three"]);
    for (from, input) in [(Format::Docx, &input), (Format::Odp, &slides)] {
        let options = Options { pages: Some("1,3".into()), png_width: Some(320), ..Options::default() };
        let drawn = world.with(input, from, Format::Png, options).await.unwrap();
        assert_eq!((drawn.pages, drawn.files.len()), (2, 2));
        assert_ne!(drawn.files[0], drawn.files[1], "two pages are two pictures");
        for picture in &drawn.files {
            let picture = image::load_from_memory(picture).unwrap().into_luma8();
            assert_eq!(picture.width(), 320);
            assert!(picture.pixels().any(|pixel| pixel.0 < [100]), "there is something on it");
        }
        let none = world.with(input, from, Format::Png, pages("9")).await.unwrap_err();
        assert_eq!(none.code(), "document_unreadable");
    }
    let none = world.with(&input, Format::Docx, Format::Pdf, pages("9")).await.unwrap_err();
    assert!(none.to_string().contains("\"9\"") && !none.to_string().contains('/'), "nothing of the inside: {none}");
    let drawn = world.convert(&made.files[0], Format::Pdf, Format::Png).await.unwrap();
    assert_eq!((drawn.pages, drawn.files.len()), (2, 2), "a PDF is drawn as well");
    assert_eq!(world.convert(b"%PDF-no", Format::Pdf, Format::Png).await.unwrap_err().code(), "document_unreadable");
    world.close().await;
}

fn pages(pages: &str) -> Options {
    Options { pages: Some(pages.into()), ..Options::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_behind_a_password_opens_with_it_alone() {
    let world = World::office(|_| {}).await;
    let input = samples::locked(&samples::letter("Secret"), "sésame");
    let open = |password: Option<&str>| {
        let options = Options { password: password.map(str::to_owned), ..Options::default() };
        world.with(&input, Format::Docx, Format::Pdf, options)
    };
    assert_eq!(text(&open(Some("sésame")).await.unwrap().files[0]), "Secret");
    assert_eq!(open(None).await.unwrap_err().code(), "password_required");
    assert_eq!(open(Some("other")).await.unwrap_err().code(), "password_wrong");
    assert_eq!(text(&open(Some("sésame")).await.unwrap().files[0]), "Secret");
    assert!(world.pool.figures().restarts.is_empty());
    world.close().await;
}

/// Each setting by what it leaves in the file.
#[tokio::test(flavor = "multi_thread")]
async fn settings_of_the_export_are_kept() {
    let world = World::office(|_| {}).await;
    let (letter, noted) = (samples::letter("Mark"), samples::commented("Mark"));
    let switch = |name: &str| (name.to_owned(), Setting::Switch(true));
    for (setting, left) in [
        (switch("HideViewerMenubar"), "/HideMenubar true"),
        (switch("CenterWindow"), "/CenterWindow true"),
        (switch("OpenInFullScreenMode"), "/FullScreen"),
        (("InitialView".into(), Setting::Number(2)), "/UseThumbs"),
        (("PageLayout".into(), Setting::Number(3)), "/TwoColumnRight"),
        (("Magnification".into(), Setting::Number(2)), "/FitH"),
        (switch("IsAddStream"), "/AdditionalStreams"),
    ] {
        let made = pdf(&world, &letter, Options { settings: [setting].into(), ..Options::default() }).await;
        let usual = pdf(&world, &letter, Options::default()).await;
        assert!(count(&made, left) > count(&usual, left), "{left}");
    }
    let notes = Options { settings: [switch("ExportNotes")].into(), ..Options::default() };
    let made = world.with(&noted, Format::Odt, Format::Pdf, notes).await.unwrap();
    let plain = world.convert(&noted, Format::Odt, Format::Pdf).await.unwrap();
    let comments = |pdf: &[u8]| count(pdf, "/Subtype /Text");
    assert_eq!((comments(&made.files[0]), comments(&plain.files[0])), (1, 0));
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_contents_is_as_stale_as_it_came_or_right() {
    let world = World::office(|_| {}).await;
    let heading =
        |text: &str| format!("<w:p><w:pPr><w:pStyle w:val=\"Heading1\"/></w:pPr><w:r><w:t>{text}</w:t></w:r></w:p>");
    let field = |kind: &str| format!("<w:r><w:fldChar w:fldCharType=\"{kind}\"/></w:r>");
    let contents = format!(
        "<w:p>{}<w:r><w:instrText xml:space=\"preserve\"> TOC \\o \"1-3\" </w:instrText></w:r>{}\
         <w:r><w:t>Stale99</w:t></w:r></w:p><w:p>{}</w:p>",
        field("begin"),
        field("separate"),
        field("end")
    );
    let chapters: String =
        (1..=3).map(|n| format!("{PAGE_BREAK}{}{}", heading(&format!("Chapter{n}x")), paragraph("Text"))).collect();
    let input = samples::docx(&(contents + &chapters), "");
    let first_page = |pdf: &[u8]| page_text(&lopdf::Document::load_mem(pdf).unwrap(), &[1]);
    assert!(first_page(&pdf(&world, &input, Options::default()).await).contains("Stale99"));
    let fresh = first_page(&pdf(&world, &input, Options { update_indexes: true, ..Options::default() }).await);
    assert!(!fresh.contains("Stale99"), "{fresh}");
    let dots: String = fresh.chars().filter(|character| *character != '.').collect();
    for (chapter, page) in [("Chapter1x", 2), ("Chapter2x", 3), ("Chapter3x", 4)] {
        assert!(dots.contains(&format!("{chapter}{page}")), "{fresh}");
    }
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn paper_turns_and_a_watermark_is_on_every_page() {
    let world = World::office(|_| {}).await;
    let input = samples::pages(&["One", "Two"]);
    let turned = pdf(&world, &input, Options { landscape: true, ..Options::default() }).await;
    for (_, page) in lopdf::Document::load_mem(&turned).unwrap().get_pages() {
        let document = lopdf::Document::load_mem(&turned).unwrap();
        let sides = document.get_dictionary(page).unwrap().get(b"MediaBox").unwrap().as_array().unwrap();
        let side = |at: usize| sides[at].as_float().unwrap();
        assert!(side(2) > side(3), "{sides:?}");
    }
    let plain = pdf(&world, &input, Options::default()).await;
    let marked = pdf(&world, &input, Options { watermark: Some("Draft\" }".into()), ..Options::default() }).await;
    // A form that every page draws; its text is in a stream of its own.
    assert_eq!((count(&plain, "/Subtype/Form"), count(&marked, "/Subtype/Form")), (0, 2));
    let document = lopdf::Document::load_mem(&marked).unwrap();
    assert_eq!(page_text(&document, &[1, 2]), "OneTwo");
    world.close().await;
}
