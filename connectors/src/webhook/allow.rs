//! One entry of `[webhook] allow`: hosts by name, or a network, each with the ports that are meant.

use std::net::IpAddr;

use ipnet::IpNet;
use url::Host;

/// Networks wider than these are a slip: nobody means all of the internet, or cloud metadata, by a network.
const WIDEST_V4: u8 = 8;
const WIDEST_V6: u8 = 7;

/// An entry as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    hosts: Hosts,
    ports: Ports,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Hosts {
    /// `*`: every name, as long as it leads to a public address.
    Every,
    /// One name, in lower case and without a dot at its end.
    Name(String),
    /// `*.NAME`: what is below the name, and not the name itself.
    Below(String),
    /// Addresses, also those that are not public.
    Network(IpNet),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ports {
    /// The one of the scheme, 443 or 80.
    Usual,
    One(u16),
    Every,
}

impl Entry {
    /// Reads an entry.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (hosts, ports) = split(text)?;
        Ok(Self { hosts: parse_hosts(hosts)?, ports })
    }

    /// Whether a name and port are meant. `name` is in lower case, without a dot at its end.
    pub fn allows_name(&self, name: &str, secure: bool, port: u16) -> bool {
        let meant = match &self.hosts {
            Hosts::Every => true,
            Hosts::Name(own) => own == name,
            Hosts::Below(parent) => {
                name.strip_suffix(parent.as_str()).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
            }
            Hosts::Network(_) => false,
        };
        meant && self.ports.allow(secure, port)
    }

    /// Whether an address and port are meant, whatever kind of address it is.
    pub fn allows_address(&self, address: IpAddr, secure: bool, port: u16) -> bool {
        matches!(&self.hosts, Hosts::Network(network) if network.contains(&address)) && self.ports.allow(secure, port)
    }
}

impl Ports {
    fn allow(self, secure: bool, port: u16) -> bool {
        match self {
            Self::Usual => port == if secure { 443 } else { 80 },
            Self::One(own) => own == port,
            Self::Every => true,
        }
    }
}

/// Parts hosts and ports: `HOST`, `HOST:PORT`, `[V6]:PORT`; an IPv6 address without brackets has no port.
fn split(text: &str) -> Result<(&str, Ports), String> {
    if let Some(rest) = text.strip_prefix('[') {
        let (inner, after) = rest.split_once(']').ok_or("the bracket is not closed")?;
        if inner.parse::<IpNet>().is_err() && inner.parse::<IpAddr>().is_err() {
            return Err("what stands in brackets is no IPv6 address or network".into());
        }
        return match after.strip_prefix(':') {
            Some(port) => Ok((inner, parse_port(port)?)),
            None if after.is_empty() => Ok((inner, Ports::Usual)),
            None => Err("after the bracket comes :PORT or nothing".into()),
        };
    }
    if text.parse::<IpNet>().is_ok() || text.parse::<IpAddr>().is_ok() {
        return Ok((text, Ports::Usual));
    }
    match text.rsplit_once(':') {
        Some((host, port)) => Ok((host, parse_port(port)?)),
        None => Ok((text, Ports::Usual)),
    }
}

fn parse_port(text: &str) -> Result<Ports, String> {
    if text == "*" {
        return Ok(Ports::Every);
    }
    match text.parse() {
        Ok(port) if port > 0 => Ok(Ports::One(port)),
        _ => Err(format!("{text:?} is no port: 1 to 65535, or * for every one")),
    }
}

fn parse_hosts(text: &str) -> Result<Hosts, String> {
    if let Ok(network) = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)) {
        return check_network(network).map(Hosts::Network);
    }
    if text == "*" {
        return Ok(Hosts::Every);
    }
    let (name, below) = text.strip_prefix("*.").map_or((text, false), |parent| (parent, true));
    match Host::parse(name) {
        Ok(Host::Domain(name)) if is_name(&name) => Ok(if below { Hosts::Below(name) } else { Hosts::Name(name) }),
        Ok(Host::Ipv4(address)) => Err(format!("an address is written as {address}")),
        _ => Err("it is neither a host name nor a network".into()),
    }
}

fn check_network(network: IpNet) -> Result<IpNet, String> {
    let (widest, family) = match network {
        IpNet::V4(_) => (WIDEST_V4, "IPv4"),
        IpNet::V6(_) => (WIDEST_V6, "IPv6"),
    };
    if network.addr().to_canonical() != network.addr() {
        return Err("an IPv4 address is written as one".into());
    }
    if network.prefix_len() < widest {
        return Err(format!("a network of {family} has at least /{widest}"));
    }
    Ok(network.trunc())
}

/// Whether it is a host name as DNS knows them: letters, digits, hyphens and underscores between single dots.
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
        Entry::parse(entry).unwrap().allows_name(name, true, port)
    }

    #[test]
    fn a_name_is_itself_and_a_star_is_what_is_below() {
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
    fn without_a_port_the_usual_one_is_meant() {
        assert!(!allows("a.example", "a.example", 8443) && !allows("a.example", "a.example", 80));
        assert!(Entry::parse("a.example").unwrap().allows_name("a.example", false, 80));
        assert!(allows("a.example:8443", "a.example", 8443) && !allows("a.example:8443", "a.example", 443));
        assert!(allows("*.a.example:*", "x.a.example", 1));
    }

    #[test]
    fn a_network_holds_addresses_of_its_family() {
        let allows = |entry: &str, address: &str, port| {
            Entry::parse(entry).unwrap().allows_address(address.parse().unwrap(), false, port)
        };
        assert!(allows("10.0.0.0/8:8080", "10.255.0.1", 8080) && !allows("10.0.0.0/8:8080", "10.0.0.1", 80));
        assert!(!allows("10.0.0.0/8:8080", "11.0.0.1", 8080) && !allows("10.0.0.0/8:*", "64:ff9b::10.0.0.1", 80));
        assert!(allows("127.0.0.1", "127.0.0.1", 80) && !allows("127.0.0.1", "127.0.0.2", 80));
        assert!(allows("[fd00::/8]:8080", "fd12::1", 8080) && allows("fd00::/8", "fd12::1", 80));
        assert!(allows("[::1]:*", "::1", 9) && !allows("*", "127.0.0.1", 80));
    }

    #[test]
    fn what_is_no_entry_is_refused() {
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
            assert!(Entry::parse(wrong).is_err(), "{wrong}: {:?}", Entry::parse(wrong));
        }
    }
}
