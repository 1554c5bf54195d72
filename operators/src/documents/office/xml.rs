//! Zero-copy XML tokenizer: tokens are slices of the text, so that markup that is not understood can be written back
//! unchanged.
//!
//! Rejected in any part: a document type definition, entities other than the five of XML, encodings other than UTF-8 (a
//! reader that trusts the declaration would see another document than this one), and nesting beyond a limit.

use std::borrow::Cow;
use std::ops::Range;

use quick_xml::Reader;
use quick_xml::escape::unescape;
use quick_xml::events::Event;
use quick_xml::events::attributes::Attributes;

/// Why the XML of a part is rejected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum XmlError {
    /// Not well-formed.
    #[error("it is not well-formed XML at byte {at}: {what}")]
    Malformed {
        /// Offset in the part.
        at: usize,
        /// The parser's message.
        what: String,
    },
    /// A document type definition, `<!DOCTYPE`.
    #[error("it has a document type definition at byte {at}; remove the <!DOCTYPE …>")]
    Doctype {
        /// Offset in the part.
        at: usize,
    },
    /// An entity that only a document type definition could define.
    #[error("it refers to the undefined entity &{name}; at byte {at}")]
    Entity {
        /// Offset in the part.
        at: usize,
        /// Its name, cut short.
        name: String,
    },
    /// An encoding other than UTF-8.
    #[error("its encoding is not UTF-8 ({encoding})")]
    Encoding {
        /// As declared.
        encoding: String,
    },
    /// Elements nested beyond the limit.
    #[error("its elements are nested deeper than {limit} levels, at byte {at}")]
    Depth {
        /// Offset in the part.
        at: usize,
        /// The limit.
        limit: usize,
    },
}

/// The kind of a [`Token`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// `<name …>`
    Open,
    /// `<name …/>`
    Empty,
    /// `</name>`
    Close,
    /// Text between tags, still escaped.
    Text,
    /// `<![CDATA[…]]>`
    Cdata,
    /// The declaration, a comment or a processing instruction.
    Other,
}

/// A slice of a part. The tokens of a part, concatenated, are the part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token<'x> {
    /// Its kind.
    pub kind: TokenKind,
    /// As written.
    pub raw: &'x str,
    /// Offset in the part.
    pub at: usize,
}

impl<'x> Token<'x> {
    /// Name of the element with its prefix; empty for a token that is not a tag.
    #[must_use]
    pub fn name(&self) -> &'x str {
        let inner = match self.kind {
            TokenKind::Open | TokenKind::Empty => &self.raw[1..],
            TokenKind::Close => &self.raw[2..],
            _ => return "",
        };
        let end = inner.find(|c: char| c.is_ascii_whitespace() || c == '/' || c == '>').unwrap_or(inner.len());
        &inner[..end]
    }

    /// Name of the element without its prefix.
    #[must_use]
    pub fn local_name(&self) -> &'x str {
        local(self.name())
    }

    /// Name and unescaped value of each attribute, up to the first malformed one.
    pub fn attributes(&self) -> impl Iterator<Item = (&'x str, Cow<'x, str>)> + use<'x> {
        let inner = match self.kind {
            TokenKind::Open => &self.raw[1..self.raw.len() - 1],
            TokenKind::Empty => &self.raw[1..self.raw.len() - 2],
            _ => "",
        };
        let mut attributes = Attributes::new(inner, self.name().len());
        attributes.with_checks(false);
        attributes.map_while(Result::ok).map(|attribute| {
            let key = attribute.key.into_inner();
            let value = match attribute.value {
                Cow::Borrowed(raw) => unescape(raw).unwrap_or(Cow::Borrowed(raw)),
                Cow::Owned(raw) => Cow::Owned(raw),
            };
            (key, value)
        })
    }

    /// The unescaped value of one attribute, by its name with prefix.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<Cow<'x, str>> {
        self.attributes().find_map(|(key, value)| (key == name).then_some(value))
    }

    /// The unescaped value of one attribute, by its name without prefix.
    #[must_use]
    pub fn attribute_local(&self, name: &str) -> Option<Cow<'x, str>> {
        self.attributes().find_map(|(key, value)| (local(key) == name).then_some(value))
    }

    /// The unescaped text.
    #[must_use]
    pub fn text(&self) -> Cow<'x, str> {
        match self.kind {
            TokenKind::Text => unescape(self.raw).unwrap_or(Cow::Borrowed(self.raw)),
            TokenKind::Cdata => Cow::Borrowed(&self.raw[9..self.raw.len() - 3]),
            _ => Cow::Borrowed(""),
        }
    }
}

