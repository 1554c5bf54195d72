//! Forms as clients write them, in chunks of every size.

use futures_util::stream;

use super::*;

type Parts = Vec<(PartHead, Vec<u8>)>;

async fn read_in(chunk: usize, media_type: &str, form: &[u8]) -> Result<Parts, Problem> {
    let chunks: Vec<_> = form.chunks(chunk).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
    let mut reader = PartReader::open(media_type, stream::iter(chunks))?;
    let mut parts = Vec::new();
    while let Some(head) = reader.next_part().await? {
        let mut bytes = Vec::new();
        while let Some(chunk) = reader.chunk().await? {
            assert!(!chunk.is_empty());
            bytes.extend_from_slice(&chunk);
        }
        parts.push((head, bytes));
    }
    Ok(parts)
}

/// Reads a form in chunks of several sizes, which must not matter.
async fn read(form: impl AsRef<[u8]>) -> Result<Parts, String> {
    let form = form.as_ref();
    let whole = read_in(form.len().max(1), "multipart/form-data; boundary=B", form).await;
    let whole = whole.map_err(|problem| problem.to_string());
    for chunk in [1, 2, 3, 7] {
        let pieces = read_in(chunk, "multipart/form-data; boundary=B", form).await;
        assert_eq!(pieces.map_err(|problem| problem.to_string()), whole, "in chunks of {chunk}");
    }
    whole
}

const FILE: &str = "Content-Disposition: form-data; name=\"file\"; filename=\"a.jpg\"\r\nContent-Type: image/jpeg";

fn one(body: &str) -> String {
    format!("--B\r\n{FILE}\r\n\r\n{body}\r\n--B--\r\n")
}

fn bodies(parts: &Parts) -> Vec<&str> {
    parts.iter().map(|(_, bytes)| std::str::from_utf8(bytes).unwrap()).collect()
}

#[tokio::test]
async fn parts_are_read_with_their_headers_and_bytes() {
    let parts = read(one("pixels")).await.unwrap();
    let head = PartHead {
        name: "file".into(),
        file_name: Some("a.jpg".into()),
        media_type: "image/jpeg".into(),
        encoding: None,
    };
    assert_eq!(parts, [(head, b"pixels".to_vec())]);
}

#[tokio::test]
async fn what_stands_around_the_parts_is_skipped() {
    for form in [
        format!("\r\n{}", one("x")),
        format!("This is a multi-part message in MIME format.\r\n{}", one("x")),
        format!("\n{}", one("x")),
        format!("{}bye\r\n--B\r\n", one("x")),
        one("x").trim_end().to_owned(),
        one("x").replacen("--B\r\n", "--B \t\r\n", 1),
    ] {
        assert_eq!(bodies(&read(&form).await.unwrap()), ["x"], "{form}");
    }
}

#[tokio::test]
async fn data_may_look_like_the_beginning_of_a_boundary() {
    for body in ["\r\n--", "a\r\n--\r\n--A\r\n-B", "\r\n\r\n", "\r\n", "x--B--\r"] {
        assert_eq!(bodies(&read(one(body)).await.unwrap()), [body]);
    }
}

#[tokio::test]
async fn an_empty_part_may_share_its_empty_line_with_the_boundary() {
    let parts = read(format!("--B\r\n{FILE}\r\n\r\n--B\r\n{FILE}\r\n\r\n\r\n--B\r\n\r\nbare\r\n--B--")).await.unwrap();
    assert_eq!(bodies(&parts), ["", "", "bare"]);
    assert_eq!((&*parts[2].0.name, &parts[2].0.file_name), ("", &None));
}

/// As JavaMail and Python's email package write long headers.
#[tokio::test]
async fn headers_may_be_folded() {
    let folded = one("x").replace("; filename", ";\r\n\tfilename").replace("form-data; ", "form-data;\r\n ");
    let parts = read(folded).await.unwrap();
    assert_eq!((&*parts[0].0.name, parts[0].0.file_name.as_deref()), ("file", Some("a.jpg")));
}

#[tokio::test]
async fn a_type_that_cannot_be_read_is_any_bytes() {
    for (given, kind) in
        [("image", "application/octet-stream"), ("", "application/octet-stream"), ("image/*", "image/*")]
    {
        let parts = read(one("x").replace("image/jpeg", given)).await.unwrap();
        assert_eq!(parts[0].0.media_type, kind);
    }
}

#[tokio::test]
async fn only_an_encoding_that_changes_the_bytes_is_named() {
    for (given, encoding) in [("binary", None), ("8BIT", None), ("Base64", Some("base64")), ("zip", Some("zip"))] {
        let form =
            one("x").replace("\r\nContent-Type", &format!("\r\nContent-Transfer-Encoding: {given}\r\nContent-Type"));
        assert_eq!(read(form).await.unwrap()[0].0.encoding.as_deref(), encoding);
    }
}

#[tokio::test]
async fn a_malformed_form_is_refused_with_its_reason() {
    let long = "x".repeat(MAX_HEADER_BYTES);
    for (form, reason) in [
        ("".to_owned(), "ends before"),
        ("no form at all".to_owned(), "ends before"),
        (format!("{}{}", "p".repeat(MAX_PREAMBLE_BYTES + 70_000), one("x")), "no boundary within"),
        (format!("--B\r\n{FILE}\r\n\r\npixels"), "ends before"),
        (format!("--B\r\n{FILE}\r\n\r\npixels\r\n--B\r\n"), "ends before"),
        (format!("--B\r\n{FILE}"), "ends before"),
        (one("x").replacen("--B\r\n", "--Bad\r\n", 1), "goes on behind"),
        (one("x").replace("a.jpg", &long), "more than 4096 bytes"),
        (one("x").replace("Content-Type: ", "Content-Type "), "headers that are no"),
        (one("x").replace("a.jpg", "a\0b"), "headers that are no"),
        (one("x").replace("name=\"file\"", "name=a; name=b"), "two parameters name"),
        (one("x").replace("\r\n", "\n"), "goes on behind"),
        (one("x").replace("\r\n--B--", "\n--B--"), "ends before"),
    ] {
        let problem = read(&form).await.unwrap_err();
        assert!(problem.contains("malformed_multipart") && problem.contains(reason), "{reason}: {problem}");
    }
}

#[tokio::test]
async fn a_content_type_names_one_boundary() {
    for (kind, reason) in [
        ("multipart/form-data", "no boundary"),
        ("multipart/form-data; boundary=", "no boundary"),
        ("multipart/form-data; boundary=other; boundary=B", "two boundaries"),
    ] {
        let problem = read_in(9, kind, one("x").as_bytes()).await.unwrap_err().to_string();
        assert!(problem.contains(reason), "{problem}");
    }
    for kind in ["multipart/form-data ;  boundary=B", "Multipart/Form-Data; Boundary=\"B\"; charset=utf-8;"] {
        assert_eq!(bodies(&read_in(9, kind, one("x").as_bytes()).await.unwrap()), ["x"]);
    }
}
