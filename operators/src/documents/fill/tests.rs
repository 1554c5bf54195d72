//! Escaping, errors, limits, and behaviour where docxtpl is wrong. Where both must agree, `tests/docxtpl` compares with
//! docxtpl itself.

use super::*;
use crate::documents::office::test_documents::{Parts, docx, png, rels};
use crate::documents::office::xml::{TokenKind, Tokens};
use crate::documents::office::{Budget, Kind, Limits, Package, scan};
use base64::Engine as _;
use bytes::Bytes;
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::{Value as Json, json};

fn template(body: &str) -> Result<Template, FillError> {
    Template::compile(docx(body).zip().into(), &Options::default())
}

fn p(text: &str) -> String {
    format!("<w:p><w:r><w:t>{text}</w:t></w:r></w:p>")
}

fn opened(bytes: Vec<u8>) -> Package {
    Package::open(bytes.into(), &Limits::default()).unwrap()
}

fn part(package: &Package, name: &str) -> String {
    let entry = package.find(name).unwrap_or_else(|| panic!("no part {name}"));
    package.read_text(entry, &mut Budget::of(&Limits::default())).unwrap()
}

/// `word/document.xml` of a rendering; the whole package must pass the scan.
fn filled(body: &str, data: Json) -> String {
    let bytes = template(body).and_then(|template| template.render(&data)).unwrap_or_else(|why| panic!("{why:?}"));
    assert!(scan(&bytes.clone().into(), &[Kind::Docx], &Limits::default()).is_ok());
    part(&opened(bytes), "word/document.xml")
}

fn failed(body: &str, data: Json) -> FillError {
    template(body).and_then(|template| template.render(&data)).map(|_| ()).unwrap_err()
}

/// The text of each paragraph.
fn text(xml: &str) -> Vec<String> {
    let mut tokens = Tokens::new(xml, 256);
    let (mut lines, mut within) = (Vec::new(), false);
    while let Some(token) = tokens.read().unwrap() {
        match (token.kind, token.name()) {
            (TokenKind::Open | TokenKind::Empty, "w:p") => lines.push(String::new()),
            (TokenKind::Open, "w:t") => within = true,
            (TokenKind::Close, "w:t") => within = false,
            (TokenKind::Empty, "w:br") => lines.last_mut().unwrap().push('\n'),
            (TokenKind::Empty, "w:tab") => lines.last_mut().unwrap().push('\t'),
            (TokenKind::Text, _) if within => lines.last_mut().unwrap().push_str(&token.text()),
            _ => {}
        }
    }
    lines
}

fn picture(width: u32, height: u32) -> String {
    let bytes = base64::engine::general_purpose::STANDARD.encode(png(width, height));
    format!("data:image/png;base64,{bytes}")
}

#[test]
fn values_are_text_whatever_they_hold() {
    for value in ["{{7*7}}", "{% if x %}", "</w:t><w:r>", "&x;", "a\u{202e}b", "{{ a }}", "<?caudal-value 0?>", "{_{"] {
        let xml = filled(&p("[{{ a }}]"), json!({"a": value}));
        assert_eq!(text(&xml), [format!("[{value}]")]);
    }
}

#[test]
fn characters_that_xml_cannot_contain_are_dropped() {
    let xml = filled(&p("[{{ a }}]"), json!({"a": "a\u{0}\u{1b}b\u{ffff}"}));
    assert_eq!(text(&xml), ["[ab]"]);
}

#[test]
fn data_cannot_forge_the_placeholder_of_an_image() {
    let xml = filled(&p("{{ a }}"), json!({"a": "<?caudal-value 0?>", "i": {"$type": "image", "src": picture(1, 1)}}));
    assert!(!xml.contains("w:drawing"));
}

#[test]
fn without_escaping_values_may_contain_markup() {
    let xml = part(&opened(unescaped("x</w:t><w:br/><w:t>y").unwrap()), "word/document.xml");
    assert_eq!(text(&xml), ["x\ny"]);
}

#[test]
fn without_escaping_incomplete_markup_is_an_error() {
    assert_eq!(unescaped("</w:r>").unwrap_err().code, "render_malformed");
}

/// Renders `{{ a }}` without escaping.
fn unescaped(value: &str) -> Result<Vec<u8>, FillError> {
    let options = Options { autoescape: false, ..Options::default() };
    let template = Template::compile(docx(&p("{{ a }}")).zip().into(), &options).unwrap();
    template.render(&json!({"a": value}))
}

