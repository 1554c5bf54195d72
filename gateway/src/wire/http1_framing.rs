//! HTTP/1 framing check against request smuggling: where one request ends and the next begins must be unambiguous.
//!
//! If a proxy and a server disagree about the end of a request, a client can hide a second request in the first
//! (request smuggling). The HTTP server tolerates some messages that RFC 9112 lets it refuse: `Content-Length` together
//! with `Transfer-Encoding`, lists of transfer codings that end in `chunked`, repeated lengths, lines that end in a
//! bare LF, requests without a `Host` or with several. Its parsed request does not show what it tolerated, so the bytes
//! are checked as they come: [`FramingCheck::inspect`] follows heads and bodies, stores only the first bytes of one
//! line, and skips a body with one subtraction.
//!
//! A refused head is passed on up to the offending byte, which becomes a NUL, and ends there: no head may contain a
//! NUL, so the server itself answers 400, after the requests before it, and closes. A refused body is cut off.

/// Bytes stored of a line: enough for `Transfer-Encoding: chunked`, or a length.
const LINE_BYTES: usize = 64;

/// Follows one direction of one connection.
#[derive(Debug)]
pub struct FramingCheck {
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
    /// A body, or a chunk if `chunked`; `left` bytes of it are to come.
    Body {
        left: u64,
        chunked: bool,
    },
    /// The line end after a chunk.
    ChunkEnd,
    ChunkSize,
    Trailer,
    /// Something was refused: nothing follows.
    Refused,
}

/// The framing headers of a head, so far.
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
    start: [u8; LINE_BYTES],
    /// Bytes of the whole line, its CR included.
    length: usize,
    /// The last two bytes so far.
    end: [u8; 2],
}

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The framing is unambiguous so far.
    Good,
    /// A head is ambiguous, found at this byte.
    BadHead(usize),
    /// A body is ambiguous, found at this byte.
    BadBody(usize),
}

/// The framing is ambiguous.
struct Ambiguous;

impl FramingCheck {
    pub fn new() -> Self {
        Self { place: Place::RequestLine, head: Head::default(), line: Line::EMPTY }
    }

    /// Follows the next bytes. After any verdict but [`Verdict::Good`], nothing more may be passed to the server.
    pub fn inspect(&mut self, bytes: &[u8]) -> Verdict {
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
                return if is_head { Verdict::BadHead(at + end) } else { Verdict::BadBody(at + end) };
            }
            self.line = Line::EMPTY;
            at += end + 1;
        }
        Verdict::Good
    }

    fn end_of_line(&mut self) -> Result<(), Ambiguous> {
        let line = self.line;
        if line.end[1] != b'\r' {
            return Err(Ambiguous);
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
            Place::ChunkEnd | Place::Body { .. } | Place::Refused => return Err(Ambiguous),
        };
        Ok(())
    }
}

impl Head {
    /// Records a header that says where the request ends or which host it is for.
    fn note(&mut self, line: &Line) -> Result<(), Ambiguous> {
        let start = line.start();
        let colon = start.iter().position(|byte| *byte == b':');
        let Some((name, value)) = colon.map(|colon| (&start[..colon], &start[colon + 1..])) else {
            // A longer name is none of the framing headers'.
            return if line.is_whole() { Err(Ambiguous) } else { Ok(()) };
        };
        // Whitespace before the name continues the line before (obs-fold); after it, it makes another name.
        if name.first().is_none_or(u8::is_ascii_whitespace) || name.last().is_some_and(u8::is_ascii_whitespace) {
            return Err(Ambiguous);
        }
        let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
        if is(b"host") {
            self.hosts = self.hosts.saturating_add(1);
            return if self.hosts > 1 { Err(Ambiguous) } else { Ok(()) };
        }
        let (is_length, is_coding) = (is(b"content-length"), is(b"transfer-encoding"));
        if !is_length && !is_coding {
            return Ok(());
        }
        if !line.is_whole() || self.length.is_some() || self.chunked {
            return Err(Ambiguous);
        }
        let value = value.trim_ascii();
        if is_length {
            self.length = Some(number(value, 10)?);
            return Ok(());
        }
        self.chunked = value.eq_ignore_ascii_case(b"chunked");
        if self.chunked { Ok(()) } else { Err(Ambiguous) }
    }

