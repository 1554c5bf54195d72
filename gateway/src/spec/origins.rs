//! Checks `[service] origins`: each must be written as browsers write the header `Origin`, or it would never match.

use axum::http::uri::Authority;
use pipeline::spec::{Places, Problems};

/// Ports that browsers leave out.
const DEFAULT_PORTS: [(&str, u16); 2] = [("http", 80), ("https", 443)];

/// Reports the origins that no browser would send.
pub fn check(origins: &[String], places: &Places, problems: &mut Problems) {
    for origin in origins {
        if let Err((wrong, remedy)) = check_one(origin) {
            let shown: String = origin.chars().take(200).collect();
            problems.add(places.of("origins"), format!("{shown:?} is no origin: {wrong}"), remedy);
        }
    }
}

/// What is wrong with an origin, and what to do.
type Wrong = (String, String);

fn check_one(origin: &str) -> Result<(), Wrong> {
    match origin {
        "*" => return wrong("all origins cannot be allowed at once", "list each origin, such as https://app.example"),
        "null" => {
            let remedy = "serve the page from a host, or give the web view a scheme, such as capacitor://localhost";
            return wrong("every local file and sandboxed frame of any page has this one", remedy);
        }
        _ => {}
    }
    let Some((scheme, rest)) = origin.split_once("://") else {
        let host = origin.trim_end_matches('/');
        return wrong("the scheme is missing", format!("write \"https://{host}\""));
    };
    if !is_scheme(scheme) {
        return wrong(format!("{scheme:?} is no scheme"), "write https, http or the scheme of a web view");
    }
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if host.is_empty() {
        return wrong("the host is missing", format!("write \"{scheme}://HOST\""));
    }
    if host != rest {
        let remedy = format!("write \"{scheme}://{host}\"");
        return wrong(format!("it ends with {:?}, and origins have no path", &rest[host.len()..]), remedy);
    }
    check_host(scheme, host)
}

fn check_host(scheme: &str, host: &str) -> Result<(), Wrong> {
    if host.contains('*') {
        return wrong("it has a wildcard", "list each origin");
    }
    let has_port = host.rsplit(']').next().is_some_and(|end| end.contains(':'));
    let authority = host.parse::<Authority>().ok().filter(|_| !host.contains('@'));
    let Some(authority) = authority.filter(|authority| authority.port_u16().is_some() == has_port) else {
        let remedy = "write a host name, in Punycode if it is international, or an IP address, and a port if needed";
        return wrong(format!("{host:?} is no host"), remedy);
    };
    let port = authority.port_u16();
    if DEFAULT_PORTS.into_iter().any(|(known, default)| scheme.eq_ignore_ascii_case(known) && port == Some(default)) {
        let remedy = format!("write \"{scheme}://{}\"", authority.host());
        return wrong("browsers leave out the default port of a scheme", remedy);
    }
    Ok(())
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
}

fn wrong(what: impl Into<String>, remedy: impl Into<String>) -> Result<(), Wrong> {
    Err((what.into(), remedy.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_browsers_send_is_taken() {
        for origin in [
            "https://app.example",
            "http://localhost:3000",
            "https://APP.example:8443",
            "http://127.0.0.1:5173",
            "http://[::1]:8080",
            "capacitor://localhost",
            "ionic://localhost",
            "tauri://localhost",
            "https://xn--bcher-kva.example",
            "chrome-extension://abcdefghijklmnop",
        ] {
            assert_eq!(check_one(origin), Ok(()), "{origin}");
        }
    }

    #[test]
    fn what_no_browser_sends_is_told_with_what_to_write() {
        for (origin, remedy) in [
            ("https://app.example/", "write \"https://app.example\""),
            ("https://app.example/login?x=1", "write \"https://app.example\""),
            ("https://app.example?x", "write \"https://app.example\""),
            ("app.example", "write \"https://app.example\""),
            ("app.example:8443/", "write \"https://app.example:8443\""),
            ("https://app.example:443", "write \"https://app.example\""),
            ("http://localhost:80", "write \"http://localhost\""),
            ("https://*.app.example", "list each origin"),
            ("*", "list each origin"),
            ("null", "capacitor://localhost"),
            ("https://", "write \"https://HOST\""),
            ("capacitor://", "write \"capacitor://HOST\""),
            ("://app.example", "write https"),
            ("https://ann@app.example", "write a host name"),
            ("https://app.example:", "write a host name"),
            ("https://app.example:99999", "write a host name"),
            ("https://bücher.example", "Punycode"),
            (" https://app.example", "write https"),
            ("https://app.example ", "write a host name"),
        ] {
            let (what, told) = check_one(origin).expect_err(origin);
            assert!(told.contains(remedy), "{origin}: {what}; {told}");
        }
    }
}
