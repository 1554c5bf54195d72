//! Every format that is read, as every format that is written.

use base64::Engine as _;
use pipeline::documents::{Family, Format};

use crate::samples;
use crate::world::{World, text};

const MARK: &str = "Quark77";

/// Every target of one sample; what was written is read again and must still hold the mark.
async fn every_target(world: &World, from: Format, input: &[u8]) {
    for to in Format::ALL.into_iter().filter(|to| from.becomes(*to)) {
        let got = world.convert(input, from, to).await.unwrap_or_else(|error| panic!("{from} to {to}: {error}"));
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
                let again = world.convert(&got.files[0], to, Format::Pdf).await;
                let again = again.unwrap_or_else(|error| panic!("{from} to {to} and back: {error}"));
                assert!(text(&again.files[0]).contains(MARK), "{from} to {to} lost the text");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_format_becomes_every_other_of_its_family_and_pages() {
    let world = World::office(|config| config.recycle.jobs = 1000).await;
    for (from, input) in samples::written(MARK) {
        every_target(&world, from, &input).await;
    }
    let xlsx = world.convert(&samples::ods(MARK), Format::Ods, Format::Xlsx).await.unwrap();
    every_target(&world, Format::Xlsx, &xlsx.files[0]).await;
    let pptx = world.convert(&samples::odp(&[MARK]), Format::Odp, Format::Pptx).await.unwrap();
    every_target(&world, Format::Pptx, &pptx.files[0]).await;
    let figures = world.pool.figures();
    assert_eq!((figures.retried, figures.restarts.len()), (0, 0), "{figures:?}");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_beyond_ascii_survive_text_and_tables() {
    let world = World::office(|_| {}).await;
    for (from, input) in [(Format::Txt, "Grüße, 5 €"), (Format::Csv, "Grüße;5 €\n1;2\n")] {
        let pdf = world.convert(input.as_bytes(), from, Format::Pdf).await.unwrap();
        let text = text(&pdf.files[0]);
        assert!(text.contains("Grüße") && text.contains("5€"), "{from}: {text}");
    }
    let csv = world.convert("Grüße;5 €\n1;2\n".as_bytes(), Format::Csv, Format::Csv).await.unwrap();
    assert_eq!(std::str::from_utf8(&csv.files[0]).unwrap().trim_end(), "Grüße,5 €\n1,2");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures_are_inside_of_html() {
    let world = World::office(|_| {}).await;
    let mut png = std::io::Cursor::new(Vec::new());
    image::GrayImage::new(40, 30).write_to(&mut png, image::ImageFormat::Png).unwrap();
    let picture = base64::engine::general_purpose::STANDARD.encode(png.into_inner());
    let page = format!("<p>{MARK}</p><img src=\"data:image/png;base64,{picture}\" width=\"40\" height=\"30\"/>");
    let odt = world.convert(page.as_bytes(), Format::Html, Format::Odt).await.unwrap();
    let html = world.convert(&odt.files[0], Format::Odt, Format::Html).await.unwrap();
    let html = String::from_utf8_lossy(&html.files[0]);
    assert!(html.contains(MARK) && html.contains("src=\"data:image/"), "{html}");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_converted_says_so_and_harms_nobody() {
    let world = World::office(|config| config.largest_input = 100_000).await;
    let code = |result: Result<_, pipeline::documents::ConvertError>| result.map(drop).unwrap_err().code();
    let letter = samples::letter(MARK);
    assert_eq!(code(world.convert(&letter, Format::Docx, Format::Xlsx).await), "unsupported_conversion");
    assert_eq!(code(world.convert(&letter, Format::Pdf, Format::Docx).await), "unsupported_conversion");
    assert_eq!(code(world.convert(&vec![b' '; 100_001], Format::Txt, Format::Pdf).await), "document_too_large");
    let cut = &letter[..letter.len() / 2];
    assert_eq!(code(world.convert(cut, Format::Docx, Format::Pdf).await), "document_unreadable");
    assert_eq!(code(world.convert(b"a,\"b\n", Format::Csv, Format::Docx).await), "unsupported_conversion");
    assert!(world.convert(&letter, Format::Docx, Format::Pdf).await.is_ok());
    assert!(world.pool.figures().restarts.is_empty());
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_with_comments_is_converted() {
    let world = World::office(|_| {}).await;
    let input = samples::commented(MARK);
    let pdf = world.convert(&input, Format::Odt, Format::Pdf).await.unwrap();
    assert_eq!(text(&pdf.files[0]), MARK, "and the comment is not in the print");
    let docx = world.convert(&input, Format::Odt, Format::Docx).await.unwrap();
    let pdf = world.convert(&docx.files[0], Format::Docx, Format::Pdf).await.unwrap();
    assert_eq!(text(&pdf.files[0]), MARK);
    world.close().await;
}
