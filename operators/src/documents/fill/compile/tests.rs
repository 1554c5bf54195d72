use super::*;

fn compiled(body: &str) -> String {
    let text = format!("<w:document xmlns:w='w'><w:body>{body}</w:body></w:document>");
    let source = compile("word/document.xml", &text, 64).unwrap_or_else(|error| panic!("{error:?}"));
    let from = source.text.find("<w:body>").unwrap() + 8;
    source.text[from..source.text.len() - "</w:body></w:document>".len()].to_owned()
}

fn error(body: &str) -> FillError {
    let text = format!("<w:document xmlns:w='w'><w:body>{body}</w:body></w:document>");
    match compile("word/document.xml", &text, 64) {
        Err(error) => error,
        Ok(source) => panic!("{}", source.text),
    }
}

fn paragraph(text: &str) -> String {
    format!("<w:p><w:r><w:t>{text}</w:t></w:r></w:p>")
}

#[test]
fn a_part_without_tags_stays_unchanged() {
    let body = "<w:p a='{5C22}'><w:r><w:t>a { b } 100 % &amp; {c</w:t></w:r></w:p>";
    assert_eq!(compiled(body), body);
}

#[test]
fn a_tag_over_runs_keeps_the_formatting_it_begins_with() {
    let body = "<w:p><w:r><w:rPr><w:b/></w:rPr><w:t>a {</w:t></w:r><w:proofErr/><w:r><w:t>{ na</w:t></w:r>\
                <w:r><w:t>me }</w:t></w:r><w:r><w:rPr><w:i/></w:rPr><w:t>} b</w:t></w:r></w:p>";
    let healed = "<w:p><w:r><w:rPr><w:b/></w:rPr><w:t xml:space=\"preserve\">a {{ name }} b</w:t></w:r></w:p>";
    assert_eq!(compiled(body), healed);
}

#[test]
fn a_tag_that_ends_in_a_hyperlink_leaves_the_elements_whole() {
    let body = "<w:p><w:r><w:t>{{ a</w:t></w:r><w:hyperlink><w:r><w:t>b }} c</w:t></w:r></w:hyperlink></w:p>";
    let moved = "<w:p><w:r><w:t xml:space=\"preserve\">{{ ab }}</w:t></w:r><w:hyperlink><w:r><w:t> c</w:t></w:r></w:hyperlink></w:p>";
    assert_eq!(compiled(body), moved);
}

#[test]
fn prefixed_tags_replace_what_is_around_them() {
    let row = |text: &str| format!("<w:tr><w:tc>{}</w:tc></w:tr>", paragraph(text));
    let table = format!("<w:tbl>{}{}{}</w:tbl>", row("{%tr for a in b %}"), row("{{ a }}"), row("{%tr endfor %}"));
    let source = compiled(&table);
    assert!(source.starts_with("<w:tbl>{% for a in b %}<w:tr><w:tc>"), "{source}");
    assert!(source.ends_with("</w:tc></w:tr>{% endfor %}</w:tbl>"), "{source}");
}

#[test]
fn several_prefixed_tags_in_one_row_are_all_kept() {
    let row = |text: &str| format!("<w:tr><w:tc>{}</w:tc></w:tr>", paragraph(text));
    let both =
        format!("<w:tbl>{}{}</w:tbl>", row("{%tr for a in b %}{%tr if a %}"), row("{%tr endif %}{%tr endfor %}"));
    let source = "<w:tbl>{% for a in b %}{% if a %}{% endif %}{% endfor %}</w:tbl>";
    assert_eq!(compiled(&both), source);
}

#[test]
fn a_prefixed_tag_replaces_its_paragraph() {
    assert_eq!(compiled(&paragraph("{%p set a = '%}' %}")), "{% set a = '%}' %}");
    assert_eq!(compiled(&paragraph("{#p a #}")), "");
}

