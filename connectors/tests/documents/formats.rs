//! Conversions from every input format to every output format.

use base64::Engine as _;
use pipeline::documents::{Family, Format};

use crate::samples;
use crate::test_pool::{TestPool, text};

const MARK: &str = "Quark77";

/// Converts one sample to every target. The result is read again and must still contain the mark.
async fn every_target(pool: &TestPool, from: Format, input: &[u8]) {
    for to in Format::ALL.into_iter().filter(|to| from.becomes(*to)) {
        let got = pool.convert(input, from, to).await.unwrap_or_else(|error| panic!("{from} to {to}: {error}"));
        assert_eq!(got.files.len(), 1, "{from} to {to}");
        match to.family() {
            Family::Pages if to == Format::Pdf => {
                assert_eq!(got.pages, 1, "{from}");
                assert!(text(&got.files[0]).contains(MARK), "{from} to pdf lost the text");
            }
            Family::Pages => {
                assert!(got.files[0].starts_with(b"\x89PNG"), "{from} to png");
            }
            _ => {
                let again = pool.convert(&got.files[0], to, Format::Pdf).await;
                let again = again.unwrap_or_else(|error| panic!("{from} to {to} and back: {error}"));
                assert!(text(&again.files[0]).contains(MARK), "{from} to {to} lost the text");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_format_becomes_every_other_of_its_family_and_pages() {
    let pool = TestPool::with_libreoffice(|config| config.recycle.jobs = 1000).await;
    for (from, input) in samples::in_every_simple_format(MARK) {
        every_target(&pool, from, &input).await;
    }
    let xlsx = pool.convert(&samples::ods(MARK), Format::Ods, Format::Xlsx).await.unwrap();
    every_target(&pool, Format::Xlsx, &xlsx.files[0]).await;
    let pptx = pool.convert(&samples::odp(&[MARK]), Format::Odp, Format::Pptx).await.unwrap();
    every_target(&pool, Format::Pptx, &pptx.files[0]).await;
    let metrics = pool.pool.metrics();
    assert_eq!((metrics.retried, metrics.restarts.len()), (0, 0), "{metrics:?}");
    pool.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_beyond_ascii_survive_text_and_tables() {
    let pool = TestPool::with_libreoffice(|_| {}).await;
    for (from, input) in [(Format::Txt, "Grüße, 5 €"), (Format::Csv, "Grüße;5 €\n1;2\n")] {
        let pdf = pool.convert(input.as_bytes(), from, Format::Pdf).await.unwrap();
        let text = text(&pdf.files[0]);
        assert!(text.contains("Grüße") && text.contains("5€"), "{from}: {text}");
    }
    let csv = pool.convert("Grüße;5 €\n1;2\n".as_bytes(), Format::Csv, Format::Csv).await.unwrap();
    assert_eq!(std::str::from_utf8(&csv.files[0]).unwrap().trim_end(), "Grüße,5 €\n1,2");
    pool.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn images_are_embedded_in_html() {
    let pool = TestPool::with_libreoffice(|_| {}).await;
    let mut png = std::io::Cursor::new(Vec::new());
    image::GrayImage::new(40, 30).write_to(&mut png, image::ImageFormat::Png).unwrap();
    let image = base64::engine::general_purpose::STANDARD.encode(png.into_inner());
    let page = format!("<p>{MARK}</p><img src=\"data:image/png;base64,{image}\" width=\"40\" height=\"30\"/>");
    let odt = pool.convert(page.as_bytes(), Format::Html, Format::Odt).await.unwrap();
    let html = pool.convert(&odt.files[0], Format::Odt, Format::Html).await.unwrap();
    let html = String::from_utf8_lossy(&html.files[0]);
    assert!(html.contains(MARK) && html.contains("src=\"data:image/"), "{html}");
    pool.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_conversion_is_reported_and_does_not_affect_others() {
    let pool = TestPool::with_libreoffice(|config| config.largest_input = 100_000).await;
    let code = |result: Result<_, pipeline::documents::ConvertError>| result.map(drop).unwrap_err().code();
    let letter = samples::letter(MARK);
    assert_eq!(code(pool.convert(&letter, Format::Docx, Format::Xlsx).await), "unsupported_conversion");
    assert_eq!(code(pool.convert(&letter, Format::Pdf, Format::Docx).await), "unsupported_conversion");
    assert_eq!(code(pool.convert(&vec![b' '; 100_001], Format::Txt, Format::Pdf).await), "document_too_large");
    let cut = &letter[..letter.len() / 2];
    assert_eq!(code(pool.convert(cut, Format::Docx, Format::Pdf).await), "document_unreadable");
    assert_eq!(code(pool.convert(b"a,\"b\n", Format::Csv, Format::Docx).await), "unsupported_conversion");
    assert!(pool.convert(&letter, Format::Docx, Format::Pdf).await.is_ok());
    assert!(pool.pool.metrics().restarts.is_empty());
    pool.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_with_comments_is_converted() {
    let pool = TestPool::with_libreoffice(|_| {}).await;
    let input = samples::commented(MARK);
    let pdf = pool.convert(&input, Format::Odt, Format::Pdf).await.unwrap();
    assert_eq!(text(&pdf.files[0]), MARK, "the comment is not in the PDF");
    let docx = pool.convert(&input, Format::Odt, Format::Docx).await.unwrap();
    let pdf = pool.convert(&docx.files[0], Format::Docx, Format::Pdf).await.unwrap();
    assert_eq!(text(&pdf.files[0]), MARK);
    pool.close().await;
}
