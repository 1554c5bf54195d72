//! Hostile documents are rejected: external references, wrong types, active content, ZIP bombs, unsafe packages, XML
//! that is slow to lay out, document type definitions. Every input is built here.

use crate::documents::office::test_documents::{Parts, content_types, document, docx, odf, ooxml, png, rels, zeros};
use crate::documents::office::{Budget, Kind, Limits, Package, ScannedDocument, Writer, scan, sniff};
use pipeline::Rejection;
use pipeline::spec::ByteSize;
use rand::{Rng, SeedableRng, rngs::StdRng};

const ALL: &[Kind] = &[Kind::Docx, Kind::Xlsx, Kind::Pptx, Kind::Odt, Kind::Ods, Kind::Odp];
const PARAGRAPH: &str = "<w:p><w:r><w:t>Dear reader</w:t></w:r></w:p>";

fn scanned(parts: &Parts) -> Result<ScannedDocument, Rejection> {
    scan(&parts.zip().into(), ALL, &Limits::default())
}

/// The code of the rejection, which must have status 422.
fn code(parts: &Parts) -> String {
    refusal(&parts.zip(), ALL, 422)
}

fn refusal(bytes: &[u8], accepted: &[Kind], status: u16) -> String {
    let why = scan(&bytes.to_vec().into(), accepted, &Limits::default()).unwrap_err();
    assert_eq!(why.status, status, "{why}");
    assert!(why.detail.len() < 600, "{why}");
    why.code.into_owned()
}

fn related(kind: &str, target: &str, external: bool) -> Parts {
    docx(PARAGRAPH).with("word/_rels/document.xml.rels", rels(&[("rId1", kind, target, external)]))
}

#[test]
fn whole_documents_pass() {
    let plain = docx(PARAGRAPH);
    assert_eq!(scanned(&plain).unwrap().kind, Kind::Docx);
    for target in ["https://example.org/a?b=1&c=2", "mailto:a@example.org", "file:///srv/a.docx", "#top"] {
        assert!(scanned(&related("hyperlink", target, true)).is_ok(), "{target}");
    }
    let page = "<w:p><w:r><w:fldChar w:fldCharType='begin'/></w:r><w:r><w:instrText> PAGE </w:instrText></w:r>\
                <w:r><w:fldChar w:fldCharType='end'/></w:r></w:p>";
    assert!(scanned(&docx(page)).is_ok());
    assert_eq!(
        scanned(&odf("text", "<text:p>a <text:a xlink:href='https://a.b/'>b</text:a></text:p>")).unwrap().kind,
        Kind::Odt
    );
    let chart = docx(PARAGRAPH)
        .with("word/charts/chart1.xml", "<c:chartSpace xmlns:c='c'/>")
        .with("word/charts/_rels/chart1.xml.rels", rels(&[("rId1", "package", "../embeddings/data.xlsx", false)]))
        .with("word/embeddings/data.xlsx", docx("").zip());
    assert!(scanned(&chart).is_ok(), "the data of a chart are allowed");
}

#[test]
fn external_references_other_than_hyperlinks_are_rejected() {
    let targets = [
        "http://169.254.169.254/latest/meta-data/",
        "http://127.0.0.1:1/",
        "http://[::ffff:127.0.0.1]/a.png",
        r"\\host\share\a.png",
        "ftp://a/b",
        "smb://a/b",
        "file:///etc/passwd",
        "../outside.png",
    ];
    for target in targets {
        assert_eq!(code(&related("image", target, true)), "external_content", "{target}");
    }
    for target in ["http://a/b.png", r"\\host\share\a.png", "//host/a.png", "file:///etc/passwd", "C:\\a.png"] {
        // A relationship that does not declare that it is external.
        assert_eq!(code(&related("image", target, false)), "external_content", "{target}");
    }
    for target in
        ["javascript:alert(1)", " java\nscript:alert(1)", "vnd.sun.star.script:a?language=Basic", "data:text/html,a"]
    {
        assert_eq!(code(&related("hyperlink", target, true)), "unsafe_link", "{target}");
    }
    let vml = "<w:p><w:r><w:pict><v:shape><v:imagedata src='http://a/b.png'/></v:shape></w:pict></w:r></w:p>";
    assert_eq!(code(&docx(vml)), "external_content");
    for link in ["<draw:image xlink:href='http://a/b.png'/>", "<text:section-source xlink:href='../a.odt'/>"] {
        assert_eq!(code(&odf("text", link)), "external_content", "{link}");
    }
    assert_eq!(code(&odf("text", "<text:a xlink:href='vnd.sun.star.script:a'/>")), "unsafe_link");
}