#[test]
fn a_run_tag_keeps_what_is_beside_it_and_its_formatting() {
    let body = "<w:p><w:r><w:rPr><w:b/></w:rPr><w:t>a {{r x }} b</w:t></w:r></w:p>";
    let split = "<w:p><w:r><w:rPr><w:b/></w:rPr><w:t xml:space=\"preserve\">a </w:t></w:r>{{ x }}\
                 <w:r><w:rPr><w:b/></w:rPr><w:t xml:space=\"preserve\"> b</w:t></w:r></w:p>";
    assert_eq!(compiled(body), split);
}

#[test]
fn a_minus_sign_joins_paragraphs_and_keeps_their_text() {
    let body = [paragraph("a"), paragraph("{%- if x -%}"), paragraph("b"), paragraph("c {%- endif %}")].concat();
    let source = compiled(&body);
    assert!(source.starts_with("<w:p><w:r><w:t xml:space=\"preserve\">a{% if x %}b</w:t></w:r></w:p>"), "{source}");
    assert!(source.ends_with(">c{% endif %}</w:t></w:r></w:p>"), "{source}");
}

#[test]
fn cells_get_their_properties_in_order() {
    let source = compiled(&cell("<w:tcPr><w:tcW w:w='1'/><w:vAlign/></w:tcPr>", "{% colspan n %}{% cellbg c %}a"));
    let expected = "<w:tcPr><w:tcW w:w='1'/><w:gridSpan w:val=\"{{ n }}\"/><w:shd w:val=\"clear\" w:color=\"auto\" w:fill=\"{{ c }}\"/><w:vAlign/></w:tcPr>";
    assert!(source.contains(expected), "{source}");
}

fn cell(properties: &str, text: &str) -> String {
    format!("<w:tbl><w:tr><w:tc>{properties}{}</w:tc></w:tr></w:tbl>", paragraph(text))
}

#[test]
fn a_horizontal_merge_spans_all_columns_of_the_loop() {
    let source = compiled(&cell("<w:tcPr><w:gridSpan w:val='2'/></w:tcPr>", "{% hm %}a"));
    assert!(
        source.contains("{% if loop.first %}<w:tc><w:tcPr><w:gridSpan w:val=\"{{ 2 * loop.length }}\"/>"),
        "{source}"
    );
}

#[test]
fn a_vertical_merge_shows_its_content_in_the_first_row() {
    let source = compiled(&cell("", "{% vm %}a"));
    assert!(
        source.contains("</w:tcPr>{% if loop.first %}<w:p>") && source.contains("{% else %}<w:p/>{% endif %}</w:tc>"),
        "{source}"
    );
}

#[test]
fn braces_can_be_printed() {
    assert_eq!(compiled(&paragraph("{_{ a }_}")), "<w:p><w:r><w:t>{{ '{{' }} a {{ '}}' }}</w:t></w:r></w:p>");
    assert!(compiled(&paragraph("{% raw %}{{ a }}{% endraw %}")).contains(">{{ '{{' }} a }}<"));
}

#[test]
fn attributes_are_filled_too() {
    assert_eq!(
        compiled("<wp:docPr descr='{{ a }} &amp; {{ \"b\" }}'/>"),
        "<wp:docPr descr='{{ a }} &amp; {{ \"b\" }}'/>"
    );
}

#[test]
fn a_syntax_error_names_its_paragraph() {
    let body = [paragraph("fine"), paragraph("Dear {{ name")].concat();
    let error_ = error(&body);
    let place = error_.place.unwrap();
    assert_eq!((error_.status, place.paragraph, &*place.text), (400, Some(2), "Dear {{ name"));
}

#[test]
fn a_misplaced_tag_is_named() {
    assert!(error(&paragraph("{%tr for a in b %}")).message.contains("row of a table"));
    assert!(error(&paragraph("{% vm %}")).message.contains("cell"));
    assert!(error(&paragraph("{% include 'a' %}")).message.contains("include"));
}

#[test]
fn a_tag_cannot_end_in_the_next_cell() {
    let cells =
        format!("<w:tbl><w:tr><w:tc>{}</w:tc><w:tc>{}</w:tc></w:tr></w:tbl>", paragraph("{{ a"), paragraph("}}"));
    assert!(error(&cells).message.contains("does not end"));
}
