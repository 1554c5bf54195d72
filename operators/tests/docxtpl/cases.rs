//! The templates, one for each feature of the language.

use base64::Engine as _;
use serde_json::{Value, json};

use super::Case;
use super::package::{Document, body, p, run, table, tc, tr};

/// Every case.
pub fn all() -> Vec<Case> {
    [texts(), runs(), tables(), merges(), typed(), parts()].into_iter().flatten().collect()
}

fn case(name: &'static str, template: Vec<u8>, data: Value) -> Case {
    Case { name, template, data, autoescape: true, except: &[] }
}

fn picture() -> Value {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 30, 20);
    encoder.set_color(png::ColorType::Rgb);
    let (unit, dots) = (png::Unit::Meter, 5_906);
    encoder.set_pixel_dims(Some(png::PixelDimensions { xppu: dots, yppu: dots, unit }));
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&[200; 30 * 20 * 3]).unwrap();
    writer.finish().unwrap();
    let text = base64::engine::general_purpose::STANDARD.encode(bytes);
    json!({"$type": "image", "src": format!("data:image/png;base64,{text}")})
}

fn person() -> Value {
    json!({"name": "Ann & <Bo>", "age": 41, "share": 0.25, "whole": 2.0, "ok": true, "none": null,
           "list": [1, "two", null, 2.5], "map": {"z": 1, "a": "x"}, "words": "one two three"})
}

fn texts() -> Vec<Case> {
    let values =
        ["{{ name }} {{ age }} {{ share }} {{ whole }} {{ ok }} {{ none }}", "{{ list }} {{ map }}", "[{{ missing }}]"];
    let filters = [
        "{{ name|upper }} {{ words|title }} {{ words|replace('two', '2') }} {{ list|length }} {{ list|first }}",
        "{{ '%.2f'|format(share) }} {{ share|round(1) }} {{ words|truncate(7) }} {{ words|wordcount }} {{ missing|default('d') }}",
        "{{ words.upper() }} {{ words.split(' ')[1] }} {{ '{:.3f}'.format(share) }} {{ map.get('a') }} {{ words[0:3] }}",
        "{% for k, v in map.items() %}{{ k }}={{ v }};{% endfor %} {{ [3, 1, 2]|sort|join('-') }} {{ words|capitalize }}",
        "{{ 7 // 2 }} {{ 7 % 4 }} {{ 2 ** 8 }} {{ 1 / 4 }} {{ 'a' ~ age }} {{ age if ok else 0 }} {{ words|center(20) }}|",
    ];
    let blocks = [
        "{% if age &gt; 40 and name != 'x' %}old{% elif ok %}ok{% else %}young{% endif %}",
        "{% for n in list %}{{ loop.index }}{{ ',' if not loop.last }}{% else %}none{% endfor %}",
        "{% set total = age * 2 %}{{ total }}{% macro m(a, b=2) %}<{{ a }}{{ b }}>{% endmacro %}",
        "{% with a = 1 %}{{ a }}{% endwith %}{# a comment #} {{ “curly” }} {{ ‘curly’ }}",
        "{_{ name }_} {_% if %_} 100 % { } }} {{ \"{{\" }}{{ '%' }}",
    ];
    let blocks = blocks
        .map(|text| text.replace('<', "&lt;"))
        .map(|text| text.replace("&lt;{{ a", "({{ a").replace("{{ b }}>", "{{ b }})"));
    let spaces = format!("{}{}", p("  {{ name }}  x  "), "<w:p><w:r><w:t>{{ a }}</w:t></w:r></w:p>");
    vec![
        case("values", body(values.map(p).concat()), person()),
        case("filters", body(filters.map(p).concat()), person()),
        case("blocks", body(blocks.map(|text| p(&text)).concat()), person()),
        case("spaces", body(spaces), json!({"name": "n", "a": " b "})),
        case("control-characters", body(styled("x {{ a }} y")), json!({"a": "1\n2\t3\u{7}4\u{c}5"})),
        case("listing", body(styled("{{ a }}")), json!({"a": {"$type": "listing", "text": "1 < 2\n\t3\u{7}4"}})),
        case(
            "paragraphs",
            body(
                [
                    "{%p if ok %}",
                    "a {{ name }}",
                    "{%p else %}",
                    "b",
                    "{%p endif %}",
                    "{#p gone #}",
                    "{%p for n in list %}",
                    "{{ n }}",
                    "{%p endfor %}",
                    "end",
                ]
                .map(p)
                .concat(),
            ),
            person(),
        ),
        case("merging", body(["a", "{%- if ok -%}", "b", "{%- endif -%}", "c"].map(p).concat()), person()),
        Case {
            autoescape: false,
            ..case("no-escaping", body(p("{{ a }} {{ b|e }}")), json!({"a": "x &amp; y", "b": "<&>"}))
        },
    ]
}

