//! The warm-up document that a worker converts before it reports ready: a DOCX with a heading, text and a table.
//!
//! It makes LibreOffice load its import, layout, fonts and export, so that the first real document takes no longer than
//! others.

/// The parts of the package: the minimum that LibreOffice accepts as a text document.
const PARTS: [(&str, &str); 3] = [
    (
        "[Content_Types].xml",
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\
         <Types xmlns=\"http://schemas.openxmlformats.org/package/2006/content-types\">\
         <Default Extension=\"rels\" ContentType=\"application/vnd.openxmlformats-package.relationships+xml\"/>\
         <Override PartName=\"/word/document.xml\" ContentType=\
         \"application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml\"/></Types>",
    ),
    (
        "_rels/.rels",
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\
         <Relationships xmlns=\"http://schemas.openxmlformats.org/package/2006/relationships\">\
         <Relationship Id=\"r1\" Type=\
         \"http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument\" \
         Target=\"word/document.xml\"/></Relationships>",
    ),
    (
        "word/document.xml",
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\
         <w:document xmlns:w=\"http://schemas.openxmlformats.org/wordprocessingml/2006/main\"><w:body>\
         <w:p><w:r><w:rPr><w:b/></w:rPr><w:t>Warm</w:t></w:r></w:p><w:p><w:r><w:t>Text to measure.</w:t></w:r></w:p>\
         <w:tbl><w:tblPr/><w:tblGrid><w:gridCol/></w:tblGrid><w:tr><w:tc><w:p><w:r><w:t>Cell</w:t></w:r></w:p></w:tc>\
         </w:tr></w:tbl><w:p/></w:body></w:document>",
    ),
];

/// The document, a ZIP package without compression.
pub(super) fn docx() -> Vec<u8> {
    let mut package = Vec::new();
    let mut directory = Vec::new();
    for (name, text) in PARTS {
        let offset = size(package.len());
        let common = entry(name, text);
        package.extend(b"PK\x03\x04");
        package.extend(&common);
        package.extend(name.as_bytes());
        package.extend(text.as_bytes());
        directory.extend(b"PK\x01\x02\x14\x00");
        directory.extend(&common);
        // Comment, disk, attributes: none.
        directory.extend([0; 10]);
        directory.extend(offset);
        directory.extend(name.as_bytes());
    }
    let (start, length) = (size(package.len()), size(directory.len()));
    let count = [size(PARTS.len())[0], 0];
    package.extend(directory);
    package.extend(b"PK\x05\x06\0\0\0\0");
    package.extend(count);
    package.extend(count);
    package.extend(length);
    package.extend(start);
    package.extend([0, 0]);
    package
}

/// What the local and the central header of a stored entry share: version, flags, method, time, date (1980-01-01),
/// checksum, sizes, length of the name, no extra field.
fn entry(name: &str, text: &str) -> Vec<u8> {
    let mut header = vec![0x14, 0, 0, 0, 0, 0, 0, 0, 0x21, 0];
    header.extend(crc32fast::hash(text.as_bytes()).to_le_bytes());
    header.extend(size(text.len()));
    header.extend(size(text.len()));
    header.extend([size(name.len())[0], 0, 0, 0]);
    header
}

/// A size of a few kilobytes at most, little-endian.
fn size(bytes: usize) -> [u8; 4] {
    u32::try_from(bytes).unwrap_or(u32::MAX).to_le_bytes()
}
