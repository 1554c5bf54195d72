//! Where one HTTP/1 request ends and the next begins, checked before the server sees a byte of it.
//!
//! A proxy and a server that disagree about the end of a request let a client hide a second one in the first (request
//! smuggling). The server behind this reads some texts charitably that RFC 9112 lets it refuse: `Content-Length` beside
//! `Transfer-Encoding`, lists of transfer codings that end in `chunked`, repeated lengths, lines that end in a bare LF, a
//! request without a `Host` or with several. What it made of them is not visible in the parsed request, so the bytes
//! themselves are looked at, as they come: [`Framing::inspect`] follows heads and bodies, keeps the first bytes of one
//! line and nothing else, and is done with a body in one subtraction.
//!
//! A head that is refused is handed on up to the offending byte, which becomes a NUL, and ends there: no head may hold one,
//! so the server itself answers 400, in its turn behind the requests before it, and closes. A body that is refused breaks
//! off.

/// Bytes kept of a line: enough for `Transfer-Encoding: chunked`, or a length.
const KEPT_BYTES: usize = 64;

/// Follows one direction of one connection.
#[derive(Debug)]
pub struct Framing {
    place: Place,
    head: Head,
    line: Line,
}

/// What the next byte belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// The request line, or an empty line before it.
    RequestLine,
    HeaderLine,
    /// A body, or what is left of a chunk with its CRLF where `chunked`.
    Body {
        left: u64,
        chunked: bool,
    },
    /// The line end behind a chunk.
    ChunkEnd,
    ChunkSize,
    Trailer,
    /// Something was refused: nothing follows.
    Refused,
}

/// What the lines of a head said so far.
#[derive(Clone, Copy, Debug, Default)]
struct Head {
    length: Option<u64>,
    chunked: bool,
    hosts: u8,
    is_http_1_0: bool,
}

/// The line that is being read.
#[derive(Clone, Copy, Debug)]
struct Line {
    kept: [u8; KEPT_BYTES],
    /// Of all of it, its CR included.
    length: usize,
    /// The last two bytes so far.
    end: [u8; 2],
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing wrong.
    Good,
    /// A head is ambiguous from this byte on.
    BadHead(usize),
    /// A body is.
    BadBody(usize),
}

/// Something that is refused.
struct Wrong;

impl Framing {
    pub fn new() -> Self {
        Self { place: Place::RequestLine, head: Head::default(), line: Line::EMPTY }
    }

    /// Follows what was read. After anything but [`Found::Good`] nothing more may be handed to the server.
    pub fn inspect(&mut self, bytes: &[u8]) -> Found {
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            if let Place::Body { left, chunked } = self.place {
                let taken = left.min(rest.len() as u64);
                at += taken as usize;
                self.place = match left - taken {
                    0 if chunked => Place::ChunkEnd,
                    0 => Place::RequestLine,
                    left => Place::Body { left, chunked },
                };
                continue;
            }
            let end = rest.iter().position(|byte| *byte == b'\n');
            self.line.extend(&rest[..end.unwrap_or(rest.len())]);
            let Some(end) = end else { break };
            let place = self.place;
            if self.end_of_line().is_err() {
                self.place = Place::Refused;
                let is_head = matches!(place, Place::RequestLine | Place::HeaderLine);
                return if is_head { Found::BadHead(at + end) } else { Found::BadBody(at + end) };
            }
            self.line = Line::EMPTY;
            at += end + 1;
        }
        Found::Good
    }

    fn end_of_line(&mut self) -> Result<(), Wrong> {
        let line = self.line;
        if line.end[1] != b'\r' {
            return Err(Wrong);
        }
        let is_empty = line.length == 1;
        self.place = match self.place {
            Place::RequestLine if is_empty => Place::RequestLine,
            Place::RequestLine => {
                self.head = Head { is_http_1_0: line.end[0] == b'0', ..Head::default() };
                Place::HeaderLine
            }
            Place::HeaderLine if is_empty => self.head.body()?,
            Place::HeaderLine => {
                self.head.note(&line)?;
                Place::HeaderLine
            }
            Place::ChunkSize => match line.chunk_size()? {
                0 => Place::Trailer,
                left => Place::Body { left, chunked: true },
            },
            Place::ChunkEnd if is_empty => Place::ChunkSize,
            Place::Trailer if is_empty => Place::RequestLine,
            Place::Trailer => Place::Trailer,
            Place::ChunkEnd | Place::Body { .. } | Place::Refused => return Err(Wrong),
        };
        Ok(())
    }
}

impl Head {
    /// Notes a header that says where the request ends, or whom it is for.
    fn note(&mut self, line: &Line) -> Result<(), Wrong> {
        let kept = line.kept();
        let colon = kept.iter().position(|byte| *byte == b':');
        let Some((name, value)) = colon.map(|colon| (&kept[..colon], &kept[colon + 1..])) else {
            // No name that matters is so long.
            return if line.is_whole() { Err(Wrong) } else { Ok(()) };
        };
        // Before the first letter it continues the line before (obs-fold), behind the last it makes another name.
        if name.first().is_none_or(u8::is_ascii_whitespace) || name.last().is_some_and(u8::is_ascii_whitespace) {
            return Err(Wrong);
        }
        let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
        if is(b"host") {
            self.hosts = self.hosts.saturating_add(1);
            return if self.hosts > 1 { Err(Wrong) } else { Ok(()) };
        }
        let (is_length, is_coding) = (is(b"content-length"), is(b"transfer-encoding"));
        if !is_length && !is_coding {
            return Ok(());
        }
        if !line.is_whole() || self.length.is_some() || self.chunked {
            return Err(Wrong);
        }
        let value = value.trim_ascii();
        if is_length {
            self.length = Some(number(value, 10)?);
            return Ok(());
        }
        self.chunked = value.eq_ignore_ascii_case(b"chunked");
        if self.chunked { Ok(()) } else { Err(Wrong) }
    }