/// A paragraph whose properties must be repeated when it is split.
fn styled(text: &str) -> String {
    format!(r#"<w:p><w:pPr><w:pStyle w:val="Quote"/></w:pPr>{}</w:p>"#, run("<w:b/>", text))
}

fn runs() -> Vec<Case> {
    let split = [
        run("<w:b/>", "Dear {"),
        "<w:proofErr w:type=\"spellStart\"/>".into(),
        run("<w:i/>", "{ na"),
        run("", "me"),
        "<w:bookmarkStart w:id=\"1\" w:name=\"a\"/><w:bookmarkEnd w:id=\"1\"/>".into(),
        run("<w:u w:val=\"single\"/>", " }"),
        run("<w:i/>", "}, hello {{ age }}"),
    ];
    let statement = [
        run("<w:b/>", "{% if"),
        run("", " ok %"),
        run("<w:i/>", "}yes"),
        run("", "{% end"),
        run("<w:b/>", "if %} after"),
    ];
    let controlled = [
        run("<w:b/>", "{%r if ok %}"),
        run("<w:i/>", "yes"),
        run("", "{%r else %}"),
        run("<w:i/>", "no"),
        run("", "{%r endif %}"),
        run("", " end"),
    ];
    let paragraph = |pieces: &[String]| format!("<w:p>{}</w:p>", pieces.concat());
    let over_paragraphs = p("a {% if ") + &p("ok %} b") + &p("c {% endif %}");
    vec![
        case("split-print", body(paragraph(&split)), person()),
        case("split-statement", body(paragraph(&statement)), person()),
        case("run-statements", body(paragraph(&controlled)), person()),
        case("split-over-paragraphs", body(over_paragraphs), person()),
        case(
            "attributes",
            body(
                "<w:p><w:r><w:drawing><wp:inline><wp:docPr id=\"1\" name=\"a\" descr=\"{{ words }}\"/></wp:inline></w:drawing></w:r></w:p>",
            ),
            person(),
        ),
    ]
}

fn rows() -> Value {
    json!({"rows": [{"n": "a", "cells": [1, 2, 3]}, {"n": "b", "cells": [4, 5, 6]}], "heads": ["x", "y", "z"],
           "two": ["q", "r"], "span": 2, "colour": "ffcc00", "yes": true})
}

fn tables() -> Vec<Case> {
    let loop_rows = table(
        2,
        &[
            tr(&["name", "first"]),
            tr(&["{%tr for r in rows %}", ""]),
            tr(&["{{ r.n }}", "{{ r.cells[0] }}"]),
            tr(&["{%tr endfor %}", ""]),
            tr(&["end", ""]),
        ],
    );
    let loop_columns = table(
        3,
        &[
            tr(&["{%tc for h in heads %}", "{{ h }}", "{%tc endfor %}"]),
            tr(&["{%tr for r in rows %}", "", ""]),
            tr(&["{%tc for c in r.cells %}", "{{ c }}", "{%tc endfor %}"]),
            tr(&["{%tr endfor %}", "", ""]),
        ],
    );
    let grown = table(2, &[tr(&["{{ yes }}", "{%tc for h in heads %}", "{{ h }}", "{%tc endfor %}"])]);
    let shrunk = table(5, &[tr(&["a", "{%tc if not yes %}", "b", "{%tc endif %}", "c"])]);
    let conditional = table(
        1,
        &[
            tr(&["{%tr if yes %}"]),
            tr(&["yes"]),
            tr(&["{%tr else %}"]),
            tr(&["no"]),
            tr(&["{%tr endif %}"]),
            tr(&["{#tr gone #}"]),
        ],
    );
    let inner = table(1, &[tr(&["{%tr for c in r.cells %}"]), tr(&["{{ c }}"]), tr(&["{%tr endfor %}"])]);
    let nested = format!(
        "<w:tr><w:tc><w:tcPr><w:tcW w:w=\"1000\" w:type=\"dxa\"/></w:tcPr>{}{inner}</w:tc></w:tr>",
        p("{{ r.n }}")
    );
    let nested = table(1, &[tr(&["{%tr for r in rows %}"]), nested, tr(&["{%tr endfor %}"])]);
    let many =
        json!({"rows": (0..40).map(|n| json!({"n": format!("item {n}"), "cells": [n, n * 2]})).collect::<Vec<_>>()});
    vec![
        case("rows", body(loop_rows.clone()), rows()),
        case("rows-forty", body(loop_rows.clone()), many),
        case("rows-none", body(loop_rows), json!({"rows": []})),
        case("columns", body(loop_columns), rows()),
        case("columns-grown", body(grown), rows()),
        case("columns-shrunk", body(shrunk), rows()),
        case("rows-conditional", body(conditional), rows()),
        case("tables-nested", body(nested), rows()),
    ]
}

fn merges() -> Vec<Case> {
    let line = |cells: &[String]| format!("<w:tr>{}</w:tr>", cells.concat());
    let span = table(2, &[line(&[tc("", "{% colspan span %}wide")]), tr(&["a", "b"])]);
    let colour = table(
        1,
        &[
            line(&[tc("<w:shd w:val=\"clear\" w:color=\"auto\" w:fill=\"000000\"/>", "{% cellbg colour %}a")]),
            line(&[tc("", "{% cellbg '00ff00' %}b")]),
        ],
    );
    let down = table(
        2,
        &[tr(&["{%tr for r in rows %}", ""]), tr(&["{% vm %}same", "{{ r.n }}"]), tr(&["{%tr endfor %}", ""])],
    );
    let across = table(
        3,
        &[
            tr(&["{%tc for h in heads %}", "{% hm %}all", "{%tc endfor %}"]),
            tr(&["{%tc for h in heads %}", "{{ h }}", "{%tc endfor %}"]),
        ],
    );
    let wider = table(
        4,
        &[
            line(&[
                tc("", "{%tc for h in two %}"),
                tc("<w:gridSpan w:val=\"2\"/>", "{% hm %}all"),
                tc("", "{%tc endfor %}"),
            ]),
            tr(&["1", "2", "3", "4"]),
        ],
    );
    vec![
        case("colspan", body(span), rows()),
        case("cellbg", body(colour), rows()),
        case("vertical-merge", body(down), rows()),
        case("horizontal-merge", body(across), rows()),
        case("horizontal-merge-spanning", body(wider), rows()),
    ]
}

fn typed() -> Vec<Case> {
    let with = |mut value: Value, key: &str, more: Value| {
        value[key] = more;
        value
    };
    let image = p("a {{ i }} b")
        + &p("{{ i }}")
        + &table(1, &[tr(&["{%tr for j in list %}"]), tr(&["{{ j }}"]), tr(&["{%tr endfor %}"])]);
    let sized = with(picture(), "width_mm", json!(20));
    let spans = json!([
        "plain < ", {"text": "bold", "bold": true, "italic": true}, {"text": "red", "color": "#ff0000", "highlight": "ffff00", "size": 40},
        {"text": "under", "underline": "double", "strike": true}, {"text": "up", "superscript": true}, {"text": "down", "subscript": true},
        {"text": "font", "font": "Courier New"}, {"text": "east", "font": "eastAsia:MS Mincho"}, {"text": "style", "style": "Strong", "lang": "de-DE"},
        {"text": "rtl", "rtl": true}, {"text": "link", "link": "https://example.org/?a=1&b=2", "underline": true},
    ]);
    let rich = json!({"$type": "rich_text", "spans": spans});
    let paragraphs = json!({"$type": "rich_paragraph", "paragraphs": [{"style": "Heading1", "spans": ["head"]}, {"spans": ["a", {"text": "b", "bold": true}]}]});
    let conditional = p("{% if x %}has {{r x }}{% else %}none{% endif %}");
    vec![
        case("images", body(image), json!({"i": picture(), "list": [sized, with(picture(), "height_mm", json!(10))]})),
        case("image-link", body(p("{{ i }}")), json!({"i": with(picture(), "link", json!("https://example.org/"))})),
        case("rich-text", body(p("{{r x }}")), json!({"x": rich})),
        case("rich-text-beside", body(p("1 {{r x }} 2")), json!({"x": {"$type": "rich_text", "spans": ["in"]}})),
        case(
            "rich-text-condition",
            body(conditional),
            json!({"x": {"$type": "rich_text", "spans": [{"text": "in", "bold": true}]}}),
        ),
        case("rich-paragraph", body([p("1"), p("{{p x }}"), p("2")].concat()), json!({"x": paragraphs})),
    ]
}

fn parts() -> Vec<Case> {
    let whole = Document {
        body: p("{{ name }}"),
        header: Some(p("head {{ name }} {% if ok %}ok{% endif %}")),
        footer: Some(
            p("foot {{ age }}")
                + &table(1, &[tr(&["{%tr for n in list %}"]), tr(&["{{ n }}"]), tr(&["{%tr endfor %}"])]),
        ),
        footnote: Some(format!("<w:footnote w:id=\"1\">{}</w:footnote>", p("note {{ words }}"))),
        // Without characters that are escaped, because docxtpl escapes properties twice.
        properties: Some(["Title of {{ age }}", "{{ words }}", "{% if ok %}fine{% endif %}"]),
    };
    let logo = Document {
        body: p("{{ i }}"),
        header: Some(p("{{ i }}")),
        footer: Some(p("x {{ i }}")),
        ..Document::default()
    };
    vec![
        case("parts", whole.zip(), person()),
        // docxtpl numbers only the drawings of the body, so its ids repeat.
        Case { except: &["drawings"], ..case("header-images", logo.zip(), json!({"i": picture()})) },
    ]
}