#[test]
fn control_characters_break_lines_paragraphs_and_pages() {
    let body = "<w:p><w:pPr><w:jc w:val='right'/></w:pPr><w:r><w:rPr><w:b/></w:rPr><w:t>[{{ a }}]</w:t></w:r></w:p>";
    let xml = filled(body, json!({"a": {"$type": "listing", "text": "1\n2\t3\u{7}4\u{c}5"}}));
    assert_eq!(text(&xml), ["[1\n2\t3", "4", "\n", "5]"]);
    assert_eq!(xml.matches("<w:jc w:val='right'/>").count(), 3, "{xml}");
    assert_eq!(xml.matches("<w:b/>").count(), 3, "{xml}");
}

#[test]
fn a_missing_variable_is_named_with_its_place() {
    let why = failed(&letter(), json!({"name": "A", "order": {}}));
    let place = why.place.unwrap();
    assert_eq!((why.status, &*why.code), (422, "undefined_variable"));
    assert_eq!((&*place.part, place.paragraph), ("word/document.xml", Some(2)));
    assert_eq!((place.tag.as_deref(), &*place.text), (Some("{{ order.number }}"), "your {{ order.number }}"));
}

#[test]
fn a_missing_variable_may_be_blank() {
    let options = Options { undefined: Undefined::Blank, ..Options::default() };
    let template = Template::compile(docx(&letter()).zip().into(), &options).unwrap();
    let xml = part(&opened(template.render(&json!({"order": {}})).unwrap()), "word/document.xml");
    assert_eq!(text(&xml), ["Dear ,", "your "]);
}

fn letter() -> String {
    [p("Dear {{ name }},"), p("your {{ order.number }}")].concat()
}

#[test]
fn a_syntax_error_names_its_place() {
    for (body, expected) in [
        (p("{% for a in b %}{{ a }}"), "endfor"),
        (p("{% if a %}{% endfor %}"), "closes nothing"),
        (p("{% endif %}"), "closes nothing"),
        (p("{{ a + }}"), "unexpected"),
        (p("{% nonsense %}"), "nonsense"),
        (p("{{ a"), "does not end"),
    ] {
        let why = template(&body).unwrap_err();
        assert_eq!((why.status, &*why.code), (400, "template_syntax"), "{why:?}");
        assert!(why.message.contains(expected), "{why:?}");
        assert_eq!(why.place.unwrap().paragraph, Some(1));
    }
}

#[test]
fn an_unknown_filter_is_a_syntax_error() {
    let why = failed(&p("{{ a|nonsense }}"), json!({"a": 1}));
    assert_eq!((why.status, &*why.code), (400, "template_syntax"));
}

#[test]
fn a_condition_that_ends_in_another_cell_is_an_error() {
    let torn =
        [p("{% if a %}x"), "<w:tbl><w:tr><w:tc>".into(), p("{% endif %}"), "</w:tc></w:tr></w:tbl>".into()].concat();
    assert_eq!(failed(&torn, json!({"a": false})).code, "render_malformed");
}

#[test]
fn ten_thousand_rows_are_within_the_limits() {
    let xml = filled(&rows(), json!({"b": (0..10_000).collect::<Vec<_>>()}));
    assert_eq!(xml.matches("<w:tr>").count(), 10_000);
}

#[test]
fn a_million_rows_are_beyond_the_limits() {
    let why = failed(&rows(), json!({"b": vec![0; 1_000_000]}));
    assert!(matches!(&*why.code, "render_too_long" | "render_too_large"), "{why:?}");
}

/// A table with one row for each element of `b`.
fn rows() -> String {
    format!(
        "<w:tbl>{0}<w:tr><w:tc>{1}</w:tc></w:tr>{2}</w:tbl>",
        row("{%tr for a in b %}"),
        p("{{ a }}"),
        row("{%tr endfor %}")
    )
}

#[test]
fn nested_loops_run_out_of_steps() {
    let loops = p("{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}");
    assert_eq!(failed(&loops, json!({})).code, "render_too_long");
}

#[test]
fn a_document_may_not_exceed_its_size_limit() {
    let why = failed(&p("{{ a }}{{ a }}"), json!({"a": "x".repeat(10 << 20)}));
    assert_eq!(why.code, "render_too_large");
}

#[test]
fn endless_recursion_is_an_error() {
    let recursive = p("{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}");
    assert_eq!(failed(&recursive, json!({})).status, 422);
}

#[test]
fn a_huge_product_is_an_error() {
    let huge = p("{{ 'x' * 1000000000000 }}");
    assert_eq!(failed(&huge, json!({})).status, 422);
}

