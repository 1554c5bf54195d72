//! Generated templates, and a distinct context for every number.

use std::fmt::Write as _;
use std::io::{Cursor, Write as _};

use serde_json::{Value, json};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

/// A template, its contexts, and the expected document.
#[derive(Clone, Copy)]
pub struct Sample {
    pub name: &'static str,
    pub media_type: &'static str,
    pub template: fn() -> Vec<u8>,
    /// The context of a number, distinct from every other number's.
    pub context: fn(u64) -> Value,
    pub pages: usize,
}

const DOCX: &str = "application/vnd.openxmlformats-officedocument.wordprocessingml.document";

pub const LETTER: Sample =
    Sample { name: "letter", media_type: DOCX, template: letter, context: letter_context, pages: 1 };

pub const INVOICE: Sample =
    Sample { name: "invoice", media_type: DOCX, template: invoice, context: invoice_context, pages: 4 };

pub const TYPST: Sample =
    Sample { name: "typst", media_type: "text/plain", template: typst, context: letter_context, pages: 1 };

const ROWS: u64 = 40;

impl Sample {
    /// Checks that these bytes begin and end as a PDF. Cheap enough for every answer.
    pub fn check_framing(pdf: &[u8]) -> Result<(), String> {
        let tail = &pdf[pdf.len().saturating_sub(64)..];
        if !pdf.starts_with(b"%PDF-") || !tail.windows(5).any(|five| five == b"%%EOF") {
            return Err(format!("{} bytes are not a complete PDF", pdf.len()));
        }
        Ok(())
    }

    /// Checks that a PDF is the document of this number, by its number of pages and its text.
    pub fn check(&self, number: u64, pdf: &[u8]) -> Result<(), String> {
        Self::check_framing(pdf)?;
        let document = lopdf::Document::load_mem(pdf).map_err(|error| error.to_string())?;
        let pages: Vec<u32> = document.get_pages().keys().copied().collect();
        if pages.len() != self.pages {
            return Err(format!("{} pages instead of {}", pages.len(), self.pages));
        }
        let text = document.extract_text(&pages).map_err(|error| error.to_string())?;
        // Without white space: how letters form words is the PDF reader's guess.
        let text: String = text.split_whitespace().collect();
        if !text.contains(&marker(number)) {
            return Err(format!("{} is not in its text", marker(number)));
        }
        Ok(())
    }
}

/// A text that only the document of this number contains.
fn marker(number: u64) -> String {
    format!("REF{number:06}")
}

fn letter_context(number: u64) -> Value {
    json!({
        "reference": marker(number),
        "name": format!("Customer {number}"),
        "street": format!("{} Canal Street", number % 200 + 1),
        "city": "Valencia",
        "amount": format!("{}.{:02}", number % 900 + 100, number % 100),
    })
}

fn invoice_context(number: u64) -> Value {
    let row = |position: u64| {
        let (quantity, price) = (1 + (number + position) % 9, 500 + 37 * position + number % 100);
        json!({
            "position": position,
            "text": format!("Item {number}-{position}: valve with fittings, gasket and bolts, tested under pressure, \
                             with a certificate of its material, packed for transport over sea and delivered to the \
                             site"),
            "quantity": quantity,
            "price": money(price),
            "sum": money(quantity * price),
        })
    };
    let mut context = letter_context(number);
    context["rows"] = (1..=ROWS).map(row).collect();
    context
}

fn money(cents: u64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}

const SENTENCE: &str = "We thank you for the trust that you have placed in us, and confirm with this letter what was \
                        agreed on the telephone about the delivery and its terms. ";

/// One page: an address, a heading, five paragraphs.
fn letter() -> Vec<u8> {
    let mut body = address();
    body += &paragraph("Dear {{ name }},", false);
    for _ in 0..5 {
        body += &paragraph(&SENTENCE.repeat(2), false);
    }
    body += &paragraph("The amount of {{ amount }} EUR is due within thirty days.", true);
    docx(&body)
}

fn address() -> String {
    let lines = ["{{ name }}", "{{ street }}", "{{ city }}", ""].map(|line| paragraph(line, false));
    lines.concat() + &paragraph("Our reference {{ reference }}", true)
}

