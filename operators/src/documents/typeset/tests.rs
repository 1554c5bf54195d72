//! Data are rendered as text whatever they contain, errors name their place, and limits hold.

use std::time::Duration;

use super::*;
use serde_json::{Value as Json, json};

fn template(source: &str) -> Result<Template, TypesetError> {
    Template::compile(source.to_owned().into(), &Options::default())
}

/// A template that loads its data in the first line.
fn with_data(body: &str) -> Template {
    template(&format!("#let data = json(\"data.json\")\n{body}")).unwrap_or_else(|why| panic!("{why:?}"))
}

/// The text of all pages.
fn text_of(pdf: &[u8]) -> String {
    assert!(pdf.starts_with(b"%PDF-1.7"));
    let document = lopdf::Document::load_mem(pdf).unwrap();
    let pages: Vec<u32> = document.get_pages().into_keys().collect();
    document.extract_text(&pages).unwrap()
}

fn typeset(body: &str, data: Json) -> String {
    let pdf = with_data(body).render(&data).unwrap_or_else(|why| panic!("{why:?}"));
    text_of(&pdf)
}

fn failed(body: &str, data: Json) -> TypesetError {
    with_data(body).render(&data).map(|_| ()).unwrap_err()
}

fn refused(source: &str) -> TypesetError {
    let why = template(source).map(|_| ()).unwrap_err();
    assert_eq!((why.status, &*why.code), (400, "template_syntax"), "{why:?}");
    why
}

fn fields(body: &str) -> Vec<String> {
    with_data(body).fields().iter().cloned().collect()
}