#[test]
fn a_file_is_what_its_content_says() {
    let compound = |name: &str| {
        let mut bytes = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1".to_vec();
        bytes.resize(512, 0);
        bytes.extend(name.encode_utf16().flat_map(u16::to_le_bytes));
        bytes
    };
    const MACROS: &str = "application/vnd.ms-word.document.macroEnabled.main+xml";
    let sheet = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml";
    let cases: Vec<(Vec<u8>, Kind, &str)> = vec![
        (b"<!DOCTYPE html><html><img src=http://a/>".to_vec(), Kind::Html, "document_type"),
        (b"\n<html>".to_vec(), Kind::Html, "document_type"),
        (b"{\\rtf1 a}".to_vec(), Kind::Rtf, "document_type"),
        (b"a;b;c\n1;\"2;2\";3\n".to_vec(), Kind::Csv, "document_type"),
        (b"Dear reader,\nall is well.\n".to_vec(), Kind::Txt, "document_type"),
        (b"%PDF-1.7\n".to_vec(), Kind::Pdf, "document_type"),
        (compound("EncryptedPackage"), Kind::EncryptedOoxml, "document_encrypted"),
        (compound("WordDocument"), Kind::LegacyOffice, "document_type"),
        (b"\x89PNG\r\n\x1a\n".to_vec(), Kind::Picture, "document_type"),
        (b"<?xml version='1.0'?><office:document/>".to_vec(), Kind::Xml, "document_type"),
        (Vec::new(), Kind::Unknown, "document_type"),
        (odf("text", "").zip(), Kind::Odt, "document_type"),
        (odf("base", "").zip(), Kind::OtherOdf, "document_type"),
        (ooxml("xl/workbook.xml", sheet, "<workbook/>").zip(), Kind::Xlsx, "document_type"),
        (ooxml("word/document.xml", MACROS, &document("")).zip(), Kind::MacroDocument, "document_macros"),
        (Parts::default().with("a.txt", "a").zip(), Kind::Archive, "document_type"),
    ];
    for (bytes, kind, expected) in cases {
        assert_eq!(sniff(&bytes.clone().into(), &Limits::default()), Ok(kind));
        assert_eq!(refusal(&bytes, &[Kind::Docx], 415), expected, "{kind}");
    }
    let two = odf("text", "").with("[Content_Types].xml", content_types(&[]));
    assert_eq!(refusal(&two.zip(), ALL, 415), "document_ambiguous");
    let two = docx("").with("mimetype", "application/vnd.oasis.opendocument.text");
    assert_eq!(refusal(&two.zip(), ALL, 415), "document_ambiguous");
}