fn row(text: &str) -> String {
    format!("<w:tr><w:tc>{}</w:tc></w:tr>", p(text))
}

#[test]
fn images_become_parts_with_their_type_and_relationship() {
    let image = json!({"$type": "image", "src": picture(20, 10), "width_mm": 20, "alt": "a \"b\"", "link": "https://a.b/?c=1&d=2"});
    let body = "<w:p><w:r><w:rPr><w:b/></w:rPr><w:t>a {{ i }} b</w:t></w:r></w:p>".to_owned() + &p("{{ i }}");
    let bytes = template(&body).unwrap().render(&json!({"i": image})).unwrap();
    let package = opened(bytes);
    let xml = part(&package, "word/document.xml");
    assert_eq!(xml.matches("<w:drawing>").count(), 2);
    assert_eq!(text(&xml), ["a  b", ""]);
    assert!(xml.contains(r#"<wp:extent cx="720000" cy="360000"/>"#), "{xml}");
    assert!(xml.contains(r#"<wp:docPr id="1001""#) && xml.contains(r#"<wp:docPr id="1002""#));
    assert_eq!(xml.matches("<w:b/>").count(), 2, "the text behind the picture is as bold as the one before");
    let relations = part(&package, "word/_rels/document.xml.rels");
    assert_eq!(relations.matches("<Relationship ").count(), 2, "{relations}");
    assert!(relations.contains("https://a.b/?c=1&amp;d=2"));
    assert!(part(&package, "[Content_Types].xml").contains(r#"Extension="png""#));
    assert_eq!(package.find("word/media/caudal1.png").map(|entry| entry.packed_length()), Some(png(20, 10).len()));
}

#[test]
fn rich_text_is_inserted_at_its_tag() {
    let rich = json!({"$type": "rich_text", "spans": ["a<", {"text": "b\n", "bold": true, "color": "#ff0000"}]});
    let runs =
        "<w:r><w:t xml:space=\"preserve\">a&lt;</w:t></w:r><w:r><w:rPr><w:b/><w:color w:val=\"ff0000\"/></w:rPr>";
    for tag in ["{{r x }}", "{{ x }}"] {
        let xml = filled(&p(&format!("1 {tag} 2")), json!({"x": rich}));
        assert!(xml.contains(runs), "{xml}");
        assert_eq!(text(&xml), ["1 a<b\n 2"]);
    }
}

#[test]
fn a_rich_paragraph_replaces_the_paragraph_of_its_tag() {
    let rich = json!({"$type": "rich_paragraph", "paragraphs": [{"style": "Title", "spans": ["a"]}, {"spans": ["b"]}]});
    let xml = filled(&[p("1"), p("{{p x }}"), p("2")].concat(), json!({"x": rich}));
    assert_eq!(text(&xml), ["1", "a", "b", "2"]);
    assert!(xml.contains(r#"<w:pPr><w:pStyle w:val="Title"/></w:pPr>"#));
}

#[test]
fn typed_values_are_checked() {
    for (value, expected) in [
        (json!({"$type": "video"}), "unknown $type"),
        (json!({"$type": "image", "src": "https://a.b/c.png"}), "data:image/png"),
        (json!({"$type": "image", "src": "data:image/png;base64,AAAA"}), "expected JPEG, PNG, WebP or GIF"),
        (json!({"$type": "image", "src": picture(1, 1), "width_mm": -1}), "width_mm"),
        (json!({"$type": "image", "src": picture(1, 1), "link": "javascript:a"}), "http"),
        (json!({"$type": "rich_text", "spans": [{"text": "a", "color": "\"/><w:x"}]}), "colour"),
        (json!({"$type": "rich_text", "spans": [{"text": "a", "link": "file:///a"}]}), "http"),
        (json!({"$type": "rich_text"}), "spans"),
        (json!({"$type": "listing", "text": "a", "more": 1}), "more"),
    ] {
        let why = failed(&p("{{ a.b }}"), json!({"a": {"b": value}}));
        assert_eq!((why.status, &*why.code), (422, "value_invalid"), "{why:?}");
        assert!(why.message.starts_with("a.b: ") && why.message.contains(expected), "{why:?}");
    }
}

#[test]
fn the_data_must_be_an_object() {
    assert_eq!(failed(&p("a"), json!([])).code, "context_type");
}

#[test]
fn a_typed_value_in_an_attribute_is_an_error() {
    let attribute = "<w:p w:rsid='{{ i }}'/>";
    assert_eq!(failed(attribute, json!({"i": {"$type": "rich_text", "spans": []}})).code, "value_misplaced");
}

#[test]
fn parts_without_tags_are_copied_unchanged() {
    let noise: Vec<u8> = (0..4_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let parts = docx(&p("{{ a }}"))
        .with("word/styles.xml", "<w:styles xmlns:w='w'>  </w:styles>")
        .with("word/media/x.bin", noise);
    let before = opened(parts.zip());
    let template = Template::compile(parts.zip().into(), &Options::default()).unwrap();
    let after = opened(template.render(&json!({"a": 1})).unwrap());
    let mut budget = Budget::of(&Limits::default());
    assert_eq!(before.entries().len(), after.entries().len());
    for (old, new) in before.entries().iter().zip(after.entries()) {
        assert_eq!(old.name, new.name);
        let same = before.read(old, &mut budget).unwrap() == after.read(new, &mut budget).unwrap();
        assert_eq!(same, old.name != "word/document.xml", "{}", old.name);
    }
    assert_eq!(template.render(&json!({"a": 1})).unwrap(), template.render(&json!({"a": 1})).unwrap(), "same bytes");
}

#[test]
fn the_fields_of_all_parts_are_listed() {
    assert_eq!(template_with_header().fields().iter().collect::<Vec<_>>(), ["a.b", "list", "logo"]);
}

fn template_with_header() -> Template {
    let header = |text: &str| format!("<w:hdr xmlns:w='w'>{}</w:hdr>", p(text));
    let parts = docx(&p("{{ a.b }}{% for x in list %}{{ x.y }}{{ loop.index }}{% endfor %}"))
        .with("word/header1.xml", header("{{ logo }}{{ range(3) }}"))
        .with("word/_rels/document.xml.rels", rels(&[("rId1", "header", "header1.xml", false)]));
    Template::compile(parts.zip().into(), &Options::default()).unwrap()
}

#[test]
fn an_image_in_a_header_is_a_relationship_of_the_header() {
    let data = json!({"a": {"b": 1}, "list": [{"y": 1}], "logo": {"$type": "image", "src": picture(2, 2)}});
    let package = opened(template_with_header().render(&data).unwrap());
    assert!(part(&package, "word/_rels/header1.xml.rels").contains("/word/media/caudal1.png"));
    assert!(!part(&package, "word/_rels/document.xml.rels").contains("media"));
}

#[test]
fn a_template_is_compiled_once() {
    use crate::documents::template_cache::TemplateCache;
    let compiled = TemplateCache::<Template>::new(pipeline::spec::ByteSize::mib(4), Options::default());
    let (bytes, digest) = (Bytes::from(docx(&p("{{ a }}")).zip()), pipeline::Digest([1; 32]));
    let first = compiled.compile(digest, &bytes).unwrap();
    assert!(std::sync::Arc::ptr_eq(&first, &compiled.compile(digest, &bytes).unwrap()));
    assert_eq!(compiled.compile(pipeline::Digest([2; 32]), &Bytes::from_static(b"x")).unwrap_err().status, 415);
}

#[test]
fn damaged_templates_are_errors_and_never_a_panic() {
    let table = format!(
        "<w:tbl><w:tblGrid><w:gridCol w:w='9'/></w:tblGrid>{}{}{}</w:tbl>",
        row("{%tr for a in b %}"),
        row("{% vm %}{{ a }}"),
        row("{%tr endfor %}")
    );
    let body = [p("{{ a }} {% if b -%} x"), p("{%- endif %}{{r c }}"), table, p("{_{ {# d #}")].concat();
    let data = json!({"a": 1, "b": [1, 2], "c": {"$type": "rich_text", "spans": ["x"]}});
    filled(&body, data.clone());
    let mut random = StdRng::seed_from_u64(7);
    let bytes = body.as_bytes();
    for _ in 0..3_000 {
        let mut changed = bytes.to_vec();
        for _ in 0..random.random_range(1..4) {
            let (at, from) = (random.random_range(0..changed.len()), random.random_range(0..bytes.len()));
            match random.random_range(0..3) {
                0 => changed[at] = bytes[from],
                1 => drop(changed.remove(at)),
                _ => changed.insert(at, bytes[from]),
            }
        }
        let Ok(changed) = String::from_utf8(changed) else { continue };
        let parts: Parts = docx(&changed);
        if let Ok(template) = Template::compile(parts.zip().into(), &Options::default())
            && let Ok(document) = template.render(&data)
        {
            // The result is well-formed, whatever the template was.
            let xml = part(&opened(document), "word/document.xml");
            text(&xml);
        }
    }
}