/// A name without its prefix.
#[must_use]
pub fn local(name: &str) -> &str {
    name.rsplit_once(':').map_or(name, |(_, local)| local)
}

/// Reads the tokens of one part in order.
pub struct Tokens<'x> {
    text: &'x str,
    reader: Reader<&'x [u8]>,
    /// Read ahead while searching for the end of a text.
    ahead: Option<(Option<TokenKind>, Range<usize>)>,
    depth: usize,
    max_depth: usize,
    seen_root: bool,
}

/// The text of a part, which must be UTF-8; a byte order mark is skipped.
///
/// # Errors
/// [`XmlError::Encoding`].
pub fn text_of(bytes: &[u8]) -> Result<&str, XmlError> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    std::str::from_utf8(bytes).map_err(|_| XmlError::Encoding { encoding: "not UTF-8".into() })
}

impl<'x> Tokens<'x> {
    /// Reads `text` with elements nested no deeper than `max_depth`.
    #[must_use]
    pub fn new(text: &'x str, max_depth: usize) -> Self {
        let reader = Reader::from_str(text);
        Self { text, reader, ahead: None, depth: 0, max_depth, seen_root: false }
    }

    /// The next token, or `None` at the end of a complete document.
    ///
    /// # Errors
    /// See [`XmlError`]; nothing more can be read after one.
    pub fn read(&mut self) -> Result<Option<Token<'x>>, XmlError> {
        let (kind, mut range) = match self.ahead.take() {
            Some(ahead) => ahead,
            None => self.event()?,
        };
        if kind == Some(TokenKind::Text) {
            // The parser reports entities as separate events; here they are part of the text.
            loop {
                let (next, next_range) = self.event()?;
                if next != Some(TokenKind::Text) {
                    self.ahead = Some((next, next_range));
                    break;
                }
                range.end = next_range.end;
            }
        }
        let Some(kind) = kind else { return self.at_end(range.start) };
        let token = Token { kind, raw: &self.text[range.clone()], at: range.start };
        self.count(&token)?;
        Ok(Some(token))
    }

    fn at_end(&self, at: usize) -> Result<Option<Token<'x>>, XmlError> {
        match (self.depth, self.seen_root) {
            (0, true) => Ok(None),
            (0, false) => Err(malformed(at, "it has no root element")),
            _ => Err(malformed(at, "it ends inside an element")),
        }
    }

    fn count(&mut self, token: &Token<'x>) -> Result<(), XmlError> {
        match token.kind {
            TokenKind::Open | TokenKind::Empty => {
                if self.depth == 0 && self.seen_root {
                    return Err(malformed(token.at, "a second root element"));
                }
                self.seen_root = true;
                if self.depth >= self.max_depth {
                    return Err(XmlError::Depth { at: token.at, limit: self.max_depth });
                }
                self.depth += usize::from(token.kind == TokenKind::Open);
            }
            TokenKind::Close => self.depth = self.depth.saturating_sub(1),
            TokenKind::Text if self.depth == 0 && !token.raw.trim_ascii().is_empty() => {
                return Err(malformed(token.at, "text outside the root element"));
            }
            _ => {}
        }
        Ok(())
    }

    fn event(&mut self) -> Result<(Option<TokenKind>, Range<usize>), XmlError> {
        let start = self.position();
        let event = self.reader.read_event().map_err(|error| malformed(start, &error.to_string()))?;
        let kind = match event {
            Event::Start(_) => TokenKind::Open,
            Event::Empty(_) => TokenKind::Empty,
            Event::End(_) => TokenKind::Close,
            Event::Text(_) => TokenKind::Text,
            Event::CData(_) => TokenKind::Cdata,
            Event::Comment(_) | Event::PI(_) => TokenKind::Other,
            Event::Decl(decl) => {
                utf8_declared(&decl)?;
                TokenKind::Other
            }
            Event::DocType(_) => return Err(XmlError::Doctype { at: start }),
            Event::GeneralRef(entity) => {
                defined(&entity, start)?;
                TokenKind::Text
            }
            Event::Eof => return Ok((None, start..start)),
        };
        Ok((Some(kind), start..self.position()))
    }

    fn position(&self) -> usize {
        usize::try_from(self.reader.buffer_position()).unwrap_or(usize::MAX)
    }
}

