//! Lexer for Jinja tags in the text of a part; normalises them to the engine's syntax.
//!
//! The text is XML-escaped, as in the part. String literals in a tag are recognised, so that `}` and `%` in them do not
//! end the tag. Word replaces straight quotes by curly ones: a string that begins with a curly quote ends with one of
//! the same kind, and curly quotes that delimit strings become straight.

/// The kind of a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TagKind {
    /// `{{ … }}`
    Print,
    /// `{% … %}`
    Statement,
    /// `{# … #}`
    Comment,
}

/// What a tag replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    /// Only itself.
    Text,
    /// The run around it (`r`); the rest of the run is kept.
    Run,
    /// The paragraph around it (`p`).
    Paragraph,
    /// The cell around it (`tc`).
    Cell,
    /// The row around it (`tr`).
    Row,
}

/// A tag of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tag {
    pub(super) kind: TagKind,
    pub(super) level: Level,
    /// The text between the delimiters: unescaped, with straight quotes, without prefix, signs and outer white space.
    pub(super) body: String,
    /// `-` or `+` at its start and end.
    pub(super) signs: (Option<char>, Option<char>),
    /// Offset of its first character and after its last one.
    pub(super) range: (usize, usize),
}

impl Tag {
    /// In the engine's syntax.
    pub(super) fn source(&self) -> String {
        let (open, close) = delimiters(self.kind);
        let sign = |sign: Option<char>| sign.map(String::from).unwrap_or_default();
        format!("{open}{} {} {}{close}", sign(self.signs.0), self.body, sign(self.signs.1))
    }

    /// As written, for messages.
    pub(super) fn shown(&self) -> String {
        let (open, close) = delimiters(self.kind);
        let prefix = match self.level {
            Level::Text => "",
            Level::Run => "r",
            Level::Paragraph => "p",
            Level::Cell => "tc",
            Level::Row => "tr",
        };
        let body: String = self.body.chars().take(120).collect();
        format!("{open}{prefix} {body} {close}")
    }

    /// The first word of a statement, and the rest.
    pub(super) fn keyword(&self) -> (&str, &str) {
        if self.kind != TagKind::Statement {
            return ("", "");
        }
        let end = self.body.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(self.body.len());
        (&self.body[..end], self.body[end..].trim())
    }
}

fn delimiters(kind: TagKind) -> (&'static str, &'static str) {
    match kind {
        TagKind::Print => ("{{", "}}"),
        TagKind::Statement => ("{%", "%}"),
        TagKind::Comment => ("{#", "#}"),
    }
}

/// The tag that begins with the delimiter at `at`; `None` if it does not end before `end` or another tag begins inside
/// it.
pub(super) fn read(text: &str, at: usize, end: usize) -> Option<Tag> {
    let kind = begins(text, at)?;
    let (body, close) = match kind {
        TagKind::Comment => {
            let close = at + 2 + text[at + 2..end].find("#}")?;
            (text[at + 2..close].to_owned(), close)
        }
        _ => expression(text, at + 2, end, kind)?,
    };
    let (signs, body) = split_signs(&body);
    let (level, body) = split_prefix(kind, body);
    Some(Tag { kind, level, body: body.trim().to_owned(), signs, range: (at, close + 2) })
}

/// The kind of tag that begins at `at`, if one does.
pub(super) fn begins(text: &str, at: usize) -> Option<TagKind> {
    match text.as_bytes().get(at..at + 2)? {
        b"{{" => Some(TagKind::Print),
        b"{%" => Some(TagKind::Statement),
        b"{#" => Some(TagKind::Comment),
        _ => None,
    }
}

/// The next offset at which a tag begins.
pub(super) fn next_begin(text: &str, from: usize) -> Option<usize> {
    memchr::memchr_iter(b'{', text.as_bytes().get(from..)?)
        .map(|offset| from + offset)
        .find(|&at| begins(text, at).is_some())
}

/// Reads up to the closing delimiter; returns the body, unescaped and with straight quotes, and the delimiter's offset.
fn expression(text: &str, mut at: usize, end: usize, kind: TagKind) -> Option<(String, usize)> {
    let close: &[u8] = if kind == TagKind::Print { b"}}" } else { b"%}" };
    let (mut body, mut string, mut depth) = (String::new(), None::<Quote>, 0_usize);
    while at < end {
        if string.is_none() {
            if depth == 0 && text.as_bytes().get(at..at + 2) == Some(close) && at + 2 <= end {
                return Some((body, at));
            }
            // Another tag begins, so this one is not closed.
            if matches!(begins(text, at), Some(TagKind::Print | TagKind::Statement)) && !body.trim().is_empty() {
                return None;
            }
        }
        let (c, length) = character(&text[at..end])?;
        at += length;
        match (&string, Quote::of(c)) {
            (Some(open), Some(quote)) if open.ends_with(quote) => {
                body.push(open.plain());
                string = None;
            }
            (None, Some(quote)) => {
                body.push(quote.plain());
                string = Some(quote);
            }
            (Some(open), _) => {
                if c == open.plain() {
                    body.push('\\');
                }
                body.push(c);
                if c == '\\' {
                    let (escaped, length) = character(&text[at..end])?;
                    at += length;
                    body.push(escaped);
                }
            }
            (None, None) => {
                depth = match c {
                    '{' | '[' | '(' => depth + 1,
                    '}' | ']' | ')' => depth.saturating_sub(1),
                    _ => depth,
                };
                // Word inserts no-break spaces.
                body.push(if c.is_whitespace() { ' ' } else { c });
            }
        }
    }
    None
}