#[test]
fn active_content_is_rejected() {
    let instr = |code: &str| format!("<w:p><w:r><w:instrText>{code}</w:instrText></w:r></w:p>");
    let split = "<w:p><w:r><w:fldChar w:fldCharType='begin'/></w:r><w:r><w:instrText> INCLUDE</w:instrText></w:r>\
                 <w:r><w:instrText>PICTURE \"http://a/\"</w:instrText></w:r><w:r><w:fldChar w:fldCharType='end'/></w:r></w:p>";
    let open = "<w:p><w:r><w:fldChar w:fldCharType='begin'/></w:r><w:r><w:instrText>DDE</w:instrText></w:r>\
                <w:r><w:instrText>AUTO c</w:instrText></w:r></w:p>";
    let cases: Vec<(Parts, &str)> = vec![
        (docx("").with("word/vbaProject.bin", "x"), "document_macros"),
        (related("vbaProject", "vbaProject.bin", false), "document_macros"),
        (
            docx("").with(
                "[Content_Types].xml",
                content_types(&[
                    (
                        "word/document.xml",
                        "application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml",
                    ),
                    ("word/x.bin", "application/vnd.ms-office.vbaProject"),
                ]),
            ),
            "document_macros",
        ),
        (related("oleObject", "embeddings/a.bin", false), "embedded_object"),
        (docx("<w:p><w:r><w:object><o:OLEObject/></w:object></w:r></w:p>"), "embedded_object"),
        (docx("").with("word/embeddings/a.bin", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1".to_vec()), "embedded_object"),
        (related("aFChunk", "a.html", false), "external_content"),
        (docx("<w:altChunk r:id='rId1'/>"), "external_content"),
        (
            docx("")
                .with("word/_rels/settings.xml.rels", rels(&[("rId1", "attachedTemplate", "file:///C:/a.dotm", true)])),
            "external_content",
        ),
        (related("subDocument", "a.docx", true), "external_content"),
        (docx("<w:p><w:subDoc r:id='rId1'/></w:p>"), "external_content"),
        (related("frame", "a.htm", true), "external_content"),
        (docx(&instr(" DDE cmd /c")), "external_content"),
        (docx(&instr("ddeauto a b")), "external_content"),
        (docx(&instr(r#"INCLUDETEXT "file:///etc/passwd""#)), "external_content"),
        (docx("<w:p><w:fldSimple w:instr=' INCLUDEPICTURE &quot;http://a/&quot; '/></w:p>"), "external_content"),
        (docx(split), "external_content"),
        (docx(open), "external_content"),
        (
            docx("<w:p><x:altChunk xmlns:x='http://schemas.openxmlformats.org/wordprocessingml/2006/main'/></w:p>"),
            "external_content",
        ),
        (docx("").with("word/activeX/activeX1.xml", "<a/>"), "embedded_object"),
        (odf("text", "").with("Basic/Standard/Module1.xml", "<a/>"), "document_macros"),
        (odf("text", "<script:event-listener/>"), "document_macros"),
        (odf("text", "<draw:object-ole xlink:href='./Object 1'/>"), "embedded_object"),
        (odf("text", "<text:dde-connection-decl/>"), "external_content"),
        (
            odf("text", "").with("META-INF/manifest.xml", "<m:manifest xmlns:m='m'><m:encryption-data/></m:manifest>"),
            "document_encrypted",
        ),
    ];
    for (parts, expected) in cases {
        assert_eq!(code(&parts), expected, "{:?}", parts.0.last().map(|(name, _)| name));
    }
}

#[test]
fn a_part_beyond_the_inflation_ratio_is_a_bomb() {
    let image = |length: usize| docx("").with("word/media/image1.png", zeros(length));
    assert_eq!(code(&image(2 << 20)), "package_bomb", "beyond the ratio");
    assert!(scanned(&image(1 << 20)).is_ok(), "short enough to be repetitive");
}

#[test]
fn parts_and_packages_have_size_limits() {
    let mut noise = vec![0; 5 << 20];
    StdRng::seed_from_u64(5).fill(&mut noise[..]);
    let limits = Limits { part: ByteSize::mib(4), total: ByteSize::mib(12), ..Limits::default() };
    let limited = |parts: &Parts| scan(&parts.zip().into(), ALL, &limits).unwrap_err();
    assert_eq!(&*limited(&docx("").with("word/media/image1.png", noise.clone())).code, "part_too_large");
    let four = (0..4).fold(docx(""), |parts, n| parts.with(&format!("word/media/image{n}.png"), &noise[..7 << 19]));
    assert_eq!(&*limited(&four).code, "package_too_large");
    assert_eq!(refusal(&vec![0; (32 << 20) + 1], ALL, 413), "file_too_large");
}

#[test]
fn the_number_of_parts_is_limited() {
    let many = (0..2_001).fold(docx(""), |mut parts, n| {
        parts.0.push((format!("a{n}.txt"), Vec::new()));
        parts
    });
    assert_eq!(code(&many), "too_many_parts");
}

#[test]
fn a_package_inside_the_package_is_rejected() {
    assert_eq!(code(&docx("").with("word/a.docx", docx("").zip())), "embedded_package");
}

#[test]
fn a_directory_that_differs_from_the_headers_is_rejected() {
    let (whole, directory) = package_and_directory();
    let with = |at: usize, bytes: &[u8]| {
        let mut changed = whole.clone();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        refusal(&changed, ALL, 422)
    };
    assert_eq!(with(directory + 24, &[9, 0, 0, 0]), "package_corrupt", "another size than the header's");
    assert_eq!(with(directory + 42, &[1]), "package_corrupt", "another header");
    assert_eq!(with(directory + 8, &[1, 0]), "package_encrypted");
    assert_eq!(with(directory + 10, &[9, 0]), "package_unsafe", "another method");
    assert_eq!(with(directory + 20, &[255; 4]), "package_unsafe", "zip64");
}

/// A valid package, and the offset of its directory.
fn package_and_directory() -> (Vec<u8>, usize) {
    let whole = docx(PARAGRAPH).zip();
    let end = whole.len() - 22;
    let directory = u32::from_le_bytes(whole[end + 16..end + 20].try_into().unwrap()) as usize;
    (whole, directory)
}

#[test]
fn a_symbolic_link_is_rejected() {
    let (whole, directory) = package_and_directory();
    let mut link = whole.clone();
    link[directory + 5] = 3;
    link[directory + 38..directory + 42].copy_from_slice(&(0o120_777_u32 << 16).to_le_bytes());
    assert_eq!(refusal(&link, ALL, 422), "package_unsafe");
}

#[test]
fn data_after_the_end_record_is_rejected() {
    let (whole, _) = package_and_directory();
    assert_eq!(refusal(&[&whole[..], b"x"].concat(), ALL, 422), "package_corrupt");
}

#[test]
fn overlapping_entries_are_rejected() {
    assert_eq!(refusal(&overlapping(), ALL, 422), "package_unsafe");
}

#[test]
fn two_parts_of_one_name_are_rejected() {
    let twice = Parts(vec![("word/a.xml".into(), b"<a/>".to_vec()), ("WORD/A.xml".into(), b"<b/>".to_vec())]);
    assert_eq!(refusal(&twice.zip(), ALL, 422), "package_unsafe");
}

#[test]
fn a_part_of_another_length_than_both_headers_declare_is_rejected() {
    let (whole, directory) = package_and_directory();
    let mut both = whole.clone();
    both[22..26].copy_from_slice(&[9, 0, 0, 0]);
    both[directory + 24..directory + 28].copy_from_slice(&[9, 0, 0, 0]);
    assert_eq!(refusal(&both, ALL, 422), "package_corrupt");
}

/// A package of two entries whose data overlap.
fn overlapping() -> Vec<u8> {
    let whole = Parts::default().with("a", "aa").with("b", "bb").zip();
    let end = whole.len() - 22;
    let directory = u32::from_le_bytes(whole[end + 16..end + 20].try_into().unwrap()) as usize;
    // Both records of the first entry are changed so that its data overlaps the header of the second.
    let second = 30 + 1 + 2;
    let reach = (second + 2) as u8;
    let mut changed = whole.clone();
    for at in [18, 22, directory + 20, directory + 24] {
        changed[at] = reach;
    }
    changed
}

#[test]
fn names_stay_within_the_package() {
    for name in ["../a", "word/../../a", "/etc/passwd", "a\\b", "C:a", "a//b", "./a", "a\nb", ""] {
        let mut parts = docx("");
        parts.0.push((name.into(), b"<a/>".to_vec()));
        assert_eq!(code(&parts), "package_unsafe", "{name:?}");
    }
}

#[test]
fn a_long_run_of_text_is_rejected() {
    let long =
        format!("<w:p><w:r><w:t>{}</w:t></w:r></w:p>", (0..200_000).map(|n| format!("{n} ")).collect::<String>());
    assert_eq!(code(&docx(&long)), "text_run_too_long");
}

#[test]
fn deep_nesting_is_rejected() {
    assert_eq!(code(&docx(&format!("{}{}", "<w:sdt>".repeat(300), "</w:sdt>".repeat(300)))), "part_too_deep");
}

#[test]
fn paragraphs_and_cells_are_limited() {
    let limits = Limits { paragraphs: 10, cells: 10, ..Limits::default() };
    for body in ["<w:p/>".repeat(11), format!("<w:tbl><w:tr>{}</w:tr></w:tbl>", "<w:tc/>".repeat(11))] {
        let why = scan(&docx(&body).zip().into(), ALL, &limits).unwrap_err();
        assert_eq!(&*why.code, "document_too_complex");
    }
}

#[test]
fn the_pixels_of_an_image_are_limited() {
    let limits = Limits { pixels: 3, ..Limits::default() };
    let picture = png(2, 2);
    let why = scan(&docx("").with("word/media/a.png", picture).zip().into(), ALL, &limits).unwrap_err();
    assert_eq!(&*why.code, "picture_too_large");
}

#[test]
fn document_type_definitions_are_rejected() {
    let external = r#"<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>"#;
    let laughs = r#"<!DOCTYPE a [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]><a>&b;</a>"#;
    for text in [external, laughs, "<!DOCTYPE a><a/>"] {
        assert_eq!(code(&docx("").with("word/document.xml", text)), "part_doctype");
        assert_eq!(code(&docx("").with("customXml/item1.xml", text)), "part_doctype");
        assert_eq!(code(&docx("").with("word/media/image1.dat", text)), "part_doctype", "by content, not by name");
    }
    let wide: Vec<u8> = "<!DOCTYPE a><a/>".encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert_eq!(code(&docx("").with("word/document.xml", [&[0xff, 0xfe][..], &wide].concat())), "part_malformed");
}

#[test]
fn damaged_packages_are_refused_and_never_a_panic() {
    let whole = docx(&PARAGRAPH.repeat(50)).zip();
    for percent in 0..100 {
        let cut = whole[..whole.len() * percent / 100].to_vec();
        assert!(scan(&cut.into(), ALL, &Limits::default()).is_err(), "{percent} %");
    }
    let mut random = StdRng::seed_from_u64(1);
    for _ in 0..2_000 {
        let mut flipped = whole.clone();
        for _ in 0..random.random_range(1..4) {
            let at = random.random_range(0..flipped.len());
            flipped[at] ^= 1 << random.random_range(0..8);
        }
        // Most are rejected; any other must still be a document.
        if let Ok(scanned) = scan(&flipped.into(), ALL, &Limits::default()) {
            assert!(scanned.package.is_some());
        }
    }
    for _ in 0..2_000 {
        let mut noise = vec![0; random.random_range(0..600)];
        random.fill(&mut noise[..]);
        let _ = scan(&noise.clone().into(), ALL, &Limits::default());
        noise.splice(0..0, *b"PK\x03\x04");
        assert!(scan(&noise.into(), ALL, &Limits::default()).is_err());
    }
}

#[test]
fn a_written_package_reads_back_and_copies_are_raw() {
    let bytes = bytes::Bytes::from(docx(PARAGRAPH).with("word/media/a.bin", (0..=255).collect::<Vec<u8>>()).zip());
    let package = Package::open(bytes, &Limits::default()).unwrap();
    let mut writer = Writer::default();
    package.entries().iter().for_each(|entry| writer.copy(&package, entry));
    writer.add("word/new.xml", b"<a/>");
    let again = Package::open(writer.finish().into(), &Limits::default()).unwrap();
    let mut budget = Budget::of(&Limits::default());
    for entry in package.entries() {
        let copy = again.find(&entry.name).unwrap();
        assert_eq!((package.packed(entry), entry.crc), (again.packed(copy), copy.crc));
        assert_eq!(package.read(entry, &mut budget).unwrap(), again.read(copy, &mut budget).unwrap());
    }
    assert_eq!(again.read_text(again.find("WORD/NEW.xml").unwrap(), &mut budget).unwrap(), "<a/>");
}
