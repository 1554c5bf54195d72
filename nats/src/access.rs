//! Address of the broker and credentials for it.

use std::path::PathBuf;

/// Where the broker is and which credentials to use.
#[derive(Clone, Debug)]
pub struct Access {
    /// For example `nats://127.0.0.1:4222`; several, separated by commas.
    pub url: String,
    /// Credentials.
    pub auth: Auth,
}

/// Credentials for the broker.
#[derive(Clone, Debug)]
pub enum Auth {
    /// None, or those in the URL.
    None,
    /// A file with the seed of an nkey user.
    NkeySeed(PathBuf),
    /// A credentials file: JWT and seed.
    Credentials(PathBuf),
}

impl Access {
    /// The address without the credentials in it, for errors and logs.
    pub(crate) fn url_without_credentials(&self) -> String {
        let servers = self.url.split(',').map(|server| match (server.split_once("://"), server.rsplit_once('@')) {
            (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
            _ => server.to_owned(),
        });
        servers.collect::<Vec<_>>().join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(url: &str) -> String {
        Access { url: url.into(), auth: Auth::None }.url_without_credentials()
    }

    #[test]
    fn a_password_in_the_url_is_not_shown() {
        assert_eq!(shown("nats://me:secret@a:1,nats://b:2"), "nats://a:1,nats://b:2");
    }

    #[test]
    fn a_url_without_credentials_is_shown_as_it_is() {
        assert_eq!(shown("nats://a:1"), "nats://a:1");
    }
}
