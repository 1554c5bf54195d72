//! The API of Gotenberg: `/forms/libreoffice/convert` answers its form fields and uses its error messages.

use reqwest::Response;
use reqwest::multipart::{Form, Part};

use super::fixtures::{body_of, docx, gendoc, names, problem_of, read_pdf};
use crate::caudal::Caudal;

fn file(name: &str, bytes: impl Into<Vec<u8>>) -> Part {
    Part::bytes(bytes.into()).file_name(name.to_owned())
}

async fn convert(caudal: &Caudal, form: Form) -> Response {
    caudal.client.post(caudal.url("/forms/libreoffice/convert")).multipart(form).send().await.unwrap()
}

#[tokio::test]
async fn one_document_gives_a_pdf_and_several_give_a_zip_or_a_merged_pdf() {
    let caudal = gendoc(&[]).await;
    // The names of the form parts do not matter.
    let one = Form::new().part("anything", file("a.docx", docx(&["first"])));
    let (pages, text) = read_pdf(&body_of(convert(&caudal, one).await, "application/pdf").await);
    assert_eq!((pages, text.trim()), (1, "first"));
    let two = || {
        let first = file("9.docx", docx(&["first"]));
        Form::new().part("files", file("10.csv", "kind,count\nsecond,2\n")).part("files", first)
    };
    let archive = body_of(convert(&caudal, two()).await, "application/zip").await;
    assert_eq!(names(&archive), ["9.pdf", "10.pdf"], "sorted by the numbers in the names, not by arrival");
    let merged = body_of(convert(&caudal, two().text("merge", "true")).await, "application/pdf").await;
    let (pages, text) = read_pdf(&merged);
    assert_eq!(pages, 2);
    assert!(text.find("first").unwrap() < text.find("second").unwrap(), "{text}");
    let archival = two().text("merge", "true").text("pdfa", "PDF/A-2b").text("exportBookmarks", "true");
    let merged = body_of(convert(&caudal, archival).await, "application/pdf").await;
    assert!(String::from_utf8_lossy(&merged).contains("/OutputIntents"));
}

#[tokio::test]
async fn pdfs_can_be_split_encrypted_and_given_metadata() {
    let caudal = gendoc(&[]).await;
    let three = || {
        let file = |name: &str, word| file(name, docx(&[word]));
        let files = [("a.docx", "first"), ("b.docx", "second"), ("c.docx", "third")];
        files
            .into_iter()
            .fold(Form::new(), |form, (name, word)| form.part("files", file(name, word)))
            .text("merge", "true")
    };
    let halves = three().text("splitMode", "intervals").text("splitSpan", "2");
    let archive = body_of(convert(&caudal, halves).await, "application/zip").await;
    assert_eq!(names(&archive), ["a_0.pdf", "a_1.pdf"]);
    let ends = three().text("splitMode", "pages").text("splitSpan", "3,1").text("splitUnify", "true");
    let (pages, text) = read_pdf(&body_of(convert(&caudal, ends).await, "application/pdf").await);
    assert_eq!(pages, 2);
    assert!(text.find("third").unwrap() < text.find("first").unwrap() && !text.contains("second"), "{text}");
    let locked = three().text("userPassword", "open").text("metadata", r#"{"Title": "All three"}"#);
    let locked = body_of(convert(&caudal, locked).await, "application/pdf").await;
    assert!(!locked.windows(9).any(|part| part == b"All three"));
    let open = |password| lopdf::Document::load_mem_with_options(&locked, lopdf::LoadOptions::with_password(password));
    assert!(open("wrong").is_err());
    let document = open("open").unwrap();
    let info = document.trailer.get(b"Info").unwrap().as_reference().unwrap();
    assert_eq!(document.get_dictionary(info).unwrap().get(b"Title").unwrap().as_str().unwrap(), b"All three");
}

/// Documents too large for a message are stored as claims, and one request never fills the whole queue.
#[tokio::test]
async fn one_request_can_have_large_documents_and_more_than_the_queue_holds() {
    let caudal = gendoc(&["--set", "office.workers=1", "--set", "office.queue=2"]).await;
    let large = |word: &str| format!("<p>{word}</p><!-- {} -->", "x".repeat(200 << 10));
    let form = (0..8).fold(Form::new().text("merge", "true"), |form, number| {
        form.part("files", file(&format!("{number}.html"), large(&format!("word{number}"))))
    });
    let (pages, text) = read_pdf(&body_of(convert(&caudal, form).await, "application/pdf").await);
    assert_eq!(pages, 8);
    let positions: Vec<_> = (0..8).map(|number| text.find(&format!("word{number}")).unwrap()).collect();
    assert!(positions.is_sorted(), "{text}");
}

#[tokio::test]
async fn export_options_reach_libreoffice() {
    let caudal = gendoc(&[]).await;
    let form =
        Form::new().part("f", file("a.docx", docx(&["x"]))).text("hideViewerMenubar", "true").text("zoom", "100");
    let made = body_of(convert(&caudal, form).await, "application/pdf").await;
    assert!(made.windows(17).any(|part| part == b"/HideMenubar true"));
}

#[tokio::test]
async fn errors_use_gotenbergs_messages() {
    let caudal = gendoc(&[]).await;
    let document = || file("a.docx", docx(&["x"]));
    for (form, words) in [
        (Form::new().text("merge", "true"), "Invalid form data: no form file found for extensions: [.docx"),
        (Form::new().part("f", document()).text("quality", "x"), "Invalid form data: form field 'quality' is invalid"),
        (
            Form::new().part("f", document()).text("splitMode", "pages"),
            "Invalid form data: form field 'splitSpan' is required",
        ),
    ] {
        let (wrong, detail) = problem_of(convert(&caudal, form).await, 400).await;
        assert_eq!(wrong, "invalid_form");
        assert!(detail.starts_with(words), "{detail}");
    }
    let image = Form::new().part("f", file("a.docx", b"\x89PNG\r\n\x1a\n and more".to_vec()));
    let (wrong, detail) = problem_of(convert(&caudal, image).await, 415).await;
    assert_eq!(wrong, "document_type");
    assert!(detail.contains("a.docx") && detail.contains("type image"), "{detail}");
}
