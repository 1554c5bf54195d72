//! One entry of `[webhook] allow`: a host name, a wildcard or a network, with its ports.

use std::net::IpAddr;

use ipnet::IpNet;
use url::Host;

/// Shortest prefixes. A wider network is taken for a mistake: it could include all of the internet or cloud metadata.
const WIDEST_V4: u8 = 8;
const WIDEST_V6: u8 = 7;

/// A parsed entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowEntry {
    hosts: Hosts,
    ports: Ports,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Hosts {
    /// `*`: every name that resolves to public addresses only.
    Any,
    /// One name, in lower case, without a trailing dot.
    Name(String),
    /// `*.NAME`: subdomains of the name, not the name itself.
    Subdomains(String),
    /// A network; its addresses need not be public.
    Network(IpNet),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ports {
    /// The default port of the scheme, 443 or 80.
    Default,
    One(u16),
    Any,
}

impl AllowEntry {
    /// Parses an entry.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (hosts, ports) = split(text)?;
        Ok(Self { hosts: parse_hosts(hosts)?, ports })
    }

    /// Whether the entry allows a name and port. `name` is in lower case, without a trailing dot.
    pub fn allows_name(&self, name: &str, secure: bool, port: u16) -> bool {
        let allowed = match &self.hosts {
            Hosts::Any => true,
            Hosts::Name(own) => own == name,
            Hosts::Subdomains(parent) => {
                name.strip_suffix(parent.as_str()).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
            }
            Hosts::Network(_) => false,
        };
        allowed && self.ports.allow(secure, port)
    }

    /// Whether the entry allows an address and port, public or not.
    pub fn allows_address(&self, address: IpAddr, secure: bool, port: u16) -> bool {
        matches!(&self.hosts, Hosts::Network(network) if network.contains(&address)) && self.ports.allow(secure, port)
    }
}

impl Ports {
    fn allow(self, secure: bool, port: u16) -> bool {
        match self {
            Self::Default => port == if secure { 443 } else { 80 },
            Self::One(own) => own == port,
            Self::Any => true,
        }
    }
}

/// Splits hosts and ports: `HOST`, `HOST:PORT`, `[V6]:PORT`; an IPv6 address without brackets has no port.
fn split(text: &str) -> Result<(&str, Ports), String> {
    if let Some(rest) = text.strip_prefix('[') {
        let (inner, after) = rest.split_once(']').ok_or("the bracket is not closed")?;
        if inner.parse::<IpNet>().is_err() && inner.parse::<IpAddr>().is_err() {
            return Err("the brackets do not hold an IPv6 address or network".into());
        }
        return match after.strip_prefix(':') {
            Some(port) => Ok((inner, parse_port(port)?)),
            None if after.is_empty() => Ok((inner, Ports::Default)),
            None => Err("after the bracket, only :PORT may follow".into()),
        };
    }
    if text.parse::<IpNet>().is_ok() || text.parse::<IpAddr>().is_ok() {
        return Ok((text, Ports::Default));
    }
    match text.rsplit_once(':') {
        Some((host, port)) => Ok((host, parse_port(port)?)),
        None => Ok((text, Ports::Default)),
    }
}

fn parse_port(text: &str) -> Result<Ports, String> {
    if text == "*" {
        return Ok(Ports::Any);
    }
    match text.parse() {
        Ok(port) if port > 0 => Ok(Ports::One(port)),
        _ => Err(format!("{text:?} is not a port: give 1 to 65535, or * for any")),
    }
}

fn parse_hosts(text: &str) -> Result<Hosts, String> {
    if let Ok(network) = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)) {
        return check_network(network).map(Hosts::Network);
    }
    if text == "*" {
        return Ok(Hosts::Any);
    }
    let (name, below) = text.strip_prefix("*.").map_or((text, false), |parent| (parent, true));
    match Host::parse(name) {
        Ok(Host::Domain(name)) if is_name(&name) => Ok(if below { Hosts::Subdomains(name) } else { Hosts::Name(name) }),
        Ok(Host::Ipv4(address)) => Err(format!("write the address as {address}")),
        _ => Err("neither a host name nor a network".into()),
    }
}

