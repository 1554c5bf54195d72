//! Conversion options, checked in the result.

use pipeline::documents::{Format, Options, PdfVersion, Setting};

use crate::samples::{self, PAGE_BREAK, paragraph};
use crate::test_pool::{TestPool, count, page_text, text};

async fn pdf(pool: &TestPool, input: &[u8], options: Options) -> Vec<u8> {
    pool.with(input, Format::Docx, Format::Pdf, options).await.unwrap().files.remove(0).to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn pdf_a_and_pdf_ua_are_declared_in_the_file() {
    let pool = TestPool::with_libreoffice(|_| {}).await;
    let letter = samples::letter("Mark");
    for (version, part) in [(PdfVersion::A2b, 2), (PdfVersion::A3b, 3)] {
        let made = pdf(&pool, &letter, Options { pdf_version: Some(version), ..Options::default() }).await;
        assert_eq!(count(&made, &format!("<pdfaid:part>{part}</pdfaid:part>")), 1, "{version:?}");
        assert_eq!(count(&made, "<pdfaid:conformance>B</pdfaid:conformance>"), 1, "{version:?}");
    }
    let plain = pdf(&pool, &letter, Options::default()).await;
    assert!(plain.starts_with(b"%PDF-1.6") && count(&plain, "pdfaid:part") == 0);
    let accessible = pdf(&pool, &letter, Options { pdf_ua: true, ..Options::default() }).await;
    assert_eq!(count(&accessible, "<pdfuaid:part>1</pdfuaid:part>"), 1);
    assert!(count(&accessible, "/StructTreeRoot") > 0);
    pool.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_requested_pages_are_written() {
    let pool = TestPool::with_libreoffice(|_| {}).await;
    let input = samples::pages(&["Alpha", "Beta", "Gamma", "Delta"]);
    let made = pool.with(&input, Format::Docx, Format::Pdf, pages("2-3")).await.unwrap();
    assert_eq!((made.pages, text(&made.files[0])), (2, "BetaGamma".into()));
    let slides = samples::odp(&["One", "Two", "Three"]);
    for (from, input) in [(Format::Docx, &input), (Format::Odp, &slides)] {
        let options = Options { pages: Some("1,3".into()), png_width: Some(320), ..Options::default() };
        let rendered = pool.with(input, from, Format::Png, options).await.unwrap();
        assert_eq!((rendered.pages, rendered.files.len()), (2, 2));
        assert_ne!(rendered.files[0], rendered.files[1], "two pages give two images");
        for image in &rendered.files {
            let image = image::load_from_memory(image).unwrap().into_luma8();
            assert_eq!(image.width(), 320);
            assert!(image.pixels().any(|pixel| pixel.0 < [100]), "the image is not blank");
        }
        let none = pool.with(input, from, Format::Png, pages("9")).await.unwrap_err();
        assert_eq!(none.code(), "document_unreadable");
    }
    let none = pool.with(&input, Format::Docx, Format::Pdf, pages("9")).await.unwrap_err();
    assert!(none.to_string().contains("\"9\"") && !none.to_string().contains('/'), "no internal paths: {none}");
    let rendered = pool.convert(&made.files[0], Format::Pdf, Format::Png).await.unwrap();
    assert_eq!((rendered.pages, rendered.files.len()), (2, 2), "a PDF is rendered too");
    assert_eq!(pool.convert(b"%PDF-no", Format::Pdf, Format::Png).await.unwrap_err().code(), "document_unreadable");
    pool.close().await;
}

fn pages(pages: &str) -> Options {
    Options { pages: Some(pages.into()), ..Options::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encrypted_document_opens_only_with_its_password() {
    let pool = TestPool::with_libreoffice(|_| {}).await;
    let input = samples::encrypted(&samples::letter("Secret"), "sésame");
    let open = |password: Option<&str>| {
        let options = Options { password: password.map(str::to_owned), ..Options::default() };
        pool.with(&input, Format::Docx, Format::Pdf, options)
    };
    assert_eq!(text(&open(Some("sésame")).await.unwrap().files[0]), "Secret");
    assert_eq!(open(None).await.unwrap_err().code(), "password_required");
    assert_eq!(open(Some("other")).await.unwrap_err().code(), "password_wrong");
    assert_eq!(text(&open(Some("sésame")).await.unwrap().files[0]), "Secret");
    assert!(pool.pool.metrics().restarts.is_empty());
    pool.close().await;
}

/// Each setting, by what it writes into the file.
#[tokio::test(flavor = "multi_thread")]
async fn export_settings_are_applied() {
    let pool = TestPool::with_libreoffice(|_| {}).await;
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
        let made = pdf(&pool, &letter, Options { settings: [setting].into(), ..Options::default() }).await;
        let usual = pdf(&pool, &letter, Options::default()).await;
        assert!(count(&made, left) > count(&usual, left), "{left}");
    }
    let notes = Options { settings: [switch("ExportNotes")].into(), ..Options::default() };
    let made = pool.with(&noted, Format::Odt, Format::Pdf, notes).await.unwrap();
    let plain = pool.convert(&noted, Format::Odt, Format::Pdf).await.unwrap();
    let comments = |pdf: &[u8]| count(pdf, "/Subtype /Text");
    assert_eq!((comments(&made.files[0]), comments(&plain.files[0])), (1, 0));
    pool.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_contents_is_updated_only_on_request() {
    let pool = TestPool::with_libreoffice(|_| {}).await;
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
    assert!(first_page(&pdf(&pool, &input, Options::default()).await).contains("Stale99"));
    let fresh = first_page(&pdf(&pool, &input, Options { update_indexes: true, ..Options::default() }).await);
    assert!(!fresh.contains("Stale99"), "{fresh}");
    let dots: String = fresh.chars().filter(|character| *character != '.').collect();
    for (chapter, page) in [("Chapter1x", 2), ("Chapter2x", 3), ("Chapter3x", 4)] {
        assert!(dots.contains(&format!("{chapter}{page}")), "{fresh}");
    }
    pool.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn landscape_and_watermark_apply_to_every_page() {
    let pool = TestPool::with_libreoffice(|_| {}).await;
    let input = samples::pages(&["One", "Two"]);
    let turned = pdf(&pool, &input, Options { landscape: true, ..Options::default() }).await;
    for (_, page) in lopdf::Document::load_mem(&turned).unwrap().get_pages() {
        let document = lopdf::Document::load_mem(&turned).unwrap();
        let sides = document.get_dictionary(page).unwrap().get(b"MediaBox").unwrap().as_array().unwrap();
        let side = |at: usize| sides[at].as_float().unwrap();
        assert!(side(2) > side(3), "{sides:?}");
    }
    let plain = pdf(&pool, &input, Options::default()).await;
    let marked = pdf(&pool, &input, Options { watermark: Some("Draft\" }".into()), ..Options::default() }).await;
    // The watermark is a form that every page draws; its text is in a separate stream.
    assert_eq!((count(&plain, "/Subtype/Form"), count(&marked, "/Subtype/Form")), (0, 2));
    let document = lopdf::Document::load_mem(&marked).unwrap();
    assert_eq!(page_text(&document, &[1, 2]), "OneTwo");
    pool.close().await;
}