/// A quote: double or single, straight or curly.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Quote {
    double: bool,
    straight: bool,
}

impl Quote {
    fn of(c: char) -> Option<Self> {
        let (double, straight) = match c {
            '"' => (true, true),
            '\'' => (false, true),
            '“' | '”' | '„' | '«' | '»' => (true, false),
            '‘' | '’' | '‚' => (false, false),
            _ => return None,
        };
        Some(Self { double, straight })
    }

    /// A straight quote is closed only by a straight one, so that the string may contain curly quotes.
    fn ends_with(self, other: Self) -> bool {
        self.double == other.double && (!self.straight || other.straight)
    }

    fn plain(self) -> char {
        if self.double { '"' } else { '\'' }
    }
}

/// The first character of escaped text, and its length in bytes there.
fn character(text: &str) -> Option<(char, usize)> {
    let first = text.chars().next()?;
    if first == '&'
        && let Some(length) = text.find(';').map(|end| end + 1).filter(|length| *length <= 12)
        && let Ok(plain) = quick_xml::escape::unescape(&text[..length])
        && let Some(plain) = plain.chars().next()
    {
        return Some((plain, length));
    }
    Some((first, first.len_utf8()))
}

fn split_signs(body: &str) -> ((Option<char>, Option<char>), &str) {
    let sign = |c: Option<char>| c.filter(|c| matches!(c, '-' | '+'));
    let first = sign(body.chars().next());
    let body = if first.is_some() { &body[1..] } else { body };
    // The `-` in `{{ a - }}` is not a sign: a sign directly precedes the delimiter.
    let last = sign(body.chars().next_back());
    let body = if last.is_some() { &body[..body.len() - 1] } else { body };
    ((first, last), body)
}

fn split_prefix(kind: TagKind, body: &str) -> (Level, &str) {
    let prefixes = [("tr", Level::Row), ("tc", Level::Cell), ("p", Level::Paragraph), ("r", Level::Run)];
    for (prefix, level) in prefixes {
        let Some(rest) = body.strip_prefix(prefix) else { continue };
        let whole = rest.starts_with(char::is_whitespace) && !rest.trim().is_empty();
        if whole && !(kind == TagKind::Comment && level == Level::Run) {
            return (level, rest);
        }
    }
    (Level::Text, body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Tag {
        read(text, 0, text.len()).unwrap_or_else(|| panic!("{text}"))
    }

    #[test]
    fn delimiters_in_strings_and_braces_do_not_end_a_tag() {
        assert_eq!(one(r#"{{ "}}" }} x"#).body, r#""}}""#);
        assert_eq!(one(r#"{{ {"a": {"b": 1}} }}"#).body, r#"{"a": {"b": 1}}"#);
        assert_eq!(
            one("{%p if a == '%}' %}"),
            Tag {
                kind: TagKind::Statement,
                level: Level::Paragraph,
                body: "if a == '%}'".into(),
                signs: (None, None),
                range: (0, 19),
            }
        );
        assert_eq!(one(r"{{ 'it\'s' }}").body, r"'it\'s'");
    }

    #[test]
    fn curly_quotes_and_no_break_spaces_of_word_are_normalised() {
        assert_eq!(one("{% if a == “b” and c != ‘d’ %}").body, r#"if a == "b" and c != 'd'"#);
        assert_eq!(one("{{ “say 'a'” }}").body, r#""say 'a'""#);
        assert_eq!(one(r#"{{ "say “a”" }}"#).body, r#""say “a”""#);
        assert_eq!(one("{%p\u{a0}if\u{a0}a %}").level, Level::Paragraph);
        assert_eq!(one("{{ a &lt; 3 and b == &quot;x&amp;y&quot; }}").body, r#"a < 3 and b == "x&y""#);
    }

    #[test]
    fn a_prefix_needs_a_space_and_something_behind_it() {
        assert_eq!(
            (one("{{r x }}").level, one("{{rx }}").level, one("{{ r x }}").level),
            (Level::Run, Level::Text, Level::Text)
        );
        assert_eq!((one("{{p }}").level, &*one("{{p }}").body), (Level::Text, "p"));
        assert_eq!((one("{#tr a #}").level, one("{#r a #}").level), (Level::Row, Level::Text));
        assert_eq!(one("{%- if a -%}").signs, (Some('-'), Some('-')));
    }

    #[test]
    fn a_tag_that_never_ends_is_none() {
        for text in ["{{ a", "{{ a }", "{% if a {{ b }}", "{{ 'a }}", "{# a"] {
            assert_eq!(read(text, 0, text.len()), None, "{text}");
        }
    }
}