fn check_network(network: IpNet) -> Result<IpNet, String> {
    let (widest, family) = match network {
        IpNet::V4(_) => (WIDEST_V4, "IPv4"),
        IpNet::V6(_) => (WIDEST_V6, "IPv6"),
    };
    if network.addr().to_canonical() != network.addr() {
        return Err("write an IPv4 address as such, not in IPv6 form".into());
    }
    if network.prefix_len() < widest {
        return Err(format!("an {family} network needs a prefix of at least /{widest}"));
    }
    Ok(network.trunc())
}

/// Whether the text is a DNS host name: labels of letters, digits, hyphens and underscores, separated by single dots.
pub fn is_name(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    text.len() <= 253 && text.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(entry: &str, name: &str, port: u16) -> bool {
        AllowEntry::parse(entry).unwrap().allows_name(name, true, port)
    }

    #[test]
    fn a_name_allows_itself_and_a_wildcard_its_subdomains() {
        assert!(allows("hooks.example.org", "hooks.example.org", 443));
        assert!(allows("Hooks.Example.ORG", "hooks.example.org", 443));
        assert!(allows("bücher.example", "xn--bcher-kva.example", 443));
        assert!(allows("*.internal.example", "a.b.internal.example", 443));
        assert!(allows("*", "anything.example", 443));
        for (entry, other) in [
            ("hooks.example.org", "evil-hooks.example.org"),
            ("hooks.example.org", "hooks.example.org.evil.example"),
            ("hooks.example.org", "a.hooks.example.org"),
            ("*.internal.example", "internal.example"),
            ("*.internal.example", ".internal.example"),
            ("*.internal.example", "evilinternal.example"),
            ("10.0.0.0/8", "10.0.0.1"),
        ] {
            assert!(!allows(entry, other, 443), "{entry} {other}");
        }
    }

    #[test]
    fn without_a_port_the_default_port_of_the_scheme_is_allowed() {
        assert!(!allows("a.example", "a.example", 8443) && !allows("a.example", "a.example", 80));
        assert!(AllowEntry::parse("a.example").unwrap().allows_name("a.example", false, 80));
        assert!(allows("a.example:8443", "a.example", 8443) && !allows("a.example:8443", "a.example", 443));
        assert!(allows("*.a.example:*", "x.a.example", 1));
    }

    #[test]
    fn a_network_allows_addresses_of_its_family() {
        let allows = |entry: &str, address: &str, port| {
            AllowEntry::parse(entry).unwrap().allows_address(address.parse().unwrap(), false, port)
        };
        assert!(allows("10.0.0.0/8:8080", "10.255.0.1", 8080) && !allows("10.0.0.0/8:8080", "10.0.0.1", 80));
        assert!(!allows("10.0.0.0/8:8080", "11.0.0.1", 8080) && !allows("10.0.0.0/8:*", "64:ff9b::10.0.0.1", 80));
        assert!(allows("127.0.0.1", "127.0.0.1", 80) && !allows("127.0.0.1", "127.0.0.2", 80));
        assert!(allows("[fd00::/8]:8080", "fd12::1", 8080) && allows("fd00::/8", "fd12::1", 80));
        assert!(allows("[::1]:*", "::1", 9) && !allows("*", "127.0.0.1", 80));
    }

    #[test]
    fn malformed_entries_are_refused() {
        for wrong in [
            "",
            "*.",
            "a..b",
            "a.example.",
            "https://a.example",
            "a.example/path",
            "user@a.example",
            "a.example:0",
            "a.example:http",
            "a.example:65536",
            "a*.example",
            "*.*",
            "127.1",
            "0x7f000001",
            "2130706433",
            "[::1",
            "[a.example]:80",
            "[::1]80",
            "0.0.0.0/0",
            "::/0",
            "::ffff:10.0.0.0/104",
            "::ffff:10.0.0.1",
            "10.0.0.0/33",
        ] {
            assert!(AllowEntry::parse(wrong).is_err(), "{wrong}: {:?}", AllowEntry::parse(wrong));
        }
    }
}
