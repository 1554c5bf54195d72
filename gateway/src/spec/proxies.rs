//! `trusted_proxies`: proxies whose forwarding headers are trusted; if the two headers disagree, both are ignored.
//!
//! A proxy sends the client's address in `X-Forwarded-For` or in `Forwarded` (RFC 7239), and passes the other header on
//! as its client sent it. So if both are present and disagree, one may be forged: the client's address is then the
//! proxy's, and clients that forge a header only share one rate-limit bucket.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;
use serde::de::{self, Deserializer};

/// Addresses of one header that are read, from the right.
const MAX_HOPS: usize = 16;

/// Networks of proxies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies(Vec<IpNet>);

impl Proxies {
    /// Whether an address belongs to one of the networks.
    pub fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// The client's address, from the lines of `X-Forwarded-For` and of `Forwarded` that `peer` sent.
    #[must_use]
    pub fn client<'h>(
        &self,
        peer: IpAddr,
        listed: impl DoubleEndedIterator<Item = &'h str>,
        forwarded: impl DoubleEndedIterator<Item = &'h str>,
    ) -> IpAddr {
        let listed = self.walk(peer, listed.flat_map(|line| line.split(',')).rev().map(|entry| parse(entry.trim())));
        let forwarded = self.walk(peer, forwarded.rev().flat_map(|line| elements(line).into_iter().rev()).map(node));
        let client = match (listed, forwarded) {
            (Some(one), Some(other)) if one != other => peer,
            (one, other) => one.or(other).unwrap_or(peer),
        };
        client.to_canonical()
    }

    /// Walks from the nearest entry on while the host that wrote it is trusted. An entry that is not an address ends
    /// the walk at the host that wrote it. `None` if there are no entries.
    fn walk(&self, peer: IpAddr, entries: impl Iterator<Item = Option<IpAddr>>) -> Option<IpAddr> {
        let mut entries = entries.take(MAX_HOPS).peekable();
        entries.peek()?;
        let mut client = peer;
        for entry in entries {
            if !self.trusts(client) {
                break;
            }
            let Some(address) = entry else { break };
            client = address;
        }
        Some(client)
    }
}

/// An address, with or without a port.
fn parse(entry: &str) -> Option<IpAddr> {
    let socket = || entry.parse::<std::net::SocketAddr>().ok().map(|socket| socket.ip());
    entry.parse().ok().or_else(socket)
}

/// The elements of a line of `Forwarded`; a comma in quotes does not separate.
fn elements(line: &str) -> Vec<&str> {
    split(line, ',')
}

/// The address in `for=192.0.2.43:4711;proto=https`; an IPv6 address is in brackets and quotes.
fn node(element: &str) -> Option<IpAddr> {
    let mut nodes = split(element, ';').into_iter().filter_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim().eq_ignore_ascii_case("for").then_some(value.trim())
    });
    let (node, None) = (nodes.next()?, nodes.next()) else { return None };
    let node = node.strip_prefix('"').and_then(|node| node.strip_suffix('"')).unwrap_or(node);
    let bare = node.strip_prefix('[').and_then(|node| node.strip_suffix(']')).unwrap_or(node);
    parse(bare)
}

/// Splits a text at a mark outside of quotes.
fn split(text: &str, mark: char) -> Vec<&str> {
    let (mut quoted, mut escaped) = (false, false);
    let at = |c: char| {
        let is_escaped = escaped;
        escaped = quoted && !is_escaped && c == '\\';
        quoted ^= c == '"' && !is_escaped;
        c == mark && !quoted
    };
    text.split(at).collect()
}

impl<'de> Deserialize<'de> for Proxies {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        let network = |text: &String| {
            let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
            network.map_err(|_| {
                de::Error::custom(format!("{text:?} is not a network, expected one such as \"10.0.0.0/8\""))
            })
        };
        texts.iter().map(network).collect::<Result<_, _>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, forwarded: &[&str]) -> String {
        let networks = ["10.0.0.0/8", "fd00::/8"].map(|text| text.parse().unwrap());
        let none = std::iter::empty();
        Proxies(networks.into()).client(peer.parse().unwrap(), forwarded.iter().copied(), none).to_string()
    }

    fn by_both(listed: &[&str], forwarded: &[&str]) -> String {
        let (peer, networks) = ("10.0.0.1".parse().unwrap(), ["10.0.0.0/8".parse().unwrap()]);
        Proxies(networks.into()).client(peer, listed.iter().copied(), forwarded.iter().copied()).to_string()
    }

    #[test]
    fn the_forwarded_header_is_read() {
        let by = |lines: &[&str]| by_both(&[], lines);
        assert_eq!(by(&["for=198.51.100.7;proto=https;by=10.0.0.1"]), "198.51.100.7");
        assert_eq!(by(&["for=203.0.113.9, For=198.51.100.7:4711;host=\"a,b;c\", by=x;for=10.0.0.2"]), "198.51.100.7");
        assert_eq!(by(&["for=203.0.113.9", "for=\"198.51.100.7:4711\""]), "198.51.100.7");
        assert_eq!(by(&["for=\"[2001:db8::1]\""]), "2001:db8::1");
        assert_eq!(by(&["for=\"[2001:db8::1]:4711\""]), "2001:db8::1");
        for nobody in ["for=unknown", "for=_hidden", "proto=https", "", "for=1.2.3.4;for=5.6.7.8", "for=1.2.3.4, x\"y"]
        {
            assert_eq!(by(&[nobody]), "10.0.0.1", "{nobody}");
        }
        assert_eq!(by(&["for=203.0.113.9, for=unknown, for=10.0.0.2"]), "10.0.0.2");
    }

    #[test]
    fn headers_that_disagree_are_ignored() {
        assert_eq!(by_both(&["198.51.100.7"], &["for=198.51.100.7"]), "198.51.100.7");
        assert_eq!(by_both(&["198.51.100.7"], &["for=203.0.113.9"]), "10.0.0.1");
        assert_eq!(by_both(&["198.51.100.7"], &["for=unknown"]), "10.0.0.1");
        assert_eq!(by_both(&["203.0.113.9, 198.51.100.7"], &["for=198.51.100.7"]), "198.51.100.7");
    }

    #[test]
    fn only_addresses_from_trusted_proxies_count() {
        assert_eq!(client("192.0.2.1", &["198.51.100.7"]), "192.0.2.1");
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &["198.51.100.7"]), "198.51.100.7");
        assert_eq!(client("10.0.0.1", &["203.0.113.9, 198.51.100.7, 10.0.0.2"]), "198.51.100.7");
        assert_eq!(client("10.0.0.1", &["203.0.113.9", "198.51.100.7"]), "198.51.100.7");
        assert_eq!(client("::ffff:10.0.0.1", &["198.51.100.7:4711"]), "198.51.100.7");
        assert_eq!(client("fd00::1", &["[2001:db8::1]:4711"]), "2001:db8::1");
        assert_eq!(client("10.0.0.1", &["198.51.100.7, garbage"]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &["198.51.100.7,"]), "10.0.0.1");
    }
}
