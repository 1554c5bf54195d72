//! The form that Gotenberg's clients send.

use reqwest::Response;
use reqwest::multipart::{Form, Part};

use super::docx::{code, docx, gendoc, good, names, read_pdf};
use crate::caudal::Caudal;

fn file(name: &str, bytes: impl Into<Vec<u8>>) -> Part {
    Part::bytes(bytes.into()).file_name(name.to_owned())
}

async fn convert(caudal: &Caudal, form: Form) -> Response {
    caudal.client.post(caudal.url("/forms/libreoffice/convert")).multipart(form).send().await.unwrap()
}

#[tokio::test]
async fn one_document_is_a_pdf_and_several_are_an_archive_or_merged() {
    let caudal = gendoc(&[]).await;
    // Whatever the parts are called.
    let one = Form::new().part("anything", file("a.docx", docx(&["first"])));
    let (pages, text) = read_pdf(&good(convert(&caudal, one).await, "application/pdf").await);
    assert_eq!((pages, text.trim()), (1, "first"));
    let two = || {
        let first = file("9.docx", docx(&["first"]));
        Form::new().part("files", file("10.csv", "kind,count\nsecond,2\n")).part("files", first)
    };
    let archive = good(convert(&caudal, two()).await, "application/zip").await;
    assert_eq!(names(&archive), ["9.pdf", "10.pdf"], "by the numbers in the names, however they came");
    let merged = good(convert(&caudal, two().text("merge", "true")).await, "application/pdf").await;
    let (pages, text) = read_pdf(&merged);
    assert_eq!(pages, 2);
    assert!(text.find("first").unwrap() < text.find("second").unwrap(), "{text}");
    let archival = two().text("merge", "true").text("pdfa", "PDF/A-2b").text("exportBookmarks", "true");
    let merged = good(convert(&caudal, archival).await, "application/pdf").await;
    assert!(String::from_utf8_lossy(&merged).contains("/OutputIntents"));
}

#[tokio::test]
async fn pdfs_are_split_described_and_locked() {
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
    let archive = good(convert(&caudal, halves).await, "application/zip").await;
    assert_eq!(names(&archive), ["a_0.pdf", "a_1.pdf"]);
    let ends = three().text("splitMode", "pages").text("splitSpan", "3,1").text("splitUnify", "true");
    let (pages, text) = read_pdf(&good(convert(&caudal, ends).await, "application/pdf").await);
    assert_eq!(pages, 2);
    assert!(text.find("third").unwrap() < text.find("first").unwrap() && !text.contains("second"), "{text}");
    let locked = three().text("userPassword", "open").text("metadata", r#"{"Title": "All three"}"#);
    let locked = good(convert(&caudal, locked).await, "application/pdf").await;
    assert!(!locked.windows(9).any(|part| part == b"All three"));
    let open = |password| lopdf::Document::load_mem_with_options(&locked, lopdf::LoadOptions::with_password(password));
    assert!(open("wrong").is_err());
    let document = open("open").unwrap();
    let info = document.trailer.get(b"Info").unwrap().as_reference().unwrap();
    assert_eq!(document.get_dictionary(info).unwrap().get(b"Title").unwrap().as_str().unwrap(), b"All three");
}

/// What is too large for an event waits in the store, and one request never takes all places.
#[tokio::test]
async fn large_documents_and_many_are_taken() {
    let caudal = gendoc(&["--set", "office.workers=1", "--set", "office.queue=2"]).await;
    let large = |word: &str| format!("<p>{word}</p><!-- {} -->", "x".repeat(200 << 10));
    let form = (0..8).fold(Form::new().text("merge", "true"), |form, number| {
        form.part("files", file(&format!("{number}.html"), large(&format!("word{number}"))))
    });
    let (pages, text) = read_pdf(&good(convert(&caudal, form).await, "application/pdf").await);
    assert_eq!(pages, 8);
    let places: Vec<_> = (0..8).map(|number| text.find(&format!("word{number}")).unwrap()).collect();
    assert!(places.is_sorted(), "{text}");
}

#[tokio::test]
async fn settings_of_the_export_reach_the_engine() {
    let caudal = gendoc(&[]).await;
    let form =
        Form::new().part("f", file("a.docx", docx(&["x"]))).text("hideViewerMenubar", "true").text("zoom", "100");
    let made = good(convert(&caudal, form).await, "application/pdf").await;
    assert!(made.windows(17).any(|part| part == b"/HideMenubar true"));
}

#[tokio::test]
async fn what_is_wrong_is_said_in_gotenbergs_words() {
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
        let (wrong, detail) = code(convert(&caudal, form).await, 400).await;
        assert_eq!(wrong, "invalid_form");
        assert!(detail.starts_with(words), "{detail}");
    }
    let picture = Form::new().part("f", file("a.docx", b"\x89PNG\r\n\x1a\n and more".to_vec()));
    let (wrong, detail) = code(convert(&caudal, picture).await, 415).await;
    assert_eq!(wrong, "document_type");
    assert!(detail.contains("a.docx") && detail.contains("picture"), "{detail}");
}