fn utf8_declared(decl: &quick_xml::events::BytesDecl<'_>) -> Result<(), XmlError> {
    let Some(encoding) = decl.encoding() else { return Ok(()) };
    let encoding = encoding.map_err(|error| malformed(0, &error.to_string()))?;
    let known = ["utf-8", "utf8", "us-ascii", "ascii"];
    if known.iter().any(|name| encoding.eq_ignore_ascii_case(name)) {
        return Ok(());
    }
    Err(XmlError::Encoding { encoding: encoding.chars().take(40).collect() })
}

fn defined(entity: &quick_xml::events::BytesRef<'_>, at: usize) -> Result<(), XmlError> {
    let name: &str = entity;
    let known = match entity.resolve_char_ref() {
        Ok(Some(_)) => true,
        Ok(None) => matches!(name, "lt" | "gt" | "amp" | "quot" | "apos"),
        Err(_) => false,
    };
    if known { Ok(()) } else { Err(XmlError::Entity { at, name: name.chars().take(40).collect() }) }
}

fn malformed(at: usize, what: &str) -> XmlError {
    XmlError::Malformed { at, what: what.chars().take(200).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Result<Vec<Token<'_>>, XmlError> {
        let mut tokens = Tokens::new(text, 8);
        let mut found = Vec::new();
        while let Some(token) = tokens.read()? {
            found.push(token);
        }
        Ok(found)
    }

    #[test]
    fn tokens_concatenated_are_the_text() {
        let text = "<?xml version='1.0'?><a x='1' >b &amp; c<!-- d --><e/><![CDATA[f]]></a >\n";
        let tokens = all(text).unwrap();
        assert_eq!(tokens.iter().map(|token| token.raw).collect::<String>(), text);
        let kinds: Vec<_> = tokens.iter().map(|token| token.kind).collect();
        use TokenKind::*;
        assert_eq!(kinds, [Other, Open, Text, Other, Empty, Cdata, Close, Text]);
        assert_eq!((tokens[1].name(), tokens[6].name(), &*tokens[2].text()), ("a", "a", "b & c"));
    }

    #[test]
    fn attributes_are_unescaped() {
        let tokens = all(r#"<w:p r:id="a&amp;b" x='"'/>"#).unwrap();
        assert_eq!(tokens[0].attribute("r:id").unwrap(), "a&b");
        assert_eq!(tokens[0].attribute_local("id").unwrap(), "a&b");
        assert_eq!(tokens[0].attribute("x").unwrap(), "\"");
        assert_eq!(tokens[0].attribute("id"), None);
    }

    #[test]
    fn invalid_xml_is_an_error() {
        assert!(matches!(all("<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>"), Err(XmlError::Doctype { at: 0 })));
        assert!(matches!(all("<a>&b;</a>"), Err(XmlError::Entity { .. })));
        assert!(matches!(all("<?xml version='1.0' encoding='UTF-7'?><a/>"), Err(XmlError::Encoding { .. })));
        assert!(matches!(all(&"<a>".repeat(9)), Err(XmlError::Depth { limit: 8, .. })));
        for text in ["", "<a>", "<a></b>", "<a/><b/>", "x<a/>", "<a x", "</a>", "<a>&</a>"] {
            assert!(matches!(all(text), Err(XmlError::Malformed { .. })), "{text}");
        }
        assert!(text_of(b"\xff\xfe<\0a\0").is_err());
    }
}
