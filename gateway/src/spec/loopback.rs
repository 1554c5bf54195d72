//! Tells addresses of this machine only from those that other machines can reach.

use std::net::IpAddr;

/// Whether an address `HOST:PORT` can be reached from this machine only.
#[must_use]
pub fn is_loopback(listen: &str) -> bool {
    let host = listen.rsplit_once(':').map_or(listen, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_addresses_are_loopback() {
        for inside in ["127.0.0.1:80", "127.9.9.9:0", "[::1]:8080", "localhost:1", "[::ffff:127.0.0.1]:1"] {
            assert!(is_loopback(inside), "{inside}");
        }
        for outside in ["0.0.0.0:80", "[::]:80", "10.0.0.1:80", "example.org:80", ":80", "localhost.evil.org:80"] {
            assert!(!is_loopback(outside), "{outside}");
        }
    }
}
