//! Configures the template engine (minijinja) for documents: Jinja's language without access to other templates, and
//! values printed as Python prints them.

use minijinja::value::{Kwargs, Value};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Output, State, UndefinedBehavior};
use minijinja_contrib::{filters, globals, pycompat};

use super::values::TypedObject;

/// Names that the engine defines, which are not fields of the data.
pub(super) const GLOBALS: [&str; 8] = ["range", "dict", "namespace", "debug", "loop", "cycler", "joiner", "lipsum"];

/// Deepest recursion of calls and recursive loops.
const RECURSION: usize = 100;

/// Beginning of the placeholder of a typed object in the rendered XML. Values cannot forge it: their `<` is escaped.
pub(super) const PLACEHOLDER: &str = "<?caudal-value ";

/// How a variable that is missing in the data is treated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Undefined {
    /// Printing it or looping over it is an error that names the place; conditions may test it.
    #[default]
    Error,
    /// It prints as blank and loops as an empty list, as in docxtpl.
    Blank,
}

/// An engine without templates.
pub(super) fn environment(escape: bool, undefined: Undefined) -> Environment<'static> {
    let mut engine = Environment::new();
    engine.set_debug(false);
    engine.set_recursion_limit(RECURSION);
    engine.set_undefined_behavior(match undefined {
        Undefined::Error => UndefinedBehavior::SemiStrict,
        Undefined::Blank => UndefinedBehavior::Lenient,
    });
    engine.set_unknown_method_callback(pycompat::unknown_method_callback);
    engine.set_auto_escape_callback(move |_| if escape { AutoEscape::Html } else { AutoEscape::None });
    engine.set_formatter(move |out, _, value| print(out, value, escape));
    engine.add_filter("truncate", truncate);
    engine.add_filter("wordcount", |text: String| text.split_whitespace().count());
    engine.add_filter("filesizeformat", filters::filesizeformat);
    engine.add_filter("striptags", filters::striptags);
    engine.add_filter("pluralize", filters::pluralize);
    engine.add_filter("center", center);
    engine.add_filter("forceescape", |value: String| Value::from_safe_string(escaped(&value)));
    engine.add_function("cycler", globals::cycler);
    engine.add_function("joiner", globals::joiner);
    if escape {
        engine.add_filter("safe", safe);
    }
    engine
}

/// Prints a value into XML as Python prints it into text.
fn print(out: &mut Output, value: &Value, escape: bool) -> Result<(), Error> {
    if let Some(object) = value.downcast_object_ref::<TypedObject>() {
        return Ok(write!(out, "{PLACEHOLDER}{}?>", object.index)?);
    }
    if value.is_undefined() {
        return Ok(());
    }
    let text = match (value.as_str(), f64::try_from(value.clone())) {
        (Some(text), _) => clean(text),
        (None, Ok(number)) if !value.is_integer() => python_float(number).into(),
        _ => clean(&value.to_string()).into_owned().into(),
    };
    if value.is_safe() || !escape {
        return Ok(out.write_str(&text)?);
    }
    Ok(out.write_str(&escaped(&text))?)
}

/// Removes the characters that XML cannot contain; `\a` and `\f` stay: they mean a new paragraph and a new page.
fn clean(text: &str) -> std::borrow::Cow<'_, str> {
    let illegal =
        |c: char| matches!(c, '\0'..='\u{6}' | '\u{8}' | '\u{b}' | '\r' | '\u{e}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}');
    if !text.contains(illegal) {
        return text.into();
    }
    let lines = text.replace("\r\n", "\n").replace('\r', "\n");
    lines.chars().filter(|&c| !illegal(c)).collect::<String>().into()
}

/// Escapes text for XML content and attributes.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            _ => out.push(c),
        }
    }
    out
}

