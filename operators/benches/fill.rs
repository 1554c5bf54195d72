//! Benchmarks compiling and filling a DOCX template on one thread: `cargo bench -p operators --bench fill`. Files given
//! as pairs of arguments (`template.docx data.json`) are measured too.

#![expect(clippy::print_stdout, reason = "a benchmark prints its results")]

use operators::documents::fill::{Options, Template};
use operators::documents::office::Writer;
use serde_json::{Value, json};
use tokio::time::Instant;

const ROUNDS: usize = 200;

const WORD: &str = "http://schemas.openxmlformats.org/wordprocessingml/2006/main";

fn main() {
    println!("{:<28} {:>10} {:>12} {:>12} {:>10}", "template", "bytes", "compile, ms", "fill, ms", "result");
    let files: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    for pair in files.chunks_exact(2) {
        let read = |name: &String| std::fs::read(name).expect("the file named as an argument can be read");
        let data = serde_json::from_slice(&read(&pair[1])).expect("the data are JSON");
        measure(&pair[0], read(&pair[0]), &data);
    }
    let lines: Vec<Value> =
        (0..40).map(|n| json!({"name": format!("Item <{n}>"), "count": n, "price": 1.5 * f64::from(n)})).collect();
    let data = json!({"name": "Ann & Bo", "street": "Long Street 1", "city": "Here", "lines": lines, "total": 1170.0, "paid": false});
    measure("letter, one page", letter(), &data);
    measure("invoice, 40 rows", invoice(), &data);
}

fn measure(name: &str, bytes: Vec<u8>, data: &Value) {
    let (bytes, options) = (bytes::Bytes::from(bytes), Options::default());
    let template = Template::compile(bytes.clone(), &options).expect("the template compiles");
    let compile = median(|| drop(Template::compile(bytes.clone(), &options)));
    let fill = median(|| drop(std::hint::black_box(template.render(data))));
    let made = template.render(data).expect("the template is filled").len();
    println!("{name:<28} {:>10} {compile:>12.3} {fill:>12.3} {made:>10}", bytes.len());
}

fn median(work: impl Fn()) -> f64 {
    let time = |_| {
        let begun = Instant::now();
        work();
        begun.elapsed().as_secs_f64() * 1e3
    };
    let mut times: Vec<f64> = (0..ROUNDS).map(time).collect();
    times.sort_by(f64::total_cmp);
    times[ROUNDS / 2]
}

/// A paragraph as Word writes it: every run with properties, revision ids on every paragraph.
fn p(text: &str) -> String {
    let font = r#"<w:rPr><w:rFonts w:ascii="Calibri" w:hAnsi="Calibri" w:cs="Calibri"/><w:sz w:val="22"/><w:lang w:val="en-GB"/></w:rPr>"#;
    format!(
        r#"<w:p w:rsidR="00A77B3E" w:rsidRDefault="00A77B3E"><w:pPr><w:spacing w:after="120"/></w:pPr><w:r w:rsidRPr="001C2D3E">{font}<w:t xml:space="preserve">{text}</w:t></w:r></w:p>"#
    )
}

fn letter() -> Vec<u8> {
    let text = "Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor incididunt ut labore. "
        .repeat(4);
    let mut body = ["{{ name }}", "{{ street }}", "{{ city }}", "Dear {{ name }},"].map(p).concat();
    body.extend((0..6).map(|_| p(&text)));
    body += &["{%p if not paid %}", "Please pay {{ '%.2f'|format(total) }}.", "{%p endif %}"].map(p).concat();
    docx(&body)
}

fn invoice() -> Vec<u8> {
    let row = |cells: [&str; 4]| {
        let cell = |text: &str| format!(r#"<w:tc><w:tcPr><w:tcW w:w="2400" w:type="dxa"/></w:tcPr>{}</w:tc>"#, p(text));
        format!("<w:tr>{}</w:tr>", cells.map(cell).concat())
    };
    let rows = [
        row(["Name", "Count", "Price", "Sum"]),
        row(["{%tr for line in lines %}", "", "", ""]),
        row([
            "{{ line.name }}",
            "{{ line.count }}",
            "{{ '%.2f'|format(line.price) }}",
            "{{ '%.2f'|format(line.price * line.count) }}",
        ]),
        row(["{%tr endfor %}", "", "", ""]),
        row(["Total", "", "", "{{ '%.2f'|format(total) }}"]),
    ];
    let grid = r#"<w:gridCol w:w="2400"/>"#.repeat(4);
    let table = format!("<w:tbl><w:tblPr/><w:tblGrid>{grid}</w:tblGrid>{}</w:tbl>", rows.concat());
    docx(&(p("{{ name }}, {{ city }}") + &table + &p("Thank you.")))
}

fn docx(body: &str) -> Vec<u8> {
    const OFFICE: &str = "http://schemas.openxmlformats.org/officeDocument/2006/relationships";
    const PACKAGE: &str = "http://schemas.openxmlformats.org/package/2006";
    let types = format!(
        r#"<Types xmlns="{PACKAGE}/content-types"><Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/><Override PartName="/word/document.xml" ContentType="application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"/></Types>"#
    );
    let rels = format!(
        r#"<Relationships xmlns="{PACKAGE}/relationships"><Relationship Id="rId1" Type="{OFFICE}/officeDocument" Target="word/document.xml"/></Relationships>"#
    );
    let document = format!(r#"<w:document xmlns:w="{WORD}"><w:body>{body}<w:sectPr/></w:body></w:document>"#);
    let mut writer = Writer::default();
    writer.add("[Content_Types].xml", types.as_bytes());
    writer.add("_rels/.rels", rels.as_bytes());
    writer.add("word/document.xml", document.as_bytes());
    // As large as the styles, theme and fonts of a real document, which are copied unread.
    let style = |n: usize| format!(r#"<w:style w:styleId="S{n}"><w:name w:val="Style {n}"/></w:style>"#);
    let styles = format!(r#"<w:styles xmlns:w="{WORD}">{}</w:styles>"#, (0..300).map(style).collect::<String>());
    writer.add("word/styles.xml", styles.as_bytes());
    writer.finish()
}
