//! The key set of an issuer (JWKS, RFC 7517), read from a file or a URL and cached.
//!
//! It is read when the service starts, then once a period, and early when a token names an unknown key: at most once
//! per [`EARLY_READ_PAUSE`] however many tokens do, while their requests wait a moment. If a reading fails, the keys
//! read before stay in use.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use pipeline::parse_message;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::error::TokenError;
use super::https_get;
use crate::spec::SetSource;

/// Least time between two early readings.
const EARLY_READ_PAUSE: Duration = Duration::from_secs(10);

/// How long a request waits for an early reading.
const EARLY_READ_TIMEOUT: Duration = Duration::from_secs(3);

/// Pause after a failed reading while there are no keys at all.
const RETRY_PAUSE: Duration = Duration::from_secs(2);

/// Longest document, in bytes.
const MAX_BYTES: usize = 256 << 10;

/// Keys taken from one document, at most.
const MAX_KEYS: usize = 100;

type Keys = HashMap<String, Arc<DecodingKey>>;

/// See the module.
pub struct KeySet {
    name: String,
    algorithm: Algorithm,
    source: SetSource,
    period: Duration,
    /// `None` until the first successful reading.
    keys: RwLock<Option<Arc<Keys>>>,
    /// When an early reading was last requested, and the count of readings then.
    requested: Mutex<Option<(Instant, u64)>>,
    wanted: Notify,
    /// Counts the readings.
    read: watch::Sender<u64>,
}

impl KeySet {
    pub fn new(name: String, algorithm: Algorithm, source: SetSource, period: Duration) -> Self {
        Self {
            name,
            algorithm,
            source,
            period,
            keys: RwLock::new(None),
            requested: Mutex::new(None),
            wanted: Notify::new(),
            read: watch::Sender::new(0),
        }
    }

    /// The key of this id; without an id, the only key if there is just one.
    pub async fn find(&self, id: Option<&str>) -> Result<Arc<DecodingKey>, TokenError> {
        let mut read = self.read.subscribe();
        if let Some(key) = self.look_up(id) {
            return Ok(key);
        }
        if self.is_being_read() || self.request_reading() {
            // After the timeout the keys are as they were.
            let _ = tokio::time::timeout(EARLY_READ_TIMEOUT, read.changed()).await;
        }
        let known = self.keys().is_some();
        self.look_up(id).ok_or(if known { TokenError::UnknownKey } else { TokenError::NoKeys })
    }

    fn keys(&self) -> Option<Arc<Keys>> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn look_up(&self, id: Option<&str>) -> Option<Arc<DecodingKey>> {
        let keys = self.keys()?;
        match id {
            Some(id) => keys.get(id).cloned(),
            None if keys.len() == 1 => keys.values().next().cloned(),
            None => None,
        }
    }

    /// Whether the first reading, or one that was requested, has not ended.
    fn is_being_read(&self) -> bool {
        let readings = *self.read.borrow();
        let requested = self.requested.lock().unwrap_or_else(PoisonError::into_inner);
        readings == 0 || requested.is_some_and(|(at, before)| before == readings && at.elapsed() < https_get::TIMEOUT)
    }

    /// Requests an early reading, unless one was requested a moment ago.
    fn request_reading(&self) -> bool {
        let readings = *self.read.borrow();
        let mut requested = self.requested.lock().unwrap_or_else(PoisonError::into_inner);
        if requested.is_some_and(|(at, _)| at.elapsed() < EARLY_READ_PAUSE) {
            return false;
        }
        *requested = Some((Instant::now(), readings));
        self.wanted.notify_one();
        true
    }