/// The shortest digits that parse back to the same value, with an exponent where Python prints one.
fn python_float(number: f64) -> String {
    if number.is_nan() {
        return "nan".into();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf".into() } else { "-inf".into() };
    }
    if number != 0.0 && !(1e-4..1e16).contains(&number.abs()) {
        let text = format!("{number:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |rest| ('-', rest));
        return format!("{digits}e{sign}{exponent:0>2}");
    }
    format!("{number:?}")
}

fn center(text: String, width: Option<usize>) -> Result<String, Error> {
    /// Wider than any line, and short enough to be stored many times.
    const WIDEST: usize = 1_000;
    let width = width.unwrap_or(80);
    if width > WIDEST {
        return Err(Error::new(
            ErrorKind::InvalidOperation,
            format!("center to {width} characters; the limit is {WIDEST}"),
        ));
    }
    let room = width.saturating_sub(text.chars().count());
    // Like Python: the odd space goes to the left if the width is odd.
    let left = room / 2 + (room & width & 1);
    Ok(format!("{}{text}{}", " ".repeat(left), " ".repeat(room - left)))
}

/// Jinja's `truncate`: text longer than `length` plus some leeway is cut, at a space unless `killwords` is set.
fn truncate(
    text: String,
    length: Option<usize>,
    killwords: Option<bool>,
    end: Option<String>,
    named: Kwargs,
) -> Result<String, Error> {
    /// Text that exceeds the length by no more than this is not cut.
    const LEEWAY: usize = 5;
    let length = length.or(named.get("length")?).unwrap_or(255);
    let killwords = killwords.or(named.get("killwords")?).unwrap_or(false);
    let end = end.or(named.get("end")?).unwrap_or_else(|| "...".into());
    let leeway: Option<usize> = named.get("leeway")?;
    named.assert_all_used()?;
    if text.chars().count() <= length.saturating_add(leeway.unwrap_or(LEEWAY)) {
        return Ok(text);
    }
    let cut: String = text.chars().take(length.saturating_sub(end.chars().count())).collect();
    let shortened =
        if killwords { cut.as_str() } else { cut.rsplit_once(' ').map_or(cut.as_str(), |(words, _)| words) };
    Ok(format!("{shortened}{end}"))
}

/// Rejects `safe`: data are text in documents, and only typed objects produce XML.
fn safe(_: &State, value: Value) -> Result<Value, Error> {
    if value.is_safe() || value.downcast_object_ref::<TypedObject>().is_some() {
        return Ok(value);
    }
    let message = "the filter safe is not supported: values are text; use a rich_text object for formatted text";
    Err(Error::new(ErrorKind::InvalidOperation, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(template: &str, data: serde_json::Value) -> String {
        let engine = environment(true, Undefined::Error);
        let data = super::super::values::Data::of(&data).unwrap();
        engine.render_str(template, data.root).unwrap_or_else(|error| error.to_string())
    }

    #[test]
    fn values_print_as_in_python() {
        let data = serde_json::json!({
            "yes": true, "none": null, "whole": 3.0, "half": 0.5, "big": 1e16, "small": 0.00001, "huge": 1.5e300,
            "list": [1, "a", null, true, 2.5], "map": {"b": 1, "a": "x"}, "n": 12_345_678_901_234_567_890_u64
        });
        let template = "{{ yes }} {{ none }} {{ whole }} {{ half }} {{ big }} {{ small }} {{ huge }} {{ n }}";
        assert_eq!(rendered(template, data.clone()), "True None 3.0 0.5 1e+16 1e-05 1.5e+300 12345678901234567890");
        assert_eq!(rendered("{{ list }}{{ map }}", data), "[1, 'a', None, True, 2.5]{'b': 1, 'a': 'x'}");
    }

    #[test]
    fn methods_and_filters_of_python_are_there() {
        let data = serde_json::json!({"s": "ab cd", "d": {"z": 1, "a": 2}, "x": 1234.5});
        for (template, expected) in [
            ("{{ s.upper() }}", "AB CD"),
            ("{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}", "z=1;a=2;"),
            ("{{ '%.2f'|format(x) }}", "1234.50"),
            ("{{ '{:,.2f}'.format(x) }}", "1,234.50"),
            ("[{{ s|center(8) }}]", "[ ab cd  ]"),
            (
                "{{ s|wordcount }} {{ (s * 3)|truncate(9) }} {{ (s * 3)|truncate(length=9, killwords=true) }}",
                "2 ab... ab cda...",
            ),
            ("{% set ns = namespace(n=1) %}{% set ns.n = ns.n + 1 %}{{ ns.n }}", "2"),
            ("{{ d.get('q', 'none') }}", "none"),
        ] {
            assert_eq!(rendered(template, data.clone()), expected, "{template}");
        }
    }

    #[test]
    fn values_are_text() {
        let data = serde_json::json!({"s": "</w:t>&x;\u{0}\u{b}\r\n<?caudal-value 0?>\u{202e}\""});
        let text = "&lt;/w:t&gt;&amp;x;\n&lt;?caudal-value 0?&gt;\u{202e}&quot;";
        assert_eq!(rendered("{{ s }}", data.clone()), text);
        assert!(rendered("{{ s|safe }}", data.clone()).contains("rich_text"));
        assert_eq!(rendered("{% autoescape false %}{{ s }}{% endautoescape %}", data), text);
    }

    #[test]
    fn undefined_is_an_error_or_blank() {
        assert_eq!(rendered("{% if a %}x{% endif %}{{ a|default('d') }}", serde_json::json!({})), "d");
        assert!(rendered("{{ a }}", serde_json::json!({})).contains("undefined"));
        let blank = environment(true, Undefined::Blank);
        assert_eq!(blank.render_str("[{{ a }}{% for b in c %}{% endfor %}]", ()).unwrap(), "[]");
    }
}
