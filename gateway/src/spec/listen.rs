//! `listen`: an address `HOST:PORT`.

/// The text, if it is an address to listen on.
///
/// # Errors
/// What is missing, and how to write it.
pub fn checked_listen(text: &str) -> Result<String, String> {
    let written = |host: &str, port: &str| format!("write it as HOST:PORT, here {host}:{port}");
    let Some((host, port)) = text.rsplit_once(':').filter(|_| !text.ends_with(']')) else {
        return Err(match text.parse::<u16>() {
            Ok(port) => format!("{text:?} is a port without a host: {}", written("127.0.0.1", &port.to_string())),
            Err(_) => format!("{text:?} has no port: {}", written(text, "8080")),
        });
    };
    if port.parse::<u16>().is_err() {
        return Err(format!("the port {port:?} of {text:?} is not a number from 0 to 65535"));
    }
    if host.is_empty() {
        return Err(format!("{text:?} has no host: write 127.0.0.1:{port}, or 0.0.0.0:{port} for every address"));
    }
    if host.contains(':') && !(host.starts_with('[') && host.ends_with(']')) {
        return Err(format!("an IPv6 address stands in brackets: {}", written("[::1]", port)));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_and_a_port_are_an_address() {
        for right in ["127.0.0.1:8080", "localhost:0", "[::1]:8080", "0.0.0.0:65535"] {
            assert_eq!(checked_listen(right).as_deref(), Ok(right));
        }
    }

    #[test]
    fn what_is_missing_is_said_with_how_to_write_it() {
        for (wrong, said) in [
            ("8080", "127.0.0.1:8080"),
            ("localhost", "localhost:8080"),
            ("[::1]", "[::1]:8080"),
            (":8080", "0.0.0.0:8080"),
            ("::1:8080", "[::1]:8080"),
            ("127.0.0.1:http", "0 to 65535"),
            ("127.0.0.1:80800", "0 to 65535"),
            ("", "no port"),
        ] {
            let error = checked_listen(wrong).unwrap_err();
            assert!(error.contains(said), "{wrong}: {error}");
        }
    }
}
