//! Who may be called: by the allow-list before the network is asked, by the addresses after.

use std::net::{IpAddr, SocketAddr};

use pipeline::Rejection;

use super::address::{is_one_machine, is_public};
use super::allow::Entry;
use super::target::{Host, Target};

/// `[webhook] allow` and `insecure_http`.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    pub entries: Vec<Entry>,
    pub insecure_http: bool,
}

impl Guard {
    /// Where a call to `url` goes, if the allow-list has it. A name was not resolved yet.
    pub fn check(&self, url: &str) -> Result<Target, Rejection> {
        let target = Target::parse(url)?;
        if !target.secure && !self.insecure_http {
            let host = &target.host;
            return Err(refused(format!("webhooks go by https alone, and {host} was named with http")));
        }
        let meant = match &target.host {
            Host::Name(name) => self.entries.iter().any(|entry| entry.allows_name(name, target.secure, target.port)),
            Host::Address(address) => self.allows_address(*address, &target),
        };
        if meant {
            return Ok(target);
        }
        Err(refused(format!("webhooks to {}, port {}, are not allowed here", target.host, target.port)))
    }

    /// The addresses to call, of those that the name of a checked target leads to. One that may not be called refuses all:
    /// whoever answers for the name has something else in mind.
    pub fn admit(&self, target: &Target, addresses: &[IpAddr]) -> Result<Vec<SocketAddr>, Rejection> {
        let admit = |address: &IpAddr| {
            let address = address.to_canonical();
            let allowed = is_public(address) || self.allows_address(address, target);
            allowed.then_some(SocketAddr::new(address, target.port))
        };
        let admitted: Option<Vec<SocketAddr>> = addresses.iter().map(admit).collect();
        admitted.ok_or_else(|| {
            // Who asks is not told which address it is: that would be a map of the inside.
            tracing::warn!(host = %target.host, ?addresses, "a webhook leads to an address that is not public");
            let host = &target.host;
            refused(format!("webhooks to {host} are not allowed here: it does not lead to public addresses alone"))
        })
    }

    fn allows_address(&self, address: IpAddr, target: &Target) -> bool {
        is_one_machine(address)
            && self.entries.iter().any(|entry| entry.allows_address(address, target.secure, target.port))
    }
}

fn refused(detail: String) -> Rejection {
    Rejection::new(403, "webhook_not_allowed", detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(allow: &[&str]) -> Guard {
        let entries = allow.iter().map(|text| Entry::parse(text).unwrap()).collect();
        Guard { entries, insecure_http: true }
    }

    fn refusal(guard: &Guard, url: &str) -> String {
        match guard.check(url) {
            Ok(_) => panic!("{url} was allowed"),
            Err(why) => why.code.into_owned(),
        }
    }

    /// Every way to the machine itself, its network and its cloud's metadata, against a list that allows names alone.
    #[test]
    fn no_spelling_of_an_inner_address_is_allowed() {
        let open = guard(&["*:*", "localhost:*", "metadata.google.internal"]);
        for url in [
            "http://127.0.0.1/",
            "http://127.0.0.1:22/",
            "http://127.1/",
            "http://0x7f.1/",
            "http://0x7f000001/",
            "http://2130706433/",
            "http://0177.0.0.1/",
            "http://127.0.0.1./",
            "http://%31%32%37.0.0.1/",
            "http://１２７．０．０．１/",
            "http://0/",
            "http://0.0.0.0/",
            "http://10.0.0.1/",
            "http://172.16.0.1/",
            "http://192.168.0.1/",
            "http://100.64.0.1/",
            "http://169.254.169.254/latest/meta-data/",
            "http://2852039166/latest/meta-data/",
            "http://0xa9fea9fe/",
            "http://224.0.0.1/",
            "http://255.255.255.255/",
            "http://[::]/",
            "http://[::1]/",
            "http://[::ffff:127.0.0.1]/",
            "http://[::ffff:a9fe:a9fe]/",
            "http://[::127.0.0.1]/",
            "http://[64:ff9b::7f00:1]/",
            "http://[2002:7f00:1::]/",
            "http://[fc00::1]/",
            "http://[fd00:ec2::254]/",
            "http://[fe80::1]/",
            "http://[ff02::1]/",
        ] {
            assert_eq!(refusal(&open, url), "webhook_not_allowed", "{url}");
        }
    }

    /// The same addresses behind names that are allowed.
    #[test]
    fn a_name_that_leads_inside_is_refused_unless_its_network_is_allowed() {
        let allowed = guard(&["hooks.example.org:*"]);
        let target = allowed.check("http://hooks.example.org:8080/").unwrap();
        let both = guard(&["hooks.example.org:*", "127.0.0.0/8:8080", "10.0.0.0/8:8081"]);
        for inner in [
            "127.0.0.1",
            "127.8.9.10",
            "10.0.0.1",
            "169.254.169.254",
            "192.168.1.1",
            "100.100.100.200",
            "0.0.0.0",
            "224.0.0.1",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "64:ff9b::a00:1",
            "2002:a00:1::",
            "fd00::1",
            "fe80::1",
            "ff02::1",
        ] {
            let address: IpAddr = inner.parse().unwrap();
            let why = allowed.admit(&target, &[address]).unwrap_err();
            assert_eq!((why.status, &*why.code), (403, "webhook_not_allowed"), "{inner}");
            assert!(!why.detail.contains(inner), "{}", why.detail);
            let loopback = matches!(address.to_canonical(), IpAddr::V4(address) if address.is_loopback());
            assert_eq!(both.admit(&target, &[address]).is_ok(), loopback, "{inner}");
        }
        let public: IpAddr = "93.184.216.34".parse().unwrap();
        let admitted = allowed.admit(&target, &[public]).unwrap();
        assert_eq!(admitted, ["93.184.216.34:8080".parse().unwrap()]);
        assert!(allowed.admit(&target, &[public, "10.0.0.1".parse().unwrap()]).is_err());
        // An address in the other family's clothes is called as what it is.
        let mapped = allowed.admit(&target, &["::ffff:93.184.216.34".parse().unwrap()]).unwrap();
        assert_eq!(mapped, admitted);
    }

    #[test]
    fn nothing_is_allowed_that_was_not_named() {
        assert_eq!(refusal(&guard(&[]), "https://hooks.example.org/"), "webhook_not_allowed");
        let list = guard(&["hooks.example.org", "10.0.0.0/8:8080"]);
        assert!(list.check("https://hooks.example.org/x").is_ok() && list.check("http://10.1.2.3:8080/").is_ok());
        for url in
            ["https://hooks.example.org:8443/", "https://example.org/", "http://10.1.2.3/", "http://ten.example:8080/"]
        {
            assert_eq!(refusal(&list, url), "webhook_not_allowed", "{url}");
        }
    }

    #[test]
    fn plain_http_must_be_asked_for() {
        let list = Guard { insecure_http: false, ..guard(&["hooks.example.org:*"]) };
        assert_eq!(refusal(&list, "http://hooks.example.org/"), "webhook_not_allowed");
        assert!(list.check("https://hooks.example.org/").is_ok());
    }

    #[test]
    fn an_address_of_many_is_called_by_nobody() {
        let list = guard(&["224.0.0.0/8:*", "0.0.0.0/8:*", "255.0.0.0/8:*"]);
        for url in ["http://224.0.0.1/", "http://0.0.0.0/", "http://255.255.255.255/"] {
            assert_eq!(refusal(&list, url), "webhook_not_allowed", "{url}");
        }
    }
}
