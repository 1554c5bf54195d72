//! The allow-list check of webhooks (SSRF protection): the URL before DNS is asked, the resolved addresses after.

use std::net::{IpAddr, SocketAddr};

use pipeline::Rejection;

use super::allow_entry::AllowEntry;
use super::public_address::{is_public, is_single_host};
use super::target_url::{Host, TargetUrl};

/// `[webhook] allow` and `insecure_http`.
#[derive(Clone, Debug, Default)]
pub struct AllowList {
    pub entries: Vec<AllowEntry>,
    pub insecure_http: bool,
}

impl AllowList {
    /// Parses `url` and checks it against the list. A host name is not resolved here.
    pub fn check_url(&self, url: &str) -> Result<TargetUrl, Rejection> {
        let target = TargetUrl::parse(url)?;
        if !target.secure && !self.insecure_http {
            let host = &target.host;
            return Err(refused(format!("webhooks must use https, and the URL of {host} uses http")));
        }
        let allowed = match &target.host {
            Host::Name(name) => self.entries.iter().any(|entry| entry.allows_name(name, target.secure, target.port)),
            Host::Address(address) => self.allows_address(*address, &target),
        };
        if allowed {
            return Ok(target);
        }
        Err(refused(format!("webhooks to {}, port {}, are not allowed", target.host, target.port)))
    }

    /// Checks the addresses that the host name of a checked target resolves to. One forbidden address refuses the whole
    /// call: whoever controls the name may be attempting to reach this network.
    pub fn check_addresses(&self, target: &TargetUrl, addresses: &[IpAddr]) -> Result<Vec<SocketAddr>, Rejection> {
        let check = |address: &IpAddr| {
            let address = address.to_canonical();
            let allowed = is_public(address) || self.allows_address(address, target);
            allowed.then_some(SocketAddr::new(address, target.port))
        };
        let allowed: Option<Vec<SocketAddr>> = addresses.iter().map(check).collect();
        allowed.ok_or_else(|| {
            // The requester does not learn the address: that would map the internal network.
            tracing::warn!(host = %target.host, ?addresses, "a webhook host resolves to an address that is not public");
            let host = &target.host;
            refused(format!("webhooks to {host} are not allowed: it does not resolve to public addresses only"))
        })
    }

    fn allows_address(&self, address: IpAddr, target: &TargetUrl) -> bool {
        is_single_host(address)
            && self.entries.iter().any(|entry| entry.allows_address(address, target.secure, target.port))
    }
}

fn refused(detail: String) -> Rejection {
    Rejection::new(403, "webhook_not_allowed", detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allow_list(allow: &[&str]) -> AllowList {
        let entries = allow.iter().map(|text| AllowEntry::parse(text).unwrap()).collect();
        AllowList { entries, insecure_http: true }
    }

    fn refusal(list: &AllowList, url: &str) -> String {
        match list.check_url(url) {
            Ok(_) => panic!("{url} was allowed"),
            Err(why) => why.code.into_owned(),
        }
    }

    /// Addresses of the machine itself, its network and cloud metadata, against a list that allows names only.
    #[test]
    fn no_spelling_of_an_internal_address_is_allowed() {
        let open = allow_list(&["*:*", "localhost:*", "metadata.google.internal"]);
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

    /// Internal addresses behind an allowed name.
    #[test]
    fn a_name_that_resolves_to_an_internal_address_is_refused_unless_its_network_is_allowed() {
        let allowed = allow_list(&["hooks.example.org:*"]);
        let target = allowed.check_url("http://hooks.example.org:8080/").unwrap();
        let both = allow_list(&["hooks.example.org:*", "127.0.0.0/8:8080", "10.0.0.0/8:8081"]);
        for internal in [
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
            let address: IpAddr = internal.parse().unwrap();
            let why = allowed.check_addresses(&target, &[address]).unwrap_err();
            assert_eq!((why.status, &*why.code), (403, "webhook_not_allowed"), "{internal}");
            assert!(!why.detail.contains(internal), "{}", why.detail);
            let loopback = matches!(address.to_canonical(), IpAddr::V4(address) if address.is_loopback());
            assert_eq!(both.check_addresses(&target, &[address]).is_ok(), loopback, "{internal}");
        }
        let public: IpAddr = "93.184.216.34".parse().unwrap();
        let admitted = allowed.check_addresses(&target, &[public]).unwrap();
        assert_eq!(admitted, ["93.184.216.34:8080".parse().unwrap()]);
        assert!(allowed.check_addresses(&target, &[public, "10.0.0.1".parse().unwrap()]).is_err());
        // An IPv4-mapped address is called as IPv4.
        let mapped = allowed.check_addresses(&target, &["::ffff:93.184.216.34".parse().unwrap()]).unwrap();
        assert_eq!(mapped, admitted);
    }

    #[test]
    fn only_listed_hosts_and_ports_are_allowed() {
        assert_eq!(refusal(&allow_list(&[]), "https://hooks.example.org/"), "webhook_not_allowed");
        let list = allow_list(&["hooks.example.org", "10.0.0.0/8:8080"]);
        assert!(
            list.check_url("https://hooks.example.org/x").is_ok() && list.check_url("http://10.1.2.3:8080/").is_ok()
        );
        for url in
            ["https://hooks.example.org:8443/", "https://example.org/", "http://10.1.2.3/", "http://ten.example:8080/"]
        {
            assert_eq!(refusal(&list, url), "webhook_not_allowed", "{url}");
        }
    }

    #[test]
    fn plain_http_needs_insecure_http() {
        let list = AllowList { insecure_http: false, ..allow_list(&["hooks.example.org:*"]) };
        assert_eq!(refusal(&list, "http://hooks.example.org/"), "webhook_not_allowed");
        assert!(list.check_url("https://hooks.example.org/").is_ok());
    }

    #[test]
    fn an_address_of_more_than_one_host_is_never_called() {
        let list = allow_list(&["224.0.0.0/8:*", "0.0.0.0/8:*", "255.0.0.0/8:*"]);
        for url in ["http://224.0.0.1/", "http://0.0.0.0/", "http://255.255.255.255/"] {
            assert_eq!(refusal(&list, url), "webhook_not_allowed", "{url}");
        }
    }
}