/// Four pages: a table of forty rows, each of four or five lines, below an address and above the terms.
fn invoice() -> Vec<u8> {
    let head = ["No.", "Article", "Quantity", "Price", "Sum"];
    let cells = ["{{ row.position }}", "{{ row.text }}", "{{ row.quantity }}", "{{ row.price }}", "{{ row.sum }}"];
    let mut body = address();
    body += "<w:tbl><w:tblPr><w:tblW w:w=\"9000\" w:type=\"dxa\"/><w:tblBorders>\
             <w:insideH w:val=\"single\" w:sz=\"4\"/></w:tblBorders></w:tblPr><w:tblGrid>";
    for width in WIDTHS {
        write!(body, "<w:gridCol w:w=\"{width}\"/>").unwrap();
    }
    body += "</w:tblGrid>";
    body += &row(&head, "<w:trPr><w:tblHeader/></w:trPr>", true);
    body += &row(&["{%tr for row in rows %}"], "", false);
    body += &row(&cells, "<w:trPr><w:cantSplit/></w:trPr>", false);
    body += &row(&["{%tr endfor %}"], "", false);
    body += "</w:tbl>";
    body += &paragraph("Total: {{ amount }} EUR for {{ rows | length }} items.", true);
    for _ in 0..3 {
        body += &paragraph(&SENTENCE.repeat(2), false);
    }
    docx(&body)
}

/// Column widths in twentieths of a point; their sum is the width of the text.
const WIDTHS: [u32; 5] = [700, 4700, 1200, 1200, 1200];

fn row(cells: &[&str], properties: &str, bold: bool) -> String {
    let mut text = format!("<w:tr>{properties}");
    for (cell, width) in cells.iter().zip(WIDTHS) {
        let width = format!("<w:tcPr><w:tcW w:w=\"{width}\" w:type=\"dxa\"/></w:tcPr>");
        write!(text, "<w:tc>{width}{}</w:tc>", paragraph(cell, bold)).unwrap();
    }
    text + "</w:tr>"
}

fn paragraph(text: &str, bold: bool) -> String {
    let bold = if bold { "<w:rPr><w:b/></w:rPr>" } else { "" };
    format!("<w:p><w:r>{bold}<w:t xml:space=\"preserve\">{text}</w:t></w:r></w:p>")
}

/// A DOCX on A4 in 11 points of Liberation Sans, which differs from LibreOffice's default.
fn docx(body: &str) -> Vec<u8> {
    const WORD: &str = "http://schemas.openxmlformats.org/wordprocessingml/2006/main";
    const PACKAGE: &str = "http://schemas.openxmlformats.org/package/2006";
    const OFFICE: &str = "http://schemas.openxmlformats.org/officeDocument/2006/relationships";
    let rels = |kind: &str, target: &str| {
        format!(
            "<Relationships xmlns=\"{PACKAGE}/relationships\"><Relationship Id=\"r1\" Type=\"{OFFICE}/{kind}\" \
             Target=\"{target}\"/></Relationships>"
        )
    };
    let types = format!(
        "<Types xmlns=\"{PACKAGE}/content-types\"><Default Extension=\"rels\" \
         ContentType=\"application/vnd.openxmlformats-package.relationships+xml\"/>\
         <Override PartName=\"/word/document.xml\" ContentType=\"{DOCX}.main+xml\"/>\
         <Override PartName=\"/word/styles.xml\" \
         ContentType=\"application/vnd.openxmlformats-officedocument.wordprocessingml.styles+xml\"/></Types>"
    );
    let styles = format!(
        "<w:styles xmlns:w=\"{WORD}\"><w:docDefaults><w:rPrDefault><w:rPr><w:rFonts w:ascii=\"Liberation Sans\" \
         w:hAnsi=\"Liberation Sans\"/><w:sz w:val=\"22\"/></w:rPr></w:rPrDefault><w:pPrDefault><w:pPr>\
         <w:spacing w:after=\"80\"/></w:pPr></w:pPrDefault></w:docDefaults></w:styles>"
    );
    let document = format!(
        "<w:document xmlns:w=\"{WORD}\"><w:body>{body}<w:sectPr><w:pgSz w:w=\"11906\" w:h=\"16838\"/>\
         <w:pgMar w:top=\"1440\" w:right=\"1440\" w:bottom=\"1440\" w:left=\"1440\" w:header=\"700\" w:footer=\"700\" \
         w:gutter=\"0\"/></w:sectPr></w:body></w:document>"
    );
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, text) in [
        ("[Content_Types].xml", types),
        ("_rels/.rels", rels("officeDocument", "word/document.xml")),
        ("word/_rels/document.xml.rels", rels("styles", "styles.xml")),
        ("word/styles.xml", styles),
        ("word/document.xml", document),
    ] {
        writer.start_file(name, SimpleFileOptions::default()).unwrap();
        writer.write_all(text.as_bytes()).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// The letter as a Typst template.
fn typst() -> Vec<u8> {
    let paragraphs = format!("{}\n\n", SENTENCE.repeat(2)).repeat(5);
    format!(
        "#let data = json(\"data.json\")\n#set page(paper: \"a4\")\n#data.name \\\n#data.street \\\n#data.city\n\n\
         *Our reference #data.reference*\n\nDear #data.name,\n\n{paragraphs}*The amount of #data.amount EUR is due \
         within thirty days.*\n"
    )
    .into_bytes()
}
