//! The URL of a webhook receiver, parsed once: the checked URL is the one that is called.
//!
//! Two parsers that read one URL differently are how such checks are bypassed. So only the WHATWG parser is used (it
//! normalises every spelling of an IPv4 address), and text that it would have to repair is refused before.

use std::fmt;
use std::net::IpAddr;

use hyper::http::uri::PathAndQuery;
use pipeline::Rejection;
use url::Url;

use super::allow_entry::is_name;

/// Longest URL, in bytes.
const MAX_BYTES: usize = 2048;

/// The parsed URL of a receiver.
#[derive(Clone, Debug)]
pub struct TargetUrl {
    /// Whether the scheme is https.
    pub secure: bool,
    /// Name or address.
    pub host: Host,
    /// Explicit, or the scheme's default.
    pub port: u16,
    /// Percent-encoded; the fragment is removed.
    pub path: PathAndQuery,
}

/// A name in lower case without a trailing dot, or an address; an IPv4-mapped IPv6 address is stored as IPv4.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    Name(String),
    Address(IpAddr),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Self::Address(address) => write!(f, "{address}"),
        }
    }
}

impl TargetUrl {
    /// Parses a URL.
    ///
    /// # Errors
    /// 400 `webhook_url`; the message does not repeat the URL.
    pub fn parse(text: &str) -> Result<Self, Rejection> {
        check_text(text).map_err(malformed)?;
        let url = Url::parse(text).map_err(|why| malformed(&why.to_string()))?;
        let secure = url.scheme() == "https";
        let host = match url.host() {
            Some(url::Host::Ipv4(address)) => Host::Address(address.into()),
            Some(url::Host::Ipv6(address)) => Host::Address(IpAddr::V6(address).to_canonical()),
            Some(url::Host::Domain(name)) => {
                let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
                if !is_name(&name) {
                    return Err(malformed("its host is not a DNS name"));
                }
                Host::Name(name)
            }
            None => return Err(malformed("it has no host")),
        };
        let port = url.port_or_known_default().filter(|port| *port > 0).ok_or_else(|| malformed("its port is 0"))?;
        let path = match url.query() {
            Some(query) => PathAndQuery::try_from(format!("{}?{query}", url.path())),
            None => PathAndQuery::try_from(url.path()),
        };
        let path = path.map_err(|_| malformed("its path or query has a character that must be escaped"))?;
        Ok(Self { secure, host, port, path })
    }

    /// The value of the `Host` header: with the port, unless it is the scheme's default.
    pub fn authority(&self) -> String {
        match (self.secure, self.port) {
            (true, 443) | (false, 80) => self.host.to_string(),
            _ => format!("{}:{}", self.host, self.port),
        }
    }
}

/// Refuses text that URL parsers are known to read differently.
fn check_text(text: &str) -> Result<(), &'static str> {
    if text.len() > MAX_BYTES {
        return Err("it is longer than 2048 bytes");
    }
    if text.chars().any(|c| c.is_control() || c.is_whitespace() || c == '\\') {
        return Err("it has a space, a control character or a backslash");
    }
    let Some((scheme, rest)) = text.split_once("://") else { return Err("it does not begin with https://") };
    if !scheme.eq_ignore_ascii_case("https") && !scheme.eq_ignore_ascii_case("http") {
        return Err("its scheme is neither https nor http");
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.is_empty() {
        return Err("it has no host");
    }
    if authority.contains('@') {
        return Err("it has a user name or password: send an Authorization header instead");
    }
    Ok(())
}

