//! The keys of the private server's users, made on first use and kept with mode 600.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nkeys::KeyPair;
use pipeline::Token;

use super::ServerError;

/// What the config needs to know of the users.
pub struct Keys {
    /// Public key of this process.
    pub own: String,
    /// Public key of publishers and subscribers in other programs.
    pub publisher: String,
    /// Password of MQTT clients, if there is a listener.
    pub mqtt: Option<String>,
}

/// Seed of this process: may do everything.
pub fn own_file(directory: &Path) -> PathBuf {
    directory.join("caudal.nk")
}

/// Seed for other programs: may send events and read results.
pub fn publisher_file(directory: &Path) -> PathBuf {
    directory.join("publisher.nk")
}

/// Password of the user `mqtt`.
pub fn mqtt_file(directory: &Path) -> PathBuf {
    directory.join("mqtt.password")
}

/// Reads the keys, making those that are missing.
pub fn load(directory: &Path, mqtt: bool) -> Result<Keys, ServerError> {
    Ok(Keys {
        own: public_key(&own_file(directory))?,
        publisher: public_key(&publisher_file(directory))?,
        mqtt: mqtt.then(|| password(&mqtt_file(directory))).transpose()?,
    })
}

fn public_key(file: &Path) -> Result<String, ServerError> {
    let no_key = |_| ServerError::Key(file.to_owned());
    let seed = read_or_make(file, || KeyPair::new_user().seed().map_err(no_key))?;
    Ok(KeyPair::from_seed(&seed).map_err(no_key)?.public_key())
}

fn password(file: &Path) -> Result<String, ServerError> {
    let text = read_or_make(file, || Ok(Token::random().to_string()))?;
    // It stands in quotes in the config.
    Token::new(&text).map(|token| token.to_string()).map_err(|_| ServerError::Key(file.to_owned()))
}

fn read_or_make(file: &Path, make: impl Fn() -> Result<String, ServerError>) -> Result<String, ServerError> {
    let failed = |source| ServerError::File { path: file.to_owned(), source };
    match fs::read_to_string(file) {
        Ok(text) => return Ok(text.trim().to_owned()),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let text = make()?;
    let mut made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file).map_err(failed)?;
    made.write_all(text.as_bytes()).and_then(|()| made.sync_all()).map_err(failed)?;
    Ok(text)
}