    /// What follows the head.
    fn body(&self) -> Result<Place, Ambiguous> {
        if self.hosts == 0 && !self.is_http_1_0 {
            return Err(Ambiguous);
        }
        Ok(match self.length.unwrap_or_default() {
            _ if self.chunked => Place::ChunkSize,
            0 => Place::RequestLine,
            left => Place::Body { left, chunked: false },
        })
    }
}

impl Line {
    const EMPTY: Self = Self { start: [0; LINE_BYTES], length: 0, end: [0; 2] };

    fn extend(&mut self, bytes: &[u8]) {
        if let Some(room) = self.start.get_mut(self.length..) {
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

    /// Whether all of it is stored.
    fn is_whole(&self) -> bool {
        self.length <= LINE_BYTES
    }

    /// Its stored beginning; a whole line comes without its CR.
    fn start(&self) -> &[u8] {
        if self.is_whole() { &self.start[..self.length - 1] } else { &self.start }
    }

    /// The size in a line `SIZE[;EXTENSIONS]`.
    fn chunk_size(&self) -> Result<u64, Ambiguous> {
        let digits = self.start().split(|byte| *byte == b';').next().unwrap_or_default();
        number(digits, 16)
    }
}

/// A number that consists of digits only.
fn number(digits: &[u8], radix: u32) -> Result<u64, Ambiguous> {
    let text = std::str::from_utf8(digits).map_err(|_| Ambiguous)?;
    // The parser would accept a sign as well.
    if !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Ambiguous);
    }
    u64::from_str_radix(text, radix).map_err(|_| Ambiguous)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The verdict on a text, checked whole and byte by byte; positions are those in the text.
    fn verdict(text: &str) -> Verdict {
        let whole = FramingCheck::new().inspect(text.as_bytes());
        let mut framing = FramingCheck::new();
        let split = text.bytes().enumerate().find_map(|(at, byte)| match framing.inspect(&[byte]) {
            Verdict::Good => None,
            Verdict::BadHead(0) => Some(Verdict::BadHead(at)),
            Verdict::BadBody(0) => Some(Verdict::BadBody(at)),
            other => panic!("{other:?}"),
        });
        assert_eq!(whole, split.unwrap_or(Verdict::Good), "{text:?}");
        whole
    }

    /// A request with these headers.
    fn head(headers: &str) -> Verdict {
        verdict(&format!("POST / HTTP/1.1\r\nHost: h\r\n{headers}\r\n"))
    }

    #[test]
    fn unambiguous_requests_pass() {
        let get = "GET / HTTP/1.1\r\nHost: h\r\nX: y\r\n\r\n";
        let sized = "POST / HTTP/1.1\r\nhost:h\r\ncontent-length:\t5 \r\n\r\n\n\r\nab";
        let none = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n";
        let chunked = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked\r\n\r\n\
                       5;x=\"y\"\r\na\nb\r\n\r\nA\r\n0123456789\r\n0\r\nT: 1\r\n\r\n";
        let old = "GET / HTTP/1.0\r\n\r\n";
        let all = [get, sized, chunked, "\r\n", none, old, get, chunked, get].concat();
        assert_eq!(verdict(&all), Verdict::Good);
        assert_eq!(head(&format!("X: {}\r\n", "y".repeat(100_000))), Verdict::Good);
        assert_eq!(verdict(&format!("{all}GET / HTTP/1.1\n")), Verdict::BadHead(all.len() + 14));
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
            assert!(matches!(head(headers), Verdict::BadHead(_)), "{headers:?}");
        }
        for text in ["GET / HTTP/1.1\n", "\n", "GET / HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\nHost: h\r\n\n"] {
            assert!(matches!(verdict(text), Verdict::BadHead(_)), "{text:?}");
        }
    }

    #[test]
    fn ambiguous_chunks_are_refused() {
        for body in
            ["5\nhello", "5 \r\n", "\r\n", "+5\r\n", "0x5\r\n", "5\r\nhelloX\r\n", "11111111111111111\r\n", "0\r\n\n"]
        {
            let text = format!("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
            assert!(matches!(verdict(&text), Verdict::BadBody(_)), "{body:?}");
        }
    }
}