fn malformed(why: &str) -> Rejection {
    Rejection::new(400, "webhook_url", format!("the webhook URL cannot be used: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_an_address_is_parsed_as_that_address() {
        for (text, expected) in [
            ("http://127.0.0.1/", "127.0.0.1"),
            ("http://127.1/", "127.0.0.1"),
            ("http://127.0.1/", "127.0.0.1"),
            ("http://0x7f.1/", "127.0.0.1"),
            ("http://0x7f000001/", "127.0.0.1"),
            ("http://2130706433/", "127.0.0.1"),
            ("http://017700000001/", "127.0.0.1"),
            ("http://0177.0.0.1/", "127.0.0.1"),
            ("http://0177.0x0.0.1/", "127.0.0.1"),
            ("http://127.0.0.1./", "127.0.0.1"),
            ("http://%31%32%37.0.0.1/", "127.0.0.1"),
            ("http://１２７．０．０．１/", "127.0.0.1"),
            ("http://①②⑦。0。0。1/", "127.0.0.1"),
            ("http://0/", "0.0.0.0"),
            ("http://2852039166/", "169.254.169.254"),
            ("http://0xa9fea9fe/", "169.254.169.254"),
            ("http://0251.0376.0251.0376/", "169.254.169.254"),
            ("http://[::1]/", "[::1]"),
            ("http://[0:0:0:0:0:0:0:1]/", "[::1]"),
            ("http://[::ffff:127.0.0.1]/", "127.0.0.1"),
            ("http://[::ffff:7f00:1]/", "127.0.0.1"),
            ("http://[0:0:0:0:0:ffff:a9fe:a9fe]/", "169.254.169.254"),
        ] {
            let target = TargetUrl::parse(text).unwrap_or_else(|why| panic!("{text}: {why}"));
            assert!(matches!(target.host, Host::Address(_)), "{text}");
            assert_eq!(target.host.to_string(), expected, "{text}");
        }
    }

    #[test]
    fn a_name_has_one_form() {
        for (text, expected) in [
            ("https://Hooks.Example.ORG/", "hooks.example.org"),
            ("https://hooks.example.org./", "hooks.example.org"),
            ("HTTPS://hooks.example.org/", "hooks.example.org"),
            ("https://hooks%2Eexample.org/", "hooks.example.org"),
            ("https://bücher.example/", "xn--bcher-kva.example"),
            ("https://ｌｏｃａｌｈｏｓｔ/", "localhost"),
        ] {
            assert_eq!(TargetUrl::parse(text).unwrap().host, Host::Name(expected.into()), "{text}");
        }
    }

    #[test]
    fn urls_that_parsers_read_differently_are_refused() {
        for text in [
            "",
            "https://",
            "https:///evil.example/",
            "https:evil.example",
            "https:/evil.example",
            "//evil.example/",
            "ftp://a.example/",
            "file:///etc/passwd",
            "gopher://a.example/",
            "javascript://a.example/",
            "https://user@a.example/",
            "https://user:pw@a.example/",
            "https://@a.example/",
            "https://a.example@evil/",
            "https://a.example\\@evil.example/",
            "https://a.example\\.evil.example/",
            "https://a.example/\r\nX: y",
            "https://a.example/ x",
            " https://a.example/",
            "https://a.exam\tple/",
            "https://a.example\u{a0}/",
            "https://a..example/",
            "https://.a.example/",
            "https://a.example../",
            "https://a.example:0/",
            "https://a.example:65536/",
            "https://a.example:x/",
            "https://[::1/",
            "https://[fe80::1%25eth0]/",
            "https://[::1]evil/",
            "https://256.256.256.256/",
            "https://1.2.3.4.5/",
            "https://0x100000000/",
            "https://*.example/",
            "https://a,b.example/",
            "https://127.0.0.1%00.example/",
            "https://a.example%2f@evil.example/",
            "https://a.example%23.evil.example/",
        ] {
            let why = TargetUrl::parse(text).err().unwrap_or_else(|| panic!("{text:?} was accepted"));
            assert_eq!((why.status, &*why.code), (400, "webhook_url"), "{text:?}");
            assert!(!why.detail.contains("evil") && !why.detail.contains("pw"), "{}", why.detail);
        }
        assert!(TargetUrl::parse(&format!("https://a.example/{}", "x".repeat(2048))).is_err());
    }

    #[test]
    fn port_path_and_query_are_preserved_and_the_fragment_is_not() {
        let target = TargetUrl::parse("https://a.example:8443/p/ä?q=1&r=%20#secret").unwrap();
        assert_eq!((target.port, target.path.as_str()), (8443, "/p/%C3%A4?q=1&r=%20"));
        assert_eq!(target.authority(), "a.example:8443");
        assert_eq!(TargetUrl::parse("https://a.example").unwrap().path.as_str(), "/");
        assert_eq!(TargetUrl::parse("http://a.example:80").unwrap().authority(), "a.example");
        assert_eq!(TargetUrl::parse("http://a.example:443").unwrap().authority(), "a.example:443");
    }
}
