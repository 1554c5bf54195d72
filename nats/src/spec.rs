//! `[nats]`: where the broker is, or how the private one is run, and how much each store may keep.
//!
//! Reading has no side effects; [`NatsSpec::check`] reports what does not fit together, with places.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use pipeline::LedgerLimits;
use pipeline::spec::{ByteSize, Places, Problems};
use serde::{Deserialize, Deserializer};

use crate::connection::{Access, Auth};

/// `[nats]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NatsSpec {
    /// Address of a running broker, for example `nats://host:4222` (several, separated by commas). Absent: a private
    /// nats-server is started and dies with this process.
    pub url: Option<String>,
    /// Credentials file (JWT and seed) for `url`.
    pub credentials: Option<PathBuf>,
    /// File with the nkey seed of a user, for `url`.
    pub nkey_seed_file: Option<PathBuf>,
    /// Where the private server listens. Absent: loopback, any free port, for this process alone.
    pub listen: Option<SocketAddr>,
    /// Where the private server takes MQTT 3.1.1. Absent: nowhere.
    pub mqtt: Option<SocketAddr>,
    /// How long the private server may keep what it acknowledged in the page cache: `"1s"`, another interval, or
    /// `"always"` for an fsync before every acknowledgement.
    pub sync: SyncInterval,
    /// Disk the private server may use. Absent: what its streams may hold together, and a quarter more.
    pub max_file: Option<ByteSize>,
    /// Memory the private server may use for streams kept in memory; also bounds its heap.
    pub max_mem: ByteSize,
    /// Copies of every stream, on as many servers of a cluster: 1, 3 or 5.
    pub replicas: usize,
    /// How long results can be read.
    pub results_max_age_hours: u64,
    /// Bytes of all results; the oldest go first.
    pub results_max_bytes: ByteSize,
    /// How long bodies in the object store are kept. Must outlast the longest wait in a queue.
    pub claims_max_age_hours: u64,
    /// Bytes of all bodies in the object store; a body that does not fit is refused.
    pub claims_max_bytes: ByteSize,
    /// How long a body waits for the event that refers to it. Must outlast the longest upload.
    pub claims_unused_s: u64,
    /// How long dead letters are kept.
    pub dead_max_age_hours: u64,
    /// Bytes of all dead letters; the oldest go first.
    pub dead_max_bytes: ByteSize,
    /// Bytes of all records; a record that does not fit is refused.
    pub records_max_bytes: ByteSize,
    /// How long it is remembered that an event has ended.
    pub ledger_max_age_hours: u64,
    /// Ended events remembered; the oldest are forgotten early. About 50 bytes of memory each.
    pub ledger_max_events: usize,
}

/// Clients come back for a result within a day or not at all.
const RESULTS_MAX_AGE_HOURS: u64 = 24;
/// A body is of use for as long as its event waits, and its dead letter after that.
const CLAIMS_MAX_AGE_HOURS: u64 = DEAD_MAX_AGE_HOURS;
/// An upload takes minutes at most, whatever the gateway is told.
const CLAIMS_UNUSED_S: u64 = 3600;
/// Somebody looks at dead letters at least once a month.
const DEAD_MAX_AGE_HOURS: u64 = 30 * 24;
/// Streams live on disk; what is in memory is consumers of results, a few KB each.
const MAX_MEM: ByteSize = ByteSize::mib(256);

impl Default for NatsSpec {
    fn default() -> Self {
        Self {
            url: None,
            credentials: None,
            nkey_seed_file: None,
            listen: None,
            mqtt: None,
            sync: SyncInterval::default(),
            max_file: None,
            max_mem: MAX_MEM,
            replicas: 1,
            results_max_age_hours: RESULTS_MAX_AGE_HOURS,
            results_max_bytes: ByteSize::mib(2 << 10),
            claims_max_age_hours: CLAIMS_MAX_AGE_HOURS,
            claims_max_bytes: ByteSize::mib(8 << 10),
            claims_unused_s: CLAIMS_UNUSED_S,
            dead_max_age_hours: DEAD_MAX_AGE_HOURS,
            dead_max_bytes: ByteSize::mib(1 << 10),
            records_max_bytes: ByteSize::mib(1 << 10),
            ledger_max_age_hours: RESULTS_MAX_AGE_HOURS,
            ledger_max_events: LedgerLimits::default().events,
        }
    }
}