const INVOICE: &str = r#"
= Invoice #data.number
Dear #data.customer.name,
#table(columns: 3, [Item], [Count], [Sum],
  ..for item in data.items { (item.name, [#item.count], [#(item.count * item.price)]) })
#let total = data.items.map(item => item.count * item.price).sum(default: 0)
Total: #total
"#;

fn invoice() -> Json {
    let items: Vec<Json> = (1..=15).map(|n| json!({"name": format!("Part {n}"), "count": n, "price": 100})).collect();
    json!({"number": "R-77", "customer": {"name": "Näser & Öl"}, "items": items})
}

#[test]
fn an_invoice_holds_its_data() {
    let text = typeset(INVOICE, invoice());
    for part in ["R-77", "Näser & Öl", "Part 15", "1500", "12000"] {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
}

#[test]
fn the_same_data_give_the_same_bytes_whatever_was_made_between() {
    let template = with_data(INVOICE);
    let first = template.render(&invoice()).unwrap();
    for n in 0..20 {
        with_data("#for i in range(data.n) [#i ]").render(&json!({"n": n * 10})).unwrap();
    }
    assert!(first == template.render(&invoice()).unwrap());
    let threads: Vec<_> = std::thread::scope(|scope| {
        let made: Vec<_> = (0..4).map(|_| scope.spawn(|| template.render(&invoice()).unwrap())).collect();
        made.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(threads.into_iter().all(|made| made == first));
}

#[test]
fn data_stay_text_whatever_they_hold() {
    for value in ["#panic()", "*no*", "$x$", "= head", "\\", "<label>", "@ref", "#read(\"/etc/passwd\")", "a // b"] {
        let text = typeset("[#data.a]", json!({"a": value}));
        assert_eq!(text.trim(), format!("[{value}]"));
    }
}

#[test]
fn fields_are_found_where_they_are_used() {
    let found = fields(INVOICE);
    assert_eq!(found, ["customer.name", "items", "items.count", "items.name", "items.price", "number"]);
    assert_eq!(fields("#data.at(\"a\").b #data.c.at(\"d\", default: 1)"), ["a.b", "c.d"]);
    assert_eq!(fields("#let c = data.c\n#if c.big [#c.name]"), ["c", "c.big", "c.name"]);
    assert_eq!(fields("#let (a, b: d) = data\n#d.x"), ["a", "b", "b.x"]);
    assert_eq!(fields("#for (i, row) in data.rows.enumerate() [#i #row.x #i.y]"), ["rows", "rows.x"]);
    assert_eq!(fields("#data.rows.filter(r => r.on).first().name"), ["rows", "rows.name", "rows.on"]);
    assert_eq!(fields("#for data in (1, 2) [#data.no]\n#data.yes $ #data.math $"), ["math", "yes"]);
    assert_eq!(fields("#let f(data) = data.no\n#f(data.arg)"), ["arg"]);
    assert_eq!(fields("#set text(lang: data.lang)\n#show: it => [#data.head #it]"), ["head", "lang"]);
    assert_eq!(
        fields("#for row in data.rows { for cell in row.cells [#cell.x] }"),
        ["rows", "rows.cells", "rows.cells.x"]
    );
    assert!(fields("Nothing, and #{ 1 + 1 }").is_empty());
}

#[test]
fn a_missing_field_is_named_with_its_place() {
    for body in ["Dear\n  #data.customer.name", "Dear\n  #data.customer.at(\"name\")"] {
        let why = failed(body, json!({"customer": {}}));
        assert_eq!((why.status, &*why.code), (422, "undefined_variable"));
        assert!(why.message.contains("\"name\""), "{why:?}");
        let place = why.place.clone().unwrap();
        // typst reports the place of the field, not of the dictionary.
        assert_eq!((place.line, &*place.text), (3, body.lines().last().unwrap().trim()));
        assert!((3..=18).contains(&place.column), "{place:?}");
        assert!(pipeline::Rejection::from(why).detail.contains("line 3, column"));
    }
    assert_eq!(typeset("[#data.at(\"a\", default: \"none\")]", json!({})).trim(), "[none]");
}

#[test]
fn error_places_refer_to_the_uploaded_template() {
    // Loops, functions and products before the error, on its line, and inside the failing expression.
    let body = "#let f = x => x * 2\n#for i in range(2) { let y = i * 2 * f(i); [#(y * data.no.x)] }";
    let why = failed(body, json!({"no": {}}));
    let place = why.place.unwrap();
    assert_eq!((place.line, place.column), (3, 59), "{place:?}");
    let why = failed("ä #for x in (1,) { [#(1 * \"a\" * x * 3pt)] }", json!({}));
    assert_eq!((&*why.code, why.status), ("render_failed", 422));
    assert_eq!(why.place.unwrap().column, 23, "{}", why.message);
}

#[test]
fn syntax_errors_have_line_column_and_hint() {
    let why = refused("= Fine\nText #let = 3\n#{ (1");
    let place = why.place.clone().unwrap();
    assert_eq!((place.line, place.text.as_str()), (2, "Text #let = 3"));
    assert!(why.message.contains("errors"), "{why:?}");
    let why = refused("#{\n  let ä1 = \"é\"; x y\n}");
    assert_eq!(why.place.map(|place| (place.line, place.column)), Some((2, 18)));
    assert!(Template::compile(vec![b'a', 0xff].into(), &Options::default()).unwrap_err().message.contains("byte 1"));
}

#[test]
fn metering_changes_no_document() {
    for (body, data, expected) in [
        ("#let s = 0\n#for x in data.a { s += x * 2 }\n[#s]", json!({"a": [1, 2, 3]}), "[12]"),
        ("#let s = 2\n#{ s *= 3\n s *= data.n + 1 }\n[#s]", json!({"n": 1}), "[12]"),
        ("#let f(x, y: 2) = x * y\n[#f(3)#f(3, y: 3)]", json!({}), "[69]"),
        ("#let f = x => y => (x\n * y)\n[#f(3)(4)]", json!({}), "[12]"),
        ("#let f(x) = if x { return [yes] } else { [no] }\n[#f(true)#f(false)]", json!({}), "[yesno]"),
        ("[#for x in (1, 2, 3) { if x == 2 { continue }; str(x) }]", json!({}), "[13]"),
        ("#let i = 0\n[#while true { i += 1; if i > 3 { break }; str(i) }]", json!({}), "[123]"),
        ("[#for (k, v) in (a: 1, b: 2) [#k#v]]", json!({}), "[a1b2]"),
        ("[#{ if 2 in(1, 2)and 2*3 == 6 [in] }]", json!({}), "[in]"),
        ("[#context [#(text.size / 1pt * 2)]]", json!({}), "[22]"),
        ("#show \"x\": it => strong(it)\n#show heading: set text(2em)\n[axb]", json!({}), "[axb]"),
        ("#import calc: *\n[#pow(2, 3)#max(1, 2 * 2)]", json!({}), "[84]"),
        ("[#(\"ab\" * 2)#((1, 2) * 2).len()#(-3 * 2pt / 1pt)]", json!({}), "[abab4−6]"),
        ("#let (a, b) = (1, 2)\n#((a, b) = (b, a))\n[#a#b]", json!({}), "[21]"),
    ] {
        let text: String = typeset(body, data).split_whitespace().collect();
        assert_eq!(text, expected, "{body}");
    }
}

#[test]
fn files_packages_and_code_are_not_accessible() {
    for source in [
        "#import \"@preview/cetz:0.3.0\": canvas",
        "#import \"other.typ\": x",
        "#include \"other.typ\"",
        "#let p = \"a.typ\"\n#import p: x",
        "#read(\"/etc/passwd\")",
        "#std.read(\"../../etc/passwd\")",
        "#image(\"logo.png\")",
        "#csv(\"data.json\")",
        "#let a = (\"x\",)\n#image(..a)",
        "#let caudal-tick() = none",
    ] {
        assert!(refused(source).place.is_some(), "{source}");
    }
    assert!(refused("#import \"@preview/cetz:0.3.0\": canvas").message.contains("packages are not available"));
    for body in [
        "#read(data.path)",
        "#image(data.path)",
        "#let f = read\n#f(data.path)",
        "#std.json(path(data.path))",
        "#eval(data.code)",
        "#std.eval(data.code)",
        "#plugin(bytes((0, 1)))",
        "#datetime.today()",
        "#set raw(theme: data.path)\n```c\nx\n```",
    ] {
        let why = failed(body, json!({"path": "/etc/passwd", "code": "1 + 1"}));
        assert_eq!((why.status, &*why.code), (422, "render_failed"), "{body}: {why:?}");
        assert!(why.place.is_some(), "{body}");
    }
    // Paths in the data are rejected before typst stores them, which it does forever and at most 65 535 times.
    assert!(failed("#image(data.path)", json!({"path": "x.png"})).message.contains("file \"x.png\" does not exist"));
}

#[test]
fn images_may_be_in_the_data() {
    use base64::Engine as _;
    let address = |width, height| {
        let mut png = std::io::Cursor::new(Vec::new());
        image::DynamicImage::new_luma8(width, height).write_to(&mut png, image::ImageFormat::Png).unwrap();
        format!("data:image/png;base64,{}", base64::engine::general_purpose::STANDARD.encode(png.into_inner()))
    };
    let template = with_data("#image(data.logo, width: 2cm)");
    let pdf = template.render(&json!({"logo": address(4, 4)})).unwrap();
    assert!(pdf.windows(14).any(|part| part == b"/Subtype/Image" || part == b"/Subtype /Imag"));
    for (logo, expected) in [
        ("data:image/png;base64,###".to_owned(), "not valid base64"),
        ("data:image/png;base64,AAAA".to_owned(), "does not hold a readable image"),
        ("data:image/svg+xml,<svg/>".to_owned(), "must hold base64"),
        (address(10_000, 4_001), "too many pixels: 40010000, the limit is 40000000"),
    ] {
        let why = template.render(&json!({"logo": logo})).unwrap_err();
        assert!(why.message.contains(expected), "{why:?}");
    }
}

#[test]
fn endless_loops_and_calls_run_out_of_steps() {
    let long = (422, "render_too_long".to_owned());
    assert_eq!(code("#for i in range(10000) { for j in range(10000) { let x = i } }"), long);
    assert_eq!(code("#let f(n, k) = if n < 60 { f(n + 1, 2 * k); f(n + 1, 2 * k + 1) }\n#f(0, 1)"), long);
    assert_eq!(code("#range(500).map(i => range(500).map(j => i * j)).len()"), long);
}

/// Renders a body that must fail, with few steps and much time; returns status and code.
fn code(body: &str) -> (u16, String) {
    let options = Options { steps: 20_000, time: Duration::from_secs(120), ..Options::default() };
    let source = format!("#let data = json(\"data.json\")\n{body}");
    let template = Template::compile(source.into(), &options).unwrap();
    let why = template.render(&json!({"n": 1_000_000_000})).map(|_| body).unwrap_err();
    (why.status, why.code.into_owned())
}

#[test]
fn deep_recursion_and_long_while_loops_fail() {
    let failed = (422, "render_failed".to_owned());
    assert_eq!(code("#let f(n) = { f(n + 1); f(n + 2) }\n#f(0)"), failed, "80 calls deep");
    assert_eq!(code("#while true {}"), failed);
    assert_eq!(code("#let i = 0\n#while i < 1 { let x = 1 }"), failed, "10 000 rounds");
}

#[test]
fn functions_that_create_too_much_fail() {
    let failed = (422, "render_failed".to_owned());
    for body in ["#range(data.n)", "#(\"x\" * data.n)", "#((1,) * data.n)", "#([x] * data.n)", "#lorem(data.n)"] {
        assert_eq!(code(body), failed, "{body}");
    }
}

#[test]
fn a_thread_is_usable_after_a_limit_was_exceeded() {
    assert_eq!(code("#for i in range(10000) { for j in range(10000) { let x = i } }").1, "render_too_long");
    assert!(typeset("#data.a", json!({"a": "fine"})).contains("fine"));
}

#[test]
fn layout_that_takes_too_long_is_ended() {
    let options = Options { time: Duration::from_millis(300), ..Options::default() };
    let source = "#for i in range(190000) [Word #i. ]";
    let why = Template::compile(source.into(), &options).unwrap().render(&json!({})).unwrap_err();
    assert_eq!((why.status, &*why.code), (422, "render_too_long"));
    assert!(why.message.contains("300 ms"), "{why:?}");
}

#[test]
fn the_size_of_a_template_is_limited() {
    let options = Options { template: 10, ..Options::default() };
    let why = Template::compile("12345678901".into(), &options).unwrap_err();
    assert_eq!((why.status, &*why.code), (413, "template_too_large"));
}

#[test]
fn the_pages_of_a_document_are_limited() {
    let pages = Options { pages: 3, ..Options::default() };
    assert!(render("a #pagebreak() b #pagebreak() c", &pages).is_ok());
    let why = render("a #pagebreak() b #pagebreak() c #pagebreak() d", &pages).unwrap_err();
    assert_eq!((why.status, &*why.code), (422, "render_too_large"));
    assert!(why.message.contains("4 pages"), "{why:?}");
}

fn render(source: &str, options: &Options) -> Result<Vec<u8>, TypesetError> {
    Template::compile(source.to_owned().into(), options).unwrap().render(&json!({}))
}

#[test]
fn the_size_of_a_document_is_limited() {
    let bytes = Options { output: 1000, ..Options::default() };
    assert_eq!(render("a", &bytes).unwrap_err().code, "render_too_large");
}

#[test]
fn documents_keep_to_a_standard() {
    let full = with_data("#set document(title: data.title, date: datetime(year: 2026, month: 1, day: 2))\n= A");
    for standard in [Standard::A2b, Standard::A3b, Standard::Ua1] {
        let pdf = full.render_as(&json!({"title": "T"}), standard).unwrap();
        assert!(pdf == full.render_as(&json!({"title": "T"}), standard).unwrap());
        let why = with_data("= A").render_as(&json!({}), standard).unwrap_err();
        assert_eq!(why.code, "render_failed");
        assert!(why.message.contains("missing document"), "{why:?}");
    }
}

#[test]
fn deep_sources_are_refused_before_they_overflow_the_stack() {
    for (before, part, after, count) in [
        ("#(1", "+1", ")", 100_000),
        ("#(1", "*1", ")", 100_000),
        ("#a", ".a", "", 100_000),
        ("#a", "()", "", 100_000),
        ("#set text", "()", "", 50_000),
        ("#(a", "= a", ")", 50_000),
        ("$ x", "^x", " $", 100_000),
        ("$ x", "!", " $", 100_000),
        ("$ x", "/x", " $", 100_000),
        ("#{ ", "if true {1} else ", "{ 2 } }", 10_000),
        ("#let f = ", "x => ", "1", 50_000),
        ("#(", "(", "1))", 50_000),
    ] {
        let why = refused(&format!("{before}{}{after}", part.repeat(count)));
        assert!(
            why.message.contains("deep") || why.message.contains("depth") || why.message.contains("errors"),
            "{why:?}"
        );
        // A source within the limit is typeset, or rejected with an error, on a stack of the default size.
        for within in [50, 120, 240] {
            let source = format!("{before}{}{after}", part.repeat(within));
            let _ = template(&source).and_then(|template| template.render(&json!({})));
        }
    }
}