    /// What follows the head.
    fn body(&self) -> Result<Place, Wrong> {
        if self.hosts == 0 && !self.is_http_1_0 {
            return Err(Wrong);
        }
        Ok(match self.length.unwrap_or_default() {
            _ if self.chunked => Place::ChunkSize,
            0 => Place::RequestLine,
            left => Place::Body { left, chunked: false },
        })
    }
}

impl Line {
    const EMPTY: Self = Self { kept: [0; KEPT_BYTES], length: 0, end: [0; 2] };

    fn extend(&mut self, bytes: &[u8]) {
        if let Some(room) = self.kept.get_mut(self.length..) {
            let count = room.len().min(bytes.len());
            room[..count].copy_from_slice(&bytes[..count]);
        }
        self.length += bytes.len();
        self.end = match *bytes {
            [] => self.end,
            [last] => [self.end[1], last],
            [.., before, last] => [before, last],
        };
    }

    /// Whether nothing of it was forgotten.
    fn is_whole(&self) -> bool {
        self.length <= KEPT_BYTES
    }

    /// Its beginning, without its CR where it is whole.
    fn kept(&self) -> &[u8] {
        if self.is_whole() { &self.kept[..self.length - 1] } else { &self.kept }
    }

    /// Of `SIZE[;EXTENSIONS]`.
    fn chunk_size(&self) -> Result<u64, Wrong> {
        let digits = self.kept().split(|byte| *byte == b';').next().unwrap_or_default();
        number(digits, 16)
    }
}

/// A number of nothing but digits.
fn number(digits: &[u8], radix: u32) -> Result<u64, Wrong> {
    let text = std::str::from_utf8(digits).map_err(|_| Wrong)?;
    // What parses beside digits is a sign.
    if !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Wrong);
    }
    u64::from_str_radix(text, radix).map_err(|_| Wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is found in a text, whole and byte by byte; the place of a byte is that in the text.
    fn found(text: &str) -> Found {
        let whole = Framing::new().inspect(text.as_bytes());
        let mut framing = Framing::new();
        let split = text.bytes().enumerate().find_map(|(at, byte)| match framing.inspect(&[byte]) {
            Found::Good => None,
            Found::BadHead(0) => Some(Found::BadHead(at)),
            Found::BadBody(0) => Some(Found::BadBody(at)),
            other => panic!("{other:?}"),
        });
        assert_eq!(whole, split.unwrap_or(Found::Good), "{text:?}");
        whole
    }

    /// A request with these headers.
    fn head(headers: &str) -> Found {
        found(&format!("POST / HTTP/1.1\r\nHost: h\r\n{headers}\r\n"))
    }

    #[test]
    fn plain_requests_pass_one_after_the_other() {
        let get = "GET / HTTP/1.1\r\nHost: h\r\nX: y\r\n\r\n";
        let sized = "POST / HTTP/1.1\r\nhost:h\r\ncontent-length:\t5 \r\n\r\n\n\r\nab";
        let none = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n";
        let chunked = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked\r\n\r\n\
                       5;x=\"y\"\r\na\nb\r\n\r\nA\r\n0123456789\r\n0\r\nT: 1\r\n\r\n";
        let old = "GET / HTTP/1.0\r\n\r\n";
        let all = [get, sized, chunked, "\r\n", none, old, get, chunked, get].concat();
        assert_eq!(found(&all), Found::Good);
        assert_eq!(head(&format!("X: {}\r\n", "y".repeat(100_000))), Found::Good);
        assert_eq!(found(&format!("{all}GET / HTTP/1.1\n")), Found::BadHead(all.len() + 14));
    }

    #[test]
    fn ambiguous_heads_are_refused() {
        let long = format!("Content-Length: {}5\r\n", " ".repeat(100));
        for headers in [
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            "Transfer-Encoding : chunked\r\n",
            "Transfer-Encoding\t: chunked\r\n",
            "Transfer-Encoding: chunked\n",
            "X: 1\r\n Transfer-Encoding: chunked\r\n",
            "X: 1\r\n\tfolded\r\n",
            "Content-Length: 5\r\nContent-Length: 5\r\n",
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            "Content-Length: 5, 5\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: -5\r\n",
            "Content-Length: 0x5\r\n",
            "Content-Length: a\r\n",
            "Content-Length:\r\n",
            "Content-Length: 18446744073709551616\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: xchunked\r\n",
            "Transfer-Encoding: chunked, identity\r\n",
            "Transfer-Encoding: \"chunked\"\r\n",
            "Transfer-Encoding:\r\n",
            "Host: other\r\n",
            ": x\r\n",
            "X\r\n",
            &long,
        ] {
            assert!(matches!(head(headers), Found::BadHead(_)), "{headers:?}");
        }
        for text in ["GET / HTTP/1.1\n", "\n", "GET / HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\nHost: h\r\n\n"] {
            assert!(matches!(found(text), Found::BadHead(_)), "{text:?}");
        }
    }

    #[test]
    fn ambiguous_chunks_are_refused() {
        for body in
            ["5\nhello", "5 \r\n", "\r\n", "+5\r\n", "0x5\r\n", "5\r\nhelloX\r\n", "11111111111111111\r\n", "0\r\n\n"]
        {
            let text = format!("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
            assert!(matches!(found(&text), Found::BadBody(_)), "{body:?}");
        }
    }
}