impl NatsSpec {
    /// Reports keys that contradict each other.
    pub fn check(&self, places: &Places, problems: &mut Problems) {
        let mut complain = |key: &str, message: String, remedy: &str| problems.add(places.of(key), message, remedy);
        if self.url.is_some() {
            for (key, set) in [("listen", self.listen.is_some()), ("mqtt", self.mqtt.is_some())] {
                if set {
                    let message = format!("{key} is for the private server, but url names another one");
                    complain(key, message, "remove one of the two");
                }
            }
        } else {
            for (key, set) in
                [("credentials", self.credentials.is_some()), ("nkey_seed_file", self.nkey_seed_file.is_some())]
            {
                if set {
                    complain(key, format!("{key} is for a broker of your own, but url is absent"), "add url");
                }
            }
            if self.replicas > 1 {
                let message = format!("replicas is {}, but the private server is one server", self.replicas);
                complain("replicas", message, "set url to a cluster, or leave replicas out");
            }
        }
        if self.credentials.is_some() && self.nkey_seed_file.is_some() {
            complain("nkey_seed_file", "both credentials and nkey_seed_file are given".into(), "keep one of them");
        }
        if self.claims_max_age_hours < self.dead_max_age_hours {
            let (claims, dead) = (self.claims_max_age_hours, self.dead_max_age_hours);
            let message =
                format!("claims_max_age_hours is {claims}, but dead letters need their bodies for {dead} hours");
            complain("claims_max_age_hours", message, "raise it, or lower dead_max_age_hours");
        }
        if ![1, 3, 5].contains(&self.replicas) {
            complain("replicas", format!("replicas is {}", self.replicas), "give 1, 3 or 5");
        }
        if self.claims_unused_s == 0 {
            let message = "claims_unused_s is 0, which would take bodies away before their event comes".to_owned();
            complain("claims_unused_s", message, "give more seconds than the longest upload takes");
        }
        for (key, hours) in [
            ("results_max_age_hours", self.results_max_age_hours),
            ("claims_max_age_hours", self.claims_max_age_hours),
            ("dead_max_age_hours", self.dead_max_age_hours),
            ("ledger_max_age_hours", self.ledger_max_age_hours),
        ] {
            if hours == 0 {
                complain(key, format!("{key} is 0, which would keep for ever"), "give at least 1");
            }
        }
    }

    /// The broker named by `url`; `None` asks for the private server.
    #[must_use]
    pub fn access(&self) -> Option<Access> {
        let url = self.url.clone()?;
        let auth = match (&self.credentials, &self.nkey_seed_file) {
            (Some(file), _) => Auth::Credentials(file.clone()),
            (None, Some(file)) => Auth::NkeySeed(file.clone()),
            (None, None) => Auth::None,
        };
        Some(Access { url, auth })
    }

    /// What the streams may keep.
    #[must_use]
    pub fn limits(&self) -> Limits {
        let hours = |hours: u64| Duration::from_secs(hours.saturating_mul(3600));
        Limits {
            replicas: self.replicas,
            results_max_age: hours(self.results_max_age_hours),
            results_max_bytes: self.results_max_bytes,
            claims_max_age: hours(self.claims_max_age_hours),
            claims_max_bytes: self.claims_max_bytes,
            claims_unused: Duration::from_secs(self.claims_unused_s),
            dead_max_age: hours(self.dead_max_age_hours),
            dead_max_bytes: self.dead_max_bytes,
            records_max_bytes: self.records_max_bytes,
            ledger: LedgerLimits { events: self.ledger_max_events.max(1), age: hours(self.ledger_max_age_hours) },
        }
    }
}

/// Bounds of the streams that all flows share.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Copies of every stream.
    pub replicas: usize,
    /// Age at which results go.
    pub results_max_age: Duration,
    /// Bytes of results; the oldest go first.
    pub results_max_bytes: ByteSize,
    /// Age at which bodies in the object store go.
    pub claims_max_age: Duration,
    /// Bytes of bodies; what does not fit is refused.
    pub claims_max_bytes: ByteSize,
    /// Time after which a body goes that no event refers to.
    pub claims_unused: Duration,
    /// Age at which dead letters go.
    pub dead_max_age: Duration,
    /// Bytes of dead letters; the oldest go first.
    pub dead_max_bytes: ByteSize,
    /// Bytes of records; what does not fit is refused.
    pub records_max_bytes: ByteSize,
    /// Bounds of the ledger.
    pub ledger: LedgerLimits,
}

impl Default for Limits {
    fn default() -> Self {
        NatsSpec::default().limits()
    }
}

/// `"always"` or an interval such as `"500ms"`, `"1s"`, `"2m"`, in the words of the server's own config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncInterval(String);

impl Default for SyncInterval {
    /// Costs nothing measurable; the server's own default is two minutes.
    fn default() -> Self {
        Self("1s".into())
    }
}

impl SyncInterval {
    /// As the server's config takes it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether every acknowledgement follows an fsync.
    #[must_use]
    pub fn is_always(&self) -> bool {
        self.0 == "always"
    }
}

impl std::str::FromStr for SyncInterval {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("{text:?} is no sync interval, expected \"always\" or one such as \"500ms\", \"1s\", \"2m\"");
        if text == "always" {
            return Ok(Self(text.into()));
        }
        let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        match unit {
            "ms" | "s" | "m" if number > 0 => Ok(Self(text.into())),
            _ => Err(wrong()),
        }
    }
}

impl<'de> Deserialize<'de> for SyncInterval {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_read_as_the_server_takes_them() {
        for good in ["always", "1s", "500ms", "2m"] {
            assert_eq!(good.parse::<SyncInterval>().unwrap().as_str(), good);
        }
        for bad in ["", "1", "0s", "s", "1h30", "1s\"\n}", "-1s", "never"] {
            assert!(bad.parse::<SyncInterval>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_private_server_is_the_default() {
        let spec = NatsSpec::default();
        assert!(spec.access().is_none());
        let mut problems = Problems::default();
        spec.check(&Places::default(), &mut problems);
        assert!(problems.is_empty());
    }

    #[test]
    fn keys_of_the_private_server_beside_a_url_are_reported() {
        let spec = NatsSpec {
            url: Some("nats://elsewhere:4222".into()),
            listen: Some("127.0.0.1:4222".parse().unwrap()),
            replicas: 2,
            ..NatsSpec::default()
        };
        let mut problems = Problems::default();
        spec.check(&Places::default(), &mut problems);
        assert_eq!(problems.sorted().len(), 2);
    }
}