    /// Reads the keys periodically, for ever.
    pub async fn refresh(&self) {
        loop {
            match self.fetch().await {
                Ok(keys) => {
                    tracing::debug!(issuer = %self.name, keys = keys.len(), "key set read");
                    *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(keys));
                }
                Err(why) => {
                    tracing::warn!(issuer = %self.name, %why, "key set not read; the keys read before stay in use")
                }
            }
            self.read.send_modify(|count| *count += 1);
            let pause = if self.keys().is_some() { self.period } else { RETRY_PAUSE.min(self.period) };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.wanted.notified() => {}
            }
        }
    }

    async fn fetch(&self) -> Result<Keys, String> {
        let text = match &self.source {
            SetSource::File(path) => tokio::fs::read(path).await.map_err(|error| error.to_string())?,
            SetSource::Url(url) => https_get::get(url, MAX_BYTES).await?,
        };
        if text.len() > MAX_BYTES {
            return Err(format!("the key set is longer than {MAX_BYTES} bytes"));
        }
        parse(&text, self.algorithm)
    }
}

/// The keys of a set that fit this algorithm. Others are skipped, because sets hold keys for several uses.
fn parse(text: &[u8], algorithm: Algorithm) -> Result<Keys, String> {
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<Value>,
    }
    let set: Set =
        serde_json::from_slice(text).map_err(|error| format!("it is not a key set: {}", parse_message(&error)))?;
    let mut keys = Keys::new();
    for key in set.keys.into_iter().take(MAX_KEYS) {
        let Ok(key) = serde_json::from_value::<Jwk>(key) else { continue };
        if !fits(&key, algorithm) {
            continue;
        }
        let Ok(decoding) = DecodingKey::from_jwk(&key) else { continue };
        keys.insert(key.common.key_id.unwrap_or_default(), Arc::new(decoding));
    }
    if keys.is_empty() { Err(format!("it holds no key for {algorithm:?}")) } else { Ok(keys) }
}

/// Whether a key is for signatures of this algorithm; never a shared secret.
fn fits(key: &Jwk, algorithm: Algorithm) -> bool {
    let named = match key.common.key_algorithm {
        None => true,
        Some(KeyAlgorithm::RS256) => algorithm == Algorithm::RS256,
        Some(KeyAlgorithm::ES256) => algorithm == Algorithm::ES256,
        Some(KeyAlgorithm::EdDSA) => algorithm == Algorithm::EdDSA,
        Some(_) => false,
    };
    let signs = key.common.public_key_use.as_ref().is_none_or(|used| *used == PublicKeyUse::Signature);
    let kind = match &key.algorithm {
        AlgorithmParameters::RSA(_) => algorithm == Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(curve) => {
            algorithm == Algorithm::ES256 && curve.curve == EllipticCurve::P256
        }
        AlgorithmParameters::OctetKeyPair(_) => algorithm == Algorithm::EdDSA,
        _ => false,
    };
    named && signs && kind
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_for_other_uses_are_skipped() {
        let set = br#"{"keys": [
            {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "kid": "a"},
            {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "kid": "b", "use": "enc"},
            {"kty": "oct", "k": "c2VjcmV0", "kid": "c"},
            {"kty": "what", "kid": "d"}, 7
        ]}"#;
        let keys = parse(set, Algorithm::EdDSA).unwrap();
        assert_eq!(keys.keys().collect::<Vec<_>>(), ["a"]);
        assert!(parse(set, Algorithm::RS256).is_err() && parse(set, Algorithm::HS256).is_err());
        assert!(parse(b"[]", Algorithm::EdDSA).is_err());
    }

    #[test]
    fn unknown_keys_cause_one_early_reading_per_pause() {
        let source = SetSource::File("/nonexistent/keys".into());
        let set = KeySet::new("x".into(), Algorithm::EdDSA, source, Duration::from_secs(3600));
        *set.keys.write().unwrap() = Some(Arc::default());
        set.read.send_modify(|count| *count = 1);
        assert!(set.request_reading() && set.is_being_read());
        assert_eq!((0..1000).filter(|_| set.request_reading()).count(), 0);
        set.read.send_modify(|count| *count = 2);
        assert!(!set.is_being_read());
        let (at, before) = set.requested.lock().unwrap().unwrap();
        *set.requested.lock().unwrap() = Some((at.checked_sub(EARLY_READ_PAUSE).unwrap(), before));
        assert!(set.request_reading() && !set.request_reading());
    }
}
