//! The keys of the private server's users, created on first use and stored with mode 600.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nkeys::KeyPair;
use pipeline::Token;

use crate::server::error::ServerError;

/// The users' public keys and password, for the config.
pub struct Keys {
    /// Public key of this process.
    pub own: String,
    /// Public key of other programs that publish and subscribe.
    pub publisher: String,
    /// Password of MQTT clients, if there is a listener.
    pub mqtt: Option<String>,
}

/// Seed of this process, which may do everything.
pub fn own_file(directory: &Path) -> PathBuf {
    directory.join("caudal.nk")
}

/// Seed for other programs, which may publish events and read results.
pub fn publisher_file(directory: &Path) -> PathBuf {
    directory.join("publisher.nk")
}

/// Password of the user `mqtt`.
pub fn mqtt_file(directory: &Path) -> PathBuf {
    directory.join("mqtt.password")
}

/// Reads the keys and creates those that are missing.
pub fn load(directory: &Path, mqtt: bool) -> Result<Keys, ServerError> {
    Ok(Keys {
        own: public_key(&own_file(directory))?,
        publisher: public_key(&publisher_file(directory))?,
        mqtt: mqtt.then(|| password(&mqtt_file(directory))).transpose()?,
    })
}

fn public_key(file: &Path) -> Result<String, ServerError> {
    let no_key = |_| ServerError::Key(file.to_owned());
    let seed = read_or_create(file, || KeyPair::new_user().seed().map_err(no_key))?;
    Ok(KeyPair::from_seed(&seed).map_err(no_key)?.public_key())
}

fn password(file: &Path) -> Result<String, ServerError> {
    let text = read_or_create(file, || Ok(Token::random().to_string()))?;
    // A token needs no escaping inside the quotes of the config.
    Token::new(&text).map(|token| token.to_string()).map_err(|_| ServerError::Key(file.to_owned()))
}

fn read_or_create(file: &Path, create: impl Fn() -> Result<String, ServerError>) -> Result<String, ServerError> {
    let failed = |source| ServerError::File { path: file.to_owned(), source };
    match fs::read_to_string(file) {
        Ok(text) => return Ok(text.trim().to_owned()),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let text = create()?;
    let mut created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file).map_err(failed)?;
    created.write_all(text.as_bytes()).and_then(|()| created.sync_all()).map_err(failed)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn keys_are_created_once() {
        let dir = tempfile::TempDir::new().unwrap();
        let first = load(dir.path(), true).unwrap();
        let second = load(dir.path(), true).unwrap();
        assert_eq!((first.own, first.publisher, first.mqtt), (second.own, second.publisher, second.mqtt));
    }

    #[test]
    fn only_the_owner_may_read_a_key() {
        let dir = tempfile::TempDir::new().unwrap();
        load(dir.path(), false).unwrap();
        let mode = fs::metadata(own_file(dir.path())).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn without_mqtt_there_is_no_password() {
        let dir = tempfile::TempDir::new().unwrap();
        assert!(load(dir.path(), false).unwrap().mqtt.is_none());
        assert!(!mqtt_file(dir.path()).exists());
    }

    #[test]
    fn a_file_without_a_seed_is_named() {
        let dir = tempfile::TempDir::new().unwrap();
        fs::write(own_file(dir.path()), "not a seed").unwrap();
        assert!(matches!(load(dir.path(), false), Err(ServerError::Key(file)) if file == own_file(dir.path())));
    }
}
